//! Redaction of entries that have the text of a message: one that was deleted, or an earlier version of one that was edited.
//!
//! A redacted entry keeps its number, type, time and tag, so that order and cursors hold. Its event has the message with
//! `text: ""`, without metadata, with `redacted: true` and, of a deleted message, with `deleted_at`.

use rand::RngExt as _;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Entry, Topic, pack};
use crate::{
    ids::MessageId,
    sabotage::Sabotage,
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};

const CREATED: &str = "message.created";
/// Types of events that have the text of a message.
const WITH_TEXT: [&str; 2] = [CREATED, "message.updated"];

/// The end of all texts that a message had before.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    pub message: MessageId,
    /// Set when the message was deleted, and not edited.
    pub deleted_at: Option<Timestamp>,
}

impl Redaction {
    /// Reads what an entry redacts, `None` if that is nothing.
    #[must_use]
    pub fn by(entry: &Entry) -> Option<Self> {
        #[derive(Deserialize)]
        struct Event {
            message: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            id: MessageId,
            deleted_at: Option<Timestamp>,
        }
        if !matches!(&*entry.kind, "message.updated" | "message.deleted") {
            return None;
        }
        let Event { message } = serde_json::from_str(&entry.data).ok()?;
        Some(Self { message: message.id, deleted_at: message.deleted_at })
    }

    /// Returns the event without its text, `None` if it is not about the message, or has no text any more.
    #[must_use]
    pub fn of_event(self, json: &str) -> Option<String> {
        let mut event: Json = serde_json::from_str(json).ok()?;
        let message = event.get_mut("message")?.as_object_mut()?;
        let id = message.get("id")?.as_str()?.parse::<MessageId>();
        let is_it = id.is_ok_and(|id| id == self.message);
        let is_redacted = message.get("redacted") == Some(&Json::Bool(true));
        // A version that was redacted becomes the tombstone of a message that is deleted later.
        if !is_it || (is_redacted && self.deleted_at.is_none()) {
            return None;
        }
        message.insert("text".into(), json!(""));
        message.insert("metadata".into(), Json::Null);
        message.insert("redacted".into(), json!(true));
        if let Some(deleted_at) = self.deleted_at {
            message.insert("deleted_at".into(), json!(deleted_at));
            message.insert("reactions".into(), json!([]));
        }
        serde_json::to_string(&event).ok()
    }
}

/// A row of entries to look for the message in.
struct Found {
    seq: i64,
    row: pack::Row,
}

impl Found {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        let packed: Option<Vec<u8>> = row.get(3)?;
        let entries = pack::Row::of(row.get(1)?, row.get(2)?, packed.as_deref(), row.get(4)?);
        Ok(Self { seq: row.get(0)?, row: entries.ok_or(Error::Column { column: 3 })? })
    }
}

impl Tx<'_> {
    /// Redacts the entries of a message in `topic`, which the transaction holds. Returns how many it changed.
    pub fn redact(&mut self, topic: &Topic, redaction: Redaction) -> Result<usize, Error> {
        if self.sabotage == Some(Sabotage::NoRedaction) {
            return Ok(0);
        }
        // The message's own row too was changed by the caller.
        self.erases();
        let mut changed = 0;
        // Until the message is deleted a redacted version is found again, for its `deleted_at`.
        let message = redaction.deleted_at.is_none().then_some(redaction.message);
        let without_text = |kind: &str, data: &str| {
            let has_text = WITH_TEXT.contains(&kind);
            has_text.then(|| redaction.of_event(data)).flatten()
        };
        for found in find(self, topic, redaction)? {
            changed += self.rewrite_row(topic, found, message, &without_text)?;
        }
        Ok(changed)
    }

    /// Rewrites the entries of `topic`, which the transaction holds and which is short. `change` gets the type and the data of
    /// each, and returns new data for those that it changes. Returns how many it changed.
    pub fn rewrite(
        &mut self,
        topic: &Topic,
        change: impl Fn(&str, &str) -> Option<String>,
    ) -> Result<usize, Error> {
        let sql = "SELECT seq, type, data, packed, tags FROM entries WHERE topic = $1 ORDER BY seq";
        self.erases();
        let mut changed = 0;
        for found in self.query(sql, &[topic.as_str().into()], Found::read)? {
            changed += self.rewrite_row(topic, found, None, &change)?;
        }
        Ok(changed)
    }

    fn rewrite_row(
        &mut self,
        topic: &Topic,
        Found { seq, row }: Found,
        message: Option<MessageId>,
        change: &impl Fn(&str, &str) -> Option<String>,
    ) -> Result<usize, Error> {
        let has_stored_tags = row.has_stored_tags();
        let mut entries = row.into_entries();
        let (mut changed, mut is_last_changed) = (0, false);
        let last = entries.len().saturating_sub(1);
        for (index, (kind, data, tag)) in entries.iter_mut().enumerate() {
            let Some(new) = change(kind.as_str(), data.as_str()) else { continue };
            // A tag from before stored tags tells of the text; a row that was rewritten before may still have some.
            let is_checksum = !has_stored_tags || *tag == crc32fast::hash(data.as_bytes());
            *data = new;
            if is_checksum {
                *tag = rand::rng().random();
                is_last_changed |= index == last;
            }
            changed += 1;
        }
        if changed == 0 {
            return Ok(0);
        }
        let row = pack::encode(seq, &entries).ok_or(Error::Gone)?;
        let sql = "UPDATE entries SET data = $3, packed = $4, tags = $5, message_id = $6 WHERE topic = $1 AND seq = $2";
        let params: [Value<'_>; 6] = [
            topic.as_str().into(),
            seq.into(),
            row.data.into(),
            row.before.as_deref().into(),
            row.tags.as_slice().into(),
            message.into(),
        ];
        self.execute(sql, &params)?;
        if is_last_changed {
            // The head is read from its row then.
            let sql = "UPDATE topics SET tag = NULL WHERE name = $1 AND head = $2";
            self.execute(sql, &[topic.as_str().into(), seq.into()])?;
        }
        Ok(changed)
    }
}

/// Finds the rows to redact: by the index, and rows from before there was one by their text.
fn find(reader: &Reader<'_>, topic: &Topic, redaction: Redaction) -> Result<Vec<Found>, Error> {
    const COLUMNS: &str = "SELECT seq, type, data, packed, tags FROM entries WHERE";
    // With each edit the version before is redacted, so that at most the last one has a text.
    let limit = if redaction.deleted_at.is_some() { i64::MAX } else { 1 };
    let sql = format!("{COLUMNS} message_id = $1 ORDER BY seq DESC LIMIT $2");
    let mut found = reader.query(&sql, &[redaction.message.into(), limit.into()], Found::read)?;
    let is_whole = found.iter().any(|found| found.row.kind() == CREATED)
        || (redaction.deleted_at.is_none() && !found.is_empty());
    let sql = "SELECT unmarked FROM topics WHERE name = $1 AND unmarked >= floor";
    let unmarked = reader.find(sql, &[topic.as_str().into()], |row| row.get::<i64>(0))?;
    if let Some(unmarked) = unmarked.filter(|_| !is_whole) {
        let sql = format!(
            "{COLUMNS} topic = $1 AND seq <= $2 AND message_id IS NULL AND (packed IS NOT NULL OR data LIKE $3) ORDER BY seq"
        );
        let pattern = format!("%\"{}\"%", redaction.message);
        let params = [topic.as_str().into(), unmarked.into(), (&pattern).into()];
        found.extend(reader.query(&sql, &params, Found::read)?);
    }
    Ok(found)
}
