//! Tests archives made to do harm or damaged on the way: each is refused for its own reason.

use super::{
    super::{Error, Limits},
    *,
};
use proptest::prelude::*;

/// Overwrites `bytes` at `offset` within the directory record of the file `name`.
fn patched_directory(mut archive: Vec<u8>, name: &str, offset: usize, bytes: &[u8]) -> Vec<u8> {
    let name_offset = 46;
    let is_record = |window: &[u8]| {
        window.starts_with(b"PK\x01\x02") && window[name_offset..].starts_with(name.as_bytes())
    };
    let at = archive.windows(name_offset + name.len()).position(is_record).unwrap();
    archive[at + offset..at + offset + bytes.len()].copy_from_slice(bytes);
    archive
}

const FLAGS: usize = 8;
const METHOD: usize = 10;
const CRC: usize = 16;
const UNPACKED_SIZE: usize = 24;
const MODE: usize = 40;

const DAY: &str = "general/2020-01-01.json";

fn sample() -> Vec<u8> {
    export(&[(DAY, &format!("[{MESSAGE},{MESSAGE}]"))])
}

fn opening(limits: Limits) -> Error {
    Archive::open(file(&sample()), limits).unwrap_err()
}

#[test]
fn refuses_a_truncated_archive() {
    let whole = sample();
    survey(&whole).unwrap();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        assert!(matches!(survey(&whole[..length]), Err(Error::NotAZip)), "{length} bytes");
    }
}

#[test]
fn refuses_other_files() {
    for other in [&b""[..], b"PK", b"PK\x03\x04", b"[]", &vec![0x50; 100_000]] {
        assert!(matches!(survey(other), Err(Error::NotAZip)));
    }
}

#[test]
fn refuses_unsafe_names() {
    for name in ["../x", "a/../../x", "/abs", "C:/x", "c:x", "a\\b", "a/..", "nul\0"] {
        // The writer may refuse or mend a bad name, so it is patched in.
        let stand_in = "y".repeat(name.len());
        let bytes = patched_directory(export(&[(&stand_in, "")]), &stand_in, 46, name.as_bytes());
        assert!(matches!(open(&bytes), Err(Error::UnsafeName { .. })), "{name:?}");
    }
    let long = "y".repeat(1025);
    assert!(matches!(open(&export(&[(&long, "")])), Err(Error::UnsafeName { .. })));
}

#[test]
fn refuses_odd_entries() {
    let day = |offset, bytes: &[u8]| open(&patched_directory(sample(), DAY, offset, bytes));
    assert!(matches!(day(FLAGS, &[1, 0]), Err(Error::Encrypted { .. })));
    assert!(matches!(day(METHOD, &[12, 0]), Err(Error::UnsupportedCompression { .. })));
    assert!(matches!(day(METHOD, &[99, 0]), Err(Error::UnsupportedCompression { .. })));
    assert!(matches!(day(MODE, &0o120_777_u16.to_le_bytes()), Err(Error::Symlink { .. })));

    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("users.json", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    assert!(matches!(open(&bytes), Err(Error::Symlink { name }) if name == "users.json"));
}

#[test]
fn refuses_a_name_given_twice() {
    let bytes = export(&[("general/2020-01-02.json", "[]"), (DAY, "[]")]);
    let bytes = patched_directory(bytes, DAY, 46, b"general/2020-01-02.json");
    assert!(matches!(open(&bytes), Err(Error::DuplicateName { .. })));
}

#[test]
fn refuses_what_is_over_a_limit() {
    let limits = Limits::default;
    let few = opening(Limits { max_entries: 2, ..limits() });
    assert!(matches!(few, Error::TooManyEntries { max_entries: 2 }));
    let small = opening(Limits { max_entry_bytes: 70, ..limits() });
    assert!(matches!(small, Error::EntryTooLarge { max_bytes: 70, .. }));
    let total = opening(Limits { max_total_bytes: 150, ..limits() });
    assert!(matches!(total, Error::TotalTooLarge { max_bytes: 150 }));
    // A directory that claims more entries than it has must not make room for them.
    let mut claim = sample();
    let end = claim.len() - 22;
    claim[end + 8..end + 12].copy_from_slice(&[0xFE; 4]);
    assert!(matches!(open(&claim), Err(Error::NotAZip)));
}

#[test]
fn refuses_entries_that_share_their_bytes() {
    const LOCAL_HEADER: usize = 42;
    let days: Vec<String> = (1..=9).map(|day| format!("general/2020-01-0{day}.json")).collect();
    let text = format!("[{MESSAGE}]");
    let files: Vec<(&str, &str)> = days.iter().map(|day| (day.as_str(), &*text)).collect();
    let bytes = export(&files);
    survey(&bytes).unwrap();
    let offset = {
        let name = days[0].as_bytes();
        let is_record = |at: usize| {
            bytes[at..].starts_with(b"PK\x01\x02") && bytes[at + 46..].starts_with(name)
        };
        let at = (0..bytes.len()).find(|at| is_record(*at)).unwrap();
        bytes[at + LOCAL_HEADER..at + LOCAL_HEADER + 4].to_vec()
    };
    let overlapping = days[1..]
        .iter()
        .fold(bytes, |bytes, day| patched_directory(bytes, day, LOCAL_HEADER, &offset));
    assert!(matches!(open(&overlapping), Err(Error::Overlap { .. })));
}

#[test]
fn refuses_many_small_entries_that_unpack_to_much() {
    let blanks = format!("[{}]", " ".repeat(1 << 20 >> 1));
    let days: Vec<String> = (1..=9).map(|day| format!("general/2020-01-0{day}.json")).collect();
    let files: Vec<(&str, &str)> = days.iter().map(|day| (day.as_str(), &*blanks)).collect();
    assert!(matches!(open(&export(&files)), Err(Error::TotalRatioTooHigh { max_ratio: 200 })));
}

#[test]
fn refuses_a_bomb() {
    let zeros = "0".repeat(10 << 20);
    let bytes = export(&[(DAY, &zeros)]);
    assert!(matches!(open(&bytes), Err(Error::RatioTooHigh { max_ratio: 200, .. })));
    // Small files may be packed tightly, and so may a file whose bomb is hidden by a lie.
    survey(&export(&[(DAY, &format!("[{}1]", " ".repeat(1 << 19)))])).unwrap();
    let lie = patched_directory(bytes, DAY, UNPACKED_SIZE, &1000_u32.to_le_bytes());
    assert!(matches!(survey(&lie), Err(Error::SizeMismatch { .. })));
}

#[test]
fn refuses_lying_sizes_and_checksums() {
    let size = u32::try_from(MESSAGE.len() * 2 + 3).unwrap();
    for lie in [size - 1, size + 1, 0] {
        let bytes = patched_directory(sample(), DAY, UNPACKED_SIZE, &lie.to_le_bytes());
        let found = survey(&bytes);
        assert!(matches!(found, Err(Error::SizeMismatch { .. })), "{lie}: {found:?}");
    }
    let bytes = patched_directory(sample(), DAY, CRC, &[1, 2, 3, 4]);
    assert!(matches!(survey(&bytes), Err(Error::Checksum { name }) if name == DAY));
    // A day file that is broken from its first byte is still held to its checksum.
    let bytes = patched_directory(export(&[(DAY, "{}")]), DAY, CRC, &[1, 2, 3, 4]);
    assert!(matches!(survey(&bytes), Err(Error::Checksum { .. })));
    // Read without a survey, the damage is found on the way.
    let bytes = patched_directory(sample(), DAY, CRC, &[1, 2, 3, 4]);
    let found = open(&bytes).unwrap().read(Position::default(), |_| ControlFlow::Continue(()));
    assert!(matches!(found, Err(Error::Checksum { .. })));
}

#[test]
fn refuses_lists_that_are_none() {
    let message = |users: &str, channels: &str| {
        let files = [("users.json", users), ("channels.json", channels)];
        survey(&packed(&files)).unwrap_err().to_string()
    };
    for (users, problem) in [
        ("{}", "the file is not a JSON array, at line 1"),
        ("", "the file is not a JSON array, at line 1"),
        ("[\n{\"id\":\"U1\"}\n", "the array never ends, at line 3"),
        ("[{\"id\":\"U1\"}]\n7", "there is data after the end of the array, at line 2"),
    ] {
        let wanted = |file| format!("{file} is not a complete JSON array: {problem}");
        assert_eq!(message(users, CHANNELS), wanted("users.json"));
        assert_eq!(message(USERS, users), wanted("channels.json"));
    }

    let found = survey(&packed(&[("channels.json", CHANNELS)]));
    assert!(matches!(found, Err(Error::Missing { file: "users.json" })));
    let found = survey(&packed(&[("users.json", USERS)]));
    assert!(matches!(found, Err(Error::Missing { file: "channels.json" })));
    let found = survey(&export(&[("groups.json", "{}")]));
    assert!(matches!(found, Err(Error::NotAnArray { file: "groups.json", .. })));
}

#[test]
fn an_entry_that_cannot_be_used_costs_no_other() {
    let survey = |users: &str, channels: &str, private: &str| {
        let files = [("users.json", users), ("channels.json", channels), ("groups.json", private)];
        survey(&packed(&files)).unwrap()
    };
    for (entry, reason) in [
        (r#"{"name":"x"}"#, "it has no id"),
        (r#"{"id":7}"#, "it has no id"),
        (r#"{"id":""}"#, "it has no id"),
        (r#"{"id":"a\u0000"}"#, "it has no id"),
        ("7", "it is not a valid JSON object"),
        ("null", "it is not a valid JSON object"),
        ("{]", "it is not a valid JSON object"),
        (r#"{"id":"X","#, "it is not a valid JSON object"),
    ] {
        let entry = if entry.ends_with(',') { &format!("{entry}}}") } else { entry };
        let list = |first: &str, last: &str| {
            format!(
                r#"[{{"id":"{first}","name":"{first}"}},{entry},{{"id":"{last}","name":"{last}"}}]"#
            )
        };
        let found = survey(&list("U1", "U2"), &list("C1", "C2"), &list("G1", "G2"));
        assert_eq!((found.people.len(), found.channels.len()), (2, 2), "{entry}");
        let counts = found.bad_counts;
        assert_eq!((counts.people, counts.channels, counts.conversations), (1, 1, 1), "{entry}");
        let named: Vec<_> =
            found.bad_entries.iter().map(|bad| (&*bad.file, bad.entry, bad.reason)).collect();
        let files = ["users.json", "channels.json", "groups.json"];
        assert_eq!(named, files.map(|file| (file, 2, reason)), "{entry}");
    }
    let long = format!(r#"[{{"id":"{}"}},{{"id":"U1"}}]"#, "x".repeat(4 << 20));
    let bytes = packed(&[("users.json", &long), ("channels.json", CHANNELS)]);
    let limits = Limits { max_ratio: 2000, ..Limits::default() };
    let found = Archive::open(file(&bytes), limits).unwrap().survey().unwrap();
    assert_eq!((found.people.len(), found.bad_entries[0].reason), (1, "it is longer than 4 MiB"));
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(survey(&bytes).is_err());
    }

    /// Flips bytes anywhere: whatever still opens must survey and read alike, without a panic.
    #[test]
    fn damage_never_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = sample();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(mut archive) = open(&bytes)
            && let Ok(found) = archive.survey()
        {
            let records = records(&mut archive, Position::default());
            prop_assert_eq!(records.len() as u64, found.records);
        }
    }
}
