//! How far each user has read in each channel.

use serde::{Deserialize, Serialize};
use shared::{
    http::Json,
    ids::{ChannelName, MessageId, UserId},
    store::Tx,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{As, Granted, Viewer},
    error::ApiError,
    messages::store::get,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, set))
}

/// How far a user has read a channel.
#[derive(Serialize, utoipa::ToSchema)]
struct ReadMark {
    user: UserId,
    channel: ChannelName,
    message_id: MessageId,
    at: Timestamp,
}

#[derive(Serialize)]
struct ReadEvent<'a> {
    read: &'a ReadMark,
}

/// The caller's own marks, one for each channel read.
#[derive(Serialize, utoipa::ToSchema)]
struct ReadMarks {
    reads: Vec<ReadMark>,
    next: Option<ChannelName>,
}

#[derive(Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ReadFields {
    channel: ChannelName,
    message_id: MessageId,
}

#[utoipa::path(get, path = "/{project}/read", responses((status = 200, body = ReadMarks)))]
async fn list(viewer: As<Viewer>) -> Result<Json<ReadMarks>, ApiError> {
    viewer
        .read(|reader, caller| {
            let sql = "SELECT user_id, channel, message_id, at FROM read_marks \
                       WHERE project_id = $1 AND user_id = $2 ORDER BY channel";
            let reads =
                reader.query(sql, &[caller.project.into(), (&caller.user).into()], |row| {
                    Ok(ReadMark {
                        user: row.parse(0)?,
                        channel: row.parse(1)?,
                        message_id: row.get(2)?,
                        at: row.get(3)?,
                    })
                })?;
            Ok(Json(ReadMarks { reads, next: None }))
        })
        .await
}

#[utoipa::path(put, path = "/{project}/read", request_body = ReadFields, responses((status = 200, body = ReadMark)))]
async fn set(
    viewer: As<Viewer>,
    Json(fields): Json<ReadFields>,
) -> Result<Json<ReadMark>, ApiError> {
    viewer.write(move |tx, caller| advance(tx, caller, &fields)).await.map(Json)
}

/// Moves the mark forward; a mark for an older message than the present one changes nothing.
fn advance(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Viewer>,
    fields: &ReadFields,
) -> Result<ReadMark, ApiError> {
    let ReadFields { channel, message_id } = fields.clone();
    let message = get(tx, caller, message_id).ok().filter(|message| message.channel == channel);
    let message = message.ok_or(ApiError::Field {
        field: "message_id",
        message: "the channel has no such message".into(),
    })?;
    let sql = "SELECT r.message_id, r.at, m.created_at FROM read_marks r LEFT JOIN messages m ON m.id = r.message_id \
               WHERE r.project_id = $1 AND r.channel = $2 AND r.user_id = $3";
    let params = [caller.project.into(), (&channel).into(), (&caller.user).into()];
    let before = tx.find(sql, &params, |row| {
        let place =
            (row.get::<Option<Timestamp>>(2)?.unwrap_or_default(), row.get::<MessageId>(0)?);
        Ok((place, row.get::<Timestamp>(1)?))
    })?;
    let mark = |message_id, at| ReadMark {
        user: caller.user.clone(),
        channel: channel.clone(),
        message_id,
        at,
    };
    if let Some((place, at)) = before
        && place >= (message.created_at, message_id)
    {
        return Ok(mark(place.1, at));
    }
    let read = mark(message_id, tx.now());
    tx.execute(
        "INSERT INTO read_marks (project_id, channel, user_id, message_id, at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (project_id, channel, user_id) DO UPDATE SET message_id = excluded.message_id, at = excluded.at",
        &[
            caller.project.into(),
            (&read.channel).into(),
            (&caller.user).into(),
            message_id.into(),
            read.at.into(),
        ],
    )?;
    caller.record(tx, "read.updated", &ReadEvent { read: &read })?;
    Ok(read)
}
