//! What operators ask of the queue: how much waits and for how long, who runs what, what was given up.

use shared::{
    store::{Error, Reader},
    time::Timestamp,
};
use uuid::Uuid;

use super::{super::machine::Job, COLUMNS, PARKED, UNFINISHED, read};

/// How many jobs of an operation are where.
#[derive(Clone, Debug)]
pub(in super::super) struct Depth {
    pub(in super::super) bundle: String,
    pub(in super::super) operation: String,
    pub(in super::super) queued: i64,
    pub(in super::super) interrupted: i64,
    pub(in super::super) running: i64,
    /// Number of running jobs that wait for their bundle to call back.
    pub(in super::super) accepted: i64,
    /// Of those that wait: how many could begin now.
    pub(in super::super) due: i64,
    /// How many come back later because an attempt failed.
    pub(in super::super) retrying: i64,
    /// How many come back later for another reason.
    pub(in super::super) snoozed: i64,
    /// Since when the first of those that are due is.
    pub(in super::super) oldest: Option<Timestamp>,
}

/// Returns what has not ended, by operation.
pub(in super::super) fn depths(reader: &Reader<'_>, now: Timestamp) -> Result<Vec<Depth>, Error> {
    let sql = format!(
        "SELECT bundle, operation, \
        COUNT(CASE WHEN state = 'queued' THEN 1 END), \
        COUNT(CASE WHEN state = 'interrupted' THEN 1 END), \
        COUNT(CASE WHEN state = 'running' THEN 1 END), \
        COUNT(CASE WHEN state = 'running' AND worker IS NULL THEN 1 END), \
        COUNT(CASE WHEN state <> 'running' AND run_after <= $1 THEN 1 END), \
        COUNT(CASE WHEN state <> 'running' AND run_after > $1 AND attempt > 0 AND snoozed_at IS NULL THEN 1 END), \
        COUNT(CASE WHEN state <> 'running' AND run_after > $1 AND (attempt = 0 OR snoozed_at IS NOT NULL) THEN 1 END), \
        MIN(CASE WHEN state <> 'running' AND run_after <= $1 THEN run_after END) \
        FROM {UNFINISHED} j GROUP BY bundle, operation ORDER BY bundle, operation"
    );
    reader.query(&sql, &[now.into()], |row| {
        Ok(Depth {
            bundle: row.get(0)?,
            operation: row.get(1)?,
            queued: row.get(2)?,
            interrupted: row.get(3)?,
            running: row.get(4)?,
            accepted: row.get(5)?,
            due: row.get(6)?,
            retrying: row.get(7)?,
            snoozed: row.get(8)?,
            oldest: row.get(9)?,
        })
    })
}

/// Returns how many jobs were given up.
pub(in super::super) fn parked(reader: &Reader<'_>) -> Result<i64, Error> {
    let sql = format!("SELECT COUNT(*) FROM jobs j WHERE {PARKED}");
    Ok(reader.find(&sql, &[], |row| row.get(0))?.unwrap_or(0))
}

/// A process that is heard of.
#[derive(Clone, Debug)]
pub(in super::super) struct Worker {
    pub(in super::super) id: Uuid,
    pub(in super::super) lease_until: Timestamp,
}

/// Returns the workers whose lease holds, the oldest first.
pub(in super::super) fn workers(reader: &Reader<'_>, now: Timestamp) -> Result<Vec<Worker>, Error> {
    let sql = "SELECT id, lease_until FROM workers WHERE lease_until >= $1 ORDER BY id";
    reader.query(sql, &[now.into()], |row| Ok(Worker { id: row.get(0)?, lease_until: row.get(1)? }))
}

/// Returns every job that runs, the oldest first.
pub(in super::super) fn running(reader: &Reader<'_>) -> Result<Vec<Job>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM jobs j WHERE j.state = 'running' ORDER BY j.id");
    reader.query(&sql, &[], read)
}
