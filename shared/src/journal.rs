//! Ordered logs in the database: everything a client may have to catch up on is an entry of one.
//!
//! An entry is appended in its caller's transaction, which takes the topic's row: so the order of numbers is the order
//! of commits, the log has no holes, and a rollback gives the number back.

pub mod cursor;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod lease;
mod pack;
mod proof;
mod reads;
mod redaction;
mod retention;
pub mod tail;

use std::{fmt, sync::Arc, time::Duration};

use rand::RngExt as _;

use self::pack::Packed;
pub use self::{
    cursor::{Cursor, Position},
    lease::{Lease, Renewal},
    redaction::Redaction,
    retention::{RetentionConfig, Trimmed, trim},
    tail::Tail,
};
use crate::{
    bus::{self, News},
    ids::{AnswerId, MessageId, ProjectId, ReplicaId, UserId},
    sabotage::Sabotage,
    store::{Error, Tx, Value},
    time::Timestamp,
};

const ANSWER: &str = "answer/";
const PROJECT: &str = "project/";
const REPLICA: &str = "replica/";

/// The name of one log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// What happens in a project.
    #[must_use]
    pub fn project(id: ProjectId) -> Self {
        Self(format!("{PROJECT}{id}").into())
    }

    /// What becomes of a user's jobs.
    #[must_use]
    pub fn user(id: &UserId) -> Self {
        Self(format!("user/{id}").into())
    }

    /// What becomes of everybody's jobs.
    #[must_use]
    pub fn jobs() -> Self {
        Self("jobs".into())
    }

    /// An answer as it is written.
    #[must_use]
    pub fn answer(id: AnswerId) -> Self {
        Self(format!("{ANSWER}{id}").into())
    }

    /// What a replica is told to do.
    #[must_use]
    pub fn replica(id: ReplicaId) -> Self {
        Self(format!("{REPLICA}{id}").into())
    }

    /// Which sessions were ended.
    #[must_use]
    pub fn sessions() -> Self {
        Self("sessions".into())
    }

    /// Returns the project that the topic is about, if it is about one.
    #[must_use]
    pub fn project_id(&self) -> Option<ProjectId> {
        self.0.strip_prefix(PROJECT)?.parse().ok()
    }

    /// Returns the answer that the log is of, if it is one's.
    #[must_use]
    pub fn answer_id(&self) -> Option<AnswerId> {
        self.0.strip_prefix(ANSWER)?.parse().ok()
    }

    fn is_replica(&self) -> bool {
        self.0.starts_with(REPLICA)
    }

    /// Which projects' indexes are to be built anew.
    #[must_use]
    pub fn search() -> Self {
        Self("search".into())
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The log it is in.
    pub topic: Topic,
    /// Its place in the log, and the log's epoch.
    pub position: Position,
    /// The tag of the entry before it, if that is known: a consumer whose last entry has another tag has lost its place.
    pub previous: Option<u32>,
    /// The event's type, such as `message.created`.
    pub kind: Arc<str>,
    /// The event as clients see it: one line of JSON.
    pub data: Arc<str>,
    /// When it was appended.
    pub at: Timestamp,
}

impl Entry {
    pub(crate) fn new(
        topic: &Topic,
        position: Position,
        kind: &str,
        data: &str,
        at: Timestamp,
    ) -> Self {
        let (topic, kind, data) = (topic.clone(), kind.into(), data.into());
        Self { topic, position, previous: None, kind, data, at }
    }
}

/// Why a log cannot be continued at a cursor.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// What follows the cursor is no longer kept.
    Expired,
    /// The cursor is of another log, or of this log before its store was replaced.
    UnknownEpoch,
    /// The cursor is beyond the log's end.
    Ahead,
    /// The cursor cannot be read.
    Malformed,
    /// The database lost entries that an open stream has had.
    Diverged,
}

/// The message whose text an entry has.
#[derive(Copy, Clone, Debug)]
pub struct Text {
    /// The message, by which the entry is found.
    pub message: MessageId,
    /// Time of the message if the entry tells that it was sent.
    pub sent_at: Option<Timestamp>,
}

/// Where a follower starts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The follower has everything up to here.
    pub position: Position,
    /// Set when this is not where the cursor was.
    pub reset: Option<ResetReason>,
}

impl Tx<'_> {
    /// Appends an entry to `topic`, to be published when the transaction is committed.
    pub fn append(&mut self, topic: &Topic, kind: &str, data: &str) -> Result<Arc<Entry>, Error> {
        self.append_of(topic, kind, data, None)
    }

    /// Appends an entry that has the text of a message, to be found when that is edited or deleted ([`Tx::redact`]).
    pub fn append_text(
        &mut self,
        topic: &Topic,
        kind: &str,
        data: &str,
        text: Text,
    ) -> Result<Arc<Entry>, Error> {
        self.append_of(topic, kind, data, Some(text))
    }

    fn append_of(
        &mut self,
        topic: &Topic,
        kind: &str,
        data: &str,
        text: Option<Text>,
    ) -> Result<Arc<Entry>, Error> {
        let tag = self.tag();
        let sent_at = text.and_then(|text| text.sent_at);
        let (position, previous) = self.advance(topic, 1, tag, sent_at)?;
        if let Some(sent_at) = sent_at {
            self.note_sent(topic, sent_at);
        }
        let entry = Entry::new(topic, position, kind, data, self.now());
        let entry = Arc::new(Entry { previous, ..entry });
        self.write_rows(
            topic,
            &pack::pack(position.seq, &[(kind, data)], &[tag]),
            entry.at,
            text.map(|text| text.message),
        )?;
        self.appended(News::Entry(entry.clone()));
        Ok(entry)
    }

    /// Appends entries to `topic`, each a type and its data, to be published when the transaction is committed. They are kept
    /// as few rows, packed. None of them has the text of a message.
    pub fn append_all(&mut self, topic: &Topic, entries: &[(&str, &str)]) -> Result<(), Error> {
        let Some((last_kind, last_data)) = entries.last() else { return Ok(()) };
        let at = self.now();
        let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        let tags: Vec<u32> = entries.iter().map(|_| self.tag()).collect();
        let (head, mut previous) =
            self.advance(topic, count, tags.last().copied().unwrap_or_default(), None)?;
        let first = head.seq - count + 1;
        self.write_rows(topic, &pack::pack(first, entries, &tags), at, None)?;
        if entries.len() > bus::TOLD {
            let last = Entry::new(topic, head, last_kind, last_data, at);
            self.appended(News::Many(Arc::new(last)));
        } else {
            for ((seq, (kind, data)), tag) in (first..).zip(entries).zip(tags) {
                let position = Position { epoch: head.epoch, seq, tag };
                let entry = Entry::new(topic, position, kind, data, at);
                self.appended(News::Entry(Arc::new(Entry { previous, ..entry })));
                previous = Some(tag);
            }
        }
        Ok(())
    }

    /// Returns the tag of a new entry.
    fn tag(&self) -> u32 {
        if self.sabotage == Some(Sabotage::NoTagCheck) { 0 } else { rand::rng().random() }
    }

    fn write_rows(
        &mut self,
        topic: &Topic,
        rows: &[Packed<'_>],
        at: Timestamp,
        message: Option<MessageId>,
    ) -> Result<(), Error> {
        let mut values: Vec<Value<'_>> = Vec::with_capacity(rows.len() * 8);
        for Packed { seq, kind, data, before, tags } in rows {
            let packed = Value::from(before.as_deref());
            values.extend([
                topic.as_str().into(),
                (*seq).into(),
                (*kind).into(),
                (*data).into(),
                at.into(),
                packed,
                tags.as_slice().into(),
                message.into(),
            ]);
        }
        let sql = "INSERT INTO entries (topic, seq, type, data, at, packed, tags, message_id)";
        self.execute_rows(sql, "", 8, &values)
    }

    /// Makes the topic if it does not exist, so that it has an epoch to put into cursors.
    pub fn ensure(&mut self, topic: &Topic) -> Result<(), Error> {
        self.advance(topic, 0, 0, None).map(drop)
    }

    /// Deletes a topic and all its entries, for which it has to be short. Made again, it is another log with another epoch.
    pub fn forget(&mut self, topic: &Topic) -> Result<(), Error> {
        self.erases();
        self.execute("DELETE FROM entries WHERE topic = $1", &[topic.as_str().into()])?;
        self.execute("DELETE FROM topics WHERE name = $1", &[topic.as_str().into()])?;
        Ok(())
    }

    /// Moves the topic's head by `by` entries, of which the last has `tag`, and notes when a message was sent. Returns the
    /// head's position, and the tag of the head before if that is known. The topic is made if there is none.
    fn advance(
        &mut self,
        topic: &Topic,
        by: i64,
        tag: u32,
        sent_at: Option<Timestamp>,
    ) -> Result<(Position, Option<u32>), Error> {
        if by > 0 && self.sabotage == Some(Sabotage::Sequence) {
            return self.advance_by_sequence(topic, tag);
        }
        // 40 bits tell stores apart and keep cursors short.
        let epoch =
            i64::from(rand::rng().random::<u32>()) << 8 | i64::from(rand::rng().random::<u8>());
        // Retention looks at the topic when its head gets to where it wanted to, and when the newest entry was the only one.
        let sql = "INSERT INTO topics (name, epoch, head, floor, tag, previous, sent_at) VALUES ($1, $2, $3, 1, $4, 0, $5) \
                   ON CONFLICT (name) DO UPDATE SET head = topics.head + excluded.head, \
                   sent_at = COALESCE(excluded.sent_at, topics.sent_at), \
                   previous = CASE WHEN excluded.head = 0 THEN topics.previous ELSE topics.tag END, \
                   tag = CASE WHEN excluded.head = 0 THEN topics.tag ELSE excluded.tag END, oldest_at = CASE \
                   WHEN excluded.head > 0 AND (topics.oldest_at IS NULL OR topics.head + excluded.head >= topics.look_at) \
                   THEN 0 ELSE topics.oldest_at END RETURNING epoch, head, previous";
        let params =
            [topic.as_str().into(), epoch.into(), by.into(), i64::from(tag).into(), sent_at.into()];
        self.find(sql, &params, |row| {
            let previous = row.get::<Option<i64>>(2)?.and_then(|tag| u32::try_from(tag).ok());
            Ok((Position { epoch: row.get(0)?, seq: row.get(1)?, tag }, previous))
        })?
        .ok_or(Error::Gone)
    }
}

impl Tx<'_> {
    /// The deliberate bug: numbers are given out before the log is locked, so a later one may be committed first.
    fn advance_by_sequence(
        &mut self,
        topic: &Topic,
        tag: u32,
    ) -> Result<(Position, Option<u32>), Error> {
        let Some(Position { epoch, seq: head, .. }) = self.head(topic)? else {
            return self
                .advance(topic, 0, 0, None)
                .and_then(|_| self.advance_by_sequence(topic, tag));
        };
        let name = format!("sabotage_{:08x}", crc32fast::hash(topic.as_str().as_bytes()));
        self.execute(&format!("CREATE SEQUENCE IF NOT EXISTS {name} START {}", head + 1), &[])?;
        let seq = self.find(&format!("SELECT nextval('{name}')"), &[], |row| row.get::<i64>(0))?;
        let seq = seq.ok_or(Error::Gone)?;
        std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..40)));
        self.execute(
            "UPDATE topics SET head = $2, tag = $3 WHERE name = $1 AND head < $2",
            &[topic.as_str().into(), seq.into(), i64::from(tag).into()],
        )?;
        Ok((Position { epoch, seq, tag }, None))
    }
}

#[cfg(test)]
mod tests;
