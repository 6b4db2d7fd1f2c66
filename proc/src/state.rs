//! What handlers are given.

use std::sync::Arc;

use axum::extract::FromRef;
use shared::{auth::Auth, lifecycle::Lifecycle};

use crate::{
    UploadsConfig,
    access::{Guarded, ProjectRoles},
    blobs::Blobs,
    bundles::{HttpBundles, Registry},
    ingress::Ingress,
    jobs::Engine,
    outgoing::Outgoing,
    storage::Quota,
};

/// Everything a handler may ask for, by its type.
#[derive(Clone, Debug, FromRef)]
pub(crate) struct AppState {
    pub(crate) auth: Auth,
    pub(crate) store: Guarded,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) blobs: Blobs,
    pub(crate) ingress: Ingress,
    pub(crate) roles: ProjectRoles,
    pub(crate) registry: Arc<Registry>,
    pub(crate) http_bundles: HttpBundles,
    pub(crate) engine: Engine,
    pub(crate) outgoing: Outgoing,
    pub(crate) uploads: UploadsConfig,
    pub(crate) quota: Quota,
}
