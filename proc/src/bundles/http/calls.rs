//! Calls of bundles in the database: how many run at once, and what came back by another way than the answer.
//!
//! A call belongs to one attempt of a job. It lives while the worker that made it has the job; one that the bundle has
//! accepted lives longer, as its job needs no worker.

use std::time::Duration;

use shared::{
    ids::JobId,
    store::{self, Reader, Tx},
    time::Timestamp,
};

use super::{
    accepted::{Accepted, WAITS},
    answer::Line,
};
use crate::jobs::{
    self,
    machine::{Refused, RetryPolicy},
};

/// What makes a call `c` one that its job `j` still waits for.
pub(super) const LIVES: &str = "j.id = c.job_id AND ((j.state = 'running' AND j.fence = c.fence) OR (c.state <> 'open' \
    AND j.state IN ('running', 'interrupted') AND j.attempt = c.attempt AND j.started_at = c.started_at))";
/// Messages that may wait for the worker of a call.
const MAX_WAITING: i64 = 1_000;
/// Time for which a bundle is told that nobody waits for it any more, until it says that it has heard.
const CANCEL_FOR: Duration = Duration::from_hours(24);
/// Longest time between two such messages.
const MAX_CANCEL_INTERVAL: Duration = Duration::from_mins(1);

/// The attempt that a call is of.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) job: JobId,
    pub(super) bundle: String,
    pub(super) operation: String,
    pub(super) fence: i64,
    pub(super) number: i64,
    pub(super) started_at: Timestamp,
}

/// How an attempt may begin.
#[derive(Debug, PartialEq)]
pub(super) enum Begun {
    /// The call is to be made.
    Call,
    /// A worker before has made it, with this fence, and the bundle has accepted.
    Accepted { fence: i64, called_at: Timestamp },
    /// As many run as may.
    Full,
    /// There is no such bundle any more.
    Gone,
}

/// Writes down that a call is about to be made, unless it was made or there are too many.
pub(super) fn begin(tx: &mut Tx<'_>, attempt: &Attempt, most: u32) -> Result<Begun, store::Error> {
    // One after the other: who counts must see who counted before.
    let lock =
        "UPDATE http_bundles SET updated_at = updated_at WHERE name = $1 AND deleted_at IS NULL";
    if tx.execute(lock, &[(&attempt.bundle).into()])? == 0 {
        return Ok(Begun::Gone);
    }
    let sql = "SELECT fence, called_at FROM http_calls WHERE job_id = $1 AND state <> 'open' AND attempt = $2 AND started_at = $3";
    let params = [attempt.job.into(), attempt.number.into(), attempt.started_at.into()];
    let accepted = tx.find(sql, &params, |row| {
        Ok(Begun::Accepted { fence: row.get(0)?, called_at: row.get(1)? })
    })?;
    if let Some(accepted) = accepted {
        return Ok(accepted);
    }
    let sql = format!(
        "SELECT COUNT(*) FROM http_calls c JOIN jobs j ON {LIVES} WHERE c.bundle = $1 AND c.operation = $2"
    );
    let params = [(&attempt.bundle).into(), (&attempt.operation).into()];
    let open: i64 = tx.find(&sql, &params, |row| row.get(0))?.unwrap_or(0);
    if open >= i64::from(most) {
        return Ok(Begun::Full);
    }
    tx.execute(
        "INSERT INTO http_calls (job_id, fence, bundle, operation, attempt, started_at, called_at, state, cancels) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', 0) ON CONFLICT (job_id, fence) DO NOTHING",
        &[
            attempt.job.into(),
            attempt.fence.into(),
            (&attempt.bundle).into(),
            (&attempt.operation).into(),
            attempt.number.into(),
            attempt.started_at.into(),
            tx.now().into(),
        ],
    )?;
    Ok(Begun::Call)
}

/// Writes down that the bundle will call back, until `deadline`. Returns lines that came already, each with its number, which
/// are for the worker to take.
pub(super) fn accept(
    tx: &mut Tx<'_>,
    job: JobId,
    fence: i64,
    deadline: Timestamp,
) -> Result<Vec<(i64, Line)>, store::Error> {
    let sql = "UPDATE http_calls SET state = CASE WHEN state = 'open' THEN 'accepted' ELSE state END, \
               deadline = COALESCE(deadline, $3) WHERE job_id = $1 AND fence = $2";
    tx.execute(sql, &[job.into(), fence.into(), deadline.into()])?;
    read(tx, job, fence)
}

/// What becomes of a callback.
#[derive(Debug, PartialEq)]
pub(super) enum Delivered {
    /// It is there, now or since before.
    Yes,
    /// Nobody waits for it.
    TooLate,
    /// Others wait to be read.
    Full,
}

/// Takes what a bundle calls back with into a job that waits for it, or keeps it for the worker that has the job.
pub(super) fn deliver(
    tx: &mut Tx<'_>,
    job: JobId,
    fence: i64,
    webhook_id: &str,
    line: Line,
    retries: RetryPolicy,
) -> Result<Delivered, jobs::Error> {
    let here = [job.into(), fence.into()];
    // The row is kept from other callbacks meanwhile.
    let sql = format!(
        "UPDATE http_calls AS c SET called_at = called_at WHERE job_id = $1 AND fence = $2 AND EXISTS (SELECT 1 FROM jobs j WHERE {LIVES})"
    );
    if tx.execute(&sql, &here)? == 0 {
        return Ok(Delivered::TooLate);
    }
    let seen = "SELECT 1 FROM http_callbacks WHERE job_id = $1 AND fence = $2 AND webhook_id = $3";
    if tx.find(seen, &[here[0], here[1], webhook_id.into()], |_| Ok(()))?.is_some() {
        return Ok(Delivered::Yes);
    }
    let sql = "SELECT c.state, COUNT(CASE WHEN m.line <> '' THEN 1 END), COALESCE(MAX(m.number), 0) FROM http_calls c \
               LEFT JOIN http_callbacks m ON m.job_id = c.job_id AND m.fence = c.fence \
               WHERE c.job_id = $1 AND c.fence = $2 GROUP BY c.state";
    let found = tx.find(sql, &here, |row| Ok((row.get::<String>(0)?, row.get(1)?, row.get(2)?)))?;
    let Some((state, unread, last)): Option<(String, i64, i64)> = found else {
        return Ok(Delivered::TooLate);
    };
    let sql = format!("SELECT 1 FROM jobs j WHERE j.id = $1 AND {WAITS}");
    let waits = unread == 0 && tx.find(&sql, &here[..1], |_| Ok(()))?.is_some();
    if state == "answered" {
        return Ok(Delivered::TooLate);
    }
    if unread >= MAX_WAITING && !line.is_last() {
        return Ok(Delivered::Full);
    }
    // A line has text keys alone, so it can be written.
    let text = || serde_json::to_string(&line).unwrap_or_default();
    let text = if waits { String::new() } else { text() };
    tx.execute(
        "INSERT INTO http_callbacks (job_id, fence, number, webhook_id, line) VALUES ($1, $2, $3, $4, $5)",
        &[here[0], here[1], (last + 1).into(), webhook_id.into(), (&text).into()],
    )?;
    let state = if line.is_last() { "answered" } else { "accepted" };
    let sql = "UPDATE http_calls SET state = $3 WHERE job_id = $1 AND fence = $2";
    tx.execute(sql, &[here[0], here[1], state.into()])?;
    if waits {
        forget_lines(tx, job, fence, last + 1)?;
        match (Accepted { job, fence }).take(tx, line, retries) {
            Err(jobs::Error::Refused(Refused::Stale)) => return Ok(Delivered::TooLate),
            taken => taken?,
        }
    }
    Ok(Delivered::Yes)
}

/// Returns what the bundle has called back with, in order, each with its number.
pub(super) fn read(
    reader: &Reader<'_>,
    job: JobId,
    fence: i64,
) -> Result<Vec<(i64, Line)>, store::Error> {
    let sql = "SELECT number, line FROM http_callbacks WHERE job_id = $1 AND fence = $2 AND line <> '' ORDER BY number";
    reader.query(sql, &[job.into(), fence.into()], |row| Ok((row.get(0)?, row.json(1)?)))
}

/// Makes room for more, up to what was read last. Of the last ones it stays known that they were there, since they may come
/// again.
pub(super) fn clear(
    tx: &mut Tx<'_>,
    job: JobId,
    fence: i64,
    last: i64,
) -> Result<(), store::Error> {
    let sql = "UPDATE http_callbacks SET line = '' WHERE job_id = $1 AND fence = $2 AND number <= $3 AND line <> ''";
    tx.execute(sql, &[job.into(), fence.into(), last.into()])?;
    forget_lines(tx, job, fence, last)
}

/// Forgets ids of lines that came long before the last one.
fn forget_lines(tx: &mut Tx<'_>, job: JobId, fence: i64, last: i64) -> Result<(), store::Error> {
    let sql = "DELETE FROM http_callbacks WHERE job_id = $1 AND fence = $2 AND number <= $3";
    tx.execute(sql, &[job.into(), fence.into(), (last - MAX_WAITING).into()])?;
    Ok(())
}

/// A call that nobody waits for any more.
#[derive(Clone, Debug)]
pub(super) struct Dead {
    pub(super) job: JobId,
    pub(super) fence: i64,
    pub(super) bundle: String,
    /// The bundle has accepted and not answered, so it may still be at work.
    pub(super) is_at_work: bool,
    /// Number of times that the bundle was told so.
    pub(super) cancels: i64,
    /// When it was told so first.
    since: Option<Timestamp>,
}

impl Dead {
    /// Returns whether the bundle has been told so for long enough.
    pub(super) fn is_given_up(&self, now: Timestamp) -> bool {
        self.since.is_some_and(|since| since.after(CANCEL_FOR) <= now)
    }

    /// Returns how long to wait for the bundle to hear of it, before it is told again.
    fn interval(&self) -> Duration {
        let doubled = u32::try_from(self.cancels.clamp(0, 16)).unwrap_or(0);
        Duration::from_secs(1 << doubled).min(MAX_CANCEL_INTERVAL)
    }
}

/// Returns calls of which something is to be done now, those first of which the bundle has not been told.
pub(super) fn dead(reader: &Reader<'_>, limit: i64) -> Result<Vec<Dead>, store::Error> {
    let sql = format!(
        "SELECT c.job_id, c.fence, c.bundle, c.state, c.cancels, c.dead_since FROM http_calls c \
         WHERE (c.next_cancel_at IS NULL OR c.next_cancel_at <= $2) AND NOT EXISTS (SELECT 1 FROM jobs j WHERE {LIVES}) \
         ORDER BY c.cancels, c.job_id LIMIT $1"
    );
    reader.query(&sql, &[limit.into(), reader.now().into()], |row| {
        Ok(Dead {
            job: row.get(0)?,
            fence: row.get(1)?,
            bundle: row.get(2)?,
            is_at_work: row.get::<String>(3)? == "accepted",
            cancels: row.get(4)?,
            since: row.get(5)?,
        })
    })
}

/// Notes that the bundle is being told, and when it is told again unless it hears. Returns whether no other replica has done
/// so.
pub(super) fn begin_cancel(tx: &mut Tx<'_>, dead: &Dead) -> Result<bool, store::Error> {
    let now = tx.now();
    let sql = "UPDATE http_calls SET cancels = cancels + 1, dead_since = COALESCE(dead_since, $4), next_cancel_at = $5 \
               WHERE job_id = $1 AND fence = $2 AND cancels = $3";
    let next = now.after(dead.interval());
    let params = [dead.job.into(), dead.fence.into(), dead.cancels.into(), now.into(), next.into()];
    Ok(tx.execute(sql, &params)? > 0)
}

/// Forgets a call and what came back of it.
pub(super) fn forget(tx: &mut Tx<'_>, dead: &Dead) -> Result<(), store::Error> {
    for table in ["http_callbacks", "http_calls"] {
        let sql = format!("DELETE FROM {table} WHERE job_id = $1 AND fence = $2");
        tx.execute(&sql, &[dead.job.into(), dead.fence.into()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
