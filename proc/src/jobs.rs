//! Jobs: what clients see of them, and the routes that list, cancel and repeat them.

mod admin;
mod context;
mod engine;
pub(crate) mod figures;
mod logs;
pub(crate) mod machine;
mod queue;
pub(crate) mod retention;
mod store;

use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    http::{Json, Limit, Query},
    ids::{JobId, ProjectId, TraceId, UserId},
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::machine::{Refused, State as JobState};
pub(crate) use self::{
    context::JobContext,
    engine::{Engine, Tools},
    logs::append as log,
    machine::{JobError, Progress, Share},
    queue::QueueLimit,
    store::{Filter, Idempotency, find, list, submit},
};
use crate::{
    access::{Mine, Own},
    bundles::Name,
    error::ApiError,
    state::AppState,
};

/// Attempts that a job has.
const MAX_ATTEMPTS: i64 = 3;

/// Why something was not done to a job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the job does not exist")]
    NotFound,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("too many jobs are waiting")]
    QueueFull { retry_after: Duration },
    #[error("this idempotency key was used with another body")]
    IdempotencyConflict,
    #[error("another job does the same")]
    Superseded,
    #[error(transparent)]
    Store(#[from] shared::store::Error),
}

/// A job as clients see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Job {
    id: JobId,
    bundle: String,
    operation: String,
    project_id: ProjectId,
    /// Who called the operation.
    owner: UserId,
    state: JobState,
    /// Which attempt this is, 0 before the first.
    attempt: i64,
    max_attempts: i64,
    progress: Progress,
    /// What the operation returned.
    result: Option<Value>,
    /// Why the last attempt failed.
    error: Option<JobError>,
    trace_id: TraceId,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// When it may start at the earliest.
    run_after: Timestamp,
}

impl From<&machine::Job> for Job {
    fn from(job: &machine::Job) -> Self {
        let job = job.clone();
        Self {
            id: job.id,
            bundle: job.bundle,
            operation: job.operation,
            project_id: job.project_id,
            owner: job.owner,
            state: job.state,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            progress: job.progress,
            result: job.result,
            error: job.error,
            trace_id: job.trace_id,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            run_after: job.run_after,
        }
    }
}

/// What a job is made of.
#[derive(Clone, Debug)]
pub(crate) struct NewJob {
    pub(crate) owner: UserId,
    pub(crate) project_id: ProjectId,
    pub(crate) bundle: String,
    pub(crate) operation: String,
    pub(crate) input: Value,
    pub(crate) trace: TraceId,
}

impl From<NewJob> for machine::Job {
    fn from(new: NewJob) -> Self {
        let now = Timestamp::now();
        Self {
            id: JobId::mint(),
            owner: new.owner,
            project_id: new.project_id,
            bundle: new.bundle,
            operation: new.operation,
            input: new.input,
            state: JobState::Queued,
            attempt: 0,
            max_attempts: MAX_ATTEMPTS,
            crashes: 0,
            fence: 0,
            worker: None,
            run_after: now,
            priority: 0,
            share: None,
            unique_key: None,
            progress: Progress::default(),
            checkpoint: None,
            result: None,
            error: None,
            trace_id: new.trace,
            created_at: now,
            started_at: None,
            finished_at: None,
        }
    }
}

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(index))
        .routes(routes!(show))
        .routes(routes!(cancel))
        .routes(routes!(retry))
        .merge(logs::routes())
        .merge(admin::routes())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct JobsPage {
    project_id: Option<ProjectId>,
    state: Option<JobState>,
    #[param(value_type = Option<String>)]
    bundle: Option<Name>,
    /// At most 200.
    #[serde(default)]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Limit,
    /// `next` of the page before.
    cursor: Option<JobId>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Jobs {
    jobs: Vec<Job>,
    next: Option<JobId>,
}

/// Lists the caller's jobs, newest first; an admin's list has everybody's.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(JobsPage), responses((status = 200, body = Jobs)))]
async fn index(own: Own, Query(page): Query<JobsPage>) -> Result<Json<Jobs>, ApiError> {
    let limit = page.limit;
    let filter = Filter {
        owner: (!own.user.roles.admin).then(|| own.user.id.clone()),
        project_id: page.project_id,
        state: page.state,
        bundle: page.bundle.map(Into::into),
        before: page.cursor,
        ..Filter::default()
    };
    let mut jobs = own.read(move |reader| list(reader, &filter, limit.and_one())).await?;
    let next = limit.cut(&mut jobs).map(|last| last.id);
    Ok(Json(Jobs { jobs: jobs.iter().map(Job::from).collect(), next }))
}

/// Shows one job.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Job), (status = 404)))]
async fn show(job: Mine) -> Json<Job> {
    Json(Job::from(&*job))
}

/// Ends a job that has not ended.
#[utoipa::path(post, path = "/jobs/{id}/cancel", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Job), (status = 404), (status = 409, description = "It has ended otherwise")))]
async fn cancel(State(engine): State<Engine>, job: Mine) -> Result<Json<Job>, ApiError> {
    Ok(Json(Job::from(&engine.cancel(&job).await?)))
}

/// Starts a failed or cancelled job over; it goes on from its checkpoint.
#[utoipa::path(post, path = "/jobs/{id}/retry", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 202, body = Job), (status = 404), (status = 409), (status = 503)))]
async fn retry(
    State(engine): State<Engine>,
    job: Mine,
) -> Result<(http::StatusCode, Json<Job>), ApiError> {
    let job = engine.retry(&job, job.roles).await?;
    Ok((http::StatusCode::ACCEPTED, Json(Job::from(&job))))
}

#[cfg(test)]
mod tests;
