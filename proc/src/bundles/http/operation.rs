//! One operation of a bundle behind a URL: called, listened to, waited for.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use reqwest::Response;
use serde_json::Value;
use shared::time::Timestamp;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    answer::{Line, Lines},
    calls::{self, Attempt, Begun},
    client::{Answered, Caller, Message, connection_lost},
    manifest::OperationManifest,
    store::Registered,
};
use crate::{
    bundles::Operation,
    ingress::Role,
    jobs::{JobContext, JobError, Progress, Share, machine::Job},
    raw_json::RawJson,
};

/// How often progress is written at most; what comes in between gives way to what is newer.
const WRITE: Duration = Duration::from_millis(250);
/// How often a worker looks for callbacks, or for room among the operation's jobs.
const LOOK: Duration = Duration::from_millis(250);

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
        let limit = self.manifest.concurrency?.into();
        Some(Share { name: format!("{}.{}", job.bundle, job.operation), limit })
    }

    fn schema(&self) -> Value {
        self.manifest.input.clone()
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
        loop {
            let (begin, concurrency) = (attempt.clone(), self.manifest.concurrency);
            let begun = context.store().write(move |tx| calls::begin(tx, &begin, concurrency));
            match begun.await.map_err(|error| unavailable(&error))? {
                Begun::Call => {}
                Begun::Accepted { fence, called_at } => {
                    return self.wait(&context, &mut listener, fence, called_at).await;
                }
                // It had its share, yet the bundle still works for a job whose worker was lost.
                Begun::Full => {
                    sleep(LOOK).await;
                    continue;
                }
                Begun::Gone => {
                    let message = "the bundle is not registered any more";
                    return Err(JobError::permanent("unknown_operation", message));
                }
            }
            match self.call(&context, &input).await {
                Answered::Lines(response) => return listener.follow(response).await,
                Answered::Accepted => {
                    let (id, fence) = (attempt.job, attempt.fence);
                    let accepted = context.store().write(move |tx| calls::accept(tx, id, fence));
                    accepted.await.map_err(|error| unavailable(&error))?;
                    return self.wait(&context, &mut listener, fence, context.store().now()).await;
                }
                // That it is not ready yet is no failure of the attempt.
                Answered::Later(after) => {
                    context.log("info", "the bundle asked to be called later".into());
                    sleep(after).await;
                }
                Answered::Failed(error) => return Err(error),
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
        self.caller.run(&self.bundle, &id, &message).await
    }

    /// Waits for callbacks until the last one, or until the attempt has taken too long.
    async fn wait(
        &self,
        context: &JobContext,
        listener: &mut Listener,
        fence: i64,
        called_at: Timestamp,
    ) -> Result<RawJson, JobError> {
        let left = self.timeout().saturating_sub(context.store().now().since(called_at));
        let waited = timeout(left, listener.wait(fence)).await;
        waited
            .unwrap_or_else(|_| Err(JobError::transient("timeout", "the operation took too long")))
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

    /// Reads the bundle's answer to its last line.
    async fn follow(&mut self, response: Response) -> Result<RawJson, JobError> {
        let (mut lines, mut parts) = (Lines::default(), response.bytes_stream());
        loop {
            let due = self.written_at + WRITE;
            tokio::select! {
                part = parts.next() => {
                    let Some(Ok(part)) = part else { break };
                    for line in lines.push(&part)? {
                        if let Some(end) = self.take(line).await? {
                            return end;
                        }
                    }
                }
                () = sleep_until(due), if self.newest.is_some() => self.write().await?,
            }
        }
        match lines.finish() {
            Some(line) => self.take(line).await?.unwrap_or_else(|| Err(connection_lost())),
            None => Err(connection_lost()),
        }
    }

    /// Reads callbacks up to the last one.
    async fn wait(&mut self, fence: i64) -> Result<RawJson, JobError> {
        let (id, store) = (self.context.job().id, self.context.store().clone());
        loop {
            let read = store.read(move |reader| calls::read(reader, id, fence)).await;
            let came = read.map_err(|error| unavailable(&error))?;
            let last = came.last().map(|(number, _)| *number);
            for (_, line) in came {
                if let Some(end) = self.take(line).await? {
                    return end;
                }
            }
            self.write().await?;
            if let Some(last) = last {
                let cleared = store.write(move |tx| calls::clear(tx, id, fence, last)).await;
                cleared.map_err(|error| unavailable(&error))?;
            }
            sleep(LOOK).await;
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

fn unavailable(error: &shared::store::Error) -> JobError {
    tracing::warn!(%error, "a call of a bundle could not be written down");
    JobError::transient("unavailable", "the database did not answer")
}
