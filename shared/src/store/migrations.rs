//! The schema, one step after the other. A step that was released is never edited.

use super::{Error, sqlite::Connection};

/// Every step in order. The SQL is what both databases take; `UUID` and `BYTEA` are blobs to `SQLite`.
const STEPS: &[&str] = &[
    include_str!("migrations/0001_journal.sql"),
    include_str!("migrations/0002_sessions.sql"),
    include_str!("migrations/0003_chat.sql"),
    include_str!("migrations/0004_jobs.sql"),
    include_str!("migrations/0005_slots.sql"),
];

/// Runs the steps that the database has not seen, each in a transaction. A newer schema than this program's is refused.
pub(super) fn run(connection: &mut Connection) -> Result<(), Error> {
    connection.batch("CREATE TABLE IF NOT EXISTS migrations (step BIGINT PRIMARY KEY)")?;
    let sql = "SELECT COALESCE(MAX(step), 0) FROM migrations";
    let done = connection.reader().find(sql, &[], |row| row.get::<i64>(0))?.unwrap_or(0);
    for (number, step) in (1i64..).zip(STEPS).filter(|(number, _)| *number > done) {
        connection.batch(&format!(
            "BEGIN IMMEDIATE;\n{step}\nINSERT INTO migrations (step) VALUES ({number});\nCOMMIT;"
        ))?;
        tracing::info!(step = number, "schema migrated");
    }
    if usize::try_from(done).is_ok_and(|done| done > STEPS.len()) {
        return Err(rusqlite::Error::InvalidParameterName(
            "the database is of a newer Parley; start that version".into(),
        )
        .into());
    }
    Ok(())
}
