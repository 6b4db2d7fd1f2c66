//! Writing chat from elsewhere: old messages in their place in history, told as one event a batch.

mod channels;
mod deletions;
mod message;
mod slots;

use std::collections::{BTreeSet, HashMap, HashSet};

use proto::{ImportFailure, ImportMessage, ImportMessagesRequest, ImportResponse, Person};
use serde::Serialize;
use shared::{
    ids::{ChannelName, MessageId, UserId},
    journal::Redaction,
    names::without_invisible,
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

pub(super) use self::channels::channels;
use self::{
    message::{Checked, Root, UNKNOWN_AUTHOR, imported},
    slots::Slots,
};
use crate::{
    access::{Granted, Owner},
    error::ApiError,
    messages::{MessageEvent, store::get},
    reactions,
};

/// Name of the author of whom nothing is known.
const UNKNOWN_NAME: &str = "Unknown author";

/// What streams hear of a batch.
#[derive(Default, Serialize)]
struct HistoryImported {
    channels: BTreeSet<ChannelName>,
    count: u64,
    /// The first and the last of its messages, whose ids are in the order of time.
    first: Option<MessageId>,
    last: Option<MessageId>,
}

impl HistoryImported {
    fn add(&mut self, message: &Checked) {
        self.count += 1;
        self.channels.insert(message.channel.clone());
        self.first = Some(self.first.map_or(message.id, |first| first.min(message.id)));
        self.last = self.last.max(Some(message.id));
    }
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
            "INSERT INTO people (project_id, id, name, is_bot, import_id, named_at) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (project_id, id) DO NOTHING",
            &[
                caller.project.into(),
                (&id).into(),
                name.into(),
                person.is_bot.into(),
                Value::Uuid(import),
                person.named_at_s.into(),
            ],
        )?;
        if made > 0 {
            response.written += 1;
            continue;
        }
        let sql = "SELECT import_id, name, named_at FROM people WHERE project_id = $1 AND id = $2";
        let known = tx.find(sql, &[caller.project.into(), (&id).into()], |row| {
            Ok((row.get::<Option<Uuid>>(0)?, row.get::<String>(1)?, row.get::<Option<i64>>(2)?))
        })?;
        let Some((by, known_name, named_at)) = known else { continue };
        // A list that is older than the one of the name takes nothing back, and a name that was given here stays.
        let is_current = person.is_listed && by.is_some() && person.named_at_s >= named_at;
        let is_renamed = is_current && name != known_name;
        if is_renamed || (is_current && person.named_at_s != named_at) {
            let sql =
                "UPDATE people SET name = $3, named_at = $4 WHERE project_id = $1 AND id = $2";
            let named_at = person.named_at_s.into();
            tx.execute(sql, &[caller.project.into(), (&id).into(), name.into(), named_at])?;
        }
        if by == Some(import) {
            response.written += 1;
        } else if is_renamed {
            response.updated += 1;
        } else {
            response.existing += 1;
        }
    }
    Ok(response)
}

/// Writes a batch of messages with their reactions, and one event for all of it.
pub(super) fn messages(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Owner>,
    import: Uuid,
    request: &ImportMessagesRequest,
) -> Result<ImportResponse, ApiError> {
    let ImportMessagesRequest { source, messages, siblings, .. } = request;
    let mut response = ImportResponse::default();
    let mut checked = checked(tx, caller, source, messages, &mut response)?;
    name_authors(tx, caller, &mut checked)?;
    let mut there = there(tx, &checked)?;
    let slots = Slots::new(caller.project, source, import, siblings);
    let refused = slots.assign(tx, &mut checked, &mut there)?;
    for message in refused.iter().map(|index| &checked[*index]).filter(|part| part.is_counted) {
        response.failed += 1;
        let reason = "there are too many messages of its time".into();
        response.failures.push(ImportFailure { index: message.index, reason });
    }
    let mut index = 0..;
    checked.retain(|_| index.next().is_none_or(|index| !refused.contains(&index)));
    let coming = HashSet::new();
    let mut batch = Batch { caller, import, source, there, coming, has_unknown: false };
    batch.coming = checked.iter().map(|message| message.id).collect();
    let mut history = HistoryImported::default();
    for message in &checked {
        response.reactions_refused += message.reactions_refused;
        response.reactions_beyond_limit += message.reactions.left_out();
        let outcome = batch.write(tx, message)?;
        if outcome.is_change {
            history.add(message);
        }
        if message.is_counted {
            match outcome.fate {
                Fate::Written => response.written += 1,
                Fate::Updated => response.updated += 1,
                Fate::Existing => response.existing += 1,
            }
        }
    }
    if history.count > 0 {
        caller.record(tx, "history.imported", &history)?;
    }
    deletions::apply(tx, caller, source, &slots, messages, &mut response)?;
    Ok(response)
}

/// Returns the messages that chat's rules allow; the response has the others.
fn checked(
    reader: &Reader<'_>,
    caller: &Granted<'_, Owner>,
    source: &str,
    messages: &[ImportMessage],
    response: &mut ImportResponse,
) -> Result<Vec<Checked>, ApiError> {
    let mut is_here = HashMap::<ChannelName, bool>::new();
    let mut found = Vec::with_capacity(messages.len());
    for (index, message) in (0..).zip(messages).filter(|(_, message)| !message.only_deletes) {
        let mut fail = |reason: &str| {
            if message.part == 0 {
                response.failed += 1;
                response.failures.push(ImportFailure { index, reason: reason.into() });
            }
        };
        let mut message = match Checked::new(caller.project, source, index, message.clone()) {
            Ok(message) => message,
            Err(reason) => {
                fail(reason);
                continue;
            }
        };
        let mut exists = |channel: &ChannelName| {
            if let Some(is_here) = is_here.get(channel) {
                return Ok(*is_here);
            }
            let exists = crate::channels::exists(reader, caller, channel)?;
            is_here.insert(channel.clone(), exists);
            Ok::<_, ApiError>(exists)
        };
        // A project with as many channels as it may have takes no messages of further ones.
        if !exists(&message.channel)? {
            fail("the project has no such channel, or as many as it may have");
            continue;
        }
        if let Some(root) = &message.reply_to
            && !exists(&root.channel)?
        {
            message.reply_to = None;
        }
        found.push(message);
    }
    Ok(found)
}

/// Takes from the messages the names that their authors have anyway.
fn name_authors(
    reader: &Reader<'_>,
    caller: &Granted<'_, Owner>,
    messages: &mut [Checked],
) -> Result<(), ApiError> {
    let mut known = HashMap::<UserId, Option<String>>::new();
    for message in messages.iter_mut().filter(|message| message.author_name.is_some()) {
        let name = if let Some(name) = known.get(&message.author) {
            name.clone()
        } else {
            let sql = "SELECT name FROM people WHERE project_id = $1 AND id = $2";
            let key = [caller.project.into(), (&message.author).into()];
            let name = reader.find(sql, &key, |row| row.get::<String>(0))?;
            known.insert(message.author.clone(), name.clone());
            name
        };
        if name == message.author_name {
            message.author_name = None;
        }
    }
    Ok(())
}

/// A message that is here before the batch is written.
struct There {
    import: Option<Uuid>,
    author: UserId,
    author_name: Option<String>,
    text: String,
    reply_to: Option<MessageId>,
    metadata: Option<String>,
    created_at: Timestamp,
    updated_at: Option<Timestamp>,
    deleted_at: Option<Timestamp>,
}

impl There {
    fn read(row: &Row<'_>) -> Result<(MessageId, Self), Error> {
        let there = Self {
            import: row.get(1)?,
            author: row.parse(2)?,
            author_name: row.get(3)?,
            text: row.get(4)?,
            reply_to: row.get(5)?,
            metadata: row.get(6)?,
            created_at: row.get(7)?,
            updated_at: row.get(8)?,
            deleted_at: row.get(9)?,
        };
        Ok((row.get(0)?, there))
    }

    /// Returns whether the row only keeps the place of a message that was answered before it came: it was deleted when it was
    /// sent, which is so of no other.
    fn is_placeholder(&self) -> bool {
        self.import.is_some() && self.deleted_at == Some(self.created_at)
    }

    /// Returns whether a record is this message as it is here.
    fn is_same(&self, message: &Checked) -> bool {
        self.author == message.author
            && self.text == message.text
            && self.deleted_at.is_some() == message.deleted_at.is_some()
    }

    /// Returns whether a message says something else than this, and is not an older state of it.
    fn is_outdated(&self, message: &Checked) -> bool {
        let is_older = message.updated_at < self.updated_at;
        let link = message.reply_to.as_ref().map(|root| root.id).or(self.reply_to);
        !is_older
            && (self.author != message.author
                || self.author_name != message.author_name
                || self.text != message.text
                || self.reply_to != link
                || self.metadata != message.metadata
                || self.updated_at != message.updated_at)
    }
}

/// Reads which of the messages, and of those that they answer, are here.
fn there(reader: &Reader<'_>, messages: &[Checked]) -> Result<HashMap<MessageId, There>, Error> {
    let roots = messages.iter().filter_map(|message| message.reply_to.as_ref()).map(|root| root.id);
    let ids: BTreeSet<MessageId> = messages.iter().map(|message| message.id).chain(roots).collect();
    there_of(reader, &ids)
}

/// Reads which of the messages are here.
fn there_of(
    reader: &Reader<'_>,
    ids: &BTreeSet<MessageId>,
) -> Result<HashMap<MessageId, There>, Error> {
    let ids: Vec<Value<'_>> = ids.iter().copied().map(Value::from).collect();
    let sql = "SELECT id, import_id, author, author_name, text, reply_to, metadata, created_at, updated_at, deleted_at \
               FROM messages WHERE";
    Ok(reader.query_in(sql, "id", &ids, There::read)?.into_iter().collect())
}

/// Outcome of one message.
enum Fate {
    /// Written by this import, now or in an attempt before.
    Written,
    Updated,
    Existing,
}

struct Outcome {
    fate: Fate,
    /// True if the history is another one now.
    is_change: bool,
}

impl Outcome {
    const UNCHANGED: Self = Self { fate: Fate::Existing, is_change: false };
}

/// Batch of messages with the rows that the project has of them.
struct Batch<'a> {
    caller: &'a Granted<'a, Owner>,
    import: Uuid,
    source: &'a str,
    there: HashMap<MessageId, There>,
    /// The batch's own messages.
    coming: HashSet<MessageId>,
    /// True if the author of whom nothing is known has a name here.
    has_unknown: bool,
}

impl Batch<'_> {
    fn write(&mut self, tx: &mut Tx<'_>, message: &Checked) -> Result<Outcome, ApiError> {
        if let Some(root) = &message.reply_to {
            self.keep_place(tx, root)?;
        }
        let Some(there) = self.there.get(&message.id) else {
            let made = self.insert(tx, message)?;
            if !made {
                // Two archives name the same message, or another import writes it at the same time.
                let sql = "SELECT import_id FROM messages WHERE id = $1";
                let by = tx.find(sql, &[message.id.into()], |row| row.get::<Option<Uuid>>(0))?;
                let is_own = by.flatten() == Some(self.import);
                let fate = if is_own { Fate::Written } else { Fate::Existing };
                return Ok(Outcome { fate, is_change: false });
            }
            return Ok(Outcome { fate: Fate::Written, is_change: true });
        };
        if there.is_placeholder() {
            if message.deleted_at == Some(message.created_at) {
                let is_own = there.import == Some(self.import);
                let fate = if is_own { Fate::Written } else { Fate::Existing };
                return Ok(Outcome { fate, is_change: false });
            }
            replace(tx, message, Some(self.import))?;
            message.reactions.insert(tx, message.id, message.created_at)?;
            return Ok(Outcome { fate: Fate::Written, is_change: true });
        }
        if there.import == Some(self.import) {
            return Ok(Outcome { fate: Fate::Written, is_change: false });
        }
        // A message that was deleted here stays deleted.
        if there.import.is_none() || there.deleted_at.is_some() {
            return Ok(Outcome::UNCHANGED);
        }
        if let Some(at) = message.deleted_at {
            // A place that an archive keeps for a message which it never had says nothing of it.
            if at == message.created_at {
                return Ok(Outcome::UNCHANGED);
            }
            take_away(tx, self.caller, message.id, at)?;
            self.drop_parts(tx, message)?;
            return Ok(Outcome { fate: Fate::Updated, is_change: false });
        }
        let is_outdated = there.is_outdated(message);
        if is_outdated {
            replace(tx, message, there.import)?;
            self.drop_parts(tx, message)?;
        }
        let has_more = message.reactions.add_missing(tx, message.id, message.created_at)?;
        if is_outdated || has_more {
            return Ok(Outcome { fate: Fate::Updated, is_change: true });
        }
        Ok(Outcome::UNCHANGED)
    }

    /// Keeps the place of a message that is answered and not here: by a tombstone, until the message itself comes.
    fn keep_place(&mut self, tx: &mut Tx<'_>, root: &Root) -> Result<(), ApiError> {
        if self.there.contains_key(&root.id) || !self.coming.insert(root.id) {
            return Ok(());
        }
        if root.author.as_str() == UNKNOWN_AUTHOR && !self.has_unknown {
            self.has_unknown = true;
            let sql = "INSERT INTO people (project_id, id, name, is_bot, import_id) VALUES ($1, $2, $3, $4, $5) \
                       ON CONFLICT (project_id, id) DO NOTHING";
            let (author, import) = ((&root.author).into(), Value::Uuid(self.import));
            let row =
                [self.caller.project.into(), author, UNKNOWN_NAME.into(), false.into(), import];
            tx.execute(sql, &row)?;
        }
        let params = [
            root.id.into(),
            self.caller.project.into(),
            (&root.channel).into(),
            (&root.author).into(),
            root.sent_at.into(),
            Value::Uuid(self.import),
        ];
        tx.execute(
            "INSERT INTO messages (id, project_id, channel, author, text, created_at, deleted_at, import_id) \
             VALUES ($1, $2, $3, $4, '', $5, $5, $6) ON CONFLICT (id) DO NOTHING",
            &params,
        )?;
        Ok(())
    }

    fn insert(&self, tx: &mut Tx<'_>, message: &Checked) -> Result<bool, ApiError> {
        let made = tx.execute(
            "INSERT INTO messages (id, project_id, channel, author, text, reply_to, metadata, created_at, updated_at, deleted_at, \
             import_id, author_name) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (id) DO NOTHING",
            &[
                message.id.into(),
                self.caller.project.into(),
                (&message.channel).into(),
                (&message.author).into(),
                (&message.text).into(),
                message.reply_to.as_ref().map(|root| root.id).into(),
                message.metadata.as_ref().into(),
                message.created_at.into(),
                message.updated_at.into(),
                message.deleted_at.into(),
                Value::Uuid(self.import),
                message.author_name.as_ref().into(),
            ],
        )?;
        if made > 0 {
            message.reactions.insert(tx, message.id, message.created_at)?;
        }
        Ok(made > 0)
    }

    /// Takes away the parts that a text does not have any more.
    fn drop_parts(&self, tx: &mut Tx<'_>, message: &Checked) -> Result<(), ApiError> {
        let parts = message.parts_beyond(self.caller.project, self.source);
        let at = tx.now();
        for part in undeleted(tx, parts)? {
            take_away(tx, self.caller, part, at)?;
        }
        Ok(())
    }
}

/// Returns those of the messages that are here and not deleted, in the order of their ids.
fn undeleted(
    reader: &Reader<'_>,
    ids: impl Iterator<Item = MessageId>,
) -> Result<Vec<MessageId>, ApiError> {
    let ids: Vec<Value<'_>> = ids.map(Value::from).collect();
    let sql = "SELECT id FROM messages WHERE deleted_at IS NULL AND";
    let mut found: Vec<MessageId> = reader.query_in(sql, "id", &ids, |row| row.get(0))?;
    found.sort_unstable();
    Ok(found)
}

/// Deletes a message, and tells streams of it.
fn take_away(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Owner>,
    id: MessageId,
    at: Timestamp,
) -> Result<(), ApiError> {
    let sql = "UPDATE messages SET text = '', metadata = NULL, deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL";
    if tx.execute(sql, &[id.into(), at.into()])? == 0 {
        return Ok(());
    }
    tx.redact(&caller.topic(), Redaction { message: id, deleted_at: Some(at) })?;
    reactions::store::clear(tx, id)?;
    let message = get(tx, caller, id)?;
    caller.record(tx, "message.deleted", &MessageEvent { message: &message })
}

/// Gives a row the message's content; a link that it has is kept where the message has none.
fn replace(tx: &mut Tx<'_>, message: &Checked, import: Option<Uuid>) -> Result<(), Error> {
    tx.erases();
    tx.execute(
        "UPDATE messages SET author = $2, author_name = $3, text = $4, reply_to = COALESCE($5, reply_to), metadata = $6, \
         updated_at = $7, deleted_at = $8, import_id = $9 WHERE id = $1",
        &[
            message.id.into(),
            (&message.author).into(),
            message.author_name.as_ref().into(),
            (&message.text).into(),
            message.reply_to.as_ref().map(|root| root.id).into(),
            message.metadata.as_ref().into(),
            message.updated_at.into(),
            message.deleted_at.into(),
            import.map_or(Value::Null, Value::Uuid),
        ],
    )?;
    Ok(())
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
