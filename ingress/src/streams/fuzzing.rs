//! The bytes of event streams, for the targets in `fuzz/`.

use bytes::Bytes;
use http::Version;
use shared::{
    journal::{Cursor, Entry},
    time::Timestamp,
};

use super::{
    frame::{self, Control, Frame, control, hello},
    wire::Wire,
};

/// The longest data of an event in bytes.
pub const MAX_DATA_BYTES: usize = frame::MAX_DATA_BYTES;
/// The longest event in bytes.
pub const MAX_FRAME_BYTES: usize = frame::MAX_FRAME_BYTES;

/// An event of a stream.
#[derive(Clone, Debug)]
pub enum Event {
    /// An entry of a topic.
    Entry(Entry),
    /// An entry of a topic, with a cursor of the stream's own.
    EntryAt(Entry, Cursor),
    /// An event that no topic has.
    Ephemeral(String),
    Heartbeat(Timestamp),
    /// The event `bye`, whose data is a text.
    Bye(String, Option<Cursor>),
}

/// Encodes a stream of HTTP/1.1 or 1.0: its first bytes, which HTTP itself puts into a chunk, then each event, then its end.
#[must_use]
pub fn encode(
    chunked: bool,
    compressed: bool,
    (greeting, cursor): (&str, Option<&Cursor>),
    events: &[Event],
) -> Vec<Bytes> {
    let version = if chunked { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut wire = Wire::new(version, compressed);
    let mut pieces = vec![wire.first(&hello(1_500, greeting, cursor))];
    for event in events {
        let piece = match event {
            Event::Entry(entry) => wire.frame(&Frame::entry(entry)),
            Event::EntryAt(entry, cursor) => wire.frame_at(&Frame::entry(entry), cursor),
            Event::Ephemeral(json) => wire.frame(&Frame::ephemeral(json)),
            Event::Heartbeat(now) => wire.frame(&Frame::heartbeat(*now)),
            Event::Bye(text, cursor) => wire.text(&control(Control::Bye, text, cursor.as_ref())),
        };
        pieces.push(piece);
    }
    pieces.push(wire.end());
    pieces
}

/// Encodes the event of a job without the job's content, `None` if the entry is of no job.
#[must_use]
pub fn stripped(entry: &Entry) -> Option<Vec<u8>> {
    Frame::entry(entry).stripped().map(|frame| frame.text().to_vec())
}
