//! Writing chat from elsewhere: old messages in their place in history, told as one event a batch.

use std::collections::BTreeSet;

use proto::{Channel, ImportMessage, ImportResponse, Person};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use shared::{
    ids::{ChannelName, Emoji, MessageId, ProjectId, UserId},
    store::{Error, Reader, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use crate::{
    access::{Granted, Owner},
    error::ApiError,
};

/// The longest imported text in bytes; other systems allow more characters than ours.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// The longest imported metadata in bytes.
const MAX_METADATA_BYTES: usize = 4 * 1024;

/// What streams hear of a batch.
#[derive(Serialize)]
struct HistoryImported {
    channels: BTreeSet<ChannelName>,
    count: u64,
}

/// Writes authors. An id that is a login's cannot be one of these: imported ids name their source before a colon.
pub(super) fn people(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Owner>,
    import: Uuid,
    people: &[Person],
) -> Result<ImportResponse, ApiError> {
    let mut response = ImportResponse::default();
    for person in people {
        let name = person.name.trim();
        let Some(id) = imported(&person.id).filter(|_| !name.is_empty() && !name.contains('\0'))
        else {
            response.failed += 1;
            continue;
        };
        let made = tx.execute(
            "INSERT INTO people (project_id, id, name, is_bot, import_id) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (project_id, id) DO NOTHING",
            &[caller.project.into(), (&id).into(), name.into(), person.is_bot.into(), Value::Uuid(import)],
        )?;
        let sql = "SELECT import_id FROM people WHERE project_id = $1 AND id = $2";
        count(tx, &mut response, made, import, sql, &[caller.project.into(), (&id).into()])?;
    }
    Ok(response)
}

/// Makes the channels that are not there.
pub(super) fn channels(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Owner>,
    import: Uuid,
    channels: &[Channel],
) -> Result<ImportResponse, ApiError> {
    let mut response = ImportResponse::default();
    for channel in channels {
        let Ok(name) = channel.name.parse::<ChannelName>() else {
            response.failed += 1;
            continue;
        };
        let sql = "SELECT import_id FROM channels WHERE project_id = $1 AND name = $2";
        let key = [caller.project.into(), (&name).into()];
        let made = if tx.find(sql, &key, |_| Ok(()))?.is_some() {
            0
        } else {
            crate::channels::create(tx, caller, name.clone(), channel.topic.clone())?;
            let at = channel.created_at_ms.map_or_else(Timestamp::now, Timestamp::from_ms);
            tx.execute(
                "UPDATE channels SET import_id = $3, created_at = $4 WHERE project_id = $1 AND name = $2",
                &[key[0], key[1], Value::Uuid(import), at.into()],
            )?
        };
        count(tx, &mut response, made, import, sql, &key)?;
    }
    Ok(response)
}

/// Writes a batch of messages with their reactions, and one event for all of it.
pub(super) fn messages(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Owner>,
    import: Uuid,
    source: &str,
    messages: &[ImportMessage],
) -> Result<ImportResponse, ApiError> {
    let mut response = ImportResponse::default();
    let mut history = HistoryImported { channels: BTreeSet::new(), count: 0 };
    let mut known = BTreeSet::new();
    for message in messages {
        let Some(message) = Checked::new(caller.project, source, message.clone()) else {
            response.failed += 1;
            continue;
        };
        if !known.contains(&message.channel) {
            crate::channels::require(tx, caller, &message.channel)?;
            known.insert(message.channel.clone());
        }
        let made = insert(tx, caller.project, import, &message)?;
        if made > 0 {
            history.count += 1;
            history.channels.insert(message.channel.clone());
        }
        let sql = "SELECT import_id FROM messages WHERE id = $1";
        count(tx, &mut response, made, import, sql, &[message.id.into()])?;
    }
    if history.count > 0 {
        caller.record(tx, "history.imported", &history)?;
    }
    Ok(response)
}

/// A message that chat's rules allow.
struct Checked {
    id: MessageId,
    channel: ChannelName,
    author: UserId,
    text: String,
    created_at: Timestamp,
    updated_at: Option<Timestamp>,
    reply_to: Option<MessageId>,
    metadata: Option<String>,
    reactions: Vec<(Emoji, UserId)>,
}

impl Checked {
    fn new(project: ProjectId, source: &str, message: ImportMessage) -> Option<Self> {
        let channel: ChannelName = message.channel.parse().ok()?;
        let author = imported(&message.author)?;
        let fits = !message.text.is_empty()
            && message.text.len() <= MAX_TEXT_BYTES
            && !message.text.contains('\0');
        let metadata = Some(message.metadata).filter(|metadata| !metadata.is_empty());
        let object = metadata.as_ref().is_none_or(|metadata| {
            metadata.starts_with('{')
                && metadata.len() <= MAX_METADATA_BYTES
                && !metadata.contains("\\u0000")
                && serde_json::from_str::<&RawValue>(metadata).is_ok()
        });
        if !fits || !object {
            return None;
        }
        let name = |sent_at_us| identity(project, source, &channel, sent_at_us);
        let reactions = message.reactions.into_iter().flat_map(|reaction| {
            let emoji = reaction.emoji.parse::<Emoji>().ok();
            let users = reaction.users.into_iter().filter_map(|user| imported(&user));
            users.filter_map(|user| Some((emoji.clone()?, user))).collect::<Vec<_>>()
        });
        Some(Self {
            id: name(message.sent_at_us)?,
            author,
            text: message.text,
            created_at: Timestamp::from_ms(message.sent_at_us / 1000),
            updated_at: message.edited_at_us.map(|at| Timestamp::from_ms(at / 1000)),
            reply_to: message.reply_to_sent_at_us.and_then(name),
            metadata,
            reactions: reactions.collect(),
            channel,
        })
    }
}

/// An imported id names its source before a colon, which keeps it apart from every login.
fn imported(id: &str) -> Option<UserId> {
    id.contains(':').then(|| id.parse().ok())?
}

/// Returns the id that a message of another system has here: the same each time it is imported into the project, and in
/// the order of time like every other. The microseconds within the millisecond stand where RFC 9562 (§6.2, method 3) has
/// them.
fn identity(
    project: ProjectId,
    source: &str,
    channel: &ChannelName,
    sent_at_us: i64,
) -> Option<MessageId> {
    let sent_at_us = u64::try_from(sent_at_us).ok()?;
    let mut digest = Sha256::new();
    digest.update(project.0.as_bytes());
    for part in [source, channel.as_str()] {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.update(sent_at_us.to_be_bytes());
    let digest = digest.finalize();
    let mut low = [0; 10];
    low.copy_from_slice(&digest[..10]);
    let fraction = u16::try_from(sent_at_us % 1000 * 4096 / 1000).ok()?;
    low[..2].copy_from_slice(&fraction.to_be_bytes());
    Some(MessageId(uuid::Builder::from_unix_timestamp_millis(sent_at_us / 1000, &low).into_uuid()))
}

fn insert(
    tx: &mut Tx<'_>,
    project: ProjectId,
    import: Uuid,
    message: &Checked,
) -> Result<usize, Error> {
    let made = tx.execute(
        "INSERT INTO messages (id, project_id, channel, author, text, reply_to, metadata, created_at, updated_at, import_id) \
         VALUES ($1, $2, $3, $4, $5, (SELECT r.id FROM messages r WHERE r.id = $6), $7, $8, $9, $10) \
         ON CONFLICT (id) DO NOTHING",
        &[
            message.id.into(),
            project.into(),
            (&message.channel).into(),
            (&message.author).into(),
            (&message.text).into(),
            message.reply_to.into(),
            message.metadata.as_ref().into(),
            message.created_at.into(),
            message.updated_at.into(),
            Value::Uuid(import),
        ],
    )?;
    if made > 0 {
        for (emoji, user) in &message.reactions {
            tx.execute(
                "INSERT INTO reactions (message_id, emoji, user_id, at) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (message_id, emoji, user_id) DO NOTHING",
                &[message.id.into(), emoji.into(), user.into(), message.created_at.into()],
            )?;
        }
    }
    Ok(made)
}

/// Counts a record as written if this import wrote it, now or in an attempt before; `sql` finds which import did.
fn count(
    reader: &Reader<'_>,
    response: &mut ImportResponse,
    made: usize,
    import: Uuid,
    sql: &str,
    key: &[Value<'_>],
) -> Result<(), Error> {
    let ours = made > 0
        || reader.find(sql, key, |row| row.get::<Option<Uuid>>(0))?.flatten() == Some(import);
    let counter = if ours { &mut response.written } else { &mut response.existing };
    *counter += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_stable_and_sorts_by_time() {
        let project = ProjectId(Uuid::nil());
        let channel: ChannelName = "general".parse().unwrap();
        let id = |at| identity(project, "slack", &channel, at).unwrap();
        assert_eq!(id(1_107_856_560_000_001), id(1_107_856_560_000_001));
        let times = [0, 1, 2, 999, 1000, 1001, 1_107_856_560_000_000, 1_107_856_560_000_001];
        assert!(times.windows(2).all(|pair| id(pair[0]) < id(pair[1])));
        assert_eq!(id(5).0.get_version_num(), 7);
        assert_ne!(id(5), identity(project, "other", &channel, 5).unwrap());
    }

    #[test]
    fn an_imported_author_is_never_a_login() {
        assert!(imported("slack:U0055C244").is_some());
        assert!(imported("ada").is_none());
    }
}
