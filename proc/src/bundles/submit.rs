//! Calling an operation: who may, with what input, and how long the caller waits for it.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::{
    auth::User,
    http::{BodyError, Json, Path, RetryKey, current_trace},
    ids::{IdempotencyKey, JobId, ProjectId, TraceId, UserId},
    lifecycle::Lifecycle,
    limits::{Aside, More},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Declared, GivenInput, Registry, Unfit};
use crate::{
    access::ProjectRoles,
    error::ApiError,
    jobs::{Engine, Idempotency, Job, NewJob, machine},
    state::AppState,
};

/// The longest that `Prefer: wait` waits.
const MAX_WAIT: Duration = Duration::from_secs(25);
/// Jobs that one request may make.
const MAX_BATCH: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(submit)).routes(routes!(submit_all))
}

/// What an operation is called with.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Submission {
    /// The project that the job works in.
    project_id: ProjectId,
    /// The operation's input, as its JSON Schema says.
    #[serde(default = "no_data")]
    #[schema(value_type = Value)]
    data: GivenInput,
}

pub(crate) fn no_data() -> GivenInput {
    Value::Object(serde_json::Map::new()).into()
}

/// Calls an operation: a job is made of it.
#[utoipa::path(post, path = "/bundles/{bundle}/operations/{operation}", tag = "bundles",
    params(("bundle" = String, Path), ("operation" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key again gives the first job"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds, at most 25, for the job's end")),
    request_body = Submission,
    responses((status = 200, body = Job, description = "It has ended"), (status = 202, body = Job), (status = 403),
        (status = 404), (status = 409), (status = 422), (status = 503)))]
#[expect(clippy::too_many_arguments, reason = "extractors")]
async fn submit(
    State(registry): State<Arc<Registry>>,
    State(engine): State<Engine>,
    State(roles): State<ProjectRoles>,
    State(lifecycle): State<Lifecycle>,
    aside: Aside,
    user: User,
    Path((bundle, operation)): Path<(String, String)>,
    RetryKey(key): RetryKey,
    headers: HeaderMap,
    body: Result<Json<Submission>, BodyError>,
) -> Result<Response, ApiError> {
    let declared = registry.find_callable(&bundle, &operation).await?;
    let Json(Submission { project_id, data }) = read_body(declared.as_ref(), key.as_ref(), body)?;
    let trace = current_trace().unwrap_or_else(TraceId::mint);
    authorize(declared.as_ref(), &roles, &user.id, project_id, &trace).await?;
    let admitted = match &declared {
        Some(declared) => declared.check_given(&data, "data"),
        None => Err(UNKNOWN),
    };
    let data = data.into_value();
    let idempotency = key.map(|key| idempotency(key, project_id, &data));
    let owner = user.id.clone();
    let new = NewJob { owner, project_id, bundle, operation, input: data, trace: trace.clone() };
    let mut job = match admitted {
        Ok(()) => engine.submit(new.into(), user.roles, idempotency).await?,
        Err(refused) => {
            let mut first = engine.submitted_before(vec![new.into()], idempotency).await?;
            Arc::unwrap_or_clone(first.pop().ok_or(refused)?)
        }
    };
    let wait = wait(&headers);
    if let Some(wait) = wait.filter(|_| !job.state.is_terminal()) {
        let closing = lifecycle.closing();
        let waited = closing.run_until_cancelled(engine.wait(job.id, &user.id, wait));
        if let Some(waited) = aside.wait(waited).await {
            job = waited?;
        }
        // Meanwhile the caller may have been removed.
        if roles.role(&(user.id.clone(), project_id), &trace).await?.is_none() {
            return Err(ApiError::NotFound("the project"));
        }
    }
    let status = if job.state.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = format!("/api/integrations/jobs/{}", job.id);
    let mut response = (status, [(header::LOCATION, location)], Json(job)).into_response();
    if let Some(wait) = wait
        && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

/// What an operation is called with, once for each of several jobs.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Batch {
    /// The project that the jobs work in.
    project_id: ProjectId,
    /// The operation's inputs, from 1 to 1,000, each as its JSON Schema says.
    #[schema(min_items = 1, max_items = 1000, value_type = Vec<Value>)]
    data: Vec<GivenInput>,
}

/// Jobs that were made together.
#[derive(Serialize, utoipa::ToSchema)]
struct Submitted {
    /// In the order of their inputs.
    jobs: Vec<SubmittedJob>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct SubmittedJob {
    id: JobId,
    state: machine::State,
}

/// Calls an operation many times at once: a job is made of each input, or of none.
#[utoipa::path(post, path = "/bundles/{bundle}/operations/{operation}/batch", tag = "bundles",
    params(("bundle" = String, Path), ("operation" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key again gives the first jobs")),
    request_body = Batch,
    responses((status = 202, body = Submitted), (status = 403), (status = 404), (status = 409), (status = 422),
        (status = 429, description = "Each job counts as a submission"), (status = 503)))]
#[expect(clippy::too_many_arguments, reason = "extractors")]
async fn submit_all(
    State(registry): State<Arc<Registry>>,
    State(engine): State<Engine>,
    State(roles): State<ProjectRoles>,
    user: User,
    more: More,
    Path((bundle, operation)): Path<(String, String)>,
    RetryKey(key): RetryKey,
    body: Result<Json<Batch>, BodyError>,
) -> Result<Response, ApiError> {
    let declared = registry.find_callable(&bundle, &operation).await?;
    let Json(Batch { project_id, data }) = read_body(declared.as_ref(), key.as_ref(), body)?;
    let trace = current_trace().unwrap_or_else(TraceId::mint);
    authorize(declared.as_ref(), &roles, &user.id, project_id, &trace).await?;
    if data.is_empty() || data.len() > MAX_BATCH {
        let message = format!("must have from 1 to {MAX_BATCH} inputs");
        return Err(ApiError::Field { field: "data".into(), message });
    }
    let check = |(number, data)| match &declared {
        Some(declared) => declared.check_given(data, &format!("data.{number}")),
        None => Err(UNKNOWN),
    };
    let admitted = data.iter().enumerate().try_for_each(check);
    more.take(data.len() - 1)?;
    let data: Vec<Value> = data.into_iter().map(GivenInput::into_value).collect();
    let idempotency = key.map(|key| idempotency(key, project_id, &data));
    let new = data.into_iter().map(|data| {
        let (owner, bundle, operation) = (user.id.clone(), bundle.clone(), operation.clone());
        NewJob { owner, project_id, bundle, operation, input: data, trace: trace.clone() }.into()
    });
    let jobs = match admitted {
        Ok(()) => engine.submit_all(new.collect(), user.roles, idempotency).await?,
        Err(refused) => {
            let first = engine.submitted_before(new.collect(), idempotency).await?;
            if first.is_empty() {
                return Err(refused);
            }
            first
        }
    };
    let jobs = jobs.iter().map(|job| SubmittedJob { id: job.id, state: job.state });
    Ok((StatusCode::ACCEPTED, Json(Submitted { jobs: jobs.collect() })).into_response())
}

const UNKNOWN: ApiError = ApiError::NotFound("the operation");

/// Returns the body of a submission. That of an unknown operation matters only if the request may be a repeated one.
fn read_body<T>(
    declared: Option<&Arc<Declared>>,
    key: Option<&IdempotencyKey>,
    body: Result<Json<T>, BodyError>,
) -> Result<Json<T>, ApiError> {
    match (declared, key, body) {
        (None, None, _) | (None, _, Err(_)) => Err(UNKNOWN),
        (_, _, body) => Ok(body?),
    }
}

/// Refuses a user whose role in the project does not allow them to call the operation. An operation that is gone may be asked
/// for by members, who get the jobs that the same request made before.
async fn authorize(
    declared: Option<&Arc<Declared>>,
    roles: &ProjectRoles,
    user: &UserId,
    project: ProjectId,
    trace: &TraceId,
) -> Result<(), ApiError> {
    if let Some(declared) = declared {
        return declared.authorize(roles, user, project, trace).await;
    }
    let role = roles.ask(&(user.clone(), project), trace).await?;
    role.map(drop).ok_or(UNKNOWN)
}

impl Declared {
    /// Refuses a user whose role in the project does not allow them to call the operation.
    pub(crate) async fn authorize(
        &self,
        roles: &ProjectRoles,
        user: &UserId,
        project: ProjectId,
        trace: &TraceId,
    ) -> Result<(), ApiError> {
        let role = roles.ask(&(user.clone(), project), trace).await?;
        let role = role.ok_or(ApiError::NotFound("the project"))?;
        if role < self.operation.role() {
            return Err(ApiError::Forbidden("your role in the project does not allow this"));
        }
        Ok(())
    }

    /// Gives a new job what its operation says of it.
    pub(crate) fn prepare(&self, job: &mut Job) {
        job.priority = self.operation.priority();
        job.share = self.operation.share(job);
        job.unique_key = self.operation.unique_key(job);
    }

    /// Holds an input, which is at a place in the body, to the operation's schema, and its numbers to 64 bits.
    pub(crate) fn check_given(&self, given: &GivenInput, place: &str) -> Result<(), ApiError> {
        given.check_numbers(place)?;
        self.check_at(given.value(), place)
    }

    /// Holds the input to the operation's schema.
    pub(crate) fn check(&self, data: &Value) -> Result<(), ApiError> {
        self.check_at(data, "data")
    }

    /// Holds an input, which is at a place in the body, to the operation's schema.
    fn check_at(&self, data: &Value, place: &str) -> Result<(), ApiError> {
        self.validator.validate(data).map_err(|error| ApiError::Field {
            field: field(place, &error),
            message: error.masked().to_string(),
        })?;
        let unfit = |Unfit { field, reason }| ApiError::Field {
            field: format!("{place}.{field}"),
            message: reason.into(),
        };
        self.operation.check(data).map_err(unfit)
    }
}

/// Names the field that is wrong, from the body's root on.
fn field(place: &str, error: &ValidationError<'_>) -> String {
    let path = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
    let within = match error.kind() {
        ValidationErrorKind::Required { property } => property.as_str(),
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.first().map(String::as_str)
        }
        _ => None,
    };
    let parts = [place, &path, within.unwrap_or_default()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

fn idempotency(
    key: IdempotencyKey,
    project: ProjectId,
    data: &(impl Serialize + ?Sized),
) -> Idempotency {
    let mut digest = Sha256::new();
    digest.update(project.0.as_bytes());
    // It was JSON, so it can be written as that.
    digest.update(serde_json::to_vec(data).unwrap_or_default());
    Idempotency { key, request: digest.finalize().into() }
}

/// Reads `Prefer: wait=N`. Preferences that cannot be read are ignored, as RFC 7240 has it.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let seconds = preferences.find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then(|| value.trim().trim_matches('"').parse().ok())?
    })?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}
