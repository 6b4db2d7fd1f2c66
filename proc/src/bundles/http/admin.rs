//! Registering bundles, for admins.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use shared::{
    http::{BodyError, Json, Path},
    store::Tx,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    HttpBundles, deleted, limits,
    manifest::{GivenSecret, Manifest, Name, OperationManifest, Registration},
    store::{self, NewBundle, Put, PutError, Registered},
    validator,
};
use crate::{
    access::Admin, bundles::Registry, error::ApiError, outgoing::Address, state::AppState,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, put, delete))
}

/// A registered bundle as admins see it, without its secret.
#[derive(Serialize, utoipa::ToSchema)]
struct RegisteredBundle {
    name: String,
    url: String,
    version: String,
    description: String,
    operations: Vec<OperationManifest>,
    updated_at: Timestamp,
    /// Until when the secret that was replaced last is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_secret_until: Option<Timestamp>,
}

impl From<Registered> for RegisteredBundle {
    fn from(bundle: Registered) -> Self {
        let old_secret_until = bundle.old_secret_until();
        let Manifest { version, description, operations } = bundle.manifest;
        let (name, url, updated_at) = (bundle.name, bundle.url.into(), bundle.updated_at);
        Self { name, url, version, description, operations, updated_at, old_secret_until }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
struct RegisteredBundles {
    bundles: Vec<RegisteredBundle>,
    next: Option<String>,
}

/// Lists the bundles behind a URL.
#[utoipa::path(get, path = "/admin/bundles", tag = "bundles",
    responses((status = 200, body = RegisteredBundles), (status = 403)))]
async fn list(Admin { store: database, .. }: Admin) -> Result<Json<RegisteredBundles>, ApiError> {
    let bundles = database.read(store::list).await?;
    let bundles = bundles.into_iter().map(Into::into).collect();
    Ok(Json(RegisteredBundles { bundles, next: None }))
}

/// Shows a bundle behind a URL.
#[utoipa::path(get, path = "/admin/bundles/{bundle}", tag = "bundles", params(("bundle" = String, Path)),
    responses((status = 200, body = RegisteredBundle), (status = 403), (status = 404)))]
async fn show(
    Admin { store: database, .. }: Admin,
    Path(bundle): Path<String>,
) -> Result<Json<RegisteredBundle>, ApiError> {
    let found = database.read(move |reader| store::find(reader, &bundle)).await?;
    found.map(|bundle| Json(bundle.into())).ok_or(ApiError::NotFound("the bundle"))
}

/// Registers a bundle behind a URL, or another in its place. Jobs that run go on as they began, and a secret that is replaced
/// is good for another day.
#[utoipa::path(put, path = "/admin/bundles/{bundle}", tag = "bundles", params(("bundle" = String, Path)),
    request_body = Registration,
    responses((status = 200, body = RegisteredBundle, description = "Another was in its place"),
        (status = 201, body = RegisteredBundle), (status = 403), (status = 409, description = "A built-in bundle has the name"),
        (status = 422)))]
async fn put(
    Admin { store: database, .. }: Admin,
    State(http): State<HttpBundles>,
    State(registry): State<Arc<Registry>>,
    Path(bundle): Path<String>,
    body: Result<Json<Registration>, BodyError>,
) -> Result<(StatusCode, Json<RegisteredBundle>), ApiError> {
    let Json(Registration { url, secret, version, description, operations }) = body?;
    let name = Name::try_from(bundle).map_err(ApiError::Invalid)?;
    if registry.is_built_in(name.as_str()) {
        return Err(ApiError::Conflict("a built-in bundle has this name".into()));
    }
    let manifest = Manifest { version, description, operations };
    check(&manifest)?;
    let Address(url) = url;
    let field = |field: &str, message: String| ApiError::Field { field: field.into(), message };
    http.caller.outgoing.guard().check_name(&url).await?;
    let text = json!(manifest).to_string();
    let outgoing = http.caller.outgoing.clone();
    let written = database.write(move |tx| {
        let name = name.as_str();
        let secret = secret.as_ref().map(|GivenSecret(secret)| secret);
        let new = NewBundle { name, url: url.as_str(), secret, manifest: &text };
        let put = store::put(tx, &outgoing, &new)?;
        if !matches!(put, Put::NoSecret) {
            limits::put(tx, name, &manifest.operations)?;
        }
        Ok::<_, PutError>((put, store::find(tx, name)?))
    });
    let (put, bundle) = written.await.map_err(|error| match error {
        PutError::Store(error) => ApiError::from(error),
        PutError::Seal(error) => ApiError::from(error),
        PutError::TooManySecrets(until) => {
            let message =
                "the secret was replaced three times within a day, and each of them is still good";
            ApiError::Conflict(format!("{message}; replace it again after {until}"))
        }
    })?;
    let status = match put {
        Put::Created => StatusCode::CREATED,
        Put::Replaced => StatusCode::OK,
        Put::NoSecret => return Err(field("secret", "a new bundle needs a secret".into())),
    };
    let bundle = bundle.ok_or(ApiError::NotFound("the bundle"))?;
    tracing::info!(bundle = bundle.name, version = bundle.manifest.version, "bundle registered");
    Ok((status, Json(bundle.into())))
}

fn check(manifest: &Manifest) -> Result<(), ApiError> {
    if let Some((field, message)) = manifest.refusal() {
        return Err(ApiError::Field { field, message: message.into() });
    }
    for (number, operation) in manifest.operations.iter().enumerate() {
        validator(operation).map_err(|message| ApiError::Field {
            field: format!("operations[{number}].input"),
            message,
        })?;
    }
    Ok(())
}

/// Deletes a bundle. Its jobs that wait for a worker or for a callback fail with `unknown_operation`; a job whose answer is
/// being read goes on. For a day its callbacks are known and answered 409.
#[utoipa::path(delete, path = "/admin/bundles/{bundle}", tag = "bundles", params(("bundle" = String, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
async fn delete(
    Admin { store: database, .. }: Admin,
    Path(bundle): Path<String>,
) -> Result<StatusCode, ApiError> {
    let name = bundle.clone();
    let delete = move |tx: &mut Tx<'_>| {
        limits::delete(tx, &name)?;
        store::delete(tx, &name)
    };
    if !database.write(delete).await? {
        return Err(ApiError::NotFound("the bundle"));
    }
    let ended = deleted::end_jobs(&database, &bundle).await?;
    tracing::info!(bundle, ended, "bundle deleted");
    Ok(StatusCode::NO_CONTENT)
}
