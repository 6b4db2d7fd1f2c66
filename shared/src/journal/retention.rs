//! How long entries can be replayed.

use std::time::Duration;

use crate::{
    store::{Error, Store, Value},
    time::Timestamp,
};

/// How long entries are kept.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct RetentionConfig {
    /// How long an event can be replayed.
    #[arg(long, env = "JOURNAL_MAX_AGE", default_value = "7d", value_parser = crate::config::duration)]
    pub journal_max_age: Duration,
    /// How many events of one project, or of one user's jobs, can be replayed.
    #[arg(long, env = "JOURNAL_MAX_ENTRIES", default_value_t = 100_000)]
    pub journal_max_entries: i64,
}

/// Entries deleted in one transaction.
const TRIM: i64 = 2_000;

/// Deletes entries past their age or count, a few at a time; the newest of each log stays, so that cursors can be
/// proved. Returns how many rows it deleted: of those that were appended together the last may keep others for longer.
pub async fn trim(store: &Store, config: &RetentionConfig, now: Timestamp) -> Result<usize, Error> {
    let oldest = now.before(config.journal_max_age);
    let most = config.journal_max_entries.max(1);
    let mut deleted = 0;
    loop {
        let sql = "SELECT name, floor, head, COALESCE((SELECT MIN(e.seq) FROM entries e \
                     WHERE e.topic = name AND e.seq > floor AND e.at >= $1), head) FROM topics \
                   WHERE head - floor >= $2 OR (head > floor AND \
                     (SELECT e.at FROM entries e WHERE e.topic = name AND e.seq >= floor ORDER BY e.seq LIMIT 1) < $1) LIMIT 16";
        let due = store
            .read(move |reader| {
                reader.query(sql, &[oldest.into(), most.into()], |row| {
                    Ok((
                        row.get::<String>(0)?,
                        row.get::<i64>(1)?,
                        row.get::<i64>(2)?,
                        row.get::<i64>(3)?,
                    ))
                })
            })
            .await?;
        if due.is_empty() {
            return Ok(deleted);
        }
        for (name, floor, head, young) in due {
            let target = young.max(head - most + 1).clamp(floor, head).min(floor + TRIM);
            deleted += store
                .write(move |tx| {
                    let params = [Value::from(&name), target.into()];
                    tx.execute(
                        "UPDATE topics SET floor = $2 WHERE name = $1 AND floor < $2",
                        &params,
                    )?;
                    tx.execute("DELETE FROM entries WHERE topic = $1 AND seq < $2", &params)
                })
                .await?;
        }
    }
}
