//! Who is typing: told at once to those who listen, nowhere recorded.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    bus::{Bus, Notice},
    http::Json,
    ids::ChannelName,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{As, Member},
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
    State(bus): State<Bus>,
    member: As<Member>,
    Json(typing): Json<Typing>,
) -> Result<StatusCode, ApiError> {
    let event = member
        .read(move |reader, caller| {
            channels::require(reader, caller, &typing.channel)?;
            caller.event("user.typing", &typing, reader.now())
        })
        .await?;
    bus.publish(&member.topic(), Notice::Ephemeral(event.into()));
    Ok(StatusCode::NO_CONTENT)
}
