//! The schema, one step after the other. A step that was released is never edited.

use anyhow::bail;

use super::connection::Connection;

/// Every step in order. The SQL is what both databases take; `UUID` and `BYTEA` are blobs to `SQLite`.
const STEPS: &[&str] = &[
    include_str!("migrations/0001_journal.sql"),
    include_str!("migrations/0002_sessions.sql"),
    include_str!("migrations/0003_chat.sql"),
    include_str!("migrations/0004_jobs.sql"),
    include_str!("migrations/0005_slots.sql"),
    include_str!("migrations/0006_presence.sql"),
    include_str!("migrations/0007_session_ends.sql"),
    include_str!("migrations/0008_users.sql"),
    include_str!("migrations/0010_http_bundles.sql"),
    include_str!("migrations/0011_workers.sql"),
    include_str!("migrations/0012_webhooks.sql"),
    include_str!("migrations/0013_schedules.sql"),
    include_str!("migrations/0014_answers.sql"),
    include_str!("migrations/0015_packed_entries.sql"),
    include_str!("migrations/0016_stored_tags.sql"),
    include_str!("migrations/0017_retention.sql"),
    include_str!("migrations/0018_leases.sql"),
    include_str!("migrations/0020_rights.sql"),
    include_str!("migrations/0021_secret_rewrites.sql"),
    include_str!("migrations/0022_reactions_presence.sql"),
    include_str!("migrations/0019_one_stream.sql"),
    include_str!("migrations/0023_redaction.sql"),
    include_str!("migrations/0024_deliveries_to_run.sql"),
    include_str!("migrations/0029_last_sent.sql"),
    include_str!("migrations/0026_bundles.sql"),
    include_str!("migrations/0027_imports.sql"),
    include_str!("migrations/0025_waiting.sql"),
    include_str!("migrations/0030_old_secrets.sql"),
    include_str!("migrations/0032_names.sql"),
];

/// Held by the replica that migrates; the number means nothing.
const LOCK: i64 = 0x7061_726c_6579;

/// Runs the steps that the database has not seen, each in a transaction. Of replicas that start at once one does it and
/// the others wait. A newer schema than this program's is refused.
pub(super) fn run(connection: &Connection) -> anyhow::Result<()> {
    if let Connection::Postgres(postgres) = connection {
        postgres.begin_migration()?;
        postgres.batch(&format!("SELECT pg_advisory_lock({LOCK})"))?;
    }
    steps(connection)?;
    if let Connection::Postgres(postgres) = connection {
        postgres.batch(&format!("SELECT pg_advisory_unlock({LOCK})"))?;
        postgres.end_migration()?;
    }
    Ok(())
}

fn steps(connection: &Connection) -> anyhow::Result<()> {
    connection.batch("CREATE TABLE IF NOT EXISTS migrations (step BIGINT PRIMARY KEY)")?;
    let sql = "SELECT COALESCE(MAX(step), 0) FROM migrations";
    let done = connection.reader().find(sql, &[], |row| row.get::<i64>(0))?.unwrap_or(0);
    if usize::try_from(done).is_ok_and(|done| done > STEPS.len()) {
        bail!("the database is of a newer Parley; start that version");
    }
    let begin = if connection.is_shared() { "BEGIN" } else { "BEGIN IMMEDIATE" };
    for (number, step) in (1i64..).zip(STEPS).filter(|(number, _)| *number > done) {
        connection.batch(&format!(
            "{begin};\n{step}\nINSERT INTO migrations (step) VALUES ({number});\nCOMMIT;"
        ))?;
        tracing::info!(step = number, "schema migrated");
    }
    Ok(())
}
