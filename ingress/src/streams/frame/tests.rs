//! What is encoded is read by a parser that is not ours: one event, the same data, the same id.

use std::convert::Infallible;

use eventsource_stream::{Event, Eventsource};
use futures_util::{StreamExt, stream};
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::{ids::ProjectId, journal::Topic};

use super::*;

/// Strings of what some reader takes for a line's end, of what streams are made of, and of anything.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<String>(),
        "[\r\n\u{85}\u{2028}\u{2029}\u{b}\u{c}\u{feff}\u{0} :]{0,6}",
        "(id|data|event|retry): ?[a-z0-9]{0,3}\n{0,2}",
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// One event to encode. JSON that people wrote may have line ends between its tokens.
#[derive(Clone, Debug)]
enum Kind {
    Entry { seq: i64, pretty: bool },
    Ephemeral,
    Hello { seq: i64 },
    Bye,
    Heartbeat,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (any::<u32>(), any::<bool>())
            .prop_map(|(seq, pretty)| Kind::Entry { seq: seq.into(), pretty }),
        Just(Kind::Ephemeral),
        any::<u32>().prop_map(|seq| Kind::Hello { seq: seq.into() }),
        Just(Kind::Bye),
        Just(Kind::Heartbeat),
    ]
}

/// What a reader has to make of an event: name, id if it moves, data if it is known.
type Expected = (&'static str, Option<String>, Option<Value>);

fn encode(kind: &Kind, data: &Value) -> (Vec<u8>, Expected) {
    let topic = Topic::project(ProjectId(uuid::Uuid::nil()));
    let at = |seq| Position { epoch: 7, seq, tag: 9 };
    let cursor = |seq| Cursor::at(&topic, at(seq));
    let same = Some(data.clone());
    match *kind {
        Kind::Entry { seq, pretty } => {
            let json = if pretty { format!("{data:#}") } else { data.to_string() };
            let entry = Entry {
                topic: topic.clone(),
                position: at(seq),
                previous: None,
                kind: "message.created".into(),
                data: json.into(),
                at: Timestamp::from_ms(0),
            };
            let id = cursor(seq).to_string();
            (Frame::entry(&entry).text().to_vec(), ("message", Some(id), same))
        }
        Kind::Ephemeral => {
            (Frame::ephemeral(&data.to_string()).text().to_vec(), ("message", None, same))
        }
        Kind::Hello { seq } => {
            let text = hello(1_500, &data.to_string(), Some(&cursor(seq)));
            (text.into(), ("message", Some(cursor(seq).to_string()), same))
        }
        Kind::Bye => (control(Control::Bye, data, None).into(), ("bye", None, same)),
        Kind::Heartbeat => {
            (Frame::heartbeat(Timestamp::from_ms(0)).text().to_vec(), ("heartbeat", None, None))
        }
    }
}

/// Reads bytes that come in pieces of the given sizes, over and over.
fn read(bytes: &[u8], sizes: &[usize]) -> Vec<Event> {
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    let pieces = std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next()?));
        rest = after;
        (!piece.is_empty()).then(|| Ok::<_, Infallible>(piece.to_vec()))
    });
    let events = stream::iter(pieces).eventsource().map(|event| event.expect("a sound stream"));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(events.collect())
}

proptest! {
    #[test]
    fn every_event_is_read_as_one_with_its_data_and_id(
        events in prop::collection::vec((kind(), value()), 1..8),
        sizes in prop::collection::vec(1..200usize, 1..12),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (kind, data) in &events {
            let (text, expects) = encode(kind, data);
            // The end of an event is nowhere but at its end, for whoever splits lines at anything.
            let text = String::from_utf8(text).unwrap();
            let lines = text.split(['\r', '\n', '\u{85}', '\u{2028}', '\u{2029}']).count();
            let last = text.trim_end_matches('\n').rsplit('\n').next().unwrap_or_default();
            let has_id = matches!(kind, Kind::Entry { .. } | Kind::Hello { .. });
            prop_assert!(last.starts_with("id: ") == has_id, "the id is the last line: {text:?}");
            prop_assert!(lines <= 5 && text.find("\n\n") == Some(text.len() - 2), "{:?}", text);
            bytes.extend_from_slice(text.as_bytes());
            expected.push(expects);
        }
        let read = read(&bytes, &sizes);
        prop_assert_eq!(read.len(), expected.len());
        let mut last = String::new();
        for (event, (name, id, data)) in read.iter().zip(expected) {
            last = id.unwrap_or(last);
            prop_assert_eq!((&*event.event, &event.id), (name, &last));
            let found: Value = serde_json::from_str(&event.data).unwrap();
            prop_assert_eq!(&found, &data.unwrap_or_else(|| json!({"timestamp": Timestamp::from_ms(0)})));
        }
    }
}
