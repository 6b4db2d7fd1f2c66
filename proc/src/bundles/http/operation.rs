//! One operation of a bundle behind a URL: called, listened to, waited for.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use reqwest::Response;
use serde_json::Value;
use shared::{store::Tx, time::Timestamp};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    answer::{Line, Lines},
    calls::{self, Attempt, Begun},
    client::{Answered, Caller, Message, connection_lost, took_too_long},
    limits::share_name,
    manifest::OperationManifest,
    store::Registered,
};
use crate::{
    bundles::Operation,
    ingress::Role,
    jobs::{
        JobContext, JobError, Progress, Share,
        machine::{Attempted, Job},
    },
    raw_json::RawJson,
};

/// How often progress is written at most; what comes in between gives way to what is newer.
const WRITE: Duration = Duration::from_millis(250);
/// Time for which a job is put back while the database is away.
const DATABASE_AWAY: Duration = Duration::from_secs(1);

/// An operation and where it is done.
pub(super) struct HttpOperation {
    pub(super) bundle: Arc<Registered>,
    pub(super) manifest: OperationManifest,
    pub(super) caller: Caller,
    /// Where callbacks go, without the job.
    pub(super) callbacks: Arc<str>,
}

#[async_trait]
impl Operation for HttpOperation {
    fn name(&self) -> &str {
        self.manifest.name.as_str()
    }

    fn description(&self) -> &str {
        &self.manifest.description
    }

    fn role(&self) -> Role {
        self.manifest.role
    }

    fn timeout(&self) -> Duration {
        self.manifest.timeout()
    }

    fn share(&self, job: &Job) -> Option<Share> {
        let limit = self.manifest.at_once().into();
        Some(Share { name: share_name(&job.bundle, &job.operation), limit })
    }

    fn schema(&self) -> Value {
        self.manifest.input.clone()
    }

    /// The bundle's time is bounded here: waits for it and for the database are none of it.
    fn limit(&self) -> Option<Duration> {
        None
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError> {
        let job = context.job();
        let attempt = Attempt {
            job: job.id,
            bundle: job.bundle.clone(),
            operation: job.operation.clone(),
            fence: job.fence,
            number: job.attempt,
            started_at: job.started_at.unwrap_or_default(),
        };
        let mut listener = Listener::new(context.clone());
        let (begin, most) = (attempt.clone(), self.manifest.at_once());
        let begun = context.store().write(move |tx| calls::begin(tx, &begin, most)).await;
        match begun.map_err(|error| not_begun(&error))? {
            Begun::Call => {}
            Begun::Accepted { fence, called_at } => {
                return self.leave(&context, &mut listener, fence, Some(called_at)).await;
            }
            // The job had its share, yet too many run: the bundle works for jobs that began before the limit was lowered.
            Begun::Full => {
                let message = "as many jobs of the operation run as may";
                return Err(JobError::transient("operation_full", message).snoozed(None));
            }
            Begun::Gone => {
                let message = "the bundle is not registered any more";
                return Err(JobError::permanent("unknown_operation", message));
            }
        }
        match self.call(&context, &input).await {
            Answered::Lines(response, left) => {
                context.begun().await;
                listener.follow(response, left).await
            }
            Answered::Accepted => self.leave(&context, &mut listener, attempt.fence, None).await,
            Answered::Failed(error) => {
                if error.attempted == Attempted::Snoozed && job.snoozed.is_zero() {
                    context.log("info", error.message.clone());
                }
                Err(error)
            }
        }
    }
}

impl HttpOperation {
    async fn call(&self, context: &JobContext, input: &Value) -> Answered {
        let job = context.job();
        let message = Message::Run {
            job: job.id,
            fence: job.fence,
            attempt: job.attempt,
            operation: self.name(),
            project_id: job.project_id,
            owner: &job.owner,
            input,
            callback_url: &format!("{}/{}", self.callbacks, job.id),
            timeout_seconds: self.manifest.timeout_seconds,
        };
        let id = format!("{}.{}", job.id, job.fence);
        self.caller.run(&self.bundle, &id, &message, self.timeout()).await
    }

    /// Leaves the job to its bundle, which has accepted the call of this fence, now or since `called_at`. Callbacks that came
    /// before are taken first; one of them may end the job.
    async fn leave(
        &self,
        context: &JobContext,
        listener: &mut Listener,
        fence: i64,
        called_at: Option<Timestamp>,
    ) -> Result<RawJson, JobError> {
        let (id, time) = (context.job().id, self.timeout());
        loop {
            let accept = move |tx: &mut Tx<'_>| {
                let deadline = called_at.unwrap_or(tx.now()).after(time);
                calls::accept(tx, id, fence, deadline)
            };
            let came = context.leave(accept).await?;
            let Some((last, _)) = came.last() else {
                return Err(JobError::accepted());
            };
            let last = *last;
            for (_, line) in came {
                if let Some(end) = listener.take(line).await? {
                    return end;
                }
            }
            listener.write().await?;
            let cleared = context.store().write(move |tx| calls::clear(tx, id, fence, last)).await;
            cleared.map_err(|error| unavailable(&error))?;
        }
    }
}

/// Takes what a bundle says into the job.
struct Listener {
    context: JobContext,
    /// Not written yet.
    newest: Option<Progress>,
    written_at: Instant,
}

impl Listener {
    fn new(context: JobContext) -> Self {
        Self { context, newest: None, written_at: Instant::now() - WRITE }
    }

    /// Reads the bundle's answer to its last line. Only waits for the bundle are part of what is `left` of its time.
    async fn follow(&mut self, response: Response, left: Duration) -> Result<RawJson, JobError> {
        let (mut lines, mut parts) = (Lines::default(), response.bytes_stream());
        let mut left = left;
        loop {
            let (due, since) = (self.written_at + WRITE, Instant::now());
            let is_pending = self.newest.is_some();
            let part = tokio::select! {
                part = timeout(left, parts.next()) => Some(part),
                () = sleep_until(due), if is_pending => None,
            };
            left = left.saturating_sub(since.elapsed());
            match part {
                Some(Ok(Some(Ok(part)))) => {
                    for line in lines.push(&part)? {
                        if let Some(end) = self.take(line).await? {
                            return end;
                        }
                    }
                }
                Some(Ok(_)) => break,
                Some(Err(_)) => return Err(took_too_long()),
                None => self.write().await?,
            }
        }
        match lines.finish() {
            Some(line) => self.take(line).await?.unwrap_or_else(|| Err(connection_lost())),
            None => Err(connection_lost()),
        }
    }

    /// Takes one line and returns how the job ends, if it was the last.
    async fn take(&mut self, line: Line) -> Result<Option<Result<RawJson, JobError>>, JobError> {
        match line {
            Line::Progress(told) => {
                self.newest = Some(told.into());
                if self.written_at.elapsed() >= WRITE {
                    self.write().await?;
                }
                Ok(None)
            }
            Line::Log(log) => {
                let (level, message) = log.parts();
                self.context.log(level, message);
                Ok(None)
            }
            Line::Result(result) => {
                self.write().await?;
                Ok(Some(Ok(result)))
            }
            Line::Error(failed) => {
                self.write().await?;
                Ok(Some(Err(failed.into())))
            }
        }
    }

    async fn write(&mut self) -> Result<(), JobError> {
        if let Some(progress) = self.newest.take() {
            self.written_at = Instant::now();
            self.context.advance(progress, None::<Value>).await?;
        }
        Ok(())
    }
}

/// Returns the error for a database that did not answer before the bundle was called: nothing was attempted.
fn not_begun(error: &shared::store::Error) -> JobError {
    tracing::warn!(%error, "failed to write down a call of a bundle");
    JobError::put_back(DATABASE_AWAY)
}

fn unavailable(error: &shared::store::Error) -> JobError {
    tracing::warn!(%error, "a call of a bundle could not be written down");
    JobError::transient("unavailable", "the database did not answer")
}
