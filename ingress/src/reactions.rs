//! Reactions to messages.

pub(crate) mod store;

use serde::Serialize;
use shared::{
    http::{Json, Path},
    ids::{ChannelName, Emoji, MessageId, ProjectId, UserId},
    names::is_visible_emoji,
    store::Tx,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{As, Granted, Member},
    error::ApiError,
    messages::{self, Message},
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(add, remove))
}

#[derive(Serialize)]
struct ReactionEvent<'a> {
    reaction: ReactionFields<'a>,
}

#[derive(Serialize)]
struct ReactionFields<'a> {
    message_id: MessageId,
    channel: &'a str,
    emoji: &'a Emoji,
    user: &'a UserId,
}

#[utoipa::path(put, path = "/{project}/messages/{id}/reactions/{emoji}", responses((status = 200, body = Message)))]
async fn add(
    member: As<Member>,
    Path((_project, id, emoji)): Path<(ProjectId, MessageId, Emoji)>,
) -> Result<Json<Message>, ApiError> {
    // One that has such characters from before can still be removed.
    if !is_visible_emoji(emoji.as_str()) {
        let message = "an emoji has no direction marks or other invisible characters".to_owned();
        return Err(ApiError::Field { field: "emoji", message });
    }
    member
        .write(move |tx, caller| {
            let channel = messages::store::channel_of_undeleted(tx, caller, id)?;
            let added = store::add(tx, id, &emoji, &caller.user, tx.now())?
                .ok_or(ApiError::Conflict("a message has at most 50 kinds of reaction"))?;
            if added.is_changed {
                record(tx, caller, "reaction.added", id, &channel, &added.emoji)?;
            }
            messages::store::get(tx, caller, id).map(Json)
        })
        .await
}

#[utoipa::path(delete, path = "/{project}/messages/{id}/reactions/{emoji}", responses((status = 200, body = Message)))]
async fn remove(
    member: As<Member>,
    Path((_project, id, emoji)): Path<(ProjectId, MessageId, Emoji)>,
) -> Result<Json<Message>, ApiError> {
    member
        .write(move |tx, caller| {
            let channel = messages::store::channel_of_undeleted(tx, caller, id)?;
            let removed = store::remove(tx, id, &emoji, &caller.user)?;
            if removed.is_changed {
                record(tx, caller, "reaction.removed", id, &channel, &removed.emoji)?;
            }
            messages::store::get(tx, caller, id).map(Json)
        })
        .await
}

/// Appends the event of a reaction by the caller.
fn record(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Member>,
    kind: &str,
    message_id: MessageId,
    channel: &ChannelName,
    emoji: &Emoji,
) -> Result<(), ApiError> {
    let channel = channel.as_str();
    let reaction = ReactionFields { message_id, channel, emoji, user: &caller.user };
    caller.record(tx, kind, &ReactionEvent { reaction })
}
