//! Registering bundles, for admins.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use shared::{
    http::{BodyError, Json, Path},
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    HttpBundles,
    manifest::{GivenSecret, Manifest, Name, OperationManifest, Registration},
    store::{self, Registered},
    validator,
};
use crate::{
    access::Admin,
    bundles::Registry,
    error::ApiError,
    outgoing::{Address, BUNDLE},
    state::AppState,
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
}

impl From<Registered> for RegisteredBundle {
    fn from(bundle: Registered) -> Self {
        let Manifest { version, description, operations } = bundle.manifest;
        let (name, url, updated_at) = (bundle.name, bundle.url.into(), bundle.updated_at);
        Self { name, url, version, description, operations, updated_at }
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

/// Registers a bundle behind a URL, or another in its place. Jobs that run go on as they began.
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
    let seal =
        |given: GivenSecret| http.caller.outgoing.seal(BUNDLE, name.as_str(), &given.0.text());
    let secret = secret.map(seal).transpose()?;
    let written = database.write(move |tx| {
        let replaced = store::put(tx, name.as_str(), url.as_str(), secret.as_ref(), &text)?;
        Ok::<_, shared::store::Error>(replaced.zip(store::find(tx, name.as_str())?))
    });
    let missing = || field("secret", "a new bundle needs a secret".into());
    let (replaced, bundle) = written.await?.ok_or_else(missing)?;
    tracing::info!(bundle = bundle.name, version = bundle.manifest.version, "bundle registered");
    let status = if replaced { StatusCode::OK } else { StatusCode::CREATED };
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

/// Forgets a bundle. Its jobs fail when they are next tried.
#[utoipa::path(delete, path = "/admin/bundles/{bundle}", tag = "bundles", params(("bundle" = String, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
async fn delete(
    Admin { store: database, .. }: Admin,
    Path(bundle): Path<String>,
) -> Result<StatusCode, ApiError> {
    let name = bundle.clone();
    if !database.write(move |tx| store::delete(tx, &name)).await? {
        return Err(ApiError::NotFound("the bundle"));
    }
    tracing::info!(bundle, "bundle forgotten");
    Ok(StatusCode::NO_CONTENT)
}
