//! Queues jobs. Where a place is free and nobody waits they begin as they are made, so that nothing has to claim them.

use std::sync::{Arc, atomic::Ordering};

use shared::{auth::Roles, journal::Topic, store};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Error,
        machine::Job,
        queue::QueueLimit,
        store::{
            Idempotency,
            submissions::{Places, Submitted, repeated, submit_all},
        },
    },
    Engine,
    lanes::Slot,
};

/// What is submitted together.
#[derive(Clone, Debug)]
struct Submission {
    /// All of one owner and operation.
    jobs: Vec<Job>,
    idempotency: Option<Idempotency>,
    limit: QueueLimit,
}

impl Engine {
    /// Queues a job, or finds the one that the same request made before, or that has the same unique key.
    pub(crate) async fn submit(
        &self,
        job: Job,
        roles: Roles,
        idempotency: Option<Idempotency>,
    ) -> Result<Job, Error> {
        let limit = self.limit(roles);
        self.submit_one(Submission { jobs: vec![job], idempotency, limit }).await
    }

    /// Queues a job of Parley's own making.
    pub(crate) async fn submit_aside(&self, job: Job) -> Result<Job, Error> {
        let limit = self.limit_aside();
        self.submit_one(Submission { jobs: vec![job], idempotency: None, limit }).await
    }

    /// Queues jobs of one owner and operation, all or none, each as [`Engine::submit`] does.
    pub(crate) async fn submit_all(
        &self,
        jobs: Vec<Job>,
        roles: Roles,
        idempotency: Option<Idempotency>,
    ) -> Result<Vec<Arc<Job>>, Error> {
        let limit = self.limit(roles);
        self.submit_within(Submission { jobs, idempotency, limit }).await
    }

    /// Returns the jobs that the same request made before, none if it is the first. Nothing is made.
    pub(crate) async fn submitted_before(
        &self,
        jobs: Vec<Job>,
        idempotency: Option<Idempotency>,
    ) -> Result<Vec<Arc<Job>>, Error> {
        let Some(idempotency) = idempotency else { return Ok(Vec::new()) };
        let read = move |reader: &store::Reader<'_>| repeated(reader, &jobs, &idempotency);
        match self.inner.tools.store.read(read).await {
            Ok(found) => Ok(found.into_iter().map(|submitted| submitted.job).collect()),
            // Another body, which is refused for its own fault.
            Err(Error::IdempotencyConflict) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn submit_one(&self, submission: Submission) -> Result<Job, Error> {
        let job = self.submit_within(submission).await?.pop().ok_or(Error::NotFound)?;
        Ok(Arc::unwrap_or_clone(job))
    }

    async fn submit_within(&self, mut submission: Submission) -> Result<Vec<Arc<Job>>, Error> {
        let now = self.inner.tools.store.now();
        submission.jobs.iter_mut().for_each(|job| job.made_at(now));
        let Some(first) = submission.jobs.first() else { return Ok(Vec::new()) };
        let declared = self.inner.tools.registry.find(&first.bundle, &first.operation).await?;
        if let Some(declared) = declared {
            submission.jobs.iter_mut().for_each(|job| declared.prepare(job));
        }
        let Some((shutdown, places)) = self.places(&submission.jobs) else {
            let queued = self.write(submission, None).await?;
            return Ok(queued.into_iter().map(|submitted| submitted.job).collect());
        };
        // In a task of its own, since what was begun has to be driven whatever becomes of the caller.
        let begin = self.clone().begin_all(submission, places, shutdown);
        self.inner.tasks.spawn(begin).await.map_err(|_| store::Error::Gone)?
    }

    /// Takes free places for the jobs, all of one owner and operation, if jobs are being run here.
    fn places(&self, jobs: &[Job]) -> Option<(CancellationToken, Vec<Slot>)> {
        let shutdown = self.inner.at_work.get().filter(|shutdown| !shutdown.is_cancelled())?;
        if !self.inner.lease.is_held() {
            return None;
        }
        let first = jobs.first()?;
        let places = self.lane(&first.bundle).take(&first.owner, jobs.len());
        (!places.is_empty()).then(|| (shutdown.clone(), places))
    }

    async fn begin_all(
        self,
        submission: Submission,
        places: Vec<Slot>,
        shutdown: CancellationToken,
    ) -> Result<Vec<Arc<Job>>, Error> {
        // Until they are known here, nobody may take them for claimed unknowingly.
        let beginning = self.inner.beginning.read().await;
        let free = if shutdown.is_cancelled() { 0 } else { places.len() };
        let first = submission.jobs.first().map(|job| &*job.bundle);
        let spare = first.map_or(0, |bundle| self.lane(bundle).room().open);
        let ours = Places { worker: self.inner.worker, free, spare };
        let submitted = self.write(submission, Some(ours)).await;
        if let Err(Error::Store(_)) = submitted {
            self.inner.unclear.store(true, Ordering::Relaxed);
            self.wake();
        }
        let mut places = places.into_iter();
        let mut jobs = Vec::new();
        for Submitted { job, begins } in submitted? {
            if begins && let Some(place) = places.next() {
                self.begin(job.clone(), place, &shutdown);
            }
            jobs.push(job);
        }
        drop(beginning);
        Ok(jobs)
    }

    /// Runs a job that is ours.
    pub(super) fn begin(&self, job: Arc<Job>, place: Slot, shutdown: &CancellationToken) {
        self.inner.queue.took(Instant::now());
        let stop = shutdown.child_token();
        self.running(|running| running.insert((job.id, job.fence), stop.clone()));
        self.inner.tasks.spawn(self.clone().drive(job, stop, shutdown.clone(), place));
    }

    async fn write(
        &self,
        submission: Submission,
        places: Option<Places>,
    ) -> Result<Vec<Submitted>, Error> {
        let Some(first) = submission.jobs.first() else { return Ok(Vec::new()) };
        let log = Topic::user(&first.owner);
        let submit = move |tx: &mut store::Tx<'_>| {
            let Submission { jobs, idempotency, limit } = &submission;
            submit_all(tx, jobs, idempotency.as_ref(), limit, places)
        };
        self.inner.tools.store.write_in(log, submit).await
    }
}
