//! Sees a claimed job through: runs its operation beside a clock, a cancel and a drain, and writes how it ended.

use std::{sync::Arc, time::Duration};

use serde_json::Value as Json;
use shared::{http::with_trace, sabotage::Sabotage};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    super::{
        Error, JobContext,
        machine::{self, Attempted, Claim, Command, Job, JobError},
    },
    Engine, INGRESS_AWAY, POLL, Refusal,
    lanes::Slot,
};
use crate::bundles::Operation;
use crate::raw_json::RawJson;

/// How often a running job's progress is told, even if it stands still: streams hear of it at least each second.
const ANNOUNCE: Duration = Duration::from_millis(800);

/// How long an operation that was told to stop is waited for.
const STUCK: Duration = Duration::from_millis(500);

/// Time for which a job is put back whose operation could not be looked up.
const DATABASE_AWAY: Duration = Duration::from_secs(1);

/// How an operation came to its end.
enum Ended {
    Done(Result<RawJson, JobError>),
    /// It was told to stop: by a drain, a cancel, or because it is another worker's now.
    Stopped,
}

impl Engine {
    /// Sees one claimed job through, holding its slot.
    pub(super) async fn drive(
        self,
        job: Arc<Job>,
        stop: CancellationToken,
        shutdown: CancellationToken,
        _slot: Slot,
    ) {
        let (id, attempt) = (job.id, job.attempt);
        let claim = Claim { worker: Some(self.inner.worker), fence: job.fence };
        tracing::info!(job.id = %id, job.bundle, job.operation, attempt, "job started");
        let context = JobContext::new(self.inner.tools.clone(), job, claim, stop.clone());
        let command = match self.operate(&context, stop, &shutdown).await {
            Ended::Done(Ok(result)) => Some(Command::Succeed { claim, result }),
            Ended::Done(Err(error)) => match error.attempted {
                Attempted::Accepted => {
                    if self.inner.tools.store.sabotage() == Some(Sabotage::WaitHoldsWorker) {
                        shutdown.cancelled().await;
                    }
                    None
                }
                Attempted::PutBack => {
                    let wait = error.wait.unwrap_or(INGRESS_AWAY);
                    Some(Command::Snooze { claim, wait, reason: None })
                }
                // Not handed back even at shutdown: the bundle may have asked for the time.
                Attempted::Snoozed => {
                    let backoff = || machine::snooze_backoff(context.job().snoozed, rand::random());
                    let wait = error.wait.unwrap_or_else(backoff);
                    Some(Command::Snooze { claim, wait, reason: Some(error) })
                }
                // A part that the operation needs is shutting down, as this process is.
                Attempted::Failed if error.retryable && shutdown.is_cancelled() => {
                    Some(Command::HandBack { claim })
                }
                Attempted::Failed => {
                    let backoff = || self.inner.retries.backoff(attempt, rand::random());
                    let backoff = error.wait.unwrap_or_else(backoff);
                    Some(Command::Fail { claim, error, backoff })
                }
            },
            Ended::Stopped if shutdown.is_cancelled() => Some(Command::HandBack { claim }),
            Ended::Stopped => None,
        };
        if let Some(command) = command {
            self.settle(&context, command, &shutdown).await;
        }
        self.running(|running| running.remove(&(id, claim.fence)));
    }

    /// Runs the operation in a task of its own, so that its panic is its own too.
    async fn operate(
        &self,
        context: &JobContext,
        stop: CancellationToken,
        shutdown: &CancellationToken,
    ) -> Ended {
        let job = context.job();
        let declared = match self.inner.tools.registry.find(&job.bundle, &job.operation).await {
            Ok(Some(operation)) => operation,
            Ok(None) => {
                let message = "there is no such operation any more";
                return Ended::Done(Err(JobError::permanent("unknown_operation", message)));
            }
            Err(error) => {
                tracing::warn!(job.id = %job.id, %error, "an operation could not be looked up");
                return Ended::Done(Err(JobError::put_back(DATABASE_AWAY)));
            }
        };
        let (operation, input) = (declared.operation(), Json::clone(&job.input));
        match stop.run_until_cancelled(self.permit(context, &*operation)).await {
            None => return Ended::Stopped,
            Some(Err(error)) => return Ended::Done(Err(error)),
            Some(Ok(())) => {}
        }
        // The schema may be another one since the job was made.
        if let Err(unfit) = declared.check(&input) {
            return Ended::Done(Err(JobError::permanent("invalid_input", unfit.to_string())));
        }
        let deadline = operation.limit().map(|limit| Instant::now() + limit);
        let trace = job.trace_id.clone();
        let mut task = JoinSet::new();
        let span = tracing::debug_span!("job", job.id = %job.id, trace.id = %trace);
        let given = context.clone();
        let lease = self.inner.lease.clone();
        // While the lease is not held, the job may be another worker's: the operation stands still.
        let work = async move { lease.hold(operation.run(given, input)).await };
        task.spawn(with_trace(trace, work.instrument(span)));
        // One timer for the next announcement and for the deadline.
        let next = || {
            let announcement = Instant::now() + ANNOUNCE;
            deadline.map_or(announcement, |deadline| deadline.min(announcement))
        };
        let timer = sleep_until(next());
        tokio::pin!(timer);
        // Beside the operation, whose time is not spent on it, and to the last line before the job's end is written.
        let log = context.write_log(shutdown);
        tokio::pin!(log);
        let ended = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    Box::pin(stopped(&mut task)).await;
                    break Ended::Stopped;
                }
                joined = task.join_next() => break Ended::Done(match joined {
                    Some(Ok(outcome)) => outcome,
                    // The panic hook has logged it.
                    _ => Err(JobError::permanent("internal", "the operation broke")),
                }),
                () = &mut timer => {
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        Box::pin(stopped(&mut task)).await;
                        break Ended::Done(Err(JobError::transient("timeout", "the operation took too long")));
                    }
                    // On the heap, as most jobs end before it.
                    Box::pin(context.announce()).await;
                    timer.as_mut().reset(next());
                }
                () = &mut log => {}
            }
        };
        context.end_log();
        log.await;
        ended
    }

    /// Lets the attempt begin if the job's owner may call the operation now. While ingress is away the job comes back later.
    async fn permit(
        &self,
        context: &JobContext,
        operation: &dyn Operation,
    ) -> Result<(), JobError> {
        let job = context.job();
        let acting = (job.owner.clone(), job.project_id);
        let role = self.inner.tools.roles.role(&acting, &job.trace_id).await.map_err(|status| {
            tracing::warn!(job.id = %job.id, code = ?status.code(), "ingress is away, so a job waits");
            JobError::put_back(INGRESS_AWAY)
        })?;
        let Err(refusal) = Refusal::of(role, operation.role()) else { return Ok(()) };
        tracing::info!(job.id = %job.id, %refusal, "job refused");
        operation.refused(context).await;
        Err(JobError::permanent(refusal.code(), refusal.to_string()))
    }

    /// Writes a job's end, again and again if need be: without it the job would look as if it ran for ever.
    async fn settle(&self, context: &JobContext, command: Command, shutdown: &CancellationToken) {
        let id = context.job().id;
        loop {
            match self.finish(context, command.clone()).await {
                Ok(job) => {
                    let code = job.error.as_ref().map(|error| &error.code);
                    tracing::info!(job.id = %id, state = job.state.as_str(), code, "job left its worker");
                    return;
                }
                Err(Error::Store(error)) => {
                    tracing::warn!(job.id = %id, %error, "a job's end could not be written");
                    if shutdown.is_cancelled() {
                        // The next start takes it over.
                        return;
                    }
                    sleep(POLL).await;
                }
                Err(error) => {
                    tracing::info!(job.id = %id, %error, "a job's end came too late");
                    return;
                }
            }
        }
    }
}

/// Ends an operation at its next `await`; one that reaches none for long is left behind, where nothing it writes counts.
async fn stopped(task: &mut JoinSet<Result<RawJson, JobError>>) {
    if tokio::time::timeout(STUCK, task.shutdown()).await.is_err() {
        tracing::error!("an operation blocks its thread and does not stop");
    }
}
