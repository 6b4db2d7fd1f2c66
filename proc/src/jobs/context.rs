//! What an operation is given to do its work with.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use shared::{
    journal::Topic,
    store::{Reader, Tx},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    engine::Tools,
    logs::{self, LogWriter, NewLine},
    machine::{Claim, Command, Job, JobError, Progress},
    store,
};
use crate::{
    artifacts::{self, Artifact},
    blobs::{Blobs, Writer},
    ingress::Ingress,
    storage::{self, Exceeded, Incoming},
};

/// Pause after a write of progress that the database did not take.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A running job as its operation sees it. The operation itself is dropped at its next `await` when the job is
/// cancelled, drained or another worker's: what it must not lose it puts into the checkpoint.
#[derive(Clone)]
pub(crate) struct JobContext {
    tools: Arc<Tools>,
    job: Arc<Job>,
    claim: Claim,
    stop: CancellationToken,
    latest: Arc<Mutex<Latest>>,
    log: Arc<LogWriter>,
}

/// The job as its worker has made it, unless that is not known for certain: whoever advances it and does not wait for the
/// answer, or does so twice at once, does not know what came of it.
struct Latest {
    job: Option<Arc<Job>>,
    advances: u64,
}

/// What was known before a job was advanced, and how often it had been.
struct Advance {
    was_known: bool,
    number: u64,
}

impl Latest {
    fn begin(&mut self) -> Advance {
        self.advances += 1;
        Advance { was_known: self.job.take().is_some(), number: self.advances }
    }

    fn know(&mut self, advance: &Advance, job: Job) {
        if advance.was_known && advance.number == self.advances {
            self.job = Some(job.into());
        }
    }
}

/// An artifact that is being written; it appears when it is finished.
pub(crate) struct ArtifactWriter {
    context: JobContext,
    out: Writer,
    blob: String,
    name: &'static str,
    media_type: &'static str,
    incoming: Incoming,
}

impl JobContext {
    pub(super) fn new(
        tools: Arc<Tools>,
        job: Arc<Job>,
        claim: Claim,
        stop: CancellationToken,
    ) -> Self {
        let latest = Latest { job: Some(job.clone()), advances: 0 };
        let log = Arc::new(LogWriter::new());
        Self { tools, job, claim, stop, latest: Arc::new(Mutex::new(latest)), log }
    }

    /// Returns the job as it was when this worker took it.
    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    /// Returns the job as it is now, if that is known: nobody else changes it while it is this worker's.
    pub(super) fn known(&self) -> Option<Arc<Job>> {
        self.latest().job.clone()
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ingress(&self) -> &Ingress {
        &self.tools.ingress
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.tools.blobs
    }

    pub(crate) fn store(&self) -> &shared::store::Store {
        &self.tools.store
    }

    /// Returns where the worker before came to, `None` at the beginning.
    pub(crate) fn checkpoint<T: DeserializeOwned>(&self) -> Option<T> {
        let checkpoint = self.job.checkpoint.clone()?;
        serde_json::from_value(checkpoint)
            .inspect_err(|error| tracing::warn!(job.id = %self.job.id, %error, "a checkpoint cannot be read, starting over"))
            .ok()
    }

    /// Writes down how far it came and where a next worker goes on, both at once, behind the lines of the log that came
    /// before. While the database is away it waits: an outage is no failure of the job.
    pub(crate) async fn advance(
        &self,
        progress: Progress,
        checkpoint: Option<impl Serialize>,
    ) -> Result<(), JobError> {
        let checkpoint = checkpoint.map(|checkpoint| json!(checkpoint));
        let advance = self.latest().begin();
        let command = Command::Advance { claim: self.claim, progress, checkpoint };
        self.log.flushed().await;
        // The same progress and checkpoint may be written twice.
        let job = loop {
            match self.try_apply(command.clone()).await {
                Err(Error::Store(error)) if error.is_temporary() => {
                    tracing::debug!(job.id = %self.job.id, %error, "progress waits for the database");
                    let pause = self.stop.run_until_cancelled(sleep(RETRY_PAUSE)).await;
                    pause.ok_or_else(|| self.refused(&error.into()))?;
                }
                applied => break applied.map_err(|error| self.refused(&error))?,
            }
        };
        self.latest().know(&advance, job);
        Ok(())
    }

    /// Adds a line to the job's log, where its owner reads it. Nothing waits for the write of it.
    pub(crate) fn log(&self, level: &'static str, message: String) {
        self.log.push(NewLine { at: self.tools.store.now(), level, message });
    }

    /// Writes the lines of the log as they come, until [`JobContext::end_log`] and the last of them.
    pub(super) async fn write_log(&self, shutdown: &CancellationToken) {
        self.log.run(self, shutdown).await;
    }

    /// Ends the log: no more lines come.
    pub(super) fn end_log(&self) {
        self.log.end();
    }

    /// Adds lines to the job's log, also just after the job was cancelled under this worker.
    pub(super) async fn append_log(&self, group: logs::Group) -> Result<bool, Error> {
        let (id, claim) = (self.job.id, self.claim);
        let log = Topic::user(&self.job.owner);
        let append = move |tx: &mut Tx<'_>| {
            store::check_log(tx, id, claim)?;
            Ok(logs::append_all(tx, id, &group.lines, group.dropped)?)
        };
        self.tools.store.write_in(log, append).await
    }

    /// Leaves the job to its bundle, which has accepted it, unless `accept` returns lines that the bundle said already. While
    /// the database is away it waits: the bundle is at work, and no other call is to be made.
    pub(crate) async fn leave<T: Send + 'static>(
        &self,
        accept: impl Fn(&mut Tx<'_>) -> Result<Vec<T>, shared::store::Error> + Clone + Send + 'static,
    ) -> Result<Vec<T>, JobError> {
        let (id, claim, log) = (self.job.id, self.claim, Topic::user(&self.job.owner));
        // Lines are written by the job's worker alone.
        self.log.flushed().await;
        loop {
            let accept = accept.clone();
            let leave = move |tx: &mut Tx<'_>| {
                store::check(tx, id, claim)?;
                let said = accept(tx)?;
                if said.is_empty() {
                    store::apply(tx, id, Command::Accept { claim })?;
                }
                Ok(said)
            };
            match self.tools.store.write_in(log.clone(), leave).await {
                Err(Error::Store(error)) if error.is_temporary() => {
                    tracing::debug!(job.id = %id, %error, "an accepted job waits for the database");
                    let pause = self.stop.run_until_cancelled(sleep(RETRY_PAUSE)).await;
                    pause.ok_or_else(|| self.refused(&error.into()))?;
                }
                left => return left.map_err(|error| self.refused(&error)),
            }
        }
    }

    /// Begins an artifact.
    pub(crate) fn artifact(&self, name: &'static str, media_type: &'static str) -> ArtifactWriter {
        // The fence keeps a worker that lost the job from writing over its successor's.
        let blob = format!("{}/{}/{name}", artifacts::folder(self.job.id), self.claim.fence);
        let out = self.tools.blobs.writer(&blob);
        let incoming = self.tools.quota.receive(self.job.owner.clone());
        ArtifactWriter { context: self.clone(), out, blob, name, media_type, incoming }
    }

    /// Tells streams how far it came. A failure is no reason to stop: the next beat tells it again.
    pub(super) async fn announce(&self) {
        self.show(Command::Announce { claim: self.claim }).await;
    }

    /// Tells streams that the job has started, if it had waited for its bundle and is worked on now.
    pub(crate) async fn begun(&self) {
        if self.job.is_untold() {
            self.show(Command::Begin { claim: self.claim }).await;
        }
    }

    async fn show(&self, command: Command) {
        // For other jobs nothing changes that their end would have to know.
        let advance = self.job.is_untold().then(|| self.latest().begin());
        match self.apply(command).await {
            Ok(job) => {
                if let Some(advance) = advance {
                    self.latest().know(&advance, job);
                }
            }
            Err(error) => {
                tracing::debug!(job.id = %self.job.id, ?error, "progress was not told");
            }
        }
    }

    async fn apply(&self, command: Command) -> Result<Job, JobError> {
        self.try_apply(command).await.map_err(|error| self.refused(&error))
    }

    async fn try_apply(&self, command: Command) -> Result<Job, Error> {
        let (id, log) = (self.job.id, Topic::user(&self.job.owner));
        let apply = move |tx: &mut Tx<'_>| store::apply(tx, id, command.clone());
        self.tools.store.write_in(log, apply).await
    }

    /// Writes something that belongs to the job, if the job is still ours.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, JobError> {
        let (id, claim) = (self.job.id, self.claim);
        let log = Topic::user(&self.job.owner);
        let written = self.tools.store.write_in(log, move |tx| {
            store::check(tx, id, claim)?;
            work(tx)
        });
        written.await.map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &Error) -> JobError {
        if let Error::Refused(_) = error {
            self.stop.cancel();
        }
        tracing::debug!(job.id = %self.job.id, %error, "a write of a job was refused");
        JobError::transient("unavailable", "the job's progress could not be written")
    }
}

impl ArtifactWriter {
    /// Adds bytes.
    pub(crate) async fn write(&mut self, part: Bytes) -> Result<(), JobError> {
        if self.incoming.wants_reading() {
            let Job { id, owner, .. } = self.context.job();
            let (id, owner, name) = (*id, owner.clone(), self.name);
            let read = move |reader: &Reader<'_>| storage::used(reader, &owner, Some((id, name)));
            let used = self.context.store().read(read).await;
            let away = |_: shared::store::Error| {
                JobError::transient("unavailable", "the stored bytes could not be counted")
            };
            self.incoming.know(used.map_err(away)?);
        }
        self.incoming.add(part.len() as u64).map_err(exceeded)?;
        self.out.write(part).await.map_err(|error| not_stored(&error))
    }

    /// Makes the artifact appear, whole.
    pub(crate) async fn finish(self) -> Result<Artifact, JobError> {
        let Self { context, out, blob, name, media_type, incoming } = self;
        let written = out.finish().await.map_err(|error| not_stored(&error))?;
        let artifact = Artifact::new(context.job.id, name, written);
        let (row, job, quota) =
            (artifact.clone(), context.job.clone(), context.tools.quota.clone());
        let stored = context.write(move |tx| {
            let admitted = quota.admit(tx, &job.owner, Some((job.id, name)), row.bytes())?;
            if admitted.is_ok() {
                artifacts::insert(tx, &job, &row, &blob, media_type)?;
            }
            Ok(admitted)
        });
        stored.await?.map_err(exceeded)?;
        drop(incoming);
        Ok(artifact)
    }
}

fn exceeded(exceeded: Exceeded) -> JobError {
    JobError::permanent("quota_exceeded", exceeded.to_string())
}

fn not_stored(error: &dyn std::error::Error) -> JobError {
    tracing::warn!(%error, "an artifact could not be written");
    JobError::transient("storage", "the artifact could not be written")
}
