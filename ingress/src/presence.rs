//! Who is there: everybody with an open stream on any replica, and for a grace after their last one closed.

mod keeper;
mod rows;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::{http::Json, ids::UserId, time::Timestamp};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::keeper::{Here, Presence};
use crate::{
    access::{As, Viewer},
    error::ApiError,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, set))
}

/// How present a user is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Presentness {
    Online,
    Away,
    Offline,
}

/// A user's presence in a project.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct UserPresence {
    user: UserId,
    state: Presentness,
    /// Since when.
    since: Timestamp,
}

#[derive(Serialize)]
struct PresenceEvent<'a> {
    presence: &'a UserPresence,
}

/// Everybody who is not offline.
#[derive(Serialize, utoipa::ToSchema)]
struct PresenceList {
    presence: Vec<UserPresence>,
    next: Option<UserId>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PresenceFields {
    state: Presentness,
}

impl Presentness {
    fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Away => "away",
            Self::Offline => "offline",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Online, Self::Away, Self::Offline].into_iter().find(|state| state.as_str() == name)
    }
}

#[utoipa::path(get, path = "/{project}/presence", responses((status = 200, body = PresenceList)))]
async fn list(viewer: As<Viewer>) -> Result<Json<PresenceList>, ApiError> {
    let list = viewer.read(|reader, caller| Ok(rows::list(reader, caller.project)?));
    Ok(Json(PresenceList { presence: list.await?, next: None }))
}

#[utoipa::path(put, path = "/{project}/presence", request_body = PresenceFields, responses((status = 200, body = UserPresence)))]
async fn set(
    State(presence): State<Presence>,
    viewer: As<Viewer>,
    Json(PresenceFields { state }): Json<PresenceFields>,
) -> Result<Json<UserPresence>, ApiError> {
    presence.set(&viewer, state).await.map(Json)
}
