//! Runs jobs: claims what is due, drives it, keeps its lease, and gives it back when the process goes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{
    auth::Roles,
    bus::{Bus, Notice},
    http::with_trace,
    ids::{JobId, UserId},
    journal::Topic,
    store::Store,
    time::Timestamp,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    Error, JobContext,
    machine::{self, Claim, Command, Job, JobError, Refused, State as JobState},
    queue::Queue,
    store::{self, Idempotency},
};
use crate::{JobsConfig, access::Mine, blobs::Blobs, bundles::Registry, ingress::Ingress};

/// How often idle workers look for work that nobody woke them for, such as retries.
const POLL: Duration = Duration::from_secs(1);
/// How often a running job's progress is told, even if it stands still: streams hear of it at least each second.
const ANNOUNCE: Duration = Duration::from_millis(800);

/// The engine; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    inner: Arc<Inner>,
}

/// What jobs are run with.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) blobs: Blobs,
    pub(crate) ingress: Ingress,
    pub(crate) registry: Arc<Registry>,
}

#[derive(Debug)]
struct Inner {
    tools: Tools,
    config: JobsConfig,
    /// New with every start, so that nothing an earlier process held is taken for ours.
    worker: Uuid,
    wake: Notify,
    running: Mutex<HashMap<JobId, CancellationToken>>,
    queue: Queue,
}

/// How an operation came to its end.
enum Ended {
    Done(Result<serde_json::Value, JobError>),
    /// It was told to stop: by a drain, a cancel, or because it is another worker's now.
    Stopped,
}

impl Engine {
    pub(crate) fn new(tools: Tools, config: JobsConfig) -> Self {
        let inner = Inner {
            tools,
            queue: Queue::new(config.proc_queue_limit.clone()),
            config,
            worker: Uuid::now_v7(),
            wake: Notify::new(),
            running: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Queues a job, or finds the one that the same request made before.
    pub(crate) async fn submit(
        &self,
        job: Job,
        roles: Roles,
        idempotency: Option<Idempotency>,
    ) -> Result<Job, Error> {
        let limit = self.inner.queue.limit(roles, Instant::now());
        let submit = move |tx: &mut shared::store::Tx<'_>| {
            store::submit(tx, &job, idempotency.as_ref(), limit)
        };
        let job = self.inner.tools.store.write_in(Topic::jobs(), submit).await?;
        self.inner.wake.notify_one();
        Ok(job)
    }

    /// Ends a job that has not ended; whatever its worker still does comes to nothing. Asked twice, it is as it should be.
    pub(crate) async fn cancel(&self, job: &Mine) -> Result<Job, Error> {
        let id = job.id;
        let cancelled = match self.apply(id, Command::Cancel).await {
            Err(Error::Refused(Refused::State(JobState::Cancelled))) => {
                self.inner.tools.store.read(move |reader| store::find(reader, id)).await
            }
            cancelled => cancelled,
        };
        self.stop(id);
        cancelled
    }

    /// Queues a failed or cancelled job again.
    pub(crate) async fn retry(&self, job: &Mine) -> Result<Job, Error> {
        let id = job.id;
        let limit = self.inner.queue.limit(job.roles, Instant::now());
        let job = self
            .inner
            .tools
            .store
            .write_in(Topic::jobs(), move |tx| store::retry(tx, id, limit))
            .await?;
        self.inner.wake.notify_one();
        Ok(job)
    }

    /// Waits until the job has ended, at most for `patience`, and returns it as it then is.
    pub(crate) async fn wait(
        &self,
        id: JobId,
        owner: &UserId,
        patience: Duration,
    ) -> Result<Job, Error> {
        let Tools { store, bus, .. } = &self.inner.tools;
        let mut notices = bus.subscribe(&Topic::user(owner));
        let patience = sleep(patience);
        tokio::pin!(patience);
        loop {
            let job = store.read(move |reader| store::find(reader, id)).await?;
            if job.state.is_terminal() || patience.is_elapsed() {
                return Ok(job);
            }
            // Notices may be lost, so the job is looked at now and then without one.
            let poll = sleep(POLL);
            let ended = async {
                while let Ok(notice) = notices.next().await {
                    let Notice::Entry(entry) = notice else { continue };
                    if ["job.succeeded", "job.failed", "job.cancelled"].contains(&&*entry.kind) {
                        return;
                    }
                }
            };
            tokio::select! {
                () = &mut patience => {}
                () = poll => {}
                () = ended => {}
            }
        }
    }

    /// Runs jobs until shutdown, then hands back the ones that run.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        // Where the database belongs to this process alone, whatever still runs in it has lost its worker.
        let mine = self.inner.tools.store.is_embedded();
        let taken_over = self.inner.tools.store.write(move |tx| {
            tx.ensure(&Topic::jobs())?;
            let before = if mine { Timestamp::from_ms(i64::MAX) } else { Timestamp::now() };
            store::reap(tx, before)
        });
        match taken_over.await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "jobs of an earlier process go on"),
            Err(error) => {
                tracing::error!(%error, "jobs of an earlier process could not be taken over");
                return;
            }
        }
        let slots = Arc::new(Semaphore::new(self.inner.config.proc_workers.get()));
        let jobs = TaskTracker::new();
        while let Some(Ok(slot)) = shutdown.run_until_cancelled(slots.clone().acquire_owned()).await
        {
            let (worker, lease) = (self.inner.worker, self.inner.config.proc_lease);
            match self
                .inner
                .tools
                .store
                .write_in(Topic::jobs(), move |tx| store::claim(tx, worker, lease))
                .await
            {
                Ok(Some(job)) => {
                    self.inner.queue.took(Instant::now());
                    jobs.spawn(self.clone().drive(job, shutdown.clone(), slot));
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "no job could be claimed"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.inner.wake.notified() => {}
                () = sleep(POLL) => {}
            }
        }
        jobs.close();
        jobs.wait().await;
    }

    /// Keeps the leases of our jobs, stops the ones that are no longer ours, and frees those of lost workers.
    pub(crate) async fn keep_leases(self, shutdown: CancellationToken) {
        let lease = self.inner.config.proc_lease;
        let mut tick = tokio::time::interval((lease / 3).max(Duration::from_millis(10)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let before: Vec<JobId> = self.running(|running| running.keys().copied().collect());
            let worker = self.inner.worker;
            let renewed = self.inner.tools.store.write_in(Topic::jobs(), move |tx| {
                let now = Timestamp::now();
                let ours = store::renew(tx, worker, now.after(lease))?;
                Ok::<_, Error>((ours, store::reap(tx, now)?))
            });
            match renewed.await {
                Ok((ours, reaped)) => {
                    before.into_iter().filter(|id| !ours.contains(id)).for_each(|id| self.stop(id));
                    if reaped > 0 {
                        self.inner.wake.notify_one();
                    }
                }
                Err(error) => tracing::warn!(%error, "leases were not renewed"),
            }
        }
    }

    /// Sees one claimed job through, holding its slot.
    async fn drive(self, job: Job, shutdown: CancellationToken, _slot: OwnedSemaphorePermit) {
        let stop = shutdown.child_token();
        let (id, attempt) = (job.id, job.attempt);
        let claim = Claim { worker: self.inner.worker, fence: job.fence };
        self.running(|running| running.insert(id, stop.clone()));
        let operation = format!("{}.{}", job.bundle, job.operation);
        tracing::info!(job.id = %id, operation, attempt, "job started");
        let command = match self.operate(job, claim, stop).await {
            Ended::Done(Ok(result)) => Some(Command::Succeed { claim, result }),
            // What it needs is going away just as we are.
            Ended::Done(Err(error)) if error.retryable && shutdown.is_cancelled() => {
                Some(Command::HandBack { claim })
            }
            Ended::Done(Err(error)) => {
                let backoff = machine::backoff(attempt, rand::random());
                Some(Command::Fail { claim, error, backoff })
            }
            Ended::Stopped if shutdown.is_cancelled() => Some(Command::HandBack { claim }),
            Ended::Stopped => None,
        };
        if let Some(command) = command {
            self.settle(id, command, &shutdown).await;
        }
        self.running(|running| running.remove(&id));
        self.inner.wake.notify_one();
    }

    /// Runs the operation in a task of its own, so that its panic is its own too.
    async fn operate(&self, job: Job, claim: Claim, stop: CancellationToken) -> Ended {
        let tools = &self.inner.tools;
        let operation = match tools.registry.find(&job.bundle, &job.operation).await {
            Ok(Some(operation)) => operation,
            Ok(None) => {
                let message = "there is no such operation any more";
                return Ended::Done(Err(JobError::permanent("unknown_operation", message)));
            }
            Err(error) => {
                tracing::warn!(job.id = %job.id, %error, "an operation could not be looked up");
                let message = "the operation could not be looked up";
                return Ended::Done(Err(JobError::transient("unavailable", message)));
            }
        };
        let (operation, input) = (operation.operation(), job.input.clone());
        let timeout = sleep(operation.timeout());
        tokio::pin!(timeout);
        let trace = job.trace_id.clone();
        let context = JobContext::new(tools.clone(), job, claim, stop.clone());
        let shown = context.clone();
        let mut task = JoinSet::new();
        let span = tracing::debug_span!("job", job.id = %shown.job().id, trace.id = %trace);
        let work = async move { operation.run(context, input).await };
        task.spawn(with_trace(trace, work.instrument(span)));
        let mut beat = interval_at(Instant::now() + ANNOUNCE, ANNOUNCE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    task.shutdown().await;
                    return Ended::Stopped;
                }
                joined = task.join_next() => return Ended::Done(match joined {
                    Some(Ok(outcome)) => outcome,
                    // The panic hook has logged it.
                    _ => Err(JobError::permanent("internal", "the operation broke")),
                }),
                () = &mut timeout => {
                    task.shutdown().await;
                    return Ended::Done(Err(JobError::transient("timeout", "the operation took too long")));
                }
                _ = beat.tick() => {
                    shown.announce().await;
                }
            }
        }
    }

    /// Writes a job's end, again and again if need be: without it the job would look as if it ran for ever.
    async fn settle(&self, id: JobId, command: Command, shutdown: &CancellationToken) {
        loop {
            match self.apply(id, command.clone()).await {
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

    async fn apply(&self, id: JobId, command: Command) -> Result<Job, Error> {
        self.inner
            .tools
            .store
            .write_in(Topic::jobs(), move |tx| store::apply(tx, id, command.clone()))
            .await
    }

    fn stop(&self, id: JobId) {
        self.running(|running| running.get(&id).map(CancellationToken::cancel));
    }

    fn running<T>(&self, with: impl FnOnce(&mut HashMap<JobId, CancellationToken>) -> T) -> T {
        with(&mut self.inner.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
