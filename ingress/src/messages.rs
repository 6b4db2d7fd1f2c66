//! Messages: send, edit, delete, history.

pub(crate) mod store;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    http::{Json, Limit, Path, Query, RetryKey},
    ids::{ChannelName, IdempotencyKey, MessageId, ProjectId, UserId},
    journal::Cursor,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::store::{Draft, History, Sent};
use crate::{
    access::{As, Member, Viewer},
    error::ApiError,
    reactions::store::Reaction,
    state::AppState,
    streams::{json_bytes, one_line},
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, send)).routes(routes!(show, edit, delete))
}

/// The longest text in characters, and in bytes of JSON as events have it: an event of 64,000 bytes has room for it.
const MAX_TEXT_CHARS: usize = 32_000;
const MAX_TEXT_BYTES: usize = 56 * 1024;
/// The longest metadata in bytes of JSON as events have it.
const MAX_METADATA_BYTES: usize = 4 * 1024;

/// A message. One that was deleted stays in its place, without its text.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Message {
    pub(crate) id: MessageId,
    pub(crate) project_id: ProjectId,
    pub(crate) channel: ChannelName,
    pub(crate) author: UserId,
    /// The author's name to show.
    pub(crate) author_name: String,
    pub(crate) text: String,
    pub(crate) reply_to: Option<MessageId>,
    #[schema(value_type = Option<serde_json::Map<String, serde_json::Value>>)]
    pub(crate) metadata: Option<Box<RawValue>>,
    pub(crate) reactions: Vec<Reaction>,
    pub(crate) created_at: Timestamp,
    /// When it was last edited.
    pub(crate) updated_at: Option<Timestamp>,
    pub(crate) deleted_at: Option<Timestamp>,
}

impl Message {
    /// Returns roughly how many bytes of JSON the message is.
    fn json_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        let reactions = self.reactions.iter().map(Reaction::json_bytes);
        self.text.len() + metadata + reactions.sum::<usize>() + 400
    }
}

#[derive(Serialize)]
pub(crate) struct MessageEvent<'a> {
    pub(crate) message: &'a Message,
}

/// A page of messages, newest first, and where to start a stream so that nothing is missed after it.
#[derive(Serialize, utoipa::ToSchema)]
struct MessagePage {
    messages: Vec<Message>,
    /// What to give as `before` (or `after`, if that was given) for the page that follows.
    next: Option<MessageId>,
    /// Where the project's log was when the page was read.
    cursor: Option<String>,
}

/// Plain text: not empty, at most 32,000 characters and 56 KiB of JSON, no NUL.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
pub(crate) struct Text(String);

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.trim().is_empty() {
            Err("a text is not empty")
        } else if text.contains('\0') {
            Err("a text has no NUL")
        } else {
            Ok(Self(text))
        }
    }
}

impl Text {
    /// Returns the text, unless it is too long.
    fn checked(self) -> Result<String, ApiError> {
        let too_large = |message| ApiError::TooLarge { field: "text", message };
        if self.0.chars().count() > MAX_TEXT_CHARS {
            return Err(too_large("a text has at most 32,000 characters"));
        }
        // Written as JSON only where that could be too long: few characters are longer then.
        if self.0.len() > MAX_TEXT_BYTES / 6 && json_bytes(&self.0)? > MAX_TEXT_BYTES {
            return Err(too_large("a text has at most 57,344 bytes as JSON"));
        }
        Ok(self.0)
    }
}

/// A JSON object of at most 4 KiB, kept as it was sent.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>")]
pub(crate) struct Metadata(pub(crate) String);

impl TryFrom<serde_json::Map<String, serde_json::Value>> for Metadata {
    type Error = String;

    fn try_from(map: serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        let text = serde_json::to_string(&map).map_err(|error| error.to_string())?;
        // NUL arrives here as an escape again.
        if text.contains("\\u0000") {
            Err("metadata has no NUL".into())
        } else if one_line(&text).len() > MAX_METADATA_BYTES {
            Err("metadata has at most 4 KiB".into())
        } else {
            Ok(Self(text))
        }
    }
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    #[schema(value_type = Option<String>)]
    channel: Option<ChannelName>,
    text: Text,
    /// Makes a retry the same message; the header `Idempotency-Key` does too.
    #[schema(value_type = Option<String>)]
    client_message_id: Option<IdempotencyKey>,
    reply_to: Option<MessageId>,
    #[schema(value_type = Option<serde_json::Map<String, serde_json::Value>>)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct TextField {
    text: Text,
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Page {
    /// Only this channel's.
    #[param(value_type = Option<String>)]
    channel: Option<ChannelName>,
    #[serde(default)]
    #[param(value_type = Option<i64>)]
    limit: Limit,
    /// Messages older than this one.
    before: Option<MessageId>,
    /// Messages newer than this one, the nearest page of them.
    after: Option<MessageId>,
}

#[utoipa::path(get, path = "/{project}/messages", params(Page), responses((status = 200, body = MessagePage)))]
async fn list(viewer: As<Viewer>, Query(page): Query<Page>) -> Result<Json<MessagePage>, ApiError> {
    if page.before.is_some() && page.after.is_some() {
        return Err(ApiError::Invalid("give `before` or `after`, not both"));
    }
    viewer
        .read(move |reader, caller| {
            let channel = page.channel.as_ref();
            let History { mut messages, has_more } = if page.after.is_some() {
                store::after(reader, caller, channel, page.after, page.limit)?
            } else {
                store::before(reader, caller, channel, page.before, page.limit)?
            };
            let next = messages.last().filter(|_| has_more).map(|message| message.id);
            if page.after.is_some() {
                messages.reverse();
            }
            let topic = caller.topic();
            let cursor = reader.head(&topic)?.map(|head| Cursor::at(&topic, head).to_string());
            Ok(Json(MessagePage { messages, next, cursor }))
        })
        .await
}

#[utoipa::path(post, path = "/{project}/messages", request_body = NewMessage, responses((status = 201, body = Message), (status = 200, body = Message)))]
async fn send(
    member: As<Member>,
    RetryKey(key): RetryKey,
    Json(new): Json<NewMessage>,
) -> Result<Response, ApiError> {
    if let (Some(body), Some(header)) = (&new.client_message_id, &key)
        && body != header
    {
        let message =
            "client_message_id and the header Idempotency-Key differ; send one of them".to_owned();
        return Err(ApiError::Field { field: "client_message_id", message });
    }
    let draft = Draft {
        channel: new.channel.unwrap_or_else(crate::channels::default_name),
        text: new.text.checked()?,
        reply_to: new.reply_to,
        metadata: new.metadata.map(|metadata| metadata.0),
        key: new.client_message_id.or(key),
    };
    let project = member.project;
    let sent = member.write_asking(move |tx, caller| store::send(tx, caller, &draft)).await?;
    Ok(match sent {
        Sent::New(message) => {
            let location = format!("/api/chat/projects/{project}/messages/{}", message.id);
            (StatusCode::CREATED, [(header::LOCATION, location)], Json(message)).into_response()
        }
        Sent::Before(message) => Json(message).into_response(),
    })
}

#[utoipa::path(get, path = "/{project}/messages/{id}", responses((status = 200, body = Message)))]
async fn show(
    viewer: As<Viewer>,
    Path((_project, id)): Path<(ProjectId, MessageId)>,
) -> Result<Json<Message>, ApiError> {
    viewer.read(move |reader, caller| store::get(reader, caller, id).map(Json)).await
}

#[utoipa::path(patch, path = "/{project}/messages/{id}", request_body = TextField, responses((status = 200, body = Message)))]
async fn edit(
    member: As<Member>,
    Path((_project, id)): Path<(ProjectId, MessageId)>,
    Json(TextField { text }): Json<TextField>,
) -> Result<Json<Message>, ApiError> {
    let text = text.checked()?;
    member.write(move |tx, caller| store::edit(tx, caller, id, &text).map(Json)).await
}

#[utoipa::path(delete, path = "/{project}/messages/{id}", responses((status = 200, body = Message)))]
async fn delete(
    member: As<Member>,
    Path((_project, id)): Path<(ProjectId, MessageId)>,
) -> Result<Json<Message>, ApiError> {
    member.write(move |tx, caller| store::delete(tx, caller, id).map(Json)).await
}
