//! An export is read within its limits, or refused: what the survey counted is read, from any position on.

#![no_main]

use std::{
    alloc::System,
    fs::{File, OpenOptions},
    io::{Cursor, Seek, Write},
    ops::ControlFlow,
    os::fd::AsRawFd,
};

use cap::Cap;
use libfuzzer_sys::{Corpus, fuzz_target};
use proc::fuzzing::{Archive, Error, Limits, Outcome, Position, Record};
use rustix::fs::{MemfdFlags, memfd_create};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Memory that the reader may take of one archive: a few records of the longest, and the buffers of the unpacker.
const MAX_BYTES: usize = 32 << 20;

const LIMITS: Limits = Limits {
    max_entries: 50,
    max_entry_bytes: 2 << 20,
    max_total_bytes: 4 << 20,
    max_ratio: 200,
    max_record_bytes: 16 << 10,
};

fuzz_target!(|input: &[u8]| -> Corpus {
    if input.starts_with(b"PK") {
        read(input);
    } else {
        read(&packed(input));
    }
    Corpus::Keep
});

/// Packs parts that a NUL ends: `users.json`, `channels.json`, then days of the channels `general` and `other`.
fn packed(parts: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (number, part) in parts.split(|byte| *byte == 0).take(12).enumerate() {
        let name = match number {
            0 => "users.json".to_owned(),
            1 => "channels.json".to_owned(),
            _ if number % 2 == 0 => format!("general/2020-01-{number:02}.json"),
            _ => format!("other/2020-01-{number:02}.json"),
        };
        let method =
            if number % 3 == 0 { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(name, options).expect("a file of the archive");
        zip.write_all(part).expect("memory");
    }
    zip.finish().expect("an archive").into_inner()
}

/// Returns the bytes as a file that can only be read.
fn file(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("export.zip", MemfdFlags::CLOEXEC).expect("a file"));
    file.write_all(bytes).expect("memory");
    file.rewind().expect("a file");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().read(true).open(path).expect("the file again")
}

fn read(bytes: &[u8]) {
    let file = file(bytes);
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + MAX_BYTES).expect("a limit above what is in use");
    let read = survey_and_read(file, bytes.len() as u64);
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    if let Err(error) = read {
        assert!(!matches!(error, Error::Io(_)), "the file is there: {error}");
        assert!(error.to_string().len() < 1_000, "a reason that can be shown");
    }
}

fn survey_and_read(file: File, packed_bytes: u64) -> Result<(), Error> {
    let mut archive = Archive::open(file, LIMITS)?;
    let survey = archive.survey()?;
    let most = LIMITS.max_total_bytes.min((1 << 20) + packed_bytes * LIMITS.max_ratio);
    assert!(survey.records <= most, "a record takes a byte");
    let (mut records, mut last, mut middle) = (0, Position::default(), Position::default());
    let mut after_middle = 0;
    archive
        .read(Position::default(), |record| {
            records += 1;
            assert!(record.next > last, "records are in order");
            last = record.next;
            after_middle += 1;
            if records == survey.records / 2 {
                (middle, after_middle) = (last, 0);
            }
            check(&record);
            ControlFlow::Continue(())
        })
        .expect("an archive that was surveyed is read");
    assert_eq!(records, survey.records, "the survey counts the records");
    if middle != Position::default() {
        let mut rest = 0;
        let count = |_| {
            rest += 1;
            ControlFlow::Continue(())
        };
        archive.read(middle, count).expect("an archive that was surveyed is read");
        assert_eq!(rest, after_middle, "reading goes on where it was");
    }
    Ok(())
}

fn check(record: &Record) {
    match &record.outcome {
        Outcome::Message(message) => {
            assert!(message.text.len() <= 1 << 20 && !message.text.contains('\0'));
            let is_deleted = message.own.as_ref().is_some_and(|own| own.deleted.is_some());
            assert!(is_deleted || !message.text.trim().is_empty(), "a message has a text");
        }
        Outcome::Deleted(deletion) => {
            assert!(deletion.author.as_ref().is_none_or(|author| !author.contains('\0')));
        }
        Outcome::Skipped(kind) => {
            let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
            assert!((1..=64).contains(&kind.len()) && kind.bytes().all(is_plain), "{kind:?}");
        }
        Outcome::Failed(reason) => assert!(reason.len() < 200, "{reason:?}"),
    }
}
