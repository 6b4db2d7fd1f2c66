//! Runs jobs: claims what is due, drives it, and gives it back when the process goes.

mod driving;
mod finishing;
mod leases;
mod submitting;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use shared::{
    auth::Roles,
    bus::{Bus, Notice},
    ids::{JobId, UserId},
    journal::Topic,
    store::Store,
    time::Timestamp,
};
use tokio::{
    sync::{Notify, RwLock, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::finishing::Finishing;
use super::{
    Error,
    machine::{Command, Job, Refused, State as JobState},
    queue::{Queue, QueueLimit},
    store::{
        self,
        claims::{self, Waiting},
        submissions,
    },
};
use crate::{JobsConfig, access::Mine, blobs::Blobs, bundles::Registry, ingress::Ingress};

/// How often it is looked for what nobody told of.
const POLL: Duration = Duration::from_secs(1);
/// How often idle workers do so, for retries, and for what another replica handed back before this one heard of it: that is
/// to take less than a second.
const IDLE_POLL: Duration = Duration::from_millis(500);

/// Jobs that are claimed at once, so that while some begin others end.
const CLAIM: usize = 512;

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
    finishing: Finishing,
    running: Mutex<HashMap<JobId, CancellationToken>>,
    queue: Queue,
    /// A place for each job that may run here.
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Set once jobs are run here: what tells that they are to be handed back.
    at_work: OnceLock<CancellationToken>,
    /// The answer to a claim was lost, so that there may be jobs of ours that we know nothing of.
    unclear: AtomicBool,
    /// Held while jobs begin that are ours in the database and not yet known here.
    beginning: RwLock<()>,
}

impl Engine {
    pub(crate) fn new(tools: Tools, config: JobsConfig) -> Self {
        let inner = Inner {
            tools,
            queue: Queue::new(config.proc_queue_limit.clone()),
            slots: Arc::new(Semaphore::new(config.proc_workers.get())),
            config,
            worker: Uuid::now_v7(),
            wake: Notify::new(),
            finishing: Finishing::default(),
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            at_work: OnceLock::new(),
            unclear: AtomicBool::new(false),
            beginning: RwLock::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns what a submission of who has these roles is held to.
    pub(crate) fn limit(&self, roles: Roles) -> QueueLimit {
        self.inner.queue.limit(roles, Instant::now())
    }

    /// Ends a job that has not ended; whatever its worker still does comes to nothing. Asked twice, it is as it should be.
    pub(crate) async fn cancel(&self, job: &Mine) -> Result<Job, Error> {
        let id = job.id;
        let cancelled = match self.apply(&job.owner, id, Command::Cancel).await {
            Err(Error::Refused(Refused::State(JobState::Cancelled))) => {
                self.inner.tools.store.read(move |reader| store::find(reader, id)).await
            }
            cancelled => cancelled,
        };
        self.stop(id);
        cancelled
    }

    /// Queues a failed or cancelled job again.
    pub(crate) async fn retry(&self, job: &Job, roles: Roles) -> Result<Job, Error> {
        let id = job.id;
        let limit = self.limit(roles);
        let log = Topic::user(&job.owner);
        self.inner.tools.store.write_in(log, move |tx| submissions::retry(tx, id, &limit)).await
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
        if let Err(error) = self.take_over().await {
            tracing::error!(%error, "jobs of an earlier process could not be taken over");
            return;
        }
        let Inner { slots, tasks, unclear, .. } = &*self.inner;
        let _ = self.inner.at_work.set(shutdown.clone());
        // A place is waited for and not taken yet: jobs that begin as they are made may have it while others are looked for.
        let place = async || slots.acquire().await.map(drop);
        while shutdown.run_until_cancelled(place()).await.is_some() {
            let most = slots.available_permits().clamp(1, CLAIM);
            let waiting = self.waiting(most).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "nobody could be looked for");
                Vec::new()
            });
            let due = claims::due(&waiting);
            // A place for each job first, so that none is claimed which nobody would run.
            let places = self.free_places(due.min(most));
            let mut claimed = Vec::new();
            for claim in self.claim(waiting, places.len()).await {
                match claim {
                    Ok(jobs) => claimed.extend(jobs),
                    Err(error) => {
                        tracing::warn!(%error, "no job could be claimed");
                        unclear.store(true, Ordering::Relaxed);
                    }
                }
            }
            let more = due > 0 && claimed.len() == places.len();
            for (job, place) in claimed.into_iter().zip(places) {
                self.begin(job, place, &shutdown);
            }
            if unclear.swap(false, Ordering::Relaxed) && self.hand_back_unknown().await.is_err() {
                unclear.store(true, Ordering::Relaxed);
            }
            if !more {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.inner.wake.notified() => {}
                    () = sleep(IDLE_POLL) => {}
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Returns who has jobs to run; at most `limit` of each are counted.
    pub(super) async fn waiting(&self, limit: usize) -> Result<Vec<Waiting>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let look = move |reader: &shared::store::Reader<'_>| {
            claims::waiting_owners(reader, Timestamp::now(), limit)
        };
        let waiting: Result<_, shared::store::Error> = self.inner.tools.store.read(look).await;
        Ok(waiting?)
    }

    /// Claims at most `free` jobs. Those of different owners don't wait for each other.
    pub(super) async fn claim(
        &self,
        waiting: Vec<Waiting>,
        free: usize,
    ) -> Vec<Result<Vec<Arc<Job>>, Error>> {
        let (store, worker) = (&self.inner.tools.store, self.inner.worker);
        let owners = claims::share_out(waiting, i64::try_from(free).unwrap_or(i64::MAX));
        let claims = owners.into_iter().map(|(owner, count)| {
            let log = Topic::user(&owner);
            store.write_in(log, move |tx| claims::claim(tx, worker, &owner, count))
        });
        join_all(claims).await
    }

    async fn apply(&self, owner: &UserId, id: JobId, command: Command) -> Result<Job, Error> {
        let apply = move |tx: &mut shared::store::Tx<'_>| store::apply(tx, id, command.clone());
        self.inner.tools.store.write_in(Topic::user(owner), apply).await
    }

    #[cfg(test)]
    pub(super) fn worker(&self) -> Uuid {
        self.inner.worker
    }

    fn stop(&self, id: JobId) {
        self.running(|running| running.get(&id).map(CancellationToken::cancel));
    }

    fn running<T>(&self, with: impl FnOnce(&mut HashMap<JobId, CancellationToken>) -> T) -> T {
        with(&mut self.inner.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
