//! The life of a job as a pure function: which command is allowed when, and what it makes of the job.

mod job;

use std::time::Duration;

use crate::raw_json::RawJson;
use serde_json::Value;
use shared::time::Timestamp;
use uuid::Uuid;

pub(crate) use self::job::{Claim, Job, JobError, Progress, Share, State};

/// How often a job may take its worker with it, without getting any further, before it is given up.
const MAX_CRASHES: i64 = 3;

/// What may be asked of a job.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// A worker takes it.
    Claim { worker: Uuid },
    /// The worker got further; the checkpoint is where a next worker goes on.
    Advance { claim: Claim, progress: Progress, checkpoint: Option<Value> },
    /// The worker's progress is shown.
    Announce { claim: Claim },
    /// The worker did it.
    Succeed { claim: Claim, result: RawJson },
    /// The attempt failed; if another is left it begins after `backoff`.
    Fail { claim: Claim, error: JobError, backoff: Duration },
    /// The worker cannot go on before `wait` has passed; that counts as no attempt.
    Snooze { claim: Claim, wait: Duration },
    /// The worker is going away.
    HandBack { claim: Claim },
    /// The worker is gone.
    Lose { claim: Claim },
    /// It cannot go on, whoever has it.
    Abandon { error: JobError },
    /// Somebody does not want it any more.
    Cancel,
    /// Somebody wants it once more.
    Retry,
}

impl Command {
    /// Returns what a worker shows with it; others need nothing.
    pub(crate) fn claim(&self) -> Option<Claim> {
        match self {
            Self::Advance { claim, .. }
            | Self::Announce { claim }
            | Self::Succeed { claim, .. }
            | Self::Fail { claim, .. }
            | Self::Snooze { claim, .. }
            | Self::Lose { claim }
            | Self::HandBack { claim } => Some(*claim),
            Self::Claim { .. } | Self::Abandon { .. } | Self::Cancel | Self::Retry => None,
        }
    }
}

/// What streams are told.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Queued,
    Started,
    Progress,
    Retrying,
    Succeeded,
    Failed,
    Cancelled,
    Interrupted,
}

impl Event {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "job.queued",
            Self::Started => "job.started",
            Self::Progress => "job.progress",
            Self::Retrying => "job.retrying",
            Self::Succeeded => "job.succeeded",
            Self::Failed => "job.failed",
            Self::Cancelled => "job.cancelled",
            Self::Interrupted => "job.interrupted",
        }
    }
}

/// Why a command changes nothing.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The job is no longer this worker's.
    #[error("the job is no longer this worker's")]
    Stale,
    /// The job's state does not allow it.
    #[error("the job is {}", .0.as_str())]
    State(State),
}

/// Returns what `command` makes of the job, and what is told of it.
pub(crate) fn transition(
    mut job: Job,
    command: Command,
    now: Timestamp,
) -> Result<(Job, Option<Event>), Refused> {
    let event = match command {
        Command::Claim { worker } => {
            let due = matches!(job.state, State::Queued | State::Interrupted);
            let is_put_off = job.run_after > now
                && job.run_after != job.created_at
                && job.state == State::Queued;
            if !due || is_put_off {
                return Err(Refused::State(job.state));
            }
            // An interrupted attempt goes on; only a queued job begins one.
            job.attempt += i64::from(job.state == State::Queued);
            job.state = State::Running;
            job.fence += 1;
            job.worker = Some(worker);
            job.started_at = job.started_at.or(Some(now));
            Some(Event::Started)
        }
        Command::Advance { claim, progress, checkpoint } => {
            prove(&job, claim)?;
            job.progress = progress;
            if checkpoint.is_some() && checkpoint != job.checkpoint {
                job.checkpoint = checkpoint;
                // It got further than the worker that was lost.
                job.crashes = 0;
            }
            None
        }
        Command::Announce { claim } => {
            prove(&job, claim)?;
            Some(Event::Progress)
        }
        Command::Succeed { claim, result } => {
            prove(&job, claim)?;
            job.result = Some(result);
            job.error = None;
            job.progress.fraction = Some(1.0);
            Some(end(&mut job, State::Succeeded, Event::Succeeded, now))
        }
        Command::Fail { claim, error, backoff } => {
            prove(&job, claim)?;
            let again = error.retryable && job.attempt < job.max_attempts;
            job.error = Some(error);
            if again {
                release(&mut job, State::Queued);
                job.run_after = now.after(backoff);
                Some(Event::Retrying)
            } else {
                Some(end(&mut job, State::Failed, Event::Failed, now))
            }
        }
        Command::Snooze { claim, wait } => {
            prove(&job, claim)?;
            release(&mut job, State::Queued);
            job.attempt -= 1;
            job.run_after = now.after(wait);
            Some(Event::Retrying)
        }
        Command::HandBack { claim } => {
            prove(&job, claim)?;
            release(&mut job, State::Interrupted);
            Some(Event::Interrupted)
        }
        Command::Lose { claim } => {
            prove(&job, claim)?;
            job.crashes += 1;
            if job.crashes > MAX_CRASHES {
                let message = "its worker was lost again and again";
                job.error = Some(JobError::permanent("worker_lost", message));
                Some(end(&mut job, State::Failed, Event::Failed, now))
            } else {
                release(&mut job, State::Interrupted);
                Some(Event::Interrupted)
            }
        }
        Command::Abandon { error } => {
            if job.state.is_terminal() {
                return Err(Refused::State(job.state));
            }
            job.error = Some(error);
            Some(end(&mut job, State::Failed, Event::Failed, now))
        }
        Command::Cancel => {
            if job.state.is_terminal() {
                return Err(Refused::State(job.state));
            }
            Some(end(&mut job, State::Cancelled, Event::Cancelled, now))
        }
        Command::Retry => {
            if !matches!(job.state, State::Failed | State::Cancelled) {
                return Err(Refused::State(job.state));
            }
            release(&mut job, State::Queued);
            // What was done stays done: the checkpoint and its progress are kept.
            (job.attempt, job.crashes, job.error) = (0, 0, None);
            (job.run_after, job.started_at, job.finished_at) = (now, None, None);
            Some(Event::Queued)
        }
    };
    Ok((job, event))
}

fn prove(job: &Job, claim: Claim) -> Result<(), Refused> {
    let theirs =
        job.state == State::Running && job.fence == claim.fence && job.worker == Some(claim.worker);
    if theirs { Ok(()) } else { Err(Refused::Stale) }
}

fn release(job: &mut Job, state: State) {
    job.state = state;
    job.fence += 1;
    job.worker = None;
}

fn end(job: &mut Job, state: State, event: Event, now: Timestamp) -> Event {
    release(job, state);
    job.finished_at = Some(now);
    event
}

/// Returns how long to wait before the attempt after `attempt`: twice as long each time, with `jitter` from 0 to 1
/// spreading it, at most a minute and a half.
pub(crate) fn backoff(attempt: i64, jitter: f64) -> Duration {
    let doubled = u32::try_from(attempt.clamp(0, 6)).unwrap_or(0);
    Duration::from_secs(1 << doubled).min(Duration::from_mins(1)).mul_f64(0.5 + jitter)
}

#[cfg(test)]
mod tests;
