//! Columns of a row are entries or damaged, within a bound of memory; entries that were read are written back the same.

#![no_main]

use std::alloc::System;

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use shared::journal::fuzzing::{
    MAX_ENTRIES, MAX_UNPACKED_BYTES, StoredRow, TaggedEntry, encode, pack,
};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Memory that one input may take.
const MAX_BYTES: usize = 16 * MAX_UNPACKED_BYTES;

/// Data of entries that are appended: more takes too long, and a property test beside the code has it.
const MAX_APPENDED_BYTES: usize = 16_000;

fuzz_target!(|input: &[u8]| {
    let Some((form, input)) = input.split_first() else { return };
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + MAX_BYTES).expect("a limit above what is in use");
    if form & 1 == 0 {
        stored_row(form >> 1, input);
    } else {
        appended_entries(input);
    }
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
});

/// Reads columns as the bytes say.
fn stored_row(form: u8, input: &[u8]) {
    let (length, input) = input.split_at(input.len().min(2));
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let (tags, packed) = input.split_at(length.min(input.len()));
    // Half of the inputs are behind the length that a pack has, so that the decoder gets to see them.
    let packed = match form & 3 {
        0 => None,
        1 => Some(packed.to_vec()),
        2 => Some(lz4_flex_block(packed)),
        _ => Some([&(packed.len() as u32).to_le_bytes(), packed].concat()),
    };
    let tags = (form & 4 == 0).then(|| tags.to_vec());
    let row = StoredRow { seq: 1_000, kind: "job.queued".into(), data: "{}".into(), packed, tags };
    let Some(entries) = row.entries() else { return };
    let (_, _, last) = entries.last().expect("a row has an entry");
    assert_eq!(*last, row.last_tag());
    assert!(entries.len() <= MAX_ENTRIES, "{} entries in a row", entries.len());
    let bytes: usize = entries.iter().map(|(kind, data, _)| kind.len() + data.len() + 2).sum();
    let Some(again) = encode(row.seq, &entries) else {
        assert!(bytes > MAX_UNPACKED_BYTES, "entries that were read fit a row");
        return;
    };
    assert_eq!(again.entries().as_ref(), Some(&entries), "a row that is rewritten has the same");
    assert_eq!(again.last_tag(), *last);
}

/// Wraps text into an LZ4 block of literals behind its length.
fn lz4_flex_block(text: &[u8]) -> Vec<u8> {
    let mut block = (text.len() as u32).to_le_bytes().to_vec();
    if text.len() < 15 {
        block.push((text.len() as u8) << 4);
    } else {
        block.push(0xf0);
        let mut rest = text.len() - 15;
        while rest >= 255 {
            block.push(255);
            rest -= 255;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text);
    block
}

/// Appends entries together: a byte is how often the line behind it is repeated.
fn appended_entries(input: &[u8]) {
    let mut entries: Vec<TaggedEntry> = Vec::new();
    for part in input.split(|byte| *byte == 0).take(600) {
        let Some((times, data)) = part.split_first() else { continue };
        let data = String::from_utf8_lossy(data);
        let data = if times & 1 == 1 { data.repeat(1 << (times >> 5)) } else { data.into_owned() };
        let count = if times & 2 == 2 { 1 + usize::from(times >> 2) } else { 1 };
        let bytes: usize = entries.iter().map(|(_, data, _)| data.len()).sum();
        if bytes + count * data.len() > MAX_APPENDED_BYTES {
            break;
        }
        for _ in 0..count {
            let tag = (entries.len() as u32).wrapping_mul(0x9e37_79b9);
            entries.push(("job.queued".into(), data.clone(), tag));
        }
    }
    let (mut next, mut back) = (1, Vec::new());
    for row in pack(1, &entries) {
        let read = row.entries().expect("a row that was packed");
        assert!(read.len() <= MAX_ENTRIES);
        next += read.len() as i64;
        assert_eq!(row.seq, next - 1, "the row has the number of its last entry");
        assert_eq!(encode(row.seq, &read).as_ref(), Some(&row));
        back.extend(read);
    }
    assert_eq!(back, entries);
}
