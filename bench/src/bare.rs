//! The floor: the SQL of a send in a loop, without a server around it.

use std::time::Instant;

use rusqlite::{Connection, params};
use shared::{bus::Bus, store::Store};
use uuid::Uuid;

/// Runs `sends` sends, `group` a transaction, and returns how many a second were durable.
pub(crate) fn loop_of(group: usize, sends: usize) -> anyhow::Result<f64> {
    let program = std::env::current_exe()?;
    let beside = program.parent().unwrap_or(&program);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?;
    // The real schema, from the real migrations.
    drop(Store::open(folder.path(), &Bus::default())?);
    let connection = Connection::open(folder.path().join("parley.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let projects: Vec<Uuid> = (0..8).map(|_| Uuid::now_v7()).collect();
    for project in &projects {
        let project = project.as_bytes();
        connection.execute("INSERT INTO members VALUES (?1, 'ada', 'owner', 0)", [project])?;
        connection.execute("INSERT INTO people VALUES (?1, 'ada', 'Ada', 0, NULL)", [project])?;
        connection.execute(
            "INSERT INTO channels VALUES (?1, 'general', ?1, NULL, NULL, 0, 0)",
            [project],
        )?;
    }
    let began = Instant::now();
    for start in (0..sends).step_by(group) {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for number in start..(start + group).min(sends) {
            send(&connection, &projects[number % projects.len()])?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
    }
    Ok(f64::from(u32::try_from(sends)?) / began.elapsed().as_secs_f64())
}

fn send(connection: &Connection, project: &Uuid) -> anyhow::Result<()> {
    let (project, topic) = (project.as_bytes(), format!("project/{project}"));
    let id = Uuid::now_v7();
    let text = "sent to be counted, and about as long as what people say to each other in a chat like this";
    connection
        .prepare_cached(
            "SELECT m.role, p.name, c.name FROM members m \
             JOIN people p ON p.project_id = m.project_id AND p.id = m.user_id \
             LEFT JOIN channels c ON c.project_id = m.project_id AND c.name = 'general' \
             WHERE m.project_id = ?1 AND m.user_id = 'ada'",
        )?
        .query_row([project], |row| row.get::<_, String>(0))?;
    connection
        .prepare_cached(
            "INSERT INTO messages (id, project_id, channel, author, text, created_at, client_key, request) \
             VALUES (?1, ?2, 'general', 'ada', ?3, 0, ?4, ?1)",
        )?
        .execute(params![id.as_bytes(), project, text, id.to_string()])?;
    let head: i64 = connection
        .prepare_cached(
            "INSERT INTO topics (name, epoch, head, floor) VALUES (?1, 1, 1, 1) \
             ON CONFLICT (name) DO UPDATE SET head = head + 1 RETURNING head",
        )?
        .query_row([&topic], |row| row.get(0))?;
    let data =
        format!("{{\"type\":\"message.created\",\"text\":\"{text}\",\"filler\":\"{:300}\"}}", "");
    connection
        .prepare_cached("INSERT INTO entries (topic, seq, type, data, at) VALUES (?1, ?2, 'message.created', ?3, 0)")?
        .execute(params![topic, head, data])?;
    Ok(())
}
