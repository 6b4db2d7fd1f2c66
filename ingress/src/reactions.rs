//! Reactions to messages.

use serde::Serialize;
use shared::{
    http::{Json, Path},
    ids::{Emoji, MessageId, ProjectId, UserId},
    store::Tx,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{As, Granted, Member},
    error::ApiError,
    messages::{Message, store},
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
    let sql = "INSERT INTO reactions (message_id, emoji, user_id, at) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (message_id, emoji, user_id) DO NOTHING";
    member
        .write(move |tx, caller| change(tx, caller, id, &emoji, "reaction.added", sql))
        .await
        .map(Json)
}

#[utoipa::path(delete, path = "/{project}/messages/{id}/reactions/{emoji}", responses((status = 200, body = Message)))]
async fn remove(
    member: As<Member>,
    Path((_project, id, emoji)): Path<(ProjectId, MessageId, Emoji)>,
) -> Result<Json<Message>, ApiError> {
    let sql =
        "DELETE FROM reactions WHERE message_id = $1 AND emoji = $2 AND user_id = $3 AND $4 > 0";
    member
        .write(move |tx, caller| change(tx, caller, id, &emoji, "reaction.removed", sql))
        .await
        .map(Json)
}

/// Runs `sql` and tells of it, if it changed anything; returns the message as it is then.
fn change(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Member>,
    id: MessageId,
    emoji: &Emoji,
    kind: &str,
    sql: &str,
) -> Result<Message, ApiError> {
    if store::get(tx, caller, id)?.deleted_at.is_some() {
        return Err(ApiError::Conflict("the message is deleted"));
    }
    let params = [id.into(), emoji.into(), (&caller.user).into(), Timestamp::now().into()];
    let changed = tx.execute(sql, &params)? > 0;
    let message = store::get(tx, caller, id)?;
    if changed {
        let channel = message.channel.as_str();
        let reaction = ReactionFields { message_id: id, channel, emoji, user: &caller.user };
        caller.record(tx, kind, &ReactionEvent { reaction })?;
    }
    Ok(message)
}
