//! Tests whole exports: the real sample, resuming, layouts, and what is counted.

mod hostile;
mod records;

use super::{Archive, Error, Limits, Outcome, Position, Record, Survey};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Cursor, Read, Seek, Write},
    ops::ControlFlow,
};
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

const USERS: &str = r#"[{"id":"U1","name":"anna","profile":{"display_name":"Anna Bell"}}]"#;
const CHANNELS: &str = r#"[{"id":"C1","name":"general"},{"id":"C2","name":"other"}]"#;
const MESSAGE: &str = r#"{"type":"message","user":"U1","text":"hi","ts":"1.000001"}"#;

/// Makes property tests try the same cases every time.
pub(super) fn seeded() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Default::default() }
}

/// Packs files into an archive; a name ending in `/` becomes a folder.
fn packed(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, content) in files {
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

/// Packs a minimal export with more files beside its indexes.
fn export(files: &[(&str, &str)]) -> Vec<u8> {
    packed(&[&[("users.json", USERS), ("channels.json", CHANNELS)], files].concat())
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn open(bytes: &[u8]) -> Result<Archive, Error> {
    Archive::open(file(bytes), Limits::default())
}

fn survey(bytes: &[u8]) -> Result<Survey, Error> {
    open(bytes)?.survey()
}

fn records(archive: &mut Archive, from: Position) -> Vec<Record> {
    let mut records = Vec::new();
    let each = |record| {
        records.push(record);
        ControlFlow::Continue(())
    };
    archive.read(from, each).unwrap();
    records
}

fn small_zip() -> File {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ubuntu-irc-small.zip");
    File::open(path).unwrap()
}

fn messages_by_channel(
    records: &[Record],
    names: &BTreeMap<String, String>,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        let Outcome::Message(message) = &record.outcome else { panic!("{record:?}") };
        *counts.entry(names[&message.channel].clone()).or_default() += 1;
    }
    counts
}

#[test]
fn reads_the_small_sample() {
    let mut counts = BTreeMap::new();
    let mut zip = ZipArchive::new(small_zip()).unwrap();
    for number in 0..zip.len() {
        let mut entry = zip.by_index(number).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut json = String::new();
        entry.read_to_string(&mut json).unwrap();
        if let Some((channel, _)) = name.split_once('/') {
            let values: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
            *counts.entry(channel.to_owned()).or_default() += values.len();
        }
    }

    let mut archive = Archive::open(small_zip(), Limits::default()).unwrap();
    let survey = archive.survey().unwrap();
    assert_eq!((survey.people.len(), survey.channels.len()), (332, 4));
    assert_eq!((survey.records, survey.ignored_files), (4106, 0));
    let records = records(&mut archive, Position::default());
    let names = survey.channels.into_iter().map(|channel| (channel.id, channel.name)).collect();
    assert_eq!(messages_by_channel(&records, &names), counts);
    assert_eq!(counts.values().sum::<usize>(), 4106);
    assert!(records.is_sorted_by_key(|record| record.next));
}

#[test]
fn resumes_from_any_position() {
    let mut archive = Archive::open(small_zip(), Limits::default()).unwrap();
    let all = records(&mut archive, Position::default());
    for done in (0..all.len()).step_by(500).chain([1077, all.len()]) {
        let from = done.checked_sub(1).map(|last| all[last].next).unwrap_or_default();
        let mut fresh = Archive::open(small_zip(), Limits::default()).unwrap();
        assert!(records(&mut fresh, from) == all[done..], "from {from:?}");
        assert!(records(&mut archive, from) == all[done..], "from {from:?}, surveyed");
    }
    for beyond in [Position { file: 3, record: 9999 }, Position { file: 9, record: 0 }] {
        assert!(records(&mut archive, beyond).is_empty());
    }
}

#[test]
fn stops_when_told() {
    let mut archive = Archive::open(small_zip(), Limits::default()).unwrap();
    let mut seen = 0;
    let each = |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    archive.read(Position::default(), each).unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn reads_channels_then_days_in_order_whatever_the_archive_has() {
    let day = |text| format!(r#"[{{"user":"U1","text":"{text}","ts":"1.0"}}]"#);
    let bytes = export(&[
        ("secret/2020-01-01.json", &day("no")),
        ("other/2020-01-01.json", &day("4")),
        ("general/2020-01-02.json", &day("2")),
        ("general/2019-12-31.json", &day("1")),
        ("general/2020-01-10.json", &day("3")),
        ("groups.json", r#"[{"id":"G1","name":"secret"}]"#),
    ]);
    let records = records(&mut open(&bytes).unwrap(), Position::default());
    let text = |record: &Record| match &record.outcome {
        Outcome::Message(message) => message.text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(records.iter().map(text).collect::<String>(), "1234");
}

#[test]
fn ignores_what_is_no_part_of_the_export() {
    let found = survey(&export(&[
        ("general/", ""),
        ("general/2020-01-01.json", "[1]"),
        ("general/2020-01-01.txt", ""),
        ("general/x/2020-01-01.json", ""),
        ("unknown/2020-01-01.json", "no JSON"),
        ("dms.json", "null"),
        ("2020-01-01.json", ""),
        ("__MACOSX/general/2020-01-01.json", ""),
        ("general/.DS_Store", ""),
    ]));
    let found = found.unwrap();
    assert_eq!((found.records, found.ignored_files), (1, 4));
    let names: Vec<&str> = found.left_out.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "general/2020-01-01.txt",
            "general/x/2020-01-01.json",
            "unknown/2020-01-01.json",
            "2020-01-01.json"
        ]
    );
}

#[test]
fn accepts_an_export_in_one_folder() {
    let one = [
        ("My export/", ""),
        ("My export/users.json", USERS),
        ("My export/channels.json", CHANNELS),
        ("My export/general/2020-01-01.json", "[1,2]"),
        ("__MACOSX/users.json", ""),
    ];
    let found = survey(&packed(&one)).unwrap();
    assert_eq!((found.records, found.ignored_files), (2, 0));

    let two = [&one[..], &[("copy/users.json", USERS)]].concat();
    assert!(matches!(survey(&packed(&two)), Err(Error::Missing { file: "users.json" })));
    let deeper = [("a/b/users.json", USERS), ("a/b/channels.json", CHANNELS)];
    assert!(matches!(survey(&packed(&deeper)), Err(Error::Missing { file: "users.json" })));
}

#[test]
fn reads_people_and_channels() {
    let users = r#"[
        {"id":"U1","name":"n","real_name":"r","profile":{"display_name":"d","real_name":"p"}},
        {"id":"U2","name":"n","profile":{"display_name":"","real_name":"p"},"is_bot":true},
        {"id":"U3","name":"n\u0000\n"}, {"id":"U4","name":7}, {"id":"U1","name":"again"}]"#;
    let channels = r#"[
        {"id":"C1","name":"a","topic":{"value":"<@U1> &amp; co"},"created":5,"is_archived":true},
        {"id":"C2","name":"b","topic":{"value":""},"purpose":{"value":"why"}},
        {"id":"C3","topic":[]}]"#;
    let bytes = packed(&[("users.json", users), ("channels.json", channels)]);
    let found = survey(&bytes).unwrap();
    let names: Vec<_> = found.people.iter().map(|p| (&*p.name, p.is_bot)).collect();
    assert_eq!(names, [("d", false), ("p", true), ("n", false), ("U4", false)]);
    let channels: Vec<_> =
        found.channels.iter().map(|c| (c.name.as_str(), c.topic.as_deref())).collect();
    assert_eq!(channels, [("a", Some("@d & co")), ("b", Some("why")), ("C3", None)]);
    assert_eq!((found.channels[0].created_ms, found.channels[0].archived), (Some(5_000), true));
}
