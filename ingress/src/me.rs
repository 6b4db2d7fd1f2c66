//! `/api/auth/me`: who the caller is.

use axum::extract::State;
use serde::Serialize;
use shared::{
    auth::{Auth, User},
    http::Json,
    ids::{SessionId, UserId},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::AppState;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The caller as the server sees them.
#[derive(Serialize, utoipa::ToSchema)]
struct Me {
    user: UserId,
    name: String,
    roles: Vec<&'static str>,
    session_id: SessionId,
    auth_mode: &'static str,
}

#[utoipa::path(get, path = "/api/auth/me", responses((status = 200, body = Me)))]
async fn show(State(auth): State<Auth>, user: User) -> Json<Me> {
    Json(Me {
        user: user.id,
        name: user.name,
        roles: user.roles.names(),
        session_id: user.session,
        auth_mode: auth.mode(),
    })
}
