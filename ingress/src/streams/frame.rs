//! The bytes of events: encoded once, the same bytes for every stream that carries them.

use std::{
    borrow::Cow,
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
    ids::{ChannelName, UserId},
    journal::{Cursor, Entry, Position},
    time::Timestamp,
};

use super::{
    gzip::Block,
    job_view::{self, Concern},
};

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
    /// Who has no access to the project any more from it on.
    pub(crate) removes: Option<Removal>,
    /// How much of an answer there is with it.
    pub(crate) totals: Option<Totals>,
    /// Nothing follows it.
    pub(crate) is_last: bool,
    /// What it means to who may see what of jobs.
    pub(super) concern: Option<Concern>,
    stripped: OnceLock<Option<Box<Frame>>>,
    /// One HTTP chunk: its size, the event, a line end.
    chunk: Bytes,
    /// Where in the chunk the event begins, and where the rest of it after its `id:` line.
    begins: usize,
    data_begins: usize,
    zipped: OnceLock<Zipped>,
    spread: AtomicBool,
}

/// An event as a part of a gzip stream.
#[derive(Debug)]
struct Zipped {
    data: Block,
    /// The `id:` line, stored, and the data as one HTTP chunk.
    chunk: Bytes,
    begins: usize,
}

impl Frame {
    /// Encodes an entry of a log, with the cursor that stands after it.
    pub(crate) fn entry(entry: &Entry) -> Arc<Self> {
        let id = id_line(&Cursor::at(&entry.topic, entry.position));
        if entry.topic.answer_id().is_some() {
            let text = named(&entry.kind, &entry.data);
            return Arc::new(Self {
                totals: Totals::up_to(entry),
                is_last: is_end(&entry.kind),
                previous: entry.previous,
                ..Self::new(Some(entry.position), Told::default(), &id, &text)
            });
        }
        let told = Told::by(&entry.kind, &entry.data);
        let frame = Self::new(Some(entry.position), told, &id, &event(&entry.data));
        Arc::new(Self { concern: Concern::of(entry), previous: entry.previous, ..frame })
    }

    /// Returns a job's event without the job's content, made when the first stream asks for it, for all of them.
    pub(super) fn stripped(&self) -> Option<&Self> {
        let stripped = self.stripped.get_or_init(|| {
            let data = std::str::from_utf8(self.data()).ok()?;
            let stripped = job_view::stripped(data.strip_prefix("data: ")?.trim_end())?;
            let id = std::str::from_utf8(&self.chunk[self.begins..self.data_begins]).ok()?;
            Some(Box::new(Self::new(self.position, Told::default(), id, &event(&stripped))))
        });
        stripped.as_deref()
    }

    /// Encodes an event that no log has.
    pub(crate) fn ephemeral(json: &str) -> Arc<Self> {
        Arc::new(Self::new(None, Told::by("user.typing", json), "", &event(json)))
    }

    /// Encodes the sign of life: a comment for proxies and an event for scripts.
    pub(crate) fn heartbeat(now: Timestamp) -> Arc<Self> {
        let text = format!(": keepalive\nevent: heartbeat\ndata: {{\"timestamp\":\"{now}\"}}\n\n");
        Arc::new(Self::new(None, Told::default(), "", &text))
    }

    fn new(position: Option<Position>, told: Told, id: &str, data: &str) -> Self {
        let length = id.len() + data.len();
        let mut chunk = String::with_capacity(length + 12);
        let _ = write!(chunk, "{length:x}\r\n");
        let begins = chunk.len();
        let _ = write!(chunk, "{id}{data}\r\n");
        Self {
            position,
            previous: None,
            channel: told.channel,
            removes: told.removes,
            totals: None,
            is_last: false,
            concern: None,
            stripped: OnceLock::new(),
            chunk: chunk.into(),
            begins,
            data_begins: begins + id.len(),
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

    /// Returns the event after its `id:` line.
    pub(super) fn data(&self) -> &[u8] {
        &self.chunk[self.data_begins..self.chunk.len() - 2]
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

    /// Returns the event after its `id:` line, compressed.
    pub(super) fn zipped_data(&self) -> &Block {
        &self.zipped().data
    }

    /// Compressed when the first stream asks for it, for all of them.
    fn zipped(&self) -> &Zipped {
        self.zipped.get_or_init(|| {
            let id = Block::stored(&self.chunk[self.begins..self.data_begins]);
            let data = Block::of(self.data());
            let mut chunk = Vec::with_capacity(id.bytes().len() + data.bytes().len() + 12);
            let begins = chunk_head(&mut chunk, id.bytes().len() + data.bytes().len());
            chunk.extend_from_slice(id.bytes());
            chunk.extend_from_slice(data.bytes());
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

/// Returns the line that moves a client's cursor.
pub(super) fn id_line(cursor: &Cursor) -> String {
    format!("id: {cursor}\n")
}

/// Encodes an application event.
pub(crate) fn event(json: &str) -> String {
    format!("data: {}\n\n", one_line(json))
}

/// Encodes the start of a stream: when to come back, and who is here.
pub(crate) fn hello(retry_ms: u64, cursor: &Cursor, json: &str) -> String {
    format!("retry: {retry_ms}\n{}data: {}\n\n", id_line(cursor), one_line(json))
}

/// Encodes a control event.
pub(crate) fn control(event: Control, data: &impl Serialize) -> String {
    let json = serde_json::to_string(data).unwrap_or_else(|_| "{}".into());
    named(event.name(), &json)
}

/// Encodes a control event that moves the client's cursor.
pub(crate) fn control_at(event: Control, data: &impl Serialize, cursor: &Cursor) -> String {
    let mut text = control(event, data);
    text.insert_str(text.len() - 1, &id_line(cursor));
    text
}

/// Encodes an event that has a name.
pub(crate) fn named(name: &str, json: &str) -> String {
    format!("event: {name}\ndata: {}\n\n", one_line(json))
}

/// What the hub reads out of an event, to know whom it is for.
#[derive(Default)]
struct Told {
    channel: Option<ChannelName>,
    removes: Option<Removal>,
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
        let within = event.message.or(event.reaction).or(event.read);
        let whole = event.channel.map(|channel| match channel {
            Channel::Name(name) | Channel::Whole { name } => name,
        });
        Self {
            channel: within.and_then(|within| within.channel).or(whole),
            removes: event.member.filter(|_| removes).map(|member| Removal::Member(member.user)),
        }
    }
}

/// JSON has no line ends of its own here; these are line ends to some readers and legal inside strings.
fn one_line(json: &str) -> Cow<'_, str> {
    let breaks = |c: char| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\r' | '\n');
    if !json.contains(breaks) {
        return json.into();
    }
    let mut line = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '\r' | '\n' => line.push(' '),
            c if breaks(c) => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.into()
}

#[cfg(test)]
mod tests;
