//! Deletion of chat's data of projects that were deleted, in bounded steps.

use std::time::Duration;

use shared::{
    deletion::{self, Deletion},
    ids::{MessageId, ProjectId, UserId},
    journal::Topic,
    service_token::Service,
    store::{Error, Reader, Store, Tx, Value},
    sweep::{self, MAX_ROWS},
    time::Timestamp,
};

use crate::streams::job_view;

/// Interval at which deleted projects are looked for.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// Messages whose reactions are deleted together, and which go when they have none any more.
const MESSAGES: usize = 64;
/// Members whose memberships end together.
const MEMBERS: i64 = 64;
/// Topics of projects that one step compares with the projects.
const TOPICS: i64 = 500;

/// Tables of a project beside its messages and its topic, with their keys.
const TABLES: [(&str, &str); 5] = [
    ("read_marks", "project_id, channel, user_id"),
    ("channels", "project_id, name"),
    ("imported_channels", "project_id, source, external_id"),
    ("people", "project_id, id"),
    ("presence", "project_id, user_id"),
];

/// Deletes what is left of deleted projects. Returns how many rows it deleted.
pub(crate) async fn run(store: &Store, now: Timestamp) -> Result<usize, Error> {
    mark_left_topics(store, now).await?;
    let due = store.read(move |reader| deletion::due(reader, Service::Ingress, now)).await?;
    let mut deleted = 0;
    for deletion in due {
        let rows = purge(store, deletion).await?;
        store.write(move |tx| deletion.done(tx, Service::Ingress, now)).await?;
        tracing::info!(project.id = %deletion.project, rows, "deleted the chat of a project");
        deleted += rows;
    }
    Ok(deleted + deletion::finish(store).await?)
}

async fn purge(store: &Store, Deletion { project, .. }: Deletion) -> Result<usize, Error> {
    // The text first. The newest entry says that the project is deleted, for those who follow the topic.
    let mut deleted = sweep::delete_all(store, move |tx| entries(tx, project)).await?;
    while let Some(rows) = store.write(move |tx| messages(tx, project)).await? {
        deleted += rows;
    }
    loop {
        let rows = store.write(move |tx| members(tx, project)).await?;
        deleted += rows;
        if rows == 0 {
            break;
        }
    }
    for (table, key) in TABLES {
        let step = move |tx: &mut Tx<'_>| {
            sweep::delete_some(tx, table, key, "project_id = $1", &[project.into()])
        };
        deleted += sweep::delete_all::<Error>(store, step).await?;
    }
    Ok(deleted)
}

/// Ends some memberships. Streams of the members' jobs learn of it from the members' own topics.
fn members(tx: &mut Tx<'_>, project: ProjectId) -> Result<usize, Error> {
    let sql = "SELECT user_id FROM members WHERE project_id = $1 ORDER BY user_id LIMIT $2";
    let params = [project.into(), MEMBERS.into()];
    let users: Vec<UserId> = tx.query(sql, &params, |row| row.parse(0))?;
    for user in &users {
        let sql = "DELETE FROM members WHERE project_id = $1 AND user_id = $2";
        tx.execute(sql, &[project.into(), user.into()])?;
        job_view::record(tx, user, project, false)?;
    }
    Ok(users.len())
}

/// Deletes some entries from before the newest one.
fn entries(tx: &mut Tx<'_>, project: ProjectId) -> Result<usize, Error> {
    let topic = Topic::project(project);
    let topic = [topic.as_str().into()];
    tx.execute("UPDATE topics SET floor = head WHERE name = $1 AND floor < head", &topic)?;
    let condition = "topic = $1 AND seq < (SELECT head FROM topics WHERE name = $1)";
    sweep::delete_some(tx, "entries", "topic, seq", condition, &topic)
}

/// Deletes some reactions, and the messages that have none any more. Returns how many rows it deleted, `None` when no
/// message is left.
fn messages(tx: &mut Tx<'_>, project: ProjectId) -> Result<Option<usize>, Error> {
    let sql = "SELECT id FROM messages WHERE project_id = $1 ORDER BY created_at, id LIMIT $2";
    let limit = i64::try_from(MESSAGES).unwrap_or(i64::MAX);
    let ids: Vec<MessageId> = tx.query(sql, &[project.into(), limit.into()], |row| row.get(0))?;
    if ids.is_empty() {
        return Ok(None);
    }
    // One length of the list, so that one statement is prepared: the ids are repeated.
    let ids: Vec<Value<'_>> = ids.iter().cycle().take(MESSAGES).map(|id| (*id).into()).collect();
    let numbers: Vec<String> = (1..=MESSAGES).map(|number| format!("${number}")).collect();
    let numbers = numbers.join(", ");
    let condition = format!("message_id IN ({numbers})");
    let mut rows =
        sweep::delete_some(tx, "reactions", "message_id, emoji, user_id", &condition, &ids)?;
    if rows < MAX_ROWS {
        tx.erases();
        let sql = format!("DELETE FROM reaction_counts WHERE message_id IN ({numbers})");
        tx.execute(&sql, &ids)?;
        rows += tx.execute(&format!("DELETE FROM messages WHERE id IN ({numbers})"), &ids)?;
    }
    Ok(Some(rows))
}

/// Marks the projects that were deleted by a version before, which left their topics: once in the life of a database.
async fn mark_left_topics(store: &Store, now: Timestamp) -> Result<(), Error> {
    let is_done = |reader: &Reader<'_>| {
        let sql = "SELECT 1 FROM sweeps WHERE name = 'left_topics'";
        reader.find(sql, &[], |_| Ok(()))
    };
    if store.read(is_done).await?.is_some() {
        return Ok(());
    }
    let mut after = Some(String::new());
    while let Some(from) = after {
        let step = move |tx: &mut Tx<'_>| {
            // Spelled as in the index.
            let sql = "SELECT name FROM topics WHERE name LIKE 'project/%' AND name > $1 ORDER BY name LIMIT $2";
            let names: Vec<String> =
                tx.query(sql, &[(&from).into(), TOPICS.into()], |row| row.get(0))?;
            for name in &names {
                let Some(project) = name.strip_prefix("project/").and_then(|id| id.parse().ok())
                else {
                    continue;
                };
                if !exists(tx, project)? {
                    deletion::mark(tx, project, now)?;
                }
            }
            if names.is_empty() {
                let sql = "INSERT INTO sweeps (name, until) VALUES ('left_topics', 0) ON CONFLICT (name) DO NOTHING";
                tx.execute(sql, &[])?;
            }
            Ok::<_, Error>(names.last().cloned())
        };
        after = store.write(step).await?;
    }
    Ok(())
}

/// Returns whether there is such a project.
pub(crate) fn exists(reader: &Reader<'_>, project: ProjectId) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM projects WHERE id = $1";
    Ok(reader.find(sql, &[project.into()], |_| Ok(()))?.is_some())
}
