//! What admins see of the queue and its workers, and jobs that were given up, which they start over.

use axum::extract::State;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use shared::{
    http::{BodyError, Json, Limit, Query},
    ids::JobId,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Engine, Error, Filter, Job, Jobs, list,
    store::overview::{self, Depth},
};
use crate::{
    access::{Admin, visible},
    bundles::Name,
    error::ApiError,
    ingress::Ingress,
    state::AppState,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(queue))
        .routes(routes!(workers))
        .routes(routes!(parked))
        .routes(routes!(retry))
}

/// How many jobs are where.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub(super) struct Counts {
    /// Wait for a worker, or for their time.
    pub(super) queued: i64,
    /// Were handed back or lost their worker, and go on with the next that is free.
    pub(super) interrupted: i64,
    pub(super) running: i64,
    /// Running jobs that wait for their bundle to call back, which takes no worker.
    pub(super) accepted: i64,
    /// Of those that wait, could begin now.
    pub(super) due: i64,
    /// Come back later, since an attempt failed.
    pub(super) retrying: i64,
    /// Come back later for another reason.
    pub(super) snoozed: i64,
    /// How long the first of those that are due has been; `null` if none is.
    pub(super) oldest_wait_seconds: Option<f64>,
}

impl Counts {
    /// Adds up what has not ended.
    pub(super) fn of(depths: &[Depth], now: Timestamp) -> Self {
        let sum = |count: fn(&Depth) -> i64| depths.iter().map(count).sum();
        let oldest = depths.iter().filter_map(|depth| depth.oldest).min();
        Self {
            queued: sum(|depth| depth.queued),
            interrupted: sum(|depth| depth.interrupted),
            running: sum(|depth| depth.running),
            accepted: sum(|depth| depth.accepted),
            due: sum(|depth| depth.due),
            retrying: sum(|depth| depth.retrying),
            snoozed: sum(|depth| depth.snoozed),
            oldest_wait_seconds: oldest.map(|oldest| now.since(oldest).as_secs_f64()),
        }
    }
}

/// What has not ended.
#[derive(Serialize, utoipa::ToSchema)]
struct Queue {
    #[serde(flatten)]
    all: Counts,
    /// Were given up: see `/admin/parked`.
    parked: i64,
    operations: Vec<OperationCounts>,
}

/// What has not ended of an operation.
#[derive(Serialize, utoipa::ToSchema)]
struct OperationCounts {
    bundle: String,
    operation: String,
    #[serde(flatten)]
    counts: Counts,
}

/// Shows what has not ended, by state and by operation.
#[utoipa::path(get, path = "/admin/queue", tag = "jobs", responses((status = 200, body = Queue), (status = 403)))]
async fn queue(Admin { store, .. }: Admin) -> Result<Json<Queue>, ApiError> {
    let now = store.now();
    let read = store.read(move |reader| {
        let depths = overview::depths(reader, now)?;
        Ok::<_, shared::store::Error>((depths, overview::parked(reader)?))
    });
    let (depths, parked) = read.await?;
    let all = Counts::of(&depths, now);
    let operations = depths.into_iter().map(|depth| {
        let counts = Counts::of(std::slice::from_ref(&depth), now);
        OperationCounts { bundle: depth.bundle, operation: depth.operation, counts }
    });
    Ok(Json(Queue { all, parked, operations: operations.collect() }))
}

/// A process that runs jobs.
#[derive(Serialize, utoipa::ToSchema)]
struct Worker {
    /// New with every start; the process has it in its log.
    id: Uuid,
    started_at: Timestamp,
    /// Its jobs go on elsewhere if it is not heard of until then.
    lease_until: Timestamp,
    /// What it runs.
    jobs: Vec<Job>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Workers {
    workers: Vec<Worker>,
    next: Option<String>,
}

/// Lists the processes that run jobs, with what they run.
#[utoipa::path(get, path = "/admin/workers", tag = "jobs", responses((status = 200, body = Workers), (status = 403)))]
async fn workers(
    Admin { store, user }: Admin,
    State(ingress): State<Ingress>,
) -> Result<Json<Workers>, ApiError> {
    let read = store.read(|reader| {
        let workers = overview::workers(reader, reader.now())?;
        Ok::<_, shared::store::Error>((workers, overview::running(reader)?))
    });
    let (workers, running) = read.await?;
    let running = visible(&ingress, &user, running).await?;
    let workers = workers.into_iter().map(|worker| {
        let its = running.iter().filter(|job| job.worker == Some(worker.id));
        Worker {
            id: worker.id,
            started_at: minted_at(worker.id),
            lease_until: worker.lease_until,
            jobs: its.cloned().collect(),
        }
    });
    Ok(Json(Workers { workers: workers.collect(), next: None }))
}

/// Returns when an id was made, which it says itself.
fn minted_at(id: Uuid) -> Timestamp {
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |time| time.to_unix());
    let ms = seconds.saturating_mul(1000).saturating_add(u64::from(nanos / 1_000_000));
    Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn given_up(bundle: Option<Name>, operation: Option<Name>, code: Option<String>) -> Filter {
    let (bundle, operation) = (bundle.map(Into::into), operation.map(Into::into));
    Filter { parked: true, bundle, operation, code, ..Filter::default() }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ParkedPage {
    #[param(value_type = Option<String>)]
    bundle: Option<Name>,
    #[param(value_type = Option<String>)]
    operation: Option<Name>,
    /// The code of the error they were given up with.
    code: Option<String>,
    /// At most 200.
    #[serde(default)]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Limit,
    /// `next` of the page before.
    cursor: Option<JobId>,
}

/// Lists jobs that were given up, newest first: they failed in their last attempt, or took worker after worker with them.
#[utoipa::path(get, path = "/admin/parked", tag = "jobs", params(ParkedPage),
    responses((status = 200, body = Jobs), (status = 403)))]
async fn parked(
    Admin { store, user }: Admin,
    State(ingress): State<Ingress>,
    Query(page): Query<ParkedPage>,
) -> Result<Json<Jobs>, ApiError> {
    let ParkedPage { bundle, operation, code, limit, cursor } = page;
    let filter = Filter { before: cursor, ..given_up(bundle, operation, code) };
    let mut jobs = store.read(move |reader| list(reader, &filter, limit.and_one())).await?;
    let next = limit.cut(&mut jobs).map(|last| last.id);
    let jobs = visible(&ingress, &user, jobs).await?;
    Ok(Json(Jobs { jobs, next }))
}

/// Which of the jobs that were given up are to start over: all of them, but for what is named.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct RetryParked {
    bundle: Option<Name>,
    operation: Option<Name>,
    /// The code of the error they were given up with.
    code: Option<String>,
    /// How many at most; 200 are the most.
    #[serde(default)]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Limit,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Retried {
    /// Number of jobs that start over.
    retried: usize,
    /// Number of jobs that stay as they are, since their owner may not call their operation any more.
    refused: usize,
}

/// Starts jobs over that were given up, the newest first, as far as the queue has room.
#[utoipa::path(post, path = "/admin/parked/retry", tag = "jobs", request_body = RetryParked,
    responses((status = 200, body = Retried), (status = 403), (status = 503)))]
async fn retry(
    Admin { store, user }: Admin,
    State(engine): State<Engine>,
    body: Result<Json<RetryParked>, BodyError>,
) -> Result<Json<Retried>, ApiError> {
    let Json(RetryParked { bundle, operation, code, limit }) = body?;
    let filter = given_up(bundle, operation, code);
    let mut parked = store.read(move |reader| list(reader, &filter, limit.and_one())).await?;
    limit.cut(&mut parked);
    engine.fetch_roles(parked.iter()).await?;
    let mut allowed = Vec::with_capacity(parked.len());
    for job in &parked {
        if engine.may_run(job).await?.is_ok() {
            allowed.push(job);
        }
    }
    let refused = parked.len() - allowed.len();
    let outcomes = join_all(allowed.into_iter().map(|job| engine.retry(job, user.roles))).await;
    let retried = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    // What somebody else has started over meanwhile is no failure.
    let is_failure =
        |error: &Error| !matches!(error, Error::Refused(_) | Error::Superseded | Error::NotFound);
    let failure = outcomes.into_iter().filter_map(Result::err).find(is_failure);
    tracing::info!(retried, refused, ?failure, "parked jobs start over");
    match failure {
        Some(failure) if retried == 0 => Err(failure.into()),
        _ => Ok(Json(Retried { retried, refused })),
    }
}
