//! Jobs that their bundle has accepted with 202. Such a job runs without a worker: a callback changes it on the replica that
//! it reaches, and any replica ends it at its deadline.

use std::time::Duration;

use futures_util::future::join_all;
use shared::{
    ids::{JobId, UserId},
    journal::Topic,
    store::{self, Reader, Store, Tx},
    time::Timestamp,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{answer::Line, calls::LIVES};
use crate::jobs::{
    self, JobError,
    machine::{Claim, Command, Refused, RetryPolicy},
};

/// Interval at which deadlines are looked at.
const POLL: Duration = Duration::from_millis(500);
/// Calls that one look takes.
const MAX_DUE: i64 = 256;
/// Shortest time between two events of a job's progress, however many callbacks come.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(800);

/// Call that a job without a worker waits for.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) job: JobId,
    /// Fence of the call, which is older than the job's where a worker was lost.
    pub(super) fence: i64,
}

impl Accepted {
    /// Changes the job as a line from its bundle says.
    pub(super) fn take(
        &self,
        tx: &mut Tx<'_>,
        line: Line,
        retries: RetryPolicy,
    ) -> Result<(), jobs::Error> {
        let id = self.job;
        let job = jobs::find(tx, id)?;
        let claim = Claim { worker: None, fence: job.fence };
        let command = match line {
            Line::Progress(told) => {
                let advance = Command::Advance { claim, progress: told.into(), checkpoint: None };
                jobs::apply(tx, id, advance)?;
                if !self.may_tell(tx)? {
                    return Ok(());
                }
                Command::Announce { claim }
            }
            Line::Log(log) => {
                let (level, message) = log.parts();
                return Ok(jobs::log(tx, id, level, &message)?);
            }
            Line::Result(result) => Command::Succeed { claim, result },
            Line::Error(failed) => fail(claim, failed.into(), job.attempt, retries),
        };
        let job = jobs::apply(tx, id, command)?;
        if job.worker.is_none() && job.state != jobs::machine::State::Running {
            let code = job.error.as_ref().map(|error| &error.code);
            tracing::info!(job.id = %id, state = job.state.as_str(), code, "job left its bundle");
        }
        Ok(())
    }

    /// Returns whether progress is told now. Otherwise it is told a little later, with what comes until then.
    fn may_tell(&self, tx: &mut Tx<'_>) -> Result<bool, store::Error> {
        let (job, fence, now) = (self.job.into(), self.fence.into(), tx.now());
        let sql = "UPDATE http_calls SET told_at = $3, tell_at = NULL \
                   WHERE job_id = $1 AND fence = $2 AND (told_at IS NULL OR told_at <= $4)";
        let before = now.before(ANNOUNCE_INTERVAL);
        if tx.execute(sql, &[job, fence, now.into(), before.into()])? > 0 {
            return Ok(true);
        }
        let sql = "UPDATE http_calls SET tell_at = $3 WHERE job_id = $1 AND fence = $2 AND tell_at IS NULL";
        tx.execute(sql, &[job, fence, now.after(ANNOUNCE_INTERVAL).into()])?;
        Ok(false)
    }

    /// Ends the attempt if its time is over, and tells progress that was held back.
    fn expire(&self, tx: &mut Tx<'_>, retries: RetryPolicy) -> Result<(), jobs::Error> {
        let sql = format!(
            "SELECT c.deadline FROM http_calls c JOIN jobs j ON {LIVES} \
             WHERE c.job_id = $1 AND c.fence = $2 AND {WAITS} AND (c.deadline <= $3 OR c.tell_at <= $3)"
        );
        let (job, fence, now) = (self.job.into(), self.fence.into(), tx.now());
        let found = tx.find(&sql, &[job, fence, now.into()], |row| row.get(0))?;
        // Another replica was faster, or the bundle.
        let Some(deadline): Option<Option<Timestamp>> = found else { return Ok(()) };
        let job = jobs::find(tx, self.job)?;
        let claim = Claim { worker: None, fence: job.fence };
        if deadline.is_some_and(|deadline| deadline <= now) {
            let error = JobError::transient("timeout", "the operation took too long");
            jobs::apply(tx, self.job, fail(claim, error, job.attempt, retries))?;
            tracing::info!(job.id = %self.job, attempt = job.attempt, "job was not called back for in time");
        } else {
            let sql = "UPDATE http_calls SET told_at = $3, tell_at = NULL WHERE job_id = $1 AND fence = $2";
            tx.execute(sql, &[self.job.into(), self.fence.into(), now.into()])?;
            jobs::apply(tx, self.job, Command::Announce { claim })?;
        }
        Ok(())
    }
}

/// Condition in SQL that no worker has the job `j`.
pub(super) const WAITS: &str = "j.state = 'running' AND j.worker IS NULL";

fn fail(claim: Claim, error: JobError, attempt: i64, retries: RetryPolicy) -> Command {
    Command::Fail { claim, error, backoff: retries.backoff(attempt, rand::random()) }
}

/// Ends accepted jobs whose time is over, and tells progress that was held back, until shutdown.
pub(super) async fn run(database: Store, retries: RetryPolicy, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let now = database.now();
        let due = match database.read(move |reader| due(reader, now)).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "failed to read the deadlines of accepted jobs");
                continue;
            }
        };
        let expired = due.into_iter().map(async |(accepted, owner)| {
            let expire = accepted.clone();
            let expire = move |tx: &mut Tx<'_>| expire.expire(tx, retries);
            match database.write_in(Topic::user(&owner), expire).await {
                // The job ended just now.
                Ok(()) | Err(jobs::Error::NotFound | jobs::Error::Refused(Refused::Stale)) => {}
                Err(error) => {
                    tracing::warn!(job.id = %accepted.job, %error, "failed to end an accepted job");
                }
            }
        });
        join_all(expired).await;
    }
}

/// Returns calls whose time is over or whose progress is to be told, with the owners of their jobs.
fn due(reader: &Reader<'_>, now: Timestamp) -> Result<Vec<(Accepted, UserId)>, store::Error> {
    // By the index of each.
    let of = |column: &str| {
        format!(
            "SELECT c.job_id, c.fence, j.owner FROM http_calls c JOIN jobs j ON {LIVES} \
             WHERE c.{column} <= $1 AND {WAITS} LIMIT $2"
        )
    };
    let mut due = Vec::new();
    for column in ["deadline", "tell_at"] {
        due.extend(reader.query(&of(column), &[now.into(), MAX_DUE.into()], |row| {
            Ok((Accepted { job: row.get(0)?, fence: row.get(1)? }, row.get(2)?))
        })?);
    }
    Ok(due)
}
