//! Jobs: what clients see of them, and the routes that list, cancel and repeat them.

mod admin;
mod context;
mod engine;
pub(crate) mod figures;
mod logs;
pub(crate) mod machine;
mod queue;
mod repair;
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
    engine::{Engine, Refusal, Tools, lanes::deliveries_at_once},
    logs::append as log,
    machine::{Job, JobError, Progress, Share},
    queue::QueueLimit,
    repair::repair,
    store::{Filter, Idempotency, apply, apply_all, find, list, submit, unfinished},
};
use crate::{
    access::{Cancellable, Mine, Own, visible},
    bundles::Name,
    error::ApiError,
    ingress::Ingress,
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

impl From<NewJob> for Job {
    fn from(new: NewJob) -> Self {
        let now = Timestamp::now();
        Self {
            id: JobId::mint(),
            owner: new.owner,
            project_id: new.project_id,
            bundle: new.bundle,
            operation: new.operation,
            input: new.input.into(),
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
            snoozed: Duration::ZERO,
            snoozed_at: None,
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

/// Lists the caller's jobs, newest first; an admin's list has everybody's. Jobs of projects in which the caller is no member
/// are left out, so that a page may be short, or for an admin are without their content.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(JobsPage), responses((status = 200, body = Jobs)))]
async fn index(
    own: Own,
    State(ingress): State<Ingress>,
    Query(page): Query<JobsPage>,
) -> Result<Json<Jobs>, ApiError> {
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
    let jobs = visible(&ingress, &own.user, jobs).await?;
    Ok(Json(Jobs { jobs, next }))
}

/// Shows one job.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Job), (status = 404)))]
async fn show(job: Mine) -> Json<Job> {
    Json(job.shown())
}

/// Ends a job that has not ended.
#[utoipa::path(post, path = "/jobs/{id}/cancel", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 200, body = Job), (status = 404), (status = 409, description = "It has ended otherwise")))]
async fn cancel(
    State(engine): State<Engine>,
    Cancellable(job): Cancellable,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(job.show(engine.cancel(&job).await?)))
}

/// Starts a failed or cancelled job over, if its owner may still call its operation; it goes on from its checkpoint.
#[utoipa::path(post, path = "/jobs/{id}/retry", tag = "jobs", params(("id" = JobId, Path)),
    responses((status = 202, body = Job), (status = 403), (status = 404), (status = 409), (status = 503)))]
async fn retry(
    State(engine): State<Engine>,
    job: Mine,
) -> Result<(http::StatusCode, Json<Job>), ApiError> {
    engine.may_run(&job).await?.map_err(|refusal| match refusal {
        Refusal::NoMember => ApiError::Conflict(refusal.to_string()),
        Refusal::RoleTooLow => ApiError::Forbidden("the role of the job's owner is too low"),
    })?;
    let retried = engine.retry(&job, job.user.roles).await?;
    Ok((http::StatusCode::ACCEPTED, Json(job.show(retried))))
}

#[cfg(test)]
mod tests;
