//! A stream that joins while frames come and go.

use proptest::prelude::*;
use shared::{
    ids::{MessageId, ProjectId},
    journal::{Entry, Topic},
    time::Timestamp,
};

use super::*;

fn at(seq: i64) -> Position {
    Position { epoch: 1, seq, tag: 0 }
}

fn entry(seq: i64) -> Arc<Frame> {
    Frame::entry(&Entry {
        topic: Topic::project(ProjectId(uuid::Uuid::nil())),
        position: at(seq),
        previous: Some(0),
        kind: "test".into(),
        data: "{}".into(),
        at: Timestamp::from_ms(0),
    })
}

/// Returns what an event without a place says.
fn number(frame: &Frame) -> u64 {
    let text = String::from_utf8_lossy(frame.text());
    text.trim().trim_start_matches("data: ").parse().expect("a number")
}

/// What happens around a stream that is being parked.
#[derive(Clone, Debug)]
enum Step {
    /// The log lets its next entry out.
    Publish,
    /// An event without a place in the log.
    Ephemeral,
    /// The reactor takes what is new.
    Pull(usize),
    /// A stream joins whose place is this far before the journal's end, which may be ahead of the hub, and which began to
    /// hear this many frames ago.
    Join {
        behind: i64,
        heard: u64,
    },
    Age,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Publish),
        1 => Just(Step::Ephemeral),
        3 => (1..8usize).prop_map(Step::Pull),
        2 => (0..8i64, 0..8u64).prop_map(|(behind, heard)| Step::Join { behind, heard }),
        1 => Just(Step::Age),
    ];
    prop::collection::vec(step, 0..120)
}

/// A deliberate bug that the property must notice.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Sabotage {
    /// A joining stream is given nothing of what is between its place and the present.
    ForgetBacklog,
    /// A joining stream is given the entries of that alone.
    ForgetEphemeral,
    /// A stream takes every frame, whatever its place.
    TakeAll,
    /// A stream joins though the ring has lost what it needs.
    JoinBehind,
}

/// What a stream is to get, and got.
struct Reader {
    place: Position,
    got: Vec<i64>,
    after: i64,
    /// What has no place in the log.
    events: Vec<u64>,
    heard: u64,
}

/// Runs the steps; returns whether every stream got every entry after its place once, in order, and what has no place once
/// since it began to hear, in order and all of it while the ring had it.
fn holds(steps: &[Step], sabotage: Option<Sabotage>) -> bool {
    // The journal is up to two entries ahead of what the hub has heard.
    const AHEAD: i64 = 2;
    let (mut ring, mut last, mut pulled) = (Ring::default(), 0, 0);
    let (mut readers, mut events): (Vec<Reader>, Vec<u64>) = Default::default();
    // Below this the ring had lost something before everybody had it.
    let mut lost = 0;
    let give = |reader: &mut Reader, frames: &[Arc<Frame>]| {
        for frame in frames {
            let takes = takes(&mut reader.place, frame) == Taken::Yes
                || sabotage == Some(Sabotage::TakeAll);
            match frame.position.filter(|_| takes) {
                Some(position) => reader.got.push(position.seq),
                None if frame.position.is_none() => reader.events.push(number(frame)),
                None => {}
            }
        }
    };
    let all = [steps, &[Step::Pull(usize::MAX)]].concat();
    for step in &all {
        match *step {
            Step::Publish => {
                last += 1;
                ring.push(entry(last));
            }
            Step::Ephemeral => {
                events.push(ring.end());
                ring.push(Frame::ephemeral(&ring.end().to_string()));
            }
            Step::Age => ring.age(),
            Step::Pull(limit) => {
                if let Ok(frames) = ring.from(pulled, limit) {
                    pulled += frames.len() as u64;
                    for reader in &mut readers {
                        give(reader, &frames);
                    }
                } else {
                    // The reactor was too slow: its streams read the journal, up to its end, and join again.
                    pulled = ring.end();
                    lost = pulled;
                    for reader in &mut readers {
                        reader.got.extend(reader.place.seq + 1..=last);
                        reader.place = at(reader.place.seq.max(last));
                    }
                }
            }
            Step::Join { behind, heard } => {
                let after = (last + AHEAD - behind).max(0);
                let heard = ring.end().saturating_sub(heard).max(ring.first);
                let (place, got) = (at(after), Vec::new());
                let mut reader = Reader { place, got, after, events: Vec::new(), heard };
                match ring.since(place, heard, at(last), pulled) {
                    Ok(_) if sabotage == Some(Sabotage::ForgetBacklog) => {}
                    Ok(mut frames) => {
                        let forgets = sabotage == Some(Sabotage::ForgetEphemeral);
                        frames.retain(|frame| frame.position.is_some() || !forgets);
                        give(&mut reader, &frames);
                    }
                    Err(Behind) if sabotage == Some(Sabotage::JoinBehind) => {}
                    // It reads the journal and tries again with a later place.
                    Err(Behind) => continue,
                }
                readers.push(reader);
            }
        }
    }
    readers.iter().all(|reader| {
        let whole = reader.got.iter().copied().eq(reader.after + 1..=last);
        let heard = |from: u64| events.iter().filter(move |&&event| event >= from);
        let got = &reader.events;
        whole
            && got.is_sorted_by(|one, next| one < next)
            && heard(reader.heard.max(lost)).all(|event| got.contains(event))
    })
}

proptest! {
    #[test]
    fn whoever_joins_misses_nothing_and_gets_nothing_twice(steps in steps()) {
        prop_assert!(holds(&steps, None));
    }
}

#[test]
fn the_property_notices_every_sabotage() {
    use Step::{Age, Ephemeral, Join, Publish, Pull};
    let steps = [
        Publish,
        Publish,
        Publish,
        Age,
        Pull(2),
        Ephemeral,
        Pull(2),
        Join { behind: 4, heard: 1 },
        Pull(9),
        Age,
        Age,
        Join { behind: 5, heard: 0 },
        Join { behind: 1, heard: 0 },
        Publish,
        Publish,
        Pull(9),
    ];
    assert!(holds(&steps, None));
    for sabotage in [
        Sabotage::ForgetBacklog,
        Sabotage::ForgetEphemeral,
        Sabotage::TakeAll,
        Sabotage::JoinBehind,
    ] {
        assert!(!holds(&steps, Some(sabotage)), "{sabotage:?}");
    }
}

#[test]
fn the_ring_is_bounded_and_forgets_when_quiet() {
    let mut ring = Ring::default();
    for seq in 1..=10_000 {
        ring.push(entry(seq));
    }
    assert_eq!(ring.frames.len(), MAX_FRAMES);
    assert_eq!(ring.from(0, 1).unwrap_err(), Behind);
    assert_eq!(ring.since(at(9_999), 0, at(10_000), ring.end()).unwrap().len(), 1);
    ring.age();
    assert_eq!(ring.frames.len(), MAX_FRAMES);
    ring.age();
    assert_eq!((ring.frames.len(), ring.bytes, ring.end()), (0, 0, 10_000));
}

#[test]
fn a_stream_whose_entry_was_lost_is_sent_to_the_journal() {
    let tagged = |seq: i64, tag: u32, previous: u32| {
        Frame::entry(&Entry {
            topic: Topic::project(ProjectId(uuid::Uuid::nil())),
            position: Position { epoch: 1, seq, tag },
            previous: Some(previous),
            kind: "test".into(),
            data: "{}".into(),
            at: Timestamp::from_ms(0),
        })
    };
    let known = Position { epoch: 1, seq: 5, tag: 55 };
    for (frame, taken, why) in [
        (tagged(6, 66, 55), Taken::Yes, "it follows"),
        (tagged(6, 96, 95), Taken::Astray, "the entry before it is another one"),
        (tagged(5, 55, 44), Taken::No, "the same"),
        (tagged(5, 95, 44), Taken::Astray, "a reused number"),
        (tagged(4, 44, 33), Taken::No, "had long ago"),
        (tagged(8, 88, 77), Taken::Astray, "entries are missing"),
    ] {
        let mut place = known;
        assert_eq!(takes(&mut place, &frame), taken, "{why}");
        assert_eq!(
            place == known,
            taken != Taken::Yes,
            "the place moves only over its next: {why}"
        );
    }
    let mut ring = Ring::default();
    for seq in 5..9 {
        ring.push(tagged(seq, 90, 90));
    }
    let last = Position { epoch: 1, seq: 8, tag: 90 };
    assert_eq!(ring.since(known, 0, last, ring.end()).unwrap_err(), Behind, "before the end");
    let at_end = Position { tag: 88, ..last };
    assert_eq!(ring.since(at_end, 0, last, ring.end()).unwrap_err(), Behind, "at the end");
}

#[test]
fn the_frames_of_a_message_lose_its_text_and_keep_their_places() {
    let (topic, message) = (Topic::project(ProjectId(uuid::Uuid::nil())), MessageId::mint());
    let said = |seq, message: MessageId| {
        let event = serde_json::json!({"message": {"id": message, "text": "secret"}});
        Frame::entry(&Entry {
            topic: topic.clone(),
            position: at(seq),
            previous: None,
            kind: "message.created".into(),
            data: event.to_string().into(),
            at: Timestamp::from_ms(0),
        })
    };
    let mut ring = Ring::default();
    for frame in [said(1, message), entry(2), said(3, MessageId::mint())] {
        ring.push(frame);
    }
    ring.redact(&topic, Redaction { message, deleted_at: None });
    let frames = ring.from(0, 9).unwrap();
    let text = |frame: &Arc<Frame>| String::from_utf8_lossy(frame.text()).into_owned();
    let has = |what| frames.iter().map(|frame| text(frame).contains(what)).collect::<Vec<_>>();
    assert_eq!(has("secret"), [false, false, true]);
    assert_eq!(has("\"redacted\":true"), [true, false, false]);
    let places: Vec<_> = frames.iter().map(|frame| frame.position).collect();
    assert_eq!(places, [1, 2, 3].map(|seq| Some(at(seq))));
    assert_eq!(ring.bytes, frames.iter().map(|frame| frame.text().len()).sum::<usize>());
}
