//! Fires schedules: every replica looks for those whose time has come, and each time is one replica's alone.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shared::{
    ids::{ScheduleId, TraceId},
    journal::Topic,
    store::Store,
    time::Timestamp,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Missed, Schedule, store};
use crate::{
    access::ProjectRoles,
    bundles::{Declared, Registry},
    error::ApiError,
    jobs::{self, Engine, Job, NewJob},
};

/// How often it is looked for schedules whose time has come.
const POLL: Duration = Duration::from_secs(1);
/// How many are fetched in one go, and how many are fired side by side.
const MOST: i64 = 200;
const AT_ONCE: usize = 16;
/// How late a time may be found without having been missed: a deploy takes less.
const GRACE: Duration = Duration::from_mins(1);

/// Fires schedules.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler {
    store: Store,
    registry: Arc<Registry>,
    roles: ProjectRoles,
    engine: Engine,
}

/// What becomes of a schedule at one of its times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fire {
    pub(super) schedule: ScheduleId,
    pub(super) time: Timestamp,
    /// When it fires next, or why it does not.
    pub(super) next: Result<Timestamp, String>,
    /// Whether a job is made for the time.
    pub(super) makes_job: bool,
}

impl Fire {
    /// Decides it; `None` if the time has not come.
    pub(super) fn plan(schedule: &Schedule, now: Timestamp) -> Option<Self> {
        let time = schedule.next_fire_at.filter(|time| *time <= now)?;
        let is_missed = now.since(time) > GRACE;
        let makes_job = !is_missed || schedule.missed == Missed::Once;
        // Of those that were skipped, the last may be one that was not missed.
        let after = if makes_job { now } else { now.before(GRACE) };
        let times = schedule.times().map_err(|invalid| invalid.to_string());
        let next = times.and_then(|times| times.next(after).ok_or("it never fires again".into()));
        Some(Self { schedule: schedule.id, time, next, makes_job })
    }
}

impl Scheduler {
    pub(crate) fn new(
        store: Store,
        registry: Arc<Registry>,
        roles: ProjectRoles,
        engine: Engine,
    ) -> Self {
        Self { store, registry, roles, engine }
    }

    /// Fires what is due, until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let round = self.round(self.store.now());
            if let Some(Err(error)) = shutdown.run_until_cancelled(round).await {
                tracing::warn!(%error, "schedules have to wait");
            }
        }
    }

    /// Fires what is due at `now`. Ends early where what stands in the way of one does of all.
    pub(super) async fn round(&self, now: Timestamp) -> Result<(), ApiError> {
        let due = self.store.read(move |reader| store::due(reader, now, MOST)).await;
        let due = due.map_err(|error: shared::store::Error| error)?;
        let firing =
            stream::iter(due).map(Ok).try_for_each_concurrent(AT_ONCE, async |schedule| match self
                .fire(&schedule, now)
                .await
            {
                Err(
                    error @ (ApiError::Unavailable
                    | ApiError::Overloaded
                    | ApiError::QueueFull { .. }),
                ) => Err(error),
                Err(error) => {
                    tracing::error!(schedule.id = %schedule.id, ?error, "a schedule cannot fire");
                    Ok(())
                }
                Ok(_) => Ok(()),
            });
        firing.await
    }

    /// Fires a schedule if its time has come, or disables it if it may not any more.
    pub(super) async fn fire(&self, schedule: &Schedule, now: Timestamp) -> Result<bool, ApiError> {
        let Some(fire) = Fire::plan(schedule, now) else { return Ok(false) };
        let declared = match self.permitted(schedule).await {
            Ok(declared) => declared,
            Err(error) => return self.refused(schedule, fire, error).await,
        };
        match self.submit(schedule, &declared, fire.clone()).await {
            Err(jobs::Error::IdempotencyConflict) => {
                self.refused(schedule, fire, ApiError::IdempotencyConflict).await
            }
            submitted => Ok(submitted?),
        }
    }

    /// Returns the operation, if who made the schedule may call it with its input as if by hand.
    async fn permitted(&self, schedule: &Schedule) -> Result<Arc<Declared>, ApiError> {
        let declared = self.registry.find_callable(&schedule.bundle, &schedule.operation).await?;
        let declared = declared.ok_or(ApiError::NotFound("the operation"))?;
        let Schedule { owner, project_id, .. } = schedule;
        declared.authorize(&self.roles, owner, *project_id, &TraceId::mint()).await?;
        declared.check(&schedule.data)?;
        Ok(declared)
    }

    /// Disables a schedule for what a caller would have been refused for; all else passes.
    async fn refused(
        &self,
        schedule: &Schedule,
        fire: Fire,
        error: ApiError,
    ) -> Result<bool, ApiError> {
        let (ApiError::NotFound(_)
        | ApiError::Forbidden(_)
        | ApiError::Field { .. }
        | ApiError::IdempotencyConflict) = error
        else {
            return Err(error);
        };
        tracing::info!(schedule.id = %schedule.id, %error, "schedule disabled");
        // Others read it too.
        let reason = match &error {
            ApiError::NotFound("the project") => "its owner is no longer in the project".into(),
            ApiError::Forbidden(_) => "its owner's role in the project no longer allows it".into(),
            error => error.to_string(),
        };
        let fire = Fire { next: Err(reason), makes_job: false, ..fire };
        let log = Topic::user(&schedule.owner);
        let disable = move |tx: &mut shared::store::Tx<'_>| store::fire(tx, &fire, None);
        Ok(self.store.write_in(log, disable).await?)
    }

    /// Moves the schedule on and makes the job of its time, in one transaction.
    pub(super) async fn submit(
        &self,
        schedule: &Schedule,
        declared: &Declared,
        fire: Fire,
    ) -> Result<bool, jobs::Error> {
        let new = NewJob {
            owner: schedule.owner.clone(),
            project_id: schedule.project_id,
            bundle: schedule.bundle.clone(),
            operation: schedule.operation.clone(),
            input: schedule.data.clone(),
            trace: TraceId::mint(),
        };
        let mut job = Job::from(new);
        job.made_at(self.store.now());
        declared.prepare(&mut job);
        let limit = self.engine.limit_aside();
        let submit = move |tx: &mut shared::store::Tx<'_>| {
            store::fire(tx, &fire, fire.makes_job.then_some((&job, &limit)))
        };
        self.store.write_in(Topic::user(&schedule.owner), submit).await
    }
}
