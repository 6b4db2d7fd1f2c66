//! Who is typing: told at once to those who listen, nowhere recorded.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    auth::User,
    bus::{Bus, Notice},
    http::{Json, Path},
    ids::{ChannelName, ProjectId},
    journal::Topic,
    store::Store,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{Caller, Role},
    channels,
    error::ApiError,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(typing))
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Typing {
    channel: ChannelName,
}

#[utoipa::path(post, path = "/{project}/typing", request_body = Typing, responses((status = 204)))]
async fn typing(
    State(store): State<Store>,
    State(bus): State<Bus>,
    user: User,
    Path(project): Path<ProjectId>,
    Json(typing): Json<Typing>,
) -> Result<StatusCode, ApiError> {
    let caller = Caller::new(project, &user);
    let event = store
        .read(move |reader| {
            caller.require(reader, Role::Member)?;
            channels::require(reader, project, &typing.channel)?;
            caller.event("user.typing", &typing)
        })
        .await?;
    bus.publish(&Topic::project(project), Notice::Ephemeral(event.into()));
    Ok(StatusCode::NO_CONTENT)
}
