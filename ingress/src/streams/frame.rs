//! The bytes of events: encoded once, written to every stream that carries them.

use std::{borrow::Cow, fmt::Write};

use bytes::Bytes;
use serde::Serialize;
use shared::{
    journal::{Cursor, Entry},
    time::Timestamp,
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

/// Encodes an entry of a log, with the cursor that stands after it.
pub(crate) fn entry(entry: &Entry) -> Bytes {
    let cursor = Cursor::at(&entry.topic, entry.position);
    format!("id: {cursor}\ndata: {}\n\n", one_line(&entry.data)).into()
}

/// Encodes an event that no log has.
pub(crate) fn ephemeral(json: &str) -> Bytes {
    format!("data: {}\n\n", one_line(json)).into()
}

/// Encodes the start of a stream: when to come back, and who is here.
pub(crate) fn hello(retry_ms: u64, cursor: &str, json: &str) -> Bytes {
    format!("retry: {retry_ms}\nid: {cursor}\ndata: {}\n\n", one_line(json)).into()
}

/// Encodes a control event.
pub(crate) fn control(event: Control, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).unwrap_or_else(|_| "{}".into());
    format!("event: {}\ndata: {}\n\n", event.name(), one_line(&json)).into()
}

/// Encodes the sign of life: a comment for proxies and an event for scripts.
pub(crate) fn heartbeat(now: Timestamp) -> Bytes {
    format!(": keepalive\nevent: heartbeat\ndata: {{\"timestamp\":\"{now}\"}}\n\n").into()
}

/// JSON has no line ends of its own here; these three are line ends to some readers and legal inside strings.
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
mod tests {
    use super::*;

    #[test]
    fn every_line_end_in_a_text_stays_in_one_frame() {
        let text = "a\r\n\rdata: forged\n\nid: 1\u{85}b\u{2028}c\u{2029}d\u{feff}";
        let frame = ephemeral(&serde_json::to_string(text).unwrap());
        let frame = std::str::from_utf8(&frame).unwrap();
        let data = frame.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\r', '\n', '\u{85}', '\u{2028}', '\u{2029}']));
        assert_eq!(serde_json::from_str::<String>(data).unwrap(), text);
    }
}
