//! A cursor has one text: a text that is read as a cursor is the one that the cursor is written as.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use shared::{
    ids::{AnswerId, ProjectId},
    journal::{Cursor, Position, Topic, cursor::MAX_BYTES},
};
use uuid::Uuid;

fuzz_target!(|input: &[u8]| -> Corpus {
    if let Some(numbers) = input.strip_prefix(b"\0") {
        written_cursor_reads_back(numbers);
        return Corpus::Keep;
    }
    let Ok(text) = std::str::from_utf8(input) else { return Corpus::Reject };
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert!(text.len() <= MAX_BYTES, "a long text is no cursor");
        assert_eq!(cursor.to_string(), text, "a cursor has one text");
    }
    Corpus::Keep
});

/// Makes a cursor of up to three topics, one of an answer, from 16 bytes for each.
fn written_cursor_reads_back(numbers: &[u8]) {
    let (mut topics, mut positions) = (Vec::new(), Vec::new());
    for (index, chunk) in numbers.as_chunks::<16>().0.iter().take(3).enumerate() {
        let number = u128::from_be_bytes(*chunk);
        let id = Uuid::from_u128(number);
        topics.push(match index {
            0 if number & 1 == 1 => Topic::answer(AnswerId(id)),
            1 => Topic::jobs(),
            _ => Topic::project(ProjectId(id)),
        });
        positions.push(Position {
            // An epoch has 40 bits.
            epoch: (number >> 88) as i64,
            seq: (number as u64 >> 1) as i64,
            tag: (number >> 56) as u32,
        });
    }
    let cursor = Cursor::of(topics.iter().zip(positions.iter().copied()));
    let text = cursor.to_string();
    assert!(text.bytes().all(|byte| b"abcdefghijklmnopqrstuvwxyz0123456789.-".contains(&byte)));
    // Two topics and an answer's id fit, and streams have no more.
    if topics.is_empty() || text.len() > MAX_BYTES {
        assert!(topics.is_empty() || topics.len() > 2, "{text} is too long");
        return;
    }
    let read: Cursor = text.parse().expect("a cursor");
    assert_eq!(read, cursor);
    assert_eq!(read.answer(), topics[0].answer_id());
    for (topic, position) in topics.iter().zip(positions) {
        assert_eq!(read.position(topic), Some(position), "{topic} in {text}");
    }
}
