//! The long-poll fallback: a project's log for who cannot hold a stream.

use std::{sync::Arc, time::Duration};

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    auth::User,
    http::{Json, Query},
    journal::{Cursor, Entry, ResetReason, Start},
    lifecycle::Lifecycle,
    limits::Aside,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{As, Viewer},
    error::ApiError,
    presence::Presence,
    state::AppState,
    streams::hub::Hub,
};

/// The longest wait.
const MAX_WAIT_SECONDS: f64 = 25.0;
/// Events in one answer, and their bytes.
const PAGE: i64 = 200;
const PAGE_BYTES: usize = 1024 * 1024;

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Poll {
    /// The cursor of the answer before; without one, the log's end.
    after: Option<String>,
    /// How long to wait for an event, in seconds, at most 25.
    #[serde(default)]
    wait: f64,
}

/// Events in the log's order.
#[derive(Serialize, utoipa::ToSchema)]
struct EventPage {
    #[schema(value_type = Vec<serde_json::Map<String, serde_json::Value>>)]
    events: Vec<Box<RawValue>>,
    /// What to give as `after` next.
    cursor: String,
    /// Why the log does not go on at `after`: fetch the state anew.
    #[schema(value_type = Option<String>)]
    reset: Option<ResetReason>,
}

#[utoipa::path(get, path = "/{project}/events", params(Poll), responses((status = 200, body = EventPage)))]
async fn list(
    State(hub): State<Hub>,
    State(lifecycle): State<Lifecycle>,
    State(presence): State<Presence>,
    aside: Aside,
    viewer: As<Viewer>,
    user: User,
    Query(poll): Query<Poll>,
) -> Result<Json<EventPage>, ApiError> {
    if !(0.0..=MAX_WAIT_SECONDS).contains(&poll.wait) {
        return Err(ApiError::Invalid("wait is 0 to 25 seconds"));
    }
    let topic = viewer.topic();
    let wait = Duration::from_secs_f64(poll.wait);
    let read = async || read(&viewer, user.clone(), poll.after.clone()).await;
    let (mut start, mut entries) = read().await?;
    let quiet = |start: &Start, entries: &[Arc<Entry>]| entries.is_empty() && start.reset.is_none();
    if !wait.is_zero() {
        presence.poll(&viewer);
    }
    if quiet(&start, &entries) && poll.after.is_some() && !wait.is_zero() {
        // Once more after listening began, so that nothing falls between.
        let follower = hub.follow(&topic).await?;
        let mut growth = follower.growth();
        (start, entries) = read().await?;
        if quiet(&start, &entries) {
            let closing = lifecycle.closing();
            let arrived = closing.run_until_cancelled(growth.changed());
            let _ = aside.wait(tokio::time::timeout(wait, arrived)).await;
            // Read anew rather than passed on: the caller may have been removed or signed out meanwhile.
            (start, entries) = read().await?;
        }
    }
    let position = entries.last().map_or(start.position, |entry| entry.position);
    let events = entries.iter().map(|entry| RawValue::from_string(entry.data.to_string()));
    Ok(Json(EventPage {
        events: events.collect::<Result<_, _>>()?,
        cursor: Cursor::at(&topic, position).to_string(),
        reset: start.reset,
    }))
}

async fn read(
    viewer: &As<Viewer>,
    user: User,
    after: Option<String>,
) -> Result<(Start, Vec<Arc<Entry>>), ApiError> {
    viewer
        .read(move |reader, caller| {
            user.require(reader, reader.now())?;
            let topic = caller.topic();
            let start =
                reader.start(&topic, after.as_deref())?.ok_or(ApiError::NotFound("the project"))?;
            let entries = reader.entries_within(&topic, start.position.seq, PAGE, PAGE_BYTES)?;
            Ok((start, entries))
        })
        .await
}
