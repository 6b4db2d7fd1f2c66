//! Every form of a stream is one text, and a second reader by the HTML standard finds the events as they were given.

#![no_main]

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use fuzz::sse;
use ingress::fuzzing::{Event, MAX_DATA_BYTES, MAX_FRAME_BYTES, encode, stripped};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use shared::{
    ids::{AnswerId, ProjectId},
    journal::{Cursor, Entry, Position, Topic},
    time::Timestamp,
};
use uuid::Uuid;

/// Events of one input at most.
const MAX_EVENTS: usize = 8;
/// Begins an input with long texts.
const LONG: u8 = 0xff;
/// Text of a stream that is compressed too.
const MAX_COMPRESSED_BYTES: usize = 8_000;
const KINDS: [&str; 8] = [
    "message.created",
    "message.updated",
    "member.removed",
    "project.deleted",
    "channel.created",
    "reaction.added",
    "user.typing",
    "answer.done",
];
const JOB_KINDS: [&str; 4] = ["job.queued", "job.succeeded", "job.failed", "membership.removed"];

/// Event that a reader has to find: its type, its id if the cursor moves, and its data as given.
struct Expected {
    name: String,
    id: Option<String>,
    data: String,
}

fuzz_target!(|input: &[u8]| {
    // A long text takes as much time as a hundred short ones, so an input has to ask for it.
    let (mut room, input) = match input.strip_prefix(&[LONG]) {
        Some(input) => (2, input),
        None => (0, input),
    };
    let (mut events, mut expected) = (Vec::new(), Vec::new());
    for (index, part) in input.split(|byte| *byte == 0).take(MAX_EVENTS).enumerate() {
        let Some((form, data)) = part.split_first() else { continue };
        let data = expanded(&String::from_utf8_lossy(data), &mut room);
        let (event, expects) = event(*form, 1 + index as i64, data);
        events.push(event);
        expected.push(expects);
    }
    let cursor = Cursor::at(&Topic::jobs(), position(0));
    let greeting = r#"{"type":"hello"}"#;
    let encode =
        |(chunked, compressed)| encode(chunked, compressed, (greeting, Some(&cursor)), &events);
    let pieces = encode((false, false));
    let plain = &text(&pieces, (false, false));
    let forms = [(true, false), (true, true), (false, true)];
    // Compressing long texts takes most of the time.
    let count = if plain.len() > MAX_COMPRESSED_BYTES { 1 } else { forms.len() };
    for form in forms.into_iter().take(count) {
        assert!(text(&encode(form), form) == *plain, "the form {form:?} is of the same text");
    }
    for piece in &pieces[1..] {
        assert!(piece.len() <= MAX_FRAME_BYTES, "a frame has {} bytes", piece.len());
    }
    let mut read = sse::events(plain).into_iter();
    let mut last_id = cursor.to_string();
    let first = read.next().expect("the greeting");
    assert_eq!((&*first.name, &*first.data, &first.id), ("message", greeting, &last_id));
    for expects in expected {
        let found = read.next().expect("an event for each that was given");
        last_id = expects.id.unwrap_or(last_id);
        assert_eq!((&found.name, &found.id), (&expects.name, &last_id));
        check_data(&found.data, &expects.data);
    }
    assert!(read.next().is_none(), "nothing else");
});

fn position(seq: i64) -> Position {
    Position { epoch: 7, seq, tag: 9 }
}

/// Replaces control characters, which no JSON has, by long texts, so that short inputs get to the limits.
fn expanded(data: &str, room: &mut usize) -> String {
    let mut text = String::with_capacity(data.len());
    for c in data.chars() {
        let long = match c {
            '\u{1}' => "x".repeat(33_000),
            '\u{2}' => "\u{2028}".repeat(11_000),
            '\u{3}' => "\"user\",".repeat(5_000),
            '\u{4}' => "é".repeat(16_000),
            c => {
                text.push(c);
                continue;
            }
        };
        if *room > 0 {
            *room -= 1;
            text.push_str(&long);
        }
    }
    text
}

fn event(form: u8, seq: i64, data: String) -> (Event, Expected) {
    let number = usize::from(form >> 3);
    let project = Topic::project(ProjectId(Uuid::from_u128(1)));
    let entry = |topic: &Topic, kind: &str| Entry {
        topic: topic.clone(),
        position: position(seq),
        previous: Some(9),
        kind: kind.into(),
        data: data.as_str().into(),
        at: Timestamp::from_ms(0),
    };
    let id = |topic: &Topic| Some(Cursor::at(topic, position(seq)).to_string());
    let kind = KINDS[number % KINDS.len()];
    let (event, name, id, data) = match form & 7 {
        0 | 1 => (Event::Entry(entry(&project, kind)), "message", id(&project), data.clone()),
        2 => {
            let topic = Topic::answer(AnswerId(Uuid::from_u128(2)));
            (Event::Entry(entry(&topic, kind)), kind, id(&topic), data.clone())
        }
        3 => {
            let own = Cursor::of([(&project, position(seq)), (&Topic::jobs(), position(3))]);
            let id = Some(own.to_string());
            (Event::EntryAt(entry(&project, kind), own), "message", id, data.clone())
        }
        4 => (Event::Ephemeral(data.clone()), "message", None, data.clone()),
        5 => {
            let at = Timestamp::from_ms(seq);
            (Event::Heartbeat(at), "heartbeat", None, json!({"timestamp": at}).to_string())
        }
        6 => {
            let cursor = (number & 1 == 1).then(|| Cursor::at(&project, position(seq)));
            let id = cursor.as_ref().map(Cursor::to_string);
            (Event::Bye(data.clone(), cursor), "bye", id, Value::from(data.clone()).to_string())
        }
        _ => {
            let entry = entry(&Topic::jobs(), JOB_KINDS[number % JOB_KINDS.len()]);
            check_stripped(&entry);
            let id = id(&Topic::jobs());
            (Event::Entry(entry), "message", id, data.clone())
        }
    };
    (event, Expected { name: name.into(), id, data })
}

/// Checks that a job's event without its content is an event with the same id.
fn check_stripped(entry: &Entry) {
    let Some(frame) = stripped(entry) else { return };
    assert!(frame.len() <= MAX_FRAME_BYTES);
    let events = sse::events(std::str::from_utf8(&frame).expect("text"));
    let [event] = &events[..] else { panic!("{} events", events.len()) };
    assert_eq!(event.id, Cursor::at(&entry.topic, entry.position).to_string());
    assert!(serde_json::from_str::<Value>(&event.data).is_ok_and(|data| data.is_object()));
}

/// Returns the text of a stream that was encoded in a form.
fn text(pieces: &[Bytes], (chunked, compressed): (bool, bool)) -> String {
    let (first, rest) = pieces.split_first().expect("a stream has a begin");
    let mut bytes = first.to_vec();
    let rest = rest.concat();
    if chunked {
        bytes.extend_from_slice(&dechunked(&rest));
    } else {
        bytes.extend_from_slice(&rest);
    }
    if !compressed {
        return String::from_utf8(bytes).expect("text");
    }
    let (mut text, mut gzip) = (String::new(), GzDecoder::new(&*bytes));
    gzip.read_to_string(&mut text).expect("a gzip stream");
    assert!(gzip.into_inner().is_empty(), "nothing follows the gzip stream");
    text
}

/// Returns the data of chunks, which the last chunk has to end.
fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let end = bytes.windows(2).position(|end| end == b"\r\n").expect("the head of a chunk");
        let size = std::str::from_utf8(&bytes[..end]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("a number");
        let (chunk, rest) = bytes[end + 2..].split_at(size);
        data.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n").expect("the end of a chunk");
        if size == 0 {
            assert!(bytes.is_empty(), "nothing follows the last chunk");
            return data;
        }
    }
}

fn check_data(found: &str, given: &str) {
    // Characters that some readers take for the end of a line.
    assert!(!found.contains(['\r', '\n', '\u{85}', '\u{2028}', '\u{2029}']));
    let mut line = String::new();
    for c in given.chars() {
        match c {
            '\r' | '\n' => line.push(' '),
            '\u{85}' | '\u{2028}' | '\u{2029}' => line += &format!("\\u{:04x}", u32::from(c)),
            c => line.push(c),
        }
    }
    if line.len() <= MAX_DATA_BYTES {
        assert!(found == line, "data that fits is left as it is");
        let json = |text| serde_json::from_str::<Value>(text).ok();
        if let Some(given) = json(given) {
            assert_eq!(json(found), Some(given), "the same JSON");
        }
        return;
    }
    let found: Value = serde_json::from_str(found).expect("shortened data is JSON");
    let is_told = found["truncated"] == true;
    assert!(is_told || found == json!({}), "shortened data says so");
}
