//! What handlers are given.

use std::sync::Arc;

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

shared::app_state! {
    auth: Auth,
    store: Guarded,
    lifecycle: Lifecycle,
    blobs: Blobs,
    ingress: Ingress,
    roles: ProjectRoles,
    registry: Arc<Registry>,
    http_bundles: HttpBundles,
    engine: Engine,
    outgoing: Outgoing,
    uploads: UploadsConfig,
    quota: Quota,
}
