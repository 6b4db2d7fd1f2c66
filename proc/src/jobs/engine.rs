//! Runs jobs: claims what is due, drives it, and gives it back when the process goes.

mod driving;
mod finishing;
pub(super) mod lanes;
mod leases;
mod submitting;

use std::{
    collections::BTreeMap,
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
    ids::{JobId, ProjectId, UserId},
    journal::{Lease, Topic},
    store::Store,
};
use tokio::{
    sync::RwLock,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{
    finishing::Finishing,
    lanes::{Kind, Lane, Slot},
};
use super::{
    Error,
    machine::{Claim, Command, Job, Refused, RetryPolicy, State as JobState},
    queue::{Queue, QueueLimit},
    store::{
        self,
        claims::{self, Waiting},
        submissions,
    },
};
use crate::{
    JobsConfig,
    access::{Mine, ProjectRoles},
    blobs::Blobs,
    bundles::Registry,
    error::ApiError,
    ingress::{Ingress, Role},
    storage::Quota,
};

/// How often it is looked for what nobody told of.
const POLL: Duration = Duration::from_secs(1);
/// How often idle workers do so, for retries, and for what another replica handed back before this one heard of it: that is
/// to take less than a second.
const IDLE_POLL: Duration = Duration::from_millis(500);

/// Time for which a job is put back while ingress is away.
const INGRESS_AWAY: Duration = Duration::from_secs(1);

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
    pub(crate) roles: ProjectRoles,
    pub(crate) registry: Arc<Registry>,
    pub(crate) quota: Quota,
}

/// Why a job is not run.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the project does not exist, or the job's owner is no member of it any more")]
    NoMember,
    #[error("the role of the job's owner in the project is too low for the operation")]
    RoleTooLow,
}

impl Refusal {
    /// Judges by the role that the job's owner has now and the one that the operation asks for.
    fn of(role: Option<Role>, needed: Role) -> Result<(), Self> {
        match role {
            None => Err(Self::NoMember),
            Some(role) if role < needed => Err(Self::RoleTooLow),
            Some(_) => Ok(()),
        }
    }

    /// Returns the code of the error that the job ends with.
    fn code(self) -> &'static str {
        match self {
            Self::NoMember => "not_found",
            Self::RoleTooLow => "forbidden",
        }
    }
}

#[derive(Debug)]
struct Inner {
    tools: Arc<Tools>,
    /// New with every start, so that nothing an earlier process held is taken for ours.
    worker: Uuid,
    lease: Lease,
    finishing: Finishing,
    retries: RetryPolicy,
    /// Attempts that run here, by job and fence, with what stops each. A job that was lost and claimed again has two of
    /// them until the first has stopped.
    running: Mutex<BTreeMap<(JobId, i64), CancellationToken>>,
    queue: Queue,
    /// The workers: for jobs, and for deliveries.
    lanes: [Lane; 2],
    tasks: TaskTracker,
    /// Set once jobs are run here: what tells that they are to be handed back.
    at_work: OnceLock<CancellationToken>,
    /// The answer to a claim was lost, so that there may be jobs of ours that we know nothing of.
    unclear: AtomicBool,
    /// Held while jobs begin that are ours in the database and not yet known here.
    beginning: RwLock<()>,
}

impl Engine {
    pub(crate) fn new(tools: Tools, config: &JobsConfig) -> Self {
        let inner = Inner {
            lease: Lease::new(&tools.store, config.proc_lease),
            tools: Arc::new(tools),
            queue: Queue::new(config.proc_queue_limit.clone()),
            lanes: [Kind::Jobs, Kind::Deliveries].map(|kind| Lane::new(kind, config.proc_workers)),
            worker: Uuid::now_v7(),
            finishing: Finishing::default(),
            retries: config.retries(),
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

    /// Returns what work of Parley's own making is held to: half of the queue, so that the other half is for those who ask.
    pub(crate) fn limit_aside(&self) -> QueueLimit {
        self.limit(Roles::default()).half()
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
        let Tools { store, bus, .. } = &*self.inner.tools;
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
        while let Err(error) = self.take_over().await {
            if !matches!(&error, Error::Store(error) if error.is_temporary()) {
                tracing::error!(%error, "jobs of an earlier process could not be taken over");
                return;
            }
            // A database that is away just at the start is no reason to end the process.
            tracing::warn!(%error, "jobs of an earlier process cannot be taken over yet");
            if shutdown.run_until_cancelled(sleep(POLL)).await.is_none() {
                return;
            }
        }
        let Inner { lanes: [jobs, deliveries], tasks, .. } = &*self.inner;
        let _ = self.inner.at_work.set(shutdown.clone());
        tokio::join!(
            self.run_lane(jobs, &shutdown),
            self.run_lane(deliveries, &shutdown),
            self.hand_back_when_unclear(&shutdown),
        );
        tasks.close();
        tasks.wait().await;
    }

    async fn run_lane(&self, lane: &Lane, shutdown: &CancellationToken) {
        let can_claim = async || {
            // Without a lease nothing is claimed, since others would take it at once.
            self.inner.lease.held().await;
            lane.has_room().await;
        };
        while shutdown.run_until_cancelled(can_claim()).await.is_some() {
            let is_more = self.fill(lane, shutdown).await;
            if !is_more {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = lane.woken() => {}
                    () = sleep(IDLE_POLL) => {}
                }
            }
        }
    }

    /// Claims and begins as many jobs as the lane has room for; returns whether there may be more.
    async fn fill(&self, lane: &Lane, shutdown: &CancellationToken) -> bool {
        let room = lane.room();
        let most = room.open.clamp(1, CLAIM);
        let waiting = self.waiting(most, lane.kind()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "owners with waiting jobs could not be read");
            Vec::new()
        });
        let is_idle = |owner: &UserId| lane.is_idle(owner);
        let shares = claims::share_out(waiting, most.min(room.open), room.reserve, is_idle);
        // A place for each job first, so that none is claimed which nobody would run.
        let taken = shares.into_iter().map(|(owner, count)| (lane.take(&owner, count), owner));
        let taken: Vec<_> = taken.filter(|(slots, _)| !slots.is_empty()).collect();
        if taken.is_empty() {
            return false;
        }
        let beginning = self.inner.beginning.read().await;
        let (mut claimed, mut is_more) = (Vec::new(), true);
        for (slots, claim) in self.claim(taken, lane.kind()).await {
            match claim {
                Ok(jobs) => {
                    is_more &= jobs.len() == slots.len();
                    claimed.extend(jobs.into_iter().zip(slots));
                }
                Err(error) => {
                    tracing::warn!(%error, "no job could be claimed");
                    self.inner.unclear.store(true, Ordering::Relaxed);
                    is_more = false;
                }
            }
        }
        // Ingress is asked once for all of them.
        if let Err(status) = self.fetch_roles(claimed.iter().map(|(job, _)| &**job)).await {
            tracing::warn!(code = ?status.code(), jobs = claimed.len(), "ingress is away, so jobs wait");
            self.put_back(claimed).await;
            drop(beginning);
            self.ingress_is_back(shutdown).await;
            return true;
        }
        for (job, slot) in claimed {
            self.begin(job, slot, shutdown);
        }
        is_more
    }

    /// Puts claimed jobs back that cannot begin, which counts as no attempt.
    async fn put_back(&self, claimed: Vec<(Arc<Job>, Slot)>) {
        let worker = self.inner.worker;
        let back = claimed.into_iter().map(async |(job, slot)| {
            let claim = Claim { worker: Some(worker), fence: job.fence };
            let snooze = Command::Snooze { claim, wait: INGRESS_AWAY, reason: None };
            if let Err(error) = self.apply(&job.owner, job.id, snooze).await {
                tracing::warn!(job.id = %job.id, %error, "a job could not be put back");
                self.inner.unclear.store(true, Ordering::Relaxed);
            }
            drop(slot);
        });
        join_all(back).await;
    }

    /// Waits until ingress answers: no job can begin before.
    async fn ingress_is_back(&self, shutdown: &CancellationToken) {
        let wait = async {
            while !self.inner.tools.ingress.answers().await {
                sleep(IDLE_POLL).await;
            }
        };
        let _ = shutdown.run_until_cancelled(wait).await;
    }

    /// Returns who has jobs of the kind to run; at most `limit` of each are counted.
    pub(super) async fn waiting(&self, limit: usize, kind: Kind) -> Result<Vec<Waiting>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let look = move |reader: &shared::store::Reader<'_>| {
            claims::waiting_owners(reader, reader.now(), limit, kind)
        };
        let waiting: Result<_, shared::store::Error> = self.inner.tools.store.read(look).await;
        Ok(waiting?)
    }

    /// Claims jobs for the places that were taken for their owners. Those of different owners don't wait for each other.
    pub(super) async fn claim(
        &self,
        taken: Vec<(Vec<Slot>, UserId)>,
        kind: Kind,
    ) -> Vec<(Vec<Slot>, Result<Vec<Arc<Job>>, Error>)> {
        let (store, worker) = (&self.inner.tools.store, self.inner.worker);
        let claims = taken.into_iter().map(async |(slots, owner)| {
            let log = Topic::user(&owner);
            let count = i64::try_from(slots.len()).unwrap_or(i64::MAX);
            let claim = move |tx: &mut shared::store::Tx<'_>| {
                claims::claim(tx, worker, &owner, count, kind)
            };
            (slots, store.write_in(log, claim).await)
        });
        join_all(claims).await
    }

    /// Asks ingress once for the roles of all these jobs' owners.
    pub(crate) async fn fetch_roles<'a>(
        &self,
        jobs: impl Iterator<Item = &'a Job>,
    ) -> Result<(), tonic::Status> {
        self.know_roles(jobs.map(|job| (job.owner.clone(), job.project_id))).await
    }

    /// Asks ingress once for all of these roles, so that jobs that begin at once need not.
    pub(crate) async fn know_roles(
        &self,
        acting: impl Iterator<Item = (UserId, ProjectId)>,
    ) -> Result<(), tonic::Status> {
        self.inner.tools.roles.fetch(acting).await
    }

    /// Returns why the job's owner may not call its operation now, if they may not.
    pub(crate) async fn may_run(&self, job: &Job) -> Result<Result<(), Refusal>, ApiError> {
        let Tools { registry, roles, .. } = &*self.inner.tools;
        let declared = registry.find(&job.bundle, &job.operation).await?;
        // The attempt tells of an operation that is gone.
        let Some(declared) = declared else { return Ok(Ok(())) };
        let role = roles.ask(&(job.owner.clone(), job.project_id), &job.trace_id).await?;
        Ok(Refusal::of(role, declared.operation().role()))
    }

    async fn apply(&self, owner: &UserId, id: JobId, command: Command) -> Result<Job, Error> {
        let apply = move |tx: &mut shared::store::Tx<'_>| store::apply(tx, id, command.clone());
        self.inner.tools.store.write_in(Topic::user(owner), apply).await
    }

    #[cfg(test)]
    pub(super) fn worker(&self) -> Uuid {
        self.inner.worker
    }

    /// Returns how many attempts of a job can be stopped here.
    #[cfg(test)]
    pub(super) fn attempts(&self, id: JobId) -> usize {
        self.running(|running| running.range((id, i64::MIN)..=(id, i64::MAX)).count())
    }

    pub(super) fn lane(&self, bundle: &str) -> &Lane {
        let [jobs, deliveries] = &self.inner.lanes;
        match Kind::of(bundle) {
            Kind::Jobs => jobs,
            Kind::Deliveries => deliveries,
        }
    }

    /// Has every lane look for jobs.
    fn wake(&self) {
        self.inner.lanes.iter().for_each(Lane::wake);
    }

    /// Stops every attempt of a job.
    fn stop(&self, id: JobId) {
        let attempts = (id, i64::MIN)..=(id, i64::MAX);
        self.running(|running| {
            running.range(attempts).for_each(|(_, stop)| stop.cancel());
        });
    }

    fn running<T>(
        &self,
        with: impl FnOnce(&mut BTreeMap<(JobId, i64), CancellationToken>) -> T,
    ) -> T {
        with(&mut self.inner.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
