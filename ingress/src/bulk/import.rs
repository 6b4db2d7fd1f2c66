//! Writing chat from elsewhere: old messages in their place in history, told as one event a batch.

mod message;

use std::collections::BTreeSet;

use proto::{Channel, ImportMessage, ImportResponse, Person};
use serde::Serialize;
use shared::{
    ids::{ChannelName, MessageId, ProjectId},
    names::{has_invisible, without_invisible},
    store::{Error, Reader, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use self::message::{Checked, LATEST_US, imported};
use crate::{
    ChatConfig,
    access::{Granted, Owner},
    error::ApiError,
};

/// What streams hear of a batch.
#[derive(Serialize)]
struct HistoryImported {
    channels: BTreeSet<ChannelName>,
    count: u64,
    /// The first and the last of its messages, whose ids are in the order of time.
    first: Option<MessageId>,
    last: Option<MessageId>,
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
        let name = without_invisible(&person.name);
        let name = name.trim();
        let Some(id) = imported(&person.id).filter(|_| !name.is_empty()) else {
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
    limits: ChatConfig,
) -> Result<ImportResponse, ApiError> {
    let mut response = ImportResponse::default();
    let has = crate::channels::count(tx, caller.project)?;
    let mut room = i64::from(limits.channels_per_project) - has;
    for channel in channels {
        let name = channel.name.parse::<ChannelName>().ok();
        let Some(name) = name.filter(|name| !has_invisible(name.as_str())) else {
            response.failed += 1;
            continue;
        };
        let topic = channel.topic.as_deref().map(crate::channels::clean_topic);
        let sql = "SELECT import_id FROM channels WHERE project_id = $1 AND name = $2";
        let key = [caller.project.into(), (&name).into()];
        let made = if tx.find(sql, &key, |_| Ok(()))?.is_some() {
            // Every project begins with a channel, which is nobody's yet.
            if let Some(topic) = &topic {
                crate::channels::describe_untouched(tx, caller, &name, topic)?;
            }
            0
        } else if room <= 0 {
            response.failed += 1;
            continue;
        } else {
            room -= 1;
            crate::channels::create(tx, caller, name.clone(), topic)?;
            let shown = |ms: &i64| (0..LATEST_US / 1_000).contains(ms);
            let at = channel.created_at_ms.filter(shown);
            let at = at.map_or_else(|| tx.now(), Timestamp::from_ms);
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
    let mut history =
        HistoryImported { channels: BTreeSet::new(), count: 0, first: None, last: None };
    let mut known = BTreeSet::new();
    for message in messages {
        let Some(message) = Checked::new(caller.project, source, message.clone()) else {
            response.failed += 1;
            continue;
        };
        if !known.contains(&message.channel) {
            // A project with as many channels as it may have takes no messages of further ones.
            if !crate::channels::exists(tx, caller, &message.channel)? {
                response.failed += 1;
                continue;
            }
            known.insert(message.channel.clone());
        }
        let made = insert(tx, caller.project, import, &message)?;
        if made > 0 {
            history.count += 1;
            history.channels.insert(message.channel.clone());
            history.first = Some(history.first.map_or(message.id, |first| first.min(message.id)));
            history.last = history.last.max(Some(message.id));
        }
        let sql = "SELECT import_id FROM messages WHERE id = $1";
        count(tx, &mut response, made, import, sql, &[message.id.into()])?;
    }
    if history.count > 0 {
        caller.record(tx, "history.imported", &history)?;
    }
    Ok(response)
}

fn insert(
    tx: &mut Tx<'_>,
    project: ProjectId,
    import: Uuid,
    message: &Checked,
) -> Result<usize, Error> {
    let parent = match message.reply_to {
        Some(id) if !message.reply_to_any => {
            let sql = "SELECT id FROM messages WHERE project_id = $1 AND id = $2";
            tx.find(sql, &[project.into(), id.into()], |row| row.get(0))?
        }
        parent => parent,
    };
    let made = tx.execute(
        "INSERT INTO messages (id, project_id, channel, author, text, reply_to, metadata, created_at, updated_at, deleted_at, import_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (id) DO NOTHING",
        &[
            message.id.into(),
            project.into(),
            (&message.channel).into(),
            (&message.author).into(),
            (&message.text).into(),
            parent.into(),
            message.metadata.as_ref().into(),
            message.created_at.into(),
            message.updated_at.into(),
            message.deleted_at.into(),
            Value::Uuid(import),
        ],
    )?;
    if made > 0 {
        message.reactions.insert(tx, message.id, message.created_at)?;
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
