//! The life of a job as a pure function: which command is allowed when, and what it makes of the job.

mod job;

use std::time::Duration;

use crate::raw_json::RawJson;
use serde_json::Value;
use shared::time::Timestamp;
use uuid::Uuid;

pub(crate) use self::job::{Attempted, Claim, Job, JobError, Progress, Share, State};

/// How often a job may take its worker with it, without getting any further, before it is given up.
const MAX_CRASHES: i64 = 3;
/// Longest time that a job waits in all for a bundle that is away or asks for time.
pub(crate) const MAX_SNOOZE: Duration = Duration::from_hours(24);
/// Time after which the owner of a job that waited for its bundle is told of an attempt that has come to nothing yet: longer
/// than it takes to find that a bundle cannot be connected to.
const QUIET_ATTEMPT: Duration = Duration::from_secs(15);
/// Shortest and longest wait of a job whose bundle does not say when to come back.
const SNOOZE_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// What may be asked of a job.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// A worker takes it.
    Claim { worker: Uuid },
    /// The worker got further; the checkpoint is where a next worker goes on.
    Advance { claim: Claim, progress: Progress, checkpoint: Option<Value> },
    /// The worker's progress is shown.
    Announce { claim: Claim },
    /// The bundle that the job waited for works on it.
    Begin { claim: Claim },
    /// The worker did it.
    Succeed { claim: Claim, result: RawJson },
    /// The attempt failed; if another is left it begins after `backoff`.
    Fail { claim: Claim, error: JobError, backoff: Duration },
    /// Puts the job back for `wait`, which counts as no attempt. With a reason the wait counts towards [`MAX_SNOOZE`].
    Snooze { claim: Claim, wait: Duration, reason: Option<JobError> },
    /// Leaves the job without a worker: its bundle has accepted it and calls back.
    Accept { claim: Claim },
    /// The worker is going away.
    HandBack { claim: Claim },
    /// The worker is gone.
    Lose { claim: Claim },
    /// Ends a job that cannot go on, with or without a worker.
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
            | Self::Begin { claim }
            | Self::Succeed { claim, .. }
            | Self::Fail { claim, .. }
            | Self::Snooze { claim, .. }
            | Self::Accept { claim }
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
    if let Some(claim) = command.claim() {
        prove(&job, claim)?;
        // All else that a worker has to say shows that the wait for the bundle is over.
        if !matches!(command, Command::Announce { .. } | Command::Snooze { .. }) {
            job.snoozed_at = None;
        }
    }
    let event = match command {
        Command::Claim { worker } => claim(&mut job, worker, now)?,
        Command::Advance { progress, checkpoint, .. } => {
            job.progress = progress;
            if checkpoint.is_some() && checkpoint != job.checkpoint {
                job.checkpoint = checkpoint;
                // It got further than the worker that was lost.
                job.crashes = 0;
            }
            None
        }
        Command::Announce { .. } => {
            let is_quiet = job.snoozed_at.is_some_and(|since| now.since(since) < QUIET_ATTEMPT);
            if !is_quiet {
                job.snoozed_at = None;
            }
            (!is_quiet).then_some(Event::Progress)
        }
        Command::Begin { .. } => None,
        Command::Succeed { result, .. } => {
            job.result = Some(result);
            job.error = None;
            job.progress.fraction = Some(1.0);
            Some(end(&mut job, State::Succeeded, Event::Succeeded, now))
        }
        Command::Fail { error, backoff, .. } => {
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
        Command::Snooze { wait, reason, .. } => snooze(&mut job, wait, reason, now),
        Command::Accept { .. } => {
            job.worker = None;
            None
        }
        Command::HandBack { .. } => {
            release(&mut job, State::Interrupted);
            Some(Event::Interrupted)
        }
        Command::Lose { .. } => {
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
            (job.snoozed, job.snoozed_at) = (Duration::ZERO, None);
            (job.run_after, job.started_at, job.finished_at) = (now, None, None);
            Some(Event::Queued)
        }
    };
    Ok((job, event))
}

/// Gives a job that is due to a worker. A job that waited for its bundle tells nothing yet: the bundle may still be away.
fn claim(job: &mut Job, worker: Uuid, now: Timestamp) -> Result<Option<Event>, Refused> {
    let due = matches!(job.state, State::Queued | State::Interrupted);
    let is_put_off =
        job.run_after > now && job.run_after != job.created_at && job.state == State::Queued;
    if !due || is_put_off {
        return Err(Refused::State(job.state));
    }
    // An interrupted attempt goes on; only a queued job begins one.
    job.attempt += i64::from(job.state == State::Queued);
    job.state = State::Running;
    job.fence += 1;
    job.worker = Some(worker);
    job.started_at = job.started_at.or(Some(now));
    let event = match job.snoozed_at {
        // The bundle may still be away: streams would have an entry for each call of it.
        Some(since) => {
            job.snoozed += now.since(since);
            job.snoozed_at = Some(now);
            None
        }
        None => Some(Event::Started),
    };
    Ok(event)
}

fn prove(job: &Job, claim: Claim) -> Result<(), Refused> {
    let theirs =
        job.state == State::Running && job.fence == claim.fence && job.worker == claim.worker;
    if theirs { Ok(()) } else { Err(Refused::Stale) }
}

/// Returns whether an owner is to be told, before `event`, that the job `before` had started: its claim was not told.
pub(crate) fn tells_start(before: &Job, after: &Job, event: Option<Event>) -> bool {
    before.is_untold()
        && match event {
            // Put back once more, or still not told.
            None => after.state == State::Running && !after.is_untold(),
            // As if it had been cancelled while it waited.
            Some(Event::Cancelled) => false,
            Some(_) => true,
        }
}

/// Puts a job back, or ends it where the wait for its reason would be too long in all. A job that is put back again for the
/// same reason tells nothing.
fn snooze(
    job: &mut Job,
    wait: Duration,
    reason: Option<JobError>,
    now: Timestamp,
) -> Option<Event> {
    job.attempt -= 1;
    let before = job.error.as_ref().map(|error| &error.code);
    let is_told =
        job.is_untold() && reason.as_ref().is_none_or(|reason| before == Some(&reason.code));
    match reason {
        Some(reason) if wait > MAX_SNOOZE.saturating_sub(job.snoozed) => {
            let message = format!("{}; a job waits for 24 hours at most", reason.message);
            job.error = Some(JobError { message, ..reason });
            // Operators find it by this among the jobs that were given up.
            job.snoozed = MAX_SNOOZE;
            return Some(end(job, State::Failed, Event::Failed, now));
        }
        Some(reason) => {
            job.snoozed_at = Some(now);
            job.error = Some(reason);
        }
        None => {}
    }
    release(job, State::Queued);
    job.run_after = now.after(wait);
    (!is_told).then_some(Event::Retrying)
}

fn release(job: &mut Job, state: State) {
    job.state = state;
    job.fence += 1;
    job.worker = None;
}

fn end(job: &mut Job, state: State, event: Event, now: Timestamp) -> Event {
    release(job, state);
    job.snoozed_at = None;
    job.finished_at = Some(now);
    event
}

/// Retry policy of jobs: their three attempts are spread over a time, so that a bundle which restarts is back for the last.
#[derive(Copy, Clone, Debug)]
pub(crate) struct RetryPolicy {
    /// Time between the first attempt's end and the last one's start, at least.
    pub(crate) spread: Duration,
}

impl RetryPolicy {
    /// Returns how long to wait before the attempt after `attempt`: a sixteenth of the spread, then the rest of it. `jitter`
    /// from 0 to 1 adds up to a quarter.
    pub(crate) fn backoff(self, attempt: i64, jitter: f64) -> Duration {
        let sixteenths = if attempt <= 1 { 1 } else { 15 };
        (self.spread * sixteenths / 16).mul_f64(1.0 + jitter / 4.0)
    }
}

/// Returns how long to put a job back that has been put back for `snoozed` in all: half as long again, with `jitter` from 0
/// to 1 adding up to a quarter, and never beyond [`MAX_SNOOZE`].
pub(crate) fn snooze_backoff(snoozed: Duration, jitter: f64) -> Duration {
    let (shortest, longest) = SNOOZE_BACKOFF;
    let wait = (snoozed / 2).clamp(shortest, longest).mul_f64(1.0 + jitter / 4.0);
    match MAX_SNOOZE.saturating_sub(snoozed) {
        // Over the limit, so that the job is given up.
        Duration::ZERO => wait,
        left => wait.min(left),
    }
}

#[cfg(test)]
mod tests;
