//! The bytes of events: encoded once, the same bytes for every stream that carries them.

use std::{
    fmt::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::{
    answers::{Totals, is_end},
    ids::{ChannelName, MessageId, UserId},
    journal::{Cursor, Entry, Position, Redaction, Topic},
    time::Timestamp,
};

pub(super) use self::fit::MAX_DATA_BYTES;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::fit::MAX_FRAME_BYTES;
use self::fit::fit;
pub(crate) use self::fit::{json_bytes, one_line};
use super::{
    gzip::Block,
    job_view::{self, Concern},
};

mod fit;

/// A control event's name. Application events have none, so that `onmessage` sees them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Reset,
    ServerShutdown,
    Bye,
}

impl Control {
    fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ServerShutdown => "server_shutdown",
            Self::Bye => "bye",
        }
    }
}

/// End of the access to a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    Member(UserId),
    /// The project was deleted.
    Everybody,
}

impl Removal {
    /// Returns whether the user's access ends.
    pub(crate) fn covers(&self, user: &UserId) -> bool {
        match self {
            Self::Member(member) => member == user,
            Self::Everybody => true,
        }
    }
}

/// An event of a topic, as its followers get it.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The entry's place in its log; `None` for an event that no log has.
    pub(crate) position: Option<Position>,
    /// The tag of the entry before it in its log.
    previous: Option<u32>,
    /// The channel it is about, if it is about one.
    pub(crate) channel: Option<ChannelName>,
    /// User who loses access to the project with this entry.
    pub(crate) removes: Option<Removal>,
    /// The message whose text it may have.
    pub(crate) message: Option<MessageId>,
    /// How much of an answer there is with it.
    pub(crate) totals: Option<Totals>,
    /// Nothing follows it.
    pub(crate) is_last: bool,
    /// Change of access to jobs that the entry makes.
    pub(super) concern: Option<Concern>,
    stripped: OnceLock<Option<Box<Frame>>>,
    /// One HTTP chunk: its size, the event, a line end.
    chunk: Bytes,
    /// Where in the chunk the event begins, and where its last lines do: `id:` and the blank line that ends it.
    begins: usize,
    data_ends: usize,
    zipped: OnceLock<Zipped>,
    spread: AtomicBool,
}

/// An event as a part of a gzip stream.
#[derive(Debug)]
struct Zipped {
    data: Block,
    /// The data and its last lines, stored, as one HTTP chunk.
    chunk: Bytes,
    begins: usize,
}

impl Frame {
    /// Encodes an entry of a log, with the cursor that stands after it.
    pub(crate) fn entry(entry: &Entry) -> Arc<Self> {
        let end = end(Some(&Cursor::at(&entry.topic, entry.position)));
        if entry.topic.answer_id().is_some() {
            let text = named_lines(&entry.kind, &entry.data);
            return Arc::new(Self {
                totals: Totals::up_to(entry),
                is_last: is_end(&entry.kind),
                previous: entry.previous,
                ..Self::new(Some(entry.position), Told::default(), &text, &end)
            });
        }
        let told = Told::by(&entry.kind, &entry.data);
        let frame = Self::new(Some(entry.position), told, &data_line(&entry.data), &end);
        Arc::new(Self { concern: Concern::of(entry), previous: entry.previous, ..frame })
    }

    /// Returns a job's event without the job's content, made when the first stream asks for it, for all of them.
    pub(super) fn stripped(&self) -> Option<&Self> {
        let stripped = self.stripped.get_or_init(|| {
            let data = std::str::from_utf8(self.data()).ok()?;
            let stripped = job_view::stripped(data.strip_prefix("data: ")?.trim_end())?;
            let end =
                std::str::from_utf8(&self.chunk[self.data_ends..self.chunk.len() - 2]).ok()?;
            Some(Box::new(Self::new(self.position, Told::default(), &data_line(&stripped), end)))
        });
        stripped.as_deref()
    }

    /// Encodes the event without the text of its message, `None` if it has none.
    pub(super) fn redacted(&self, topic: &Topic, redaction: Redaction) -> Option<Arc<Self>> {
        let (position, text) = (self.position?, std::str::from_utf8(self.text()).ok()?);
        let json = text.lines().find_map(|line| line.strip_prefix("data: "))?;
        let data = redaction.of_event(json)?.into();
        let (topic, at) = (topic.clone(), Timestamp::default());
        let (kind, previous) = ("message.updated".into(), self.previous);
        Some(Self::entry(&Entry { topic, position, previous, kind, data, at }))
    }

    /// Encodes an event that no log has.
    pub(crate) fn ephemeral(json: &str) -> Arc<Self> {
        Arc::new(Self::new(None, Told::by("user.typing", json), &data_line(json), &end(None)))
    }

    /// Encodes the sign of life: a comment for proxies and an event for scripts.
    pub(crate) fn heartbeat(now: Timestamp) -> Arc<Self> {
        let text = format!(": keepalive\nevent: heartbeat\ndata: {{\"timestamp\":\"{now}\"}}\n");
        Arc::new(Self::new(None, Told::default(), &text, &end(None)))
    }

    fn new(position: Option<Position>, told: Told, data: &str, end: &str) -> Self {
        let length = data.len() + end.len();
        let mut chunk = String::with_capacity(length + 12);
        let _ = write!(chunk, "{length:x}\r\n");
        let begins = chunk.len();
        let _ = write!(chunk, "{data}{end}\r\n");
        Self {
            position,
            previous: None,
            channel: told.channel,
            removes: told.removes,
            message: told.message,
            totals: None,
            is_last: false,
            concern: None,
            stripped: OnceLock::new(),
            chunk: chunk.into(),
            begins,
            data_ends: begins + data.len(),
            zipped: OnceLock::new(),
            spread: AtomicBool::new(false),
        }
    }

    /// Returns whether it is the entry that follows the one at `place`.
    pub(super) fn follows(&self, place: Position) -> bool {
        self.position.is_some_and(|position| {
            position.seq == place.seq + 1
                && position.epoch == place.epoch
                && self.previous == Some(place.tag)
        })
    }

    /// Says to the first thread that spreads the event that it is the first.
    pub(super) fn spreads_first(&self) -> bool {
        !self.spread.swap(true, Ordering::Relaxed)
    }

    /// Returns the event as it is.
    pub(crate) fn text(&self) -> &[u8] {
        &self.chunk[self.begins..self.chunk.len() - 2]
    }

    /// Returns the event's lines before its `id:`.
    pub(super) fn data(&self) -> &[u8] {
        &self.chunk[self.begins..self.data_ends]
    }

    /// Returns the event as an HTTP chunk.
    pub(super) fn chunk(&self) -> &Bytes {
        &self.chunk
    }

    /// Returns the event without a chunk around it.
    pub(super) fn plain(&self) -> Bytes {
        self.chunk.slice(self.begins..self.chunk.len() - 2)
    }

    /// Returns the event compressed, as an HTTP chunk.
    pub(super) fn zipped_chunk(&self) -> &Bytes {
        &self.zipped().chunk
    }

    /// Returns the event compressed, without a chunk around it.
    pub(super) fn zipped_plain(&self) -> Bytes {
        let zipped = self.zipped();
        zipped.chunk.slice(zipped.begins..zipped.chunk.len() - 2)
    }

    /// Returns the event's lines before its `id:`, compressed.
    pub(super) fn zipped_data(&self) -> &Block {
        &self.zipped().data
    }

    /// Compressed when the first stream asks for it, for all of them.
    fn zipped(&self) -> &Zipped {
        self.zipped.get_or_init(|| {
            let last = Block::stored(&self.chunk[self.data_ends..self.chunk.len() - 2]);
            let data = Block::of(self.data());
            let mut chunk = Vec::with_capacity(last.bytes().len() + data.bytes().len() + 12);
            let begins = chunk_head(&mut chunk, last.bytes().len() + data.bytes().len());
            chunk.extend_from_slice(data.bytes());
            chunk.extend_from_slice(last.bytes());
            chunk.extend_from_slice(b"\r\n");
            Zipped { data, chunk: chunk.into(), begins }
        })
    }
}

/// Begins an HTTP chunk of `length` bytes; returns how long its head is.
pub(super) fn chunk_head(chunk: &mut Vec<u8>, length: usize) -> usize {
    let before = chunk.len();
    chunk.extend_from_slice(format!("{length:x}\r\n").as_bytes());
    chunk.len() - before
}

/// Returns the last lines of an event: `id:` moves the client's cursor, and the blank line ends the event. Some readers
/// hand out an event that was cut off, and come back with the `id:` they have read: it must be that of the event before.
pub(super) fn end(id: Option<&Cursor>) -> String {
    id.map_or("\n".into(), |id| format!("id: {id}\n\n"))
}

/// Encodes an application event; `id` moves the client's cursor.
pub(crate) fn event(json: &str, id: Option<&Cursor>) -> String {
    data_line(json) + &end(id)
}

/// Encodes the start of a stream: when to come back, and who is here. It has no `id` where a `reset` or a snapshot
/// follows: a client that is cut off before it has read them comes back for them.
pub(crate) fn hello(retry_ms: u64, json: &str, id: Option<&Cursor>) -> String {
    retry(retry_ms, &event(json, id))
}

/// Encodes a control event; `id` moves the client's cursor.
pub(crate) fn control(event: Control, data: &impl Serialize, id: Option<&Cursor>) -> String {
    let json = serde_json::to_string(data).unwrap_or_else(|_| "{}".into());
    named(event.name(), &json, id)
}

/// Writes an event that tells the client when to come back.
pub(crate) fn retry(retry_ms: u64, event: &str) -> String {
    format!("retry: {retry_ms}\n{event}")
}

/// Encodes an event that has a name; `id` moves the client's cursor.
pub(crate) fn named(name: &str, json: &str, id: Option<&Cursor>) -> String {
    named_lines(name, json) + &end(id)
}

fn data_line(json: &str) -> String {
    format!("data: {}\n", fit(json))
}

fn named_lines(name: &str, json: &str) -> String {
    format!("event: {name}\n{}", data_line(json))
}

/// What the hub reads out of an event, to know whom it is for.
#[derive(Default)]
struct Told {
    channel: Option<ChannelName>,
    removes: Option<Removal>,
    message: Option<MessageId>,
}

impl Told {
    fn by(kind: &str, json: &str) -> Self {
        #[derive(Deserialize)]
        struct Event {
            message: Option<InChannel>,
            reaction: Option<InChannel>,
            read: Option<InChannel>,
            channel: Option<Channel>,
            member: Option<Member>,
        }
        #[derive(Deserialize)]
        struct InChannel {
            id: Option<MessageId>,
            channel: Option<ChannelName>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Channel {
            Name(ChannelName),
            Whole { name: ChannelName },
        }
        #[derive(Deserialize)]
        struct Member {
            user: UserId,
        }
        if kind == "project.deleted" {
            return Self { removes: Some(Removal::Everybody), ..Self::default() };
        }
        let group = kind.split('.').next().unwrap_or_default();
        let removes = kind == "member.removed";
        if !removes && !matches!(group, "message" | "reaction" | "read" | "channel" | "user") {
            return Self::default();
        }
        let Ok(event) = serde_json::from_str::<Event>(json) else { return Self::default() };
        let message = event.message.as_ref().and_then(|message| message.id);
        let within = event.message.or(event.reaction).or(event.read);
        let whole = event.channel.map(|channel| match channel {
            Channel::Name(name) | Channel::Whole { name } => name,
        });
        Self {
            message,
            channel: within.and_then(|within| within.channel).or(whole),
            removes: event.member.filter(|_| removes).map(|member| Removal::Member(member.user)),
        }
    }
}

#[cfg(test)]
mod tests;
