//! The queries of messages.

pub(crate) mod many;

use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use shared::{
    http::Limit,
    ids::{ChannelName, IdempotencyKey, MessageId, ProjectId, UserId},
    journal::{Redaction, Text},
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};

use super::{Message, MessageEvent};
use crate::{
    access::{AtLeast, Caller, Granted, Member, Role, Viewer},
    channels::no_such_channel,
    error::ApiError,
    reactions,
};

/// Type of the event of a message that was sent.
const CREATED: &str = "message.created";
/// Bytes of JSON beyond which a page of history ends; its first message is always in it.
const MAX_PAGE_BYTES: usize = 4 << 20;
/// Messages of a page whose reactions are read at once.
const MESSAGES_A_STEP: usize = 16;

/// What a caller wants to say.
pub(crate) struct Draft {
    pub(crate) channel: ChannelName,
    pub(crate) text: String,
    pub(crate) reply_to: Option<MessageId>,
    pub(crate) metadata: Option<String>,
    pub(crate) key: Option<IdempotencyKey>,
}

impl Draft {
    /// Returns what tells a retry from another message under the same key.
    fn digest(&self) -> [u8; 32] {
        let reply_to = self.reply_to.map(|id| *id.0.as_bytes()).unwrap_or_default();
        let metadata = self.metadata.as_deref().unwrap_or_default();
        let mut digest = Sha256::new();
        for part in
            [self.channel.as_str().as_bytes(), self.text.as_bytes(), &reply_to, metadata.as_bytes()]
        {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

/// What became of a draft.
pub(crate) enum Sent {
    New(Message),
    /// It was sent before, under the same key.
    Before(Message),
}

const COLUMNS: &str = "SELECT m.id, m.project_id, m.channel, m.author, COALESCE(m.author_name, p.name), m.text, m.reply_to, m.metadata, \
                       m.created_at, m.updated_at, m.deleted_at FROM messages m \
                       LEFT JOIN people p ON p.project_id = m.project_id AND p.id = m.author WHERE m.project_id = $1";

fn read(row: &Row<'_>) -> Result<Message, Error> {
    let author: UserId = row.parse(3)?;
    Ok(Message {
        id: row.get(0)?,
        project_id: row.get(1)?,
        channel: row.parse(2)?,
        author_name: row.get::<Option<String>>(4)?.unwrap_or_else(|| author.to_string()),
        author,
        text: row.get(5)?,
        reply_to: row.get(6)?,
        metadata: row.get::<Option<String>>(7)?.map(|_| row.json(7)).transpose()?,
        reactions: Vec::new(),
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
        deleted_at: row.get(10)?,
    })
}

/// Returns the message with its reactions, if it is of the project.
pub(crate) fn get<R: AtLeast>(
    reader: &Reader<'_>,
    caller: &Granted<'_, R>,
    id: MessageId,
) -> Result<Message, ApiError> {
    let sql = format!("{COLUMNS} AND m.id = $2");
    let mut message = reader
        .find(&sql, &[caller.project.into(), id.into()], read)?
        .ok_or(ApiError::NotFound("the message"))?;
    message.reactions = reactions::store::of_message(reader, &caller.user, id)?;
    Ok(message)
}

/// Returns the channel of a message that is not deleted.
pub(crate) fn channel_of_undeleted<R: AtLeast>(
    reader: &Reader<'_>,
    caller: &Granted<'_, R>,
    id: MessageId,
) -> Result<ChannelName, ApiError> {
    let sql = "SELECT channel, deleted_at FROM messages WHERE project_id = $1 AND id = $2";
    let found = reader.find(sql, &[caller.project.into(), id.into()], |row| {
        Ok((row.parse(0)?, row.get::<Option<Timestamp>>(1)?))
    })?;
    match found {
        None => Err(ApiError::NotFound("the message")),
        Some((_, Some(_))) => Err(ApiError::Conflict("the message is deleted")),
        Some((channel, None)) => Ok(channel),
    }
}

/// A page of history.
pub(crate) struct History {
    pub(crate) messages: Vec<Message>,
    /// True if there are further messages in the direction of the page.
    pub(crate) has_more: bool,
}

/// Returns messages older than the anchor, newest first: at most `limit`, and at most [`MAX_PAGE_BYTES`].
pub(crate) fn before(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    channel: Option<&ChannelName>,
    anchor: Option<MessageId>,
    limit: Limit,
) -> Result<History, ApiError> {
    let anchor = match anchor {
        Some(id) => place(reader, caller.project, id)?,
        None => (Timestamp::from_ms(i64::MAX), MessageId(uuid::Uuid::max())),
    };
    let rows = page(reader, caller.project, channel, anchor, "<", "DESC", limit.and_one())?;
    history(reader, caller, rows, limit)
}

/// Returns messages newer than the anchor, or from the first on, oldest first: at most `limit`, and at most
/// [`MAX_PAGE_BYTES`].
pub(crate) fn after(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    channel: Option<&ChannelName>,
    anchor: Option<MessageId>,
    limit: Limit,
) -> Result<History, ApiError> {
    let rows = after_bare(reader, caller, channel, anchor, limit.and_one())?;
    history(reader, caller, rows, limit)
}

/// Returns at most `limit` messages newer than the anchor, oldest first, without their reactions.
pub(crate) fn after_bare(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    channel: Option<&ChannelName>,
    anchor: Option<MessageId>,
    limit: i64,
) -> Result<Vec<Message>, ApiError> {
    let anchor = match anchor {
        Some(id) => place(reader, caller.project, id)?,
        None => (Timestamp::from_ms(i64::MIN), MessageId(uuid::Uuid::nil())),
    };
    page(reader, caller.project, channel, anchor, ">", "ASC", limit)
}

/// Adds the reactions, and cuts the page where it has enough messages or bytes.
fn history(
    reader: &Reader<'_>,
    caller: &Granted<'_, Viewer>,
    mut messages: Vec<Message>,
    limit: Limit,
) -> Result<History, ApiError> {
    let mut has_more = limit.cut(&mut messages).is_some();
    let mut bytes = 0;
    let mut done = 0;
    while done < messages.len() && bytes <= MAX_PAGE_BYTES {
        let end = messages.len().min(done + MESSAGES_A_STEP);
        let step = &mut messages[done..end];
        let ids: Vec<MessageId> = step.iter().map(|message| message.id).collect();
        let mut found = reactions::store::of_messages(reader, &caller.user, &ids)?;
        for message in step {
            message.reactions = found.remove(&message.id).unwrap_or_default();
            bytes += message.json_bytes();
            if bytes > MAX_PAGE_BYTES && done > 0 {
                break;
            }
            done += 1;
        }
    }
    has_more |= done < messages.len();
    messages.truncate(done);
    Ok(History { messages, has_more })
}

fn place(
    reader: &Reader<'_>,
    project: ProjectId,
    id: MessageId,
) -> Result<(Timestamp, MessageId), ApiError> {
    let sql = "SELECT created_at FROM messages WHERE project_id = $1 AND id = $2";
    let at = reader.find(sql, &[project.into(), id.into()], |row| row.get(0))?;
    Ok((at.ok_or(ApiError::NotFound("the message that the page begins at"))?, id))
}

fn page(
    reader: &Reader<'_>,
    project: ProjectId,
    channel: Option<&ChannelName>,
    (at, id): (Timestamp, MessageId),
    side: &str,
    order: &str,
    limit: i64,
) -> Result<Vec<Message>, ApiError> {
    let mut params = vec![project.into(), at.into(), id.into(), limit.into()];
    let mut filter = "";
    if let Some(channel) = channel {
        params.push(Value::from(channel));
        filter = "AND m.channel = $5";
    }
    let sql = format!(
        "{COLUMNS} AND (m.created_at, m.id) {side} ($2, $3) {filter} \
         ORDER BY m.created_at {order}, m.id {order} LIMIT $4"
    );
    Ok(reader.query(&sql, &params, read)?)
}

/// Writes the message and its event, or finds what was sent under the same key before.
pub(crate) fn send<'a>(
    tx: &mut Tx<'_>,
    caller: &'a Caller,
    draft: &Draft,
) -> Result<(Granted<'a, Member>, Sent), ApiError> {
    let (caller, author_name) = may_write(tx, caller, &draft.channel)?;
    if let Some(answered) = draft.reply_to {
        let sql = "SELECT 1 FROM messages WHERE project_id = $1 AND id = $2";
        tx.find(sql, &[caller.project.into(), answered.into()], |_| Ok(()))?.ok_or(
            ApiError::Field {
                field: "reply_to",
                message: "the project has no such message".into(),
            },
        )?;
    }
    let id = MessageId::mint();
    let digest = draft.digest();
    let created_at = time_of_send(tx, &caller)?;
    let inserted = tx.execute(
        "INSERT INTO messages (id, project_id, channel, author, text, reply_to, metadata, created_at, client_key, request) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (project_id, author, client_key) WHERE client_key IS NOT NULL DO NOTHING",
        &[
            id.into(),
            caller.project.into(),
            (&draft.channel).into(),
            (&caller.user).into(),
            (&draft.text).into(),
            draft.reply_to.into(),
            draft.metadata.as_ref().into(),
            created_at.into(),
            draft.key.as_ref().into(),
            draft.key.as_ref().map(|_| digest.as_slice()).map_or(Value::Null, Value::Bytes),
        ],
    )?;
    if inserted == 0 {
        let before = sent_before(tx, &caller, draft, &digest)?;
        return Ok((caller, Sent::Before(before)));
    }
    let message = Message {
        id,
        project_id: caller.project,
        channel: draft.channel.clone(),
        author: caller.user.clone(),
        author_name,
        text: draft.text.clone(),
        reply_to: draft.reply_to,
        metadata: draft.metadata.clone().map(RawValue::from_string).transpose()?,
        reactions: Vec::new(),
        created_at,
        updated_at: None,
        deleted_at: None,
    };
    record_text(tx, &caller, CREATED, &message)?;
    Ok((caller, Sent::New(message)))
}

/// Returns the time of a new message: later than that of the last one that was sent in the project, whatever the clock says.
/// So history is in the order of the log.
fn time_of_send(tx: &Tx<'_>, caller: &Granted<'_, Member>) -> Result<Timestamp, ApiError> {
    let mut last = tx.last_sent(&caller.topic())?;
    if last.is_none() {
        // The project is new, or the database was upgraded from version 0.1.0, and no message was sent since.
        let sql =
            "SELECT MAX(created_at) FROM messages WHERE project_id = $1 AND import_id IS NULL";
        last = tx.find(sql, &[caller.project.into()], |row| row.get(0))?.flatten();
    }
    Ok(last.map_or(tx.now(), |last| tx.now().max(last.after(Duration::from_millis(1)))))
}

/// Appends an event that has the message's text.
fn record_text(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Member>,
    kind: &str,
    message: &Message,
) -> Result<(), ApiError> {
    let event = caller.event(kind, &MessageEvent { message }, tx.now())?;
    let sent_at = (kind == CREATED).then_some(message.created_at);
    tx.append_text(&caller.topic(), kind, &event, Text { message: message.id, sent_at })?;
    Ok(())
}

/// Lets pass who may write to the channel, in one query since it is every send's; returns their name too.
fn may_write<'a>(
    reader: &Reader<'_>,
    caller: &'a Caller,
    channel: &ChannelName,
) -> Result<(Granted<'a, Member>, String), ApiError> {
    let sql = "SELECT m.role, p.name, c.name FROM members m JOIN projects pr ON pr.id = m.project_id \
               JOIN people p ON p.project_id = m.project_id AND p.id = m.user_id \
               LEFT JOIN channels c ON c.project_id = m.project_id AND c.name = $3 \
               WHERE m.project_id = $1 AND m.user_id = $2";
    let params = [caller.project.into(), (&caller.user).into(), channel.into()];
    let found = reader.find(sql, &params, |row| {
        Ok((row.parse(0)?, row.get::<String>(1)?, row.get::<Option<String>>(2)?.is_some()))
    })?;
    let granted = caller.granted_as(found.as_ref().map(|(role, ..)| *role))?;
    match found {
        Some((_, name, true)) => Ok((granted, name)),
        _ => Err(no_such_channel()),
    }
}

fn sent_before(
    reader: &Reader<'_>,
    caller: &Granted<'_, Member>,
    draft: &Draft,
    digest: &[u8],
) -> Result<Message, ApiError> {
    let sql = "SELECT id, request FROM messages WHERE project_id = $1 AND author = $2 AND client_key = $3";
    let params = [caller.project.into(), (&caller.user).into(), draft.key.as_ref().into()];
    let (id, before) = reader
        .find(sql, &params, |row| Ok((row.get::<MessageId>(0)?, row.get::<Vec<u8>>(1)?)))?
        .ok_or(ApiError::NotFound("the message"))?;
    if before == digest { get(reader, caller, id) } else { Err(ApiError::IdempotencyConflict) }
}

/// Changes the text; only the author does.
pub(crate) fn edit(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Member>,
    id: MessageId,
    text: &str,
) -> Result<Message, ApiError> {
    let message = get(tx, caller, id)?;
    if message.author != caller.user {
        return Err(ApiError::Forbidden("only its author edits a message"));
    }
    if message.deleted_at.is_some() {
        return Err(ApiError::Conflict("the message is deleted"));
    }
    tx.execute(
        "UPDATE messages SET text = $2, updated_at = $3 WHERE id = $1",
        &[id.into(), text.into(), tx.now().into()],
    )?;
    tx.redact(&caller.topic(), Redaction { message: id, deleted_at: None })?;
    let mut message = get(tx, caller, id)?;
    let all = std::mem::take(&mut message.reactions);
    message.reactions = reactions::store::for_event(&all);
    record_text(tx, caller, "message.updated", &message)?;
    message.reactions = all;
    Ok(message)
}

/// Takes away what the message said; its author and the project's owners do. Deleting it again changes nothing.
pub(crate) fn delete(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Member>,
    id: MessageId,
) -> Result<Message, ApiError> {
    let message = get(tx, caller, id)?;
    if caller.role < Role::Owner && message.author != caller.user {
        return Err(ApiError::Forbidden("only its author or an owner deletes a message"));
    }
    if message.deleted_at.is_some() {
        return Ok(message);
    }
    let deleted_at = tx.now();
    tx.execute(
        "UPDATE messages SET text = '', metadata = NULL, deleted_at = $2 WHERE id = $1",
        &[id.into(), deleted_at.into()],
    )?;
    tx.redact(&caller.topic(), Redaction { message: id, deleted_at: Some(deleted_at) })?;
    reactions::store::clear(tx, id)?;
    let message = get(tx, caller, id)?;
    caller.record(tx, "message.deleted", &MessageEvent { message: &message })?;
    Ok(message)
}
