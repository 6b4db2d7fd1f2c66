//! A job and its parts.

use std::{sync::Arc, time::Duration};

use crate::raw_json::RawJson;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    ids::{JobId, ProjectId, TraceId, UserId},
    time::Timestamp,
};
use uuid::Uuid;

/// Where a job is in its life.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Waits for a worker, perhaps until `run_after`; `error` says why it was put back, if it was.
    Queued,
    /// A worker has it, or a bundle that has accepted it.
    Running,
    Succeeded,
    Failed,
    Cancelled,
    /// Its worker handed it back or was lost; it goes on from its checkpoint.
    Interrupted,
}

impl State {
    pub(crate) const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Interrupted,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// Says whether the job has ended.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl std::str::FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// Replacement of an error's message for a caller who may not read it.
const HIDDEN: &str = "only members of the project see this";

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Progress {
    /// From 0 to 1; absent while the whole is not known.
    pub(crate) fraction: Option<f64>,
    pub(crate) done: u64,
    pub(crate) total: Option<u64>,
    /// What is counted, such as `messages`.
    pub(crate) unit: Option<String>,
    /// What is being done, for people.
    pub(crate) message: Option<String>,
}

impl Progress {
    /// Says that `done` of `total` are done.
    #[expect(clippy::cast_precision_loss, reason = "a fraction for a progress bar")]
    pub(crate) fn of(done: u64, total: u64, unit: &str, message: &str) -> Self {
        let fraction = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
        Self {
            fraction: Some(fraction),
            done,
            total: Some(total),
            unit: Some(unit.into()),
            message: Some(message.into()),
        }
    }
}

/// Why an attempt failed, fit to be shown to the job's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct JobError {
    pub(crate) code: String,
    pub(crate) message: String,
    /// Whether trying again may help.
    pub(crate) retryable: bool,
    /// How long to wait before that, where the failure itself says so.
    #[serde(skip)]
    pub(crate) wait: Option<Duration>,
    #[serde(skip)]
    pub(crate) attempted: Attempted,
}

/// Effect of an error on the attempt.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Attempted {
    /// The attempt counts, and failed.
    #[default]
    Failed,
    /// The job is put back, as its work could not begin; no attempt is counted.
    PutBack,
    /// Likewise, for at most [`MAX_SNOOZE`](super::MAX_SNOOZE) in all.
    Snoozed,
    /// The job is no longer this worker's: its bundle has accepted it.
    Accepted,
}

impl JobError {
    /// Says that the same input will fail again.
    pub(crate) fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retryable: false,
            wait: None,
            attempted: Attempted::Failed,
        }
    }

    /// Says that it may go well next time.
    pub(crate) fn transient(code: &str, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::permanent(code, message) }
    }

    /// Says that nothing could be done yet; the job comes back after `wait`, which counts as no attempt.
    pub(crate) fn put_back(wait: Duration) -> Self {
        let error = Self::transient("put_back", "it comes back later");
        Self { wait: Some(wait), attempted: Attempted::PutBack, ..error }
    }

    /// Marks work that could not begin, which counts as no attempt. The job comes back
    /// after `asked`, or after a while.
    pub(crate) fn snoozed(self, asked: Option<Duration>) -> Self {
        Self { wait: asked, attempted: Attempted::Snoozed, ..self }
    }

    /// Returns the end of an attempt whose bundle has accepted the job: the job has left its worker.
    pub(crate) fn accepted() -> Self {
        let error = Self::transient("accepted", "the bundle calls back");
        Self { attempted: Attempted::Accepted, ..error }
    }

    /// Sets the time of the next try, such as a server's `Retry-After`. A server that asks for more than a day is not tried again.
    pub(crate) fn after(self, wait: Duration) -> Self {
        let retryable = self.retryable && wait <= Duration::from_hours(24);
        Self { wait: Some(wait), retryable, ..self }
    }
}

/// A job with everything the engine knows about it; what is skipped is not for clients.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) bundle: String,
    pub(crate) operation: String,
    pub(crate) project_id: ProjectId,
    /// Who called the operation.
    pub(crate) owner: UserId,
    #[serde(skip)]
    pub(crate) input: Arc<Value>,
    pub(crate) state: State,
    /// Which attempt this is, 0 before the first.
    pub(crate) attempt: i64,
    pub(crate) max_attempts: i64,
    /// Workers lost since the checkpoint last moved.
    #[serde(skip)]
    pub(crate) crashes: i64,
    /// Grows whenever the job changes hands; a worker that shows an older one has lost the job.
    #[serde(skip)]
    pub(crate) fence: i64,
    /// The worker that runs it; a running job without one waits for its bundle to call back.
    #[serde(skip)]
    pub(crate) worker: Option<Uuid>,
    /// How many minutes it goes before others that became due with it.
    #[serde(skip)]
    pub(crate) priority: i64,
    #[serde(skip)]
    pub(crate) share: Option<Share>,
    /// What it is the only unfinished one of, among its owner's of the same operation.
    #[serde(skip)]
    pub(crate) unique_key: Option<String>,
    /// Time for which the job was put back in all, up to its last claim, for a bundle that was away or asked for time.
    #[serde(skip)]
    pub(crate) snoozed: Duration,
    /// Since when it is put back for that. Set on a running job too, from its claim on, until it turns out that the wait is
    /// over.
    #[serde(skip)]
    pub(crate) snoozed_at: Option<Timestamp>,
    pub(crate) progress: Progress,
    #[serde(skip)]
    pub(crate) checkpoint: Option<Value>,
    /// What the operation returned.
    #[schema(value_type = Option<Value>)]
    pub(crate) result: Option<RawJson>,
    /// Why the last attempt failed.
    pub(crate) error: Option<JobError>,
    pub(crate) trace_id: TraceId,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    /// When it may start at the earliest.
    pub(crate) run_after: Timestamp,
}

impl Job {
    /// Sets the time at which the job is made, from which on it may start.
    pub(crate) fn made_at(&mut self, now: Timestamp) {
        (self.created_at, self.run_after) = (now, now);
    }

    /// Returns the job as an admin sees it who is no member of its project: the operation, its state, counts and times.
    pub(crate) fn without_content(mut self) -> Self {
        self.input = Value::Null.into();
        self.checkpoint = None;
        self.result = None;
        self.progress.unit = None;
        self.progress.message = None;
        if let Some(error) = &mut self.error {
            error.message = HIDDEN.into();
        }
        self
    }

    /// Returns whether it runs without its owner having been told: its bundle may still be away.
    pub(crate) fn is_untold(&self) -> bool {
        self.state == State::Running && self.snoozed_at.is_some()
    }

    /// Returns its place among its owner's waiting jobs, the lowest first. What has waited for long enough goes before
    /// anything of a higher priority.
    pub(crate) fn rank(&self) -> i64 {
        self.run_after.as_ms().saturating_sub(self.priority.saturating_mul(60_000))
    }
}

/// What some jobs share, so that only so many of them may run at once, whoever owns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) name: String,
    pub(crate) limit: i64,
}

/// Proof of a worker that the job is still its own, or of a callback that the job still waits for it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// `None` for a job that its bundle has accepted.
    pub(crate) worker: Option<Uuid>,
    pub(crate) fence: i64,
}
