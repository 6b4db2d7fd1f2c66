//! Calling an operation: who may, with what input, and how long the caller waits for it.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::{
    auth::User,
    http::{BodyError, Json, Path, RetryKey, current_trace},
    ids::{IdempotencyKey, ProjectId, TraceId, UserId},
    lifecycle::Lifecycle,
    limits::Aside,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Declared, Registry};
use crate::{
    error::ApiError,
    ingress::Ingress,
    jobs::{Engine, Idempotency, Job, NewJob, machine},
    state::AppState,
};

/// The longest that `Prefer: wait` waits.
const MAX_WAIT: Duration = Duration::from_secs(25);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(submit))
}

/// What an operation is called with.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Submission {
    /// The project that the job works in.
    project_id: ProjectId,
    /// The operation's input, as its JSON Schema says.
    #[serde(default = "no_data")]
    data: Value,
}

pub(crate) fn no_data() -> Value {
    Value::Object(serde_json::Map::new())
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
    State(ingress): State<Ingress>,
    State(lifecycle): State<Lifecycle>,
    aside: Aside,
    user: User,
    Path((bundle, operation)): Path<(String, String)>,
    RetryKey(key): RetryKey,
    headers: HeaderMap,
    body: Result<Json<Submission>, BodyError>,
) -> Result<Response, ApiError> {
    let declared = registry.find_callable(&bundle, &operation).await?;
    let declared = declared.ok_or(ApiError::NotFound("the operation"))?;
    let Json(Submission { project_id, data }) = body?;
    let trace = current_trace().unwrap_or_else(TraceId::mint);
    declared.authorize(&ingress, &user.id, project_id, &trace).await?;
    declared.check(&data)?;
    let idempotency = key.map(|key| idempotency(key, project_id, &data));
    let new = NewJob { owner: user.id.clone(), project_id, bundle, operation, input: data, trace };
    let mut job = engine.submit(new.into(), user.roles, idempotency).await?;
    let wait = wait(&headers);
    if let Some(wait) = wait.filter(|_| !job.state.is_terminal()) {
        let closing = lifecycle.closing();
        let waited = closing.run_until_cancelled(engine.wait(job.id, &user.id, wait));
        if let Some(waited) = aside.wait(waited).await {
            job = waited?;
        }
    }
    let status = if job.state.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = format!("/api/integrations/jobs/{}", job.id);
    let mut response =
        (status, [(header::LOCATION, location)], Json(Job::from(&job))).into_response();
    if let Some(wait) = wait
        && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

impl Declared {
    /// Refuses a user whose role in the project does not allow them to call the operation.
    pub(crate) async fn authorize(
        &self,
        ingress: &Ingress,
        user: &UserId,
        project: ProjectId,
        trace: &TraceId,
    ) -> Result<(), ApiError> {
        let role = ingress.role(user, project, trace).await?;
        let role = role.ok_or(ApiError::NotFound("the project"))?;
        if role < self.operation.role() {
            return Err(ApiError::Forbidden("your role in the project does not allow this"));
        }
        Ok(())
    }

    /// Gives a new job what its operation says of it.
    pub(crate) fn prepare(&self, job: &mut machine::Job) {
        job.priority = self.operation.priority();
        job.share = self.operation.share(job);
        job.unique_key = self.operation.unique_key(job);
    }

    /// Holds the input to the operation's schema.
    pub(crate) fn check(&self, data: &Value) -> Result<(), ApiError> {
        self.validator.validate(data).map_err(|error| ApiError::Field {
            field: field(&error),
            message: error.masked().to_string(),
        })
    }
}

/// Names the field that is wrong, from the body's root on.
fn field(error: &ValidationError<'_>) -> String {
    let path = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
    let within = match error.kind() {
        ValidationErrorKind::Required { property } => property.as_str(),
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.first().map(String::as_str)
        }
        _ => None,
    };
    let parts = ["data", &path, within.unwrap_or_default()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

fn idempotency(key: IdempotencyKey, project: ProjectId, data: &Value) -> Idempotency {
    let mut digest = Sha256::new();
    digest.update(project.0.as_bytes());
    digest.update(data.to_string());
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
