//! Tests single records: those kept, skipped and broken.

use std::slice;

use super::{
    super::{Archive, Limits, Message, Outcome, Position, Reaction, Ts},
    MESSAGE, export, file, open, records,
};

const LATER: &str = r#"{"type":"message","user":"U1","text":"hi","ts":"1.000002"}"#;

/// Reads the elements of one day file of `#general`, checking that the survey agrees.
fn outcomes_of_file(json: &str) -> Vec<Outcome> {
    let mut archive = open(&export(&[("general/2020-01-01.json", json)])).unwrap();
    let found = records(&mut archive, Position::default());
    assert_eq!(archive.survey().unwrap().records, found.len() as u64);
    found.into_iter().map(|record| record.outcome).collect()
}

/// Reads one record that stands between two good ones, which must come through.
fn outcome(record: &str) -> Outcome {
    let found = outcomes_of_file(&format!("[{MESSAGE},{record},{LATER}]"));
    let [Outcome::Message(_), _, Outcome::Message(_)] = &found[..] else { panic!("{found:?}") };
    found[1].clone()
}

fn message(record: &str) -> Message {
    match outcome(record) {
        Outcome::Message(message) => message,
        other => panic!("{record}: {other:?}"),
    }
}

#[test]
fn keeps_a_message_with_all_it_has() {
    let found = message(
        r#"{"type":"message","subtype":"thread_broadcast","user":"U1","text":"<@U1> &amp; I",
        "ts":"1107856560.000002","thread_ts":"1107856560.000001",
        "edited":{"user":"U1","ts":"1107856561.000000"},"user_profile":{"real_name":"Anna B"},
        "reactions":[{"name":"+1","users":["U1","U2",5],"count":2},{"name":"x","users":[]},7]}"#,
    );
    let users = vec!["U1".to_owned(), "U2".to_owned()];
    assert_eq!(
        found,
        Message {
            channel: "C1".to_owned(),
            occurrence: 0,
            same_time: None,
            thread_same_time: None,
            own_name: None,
            is_edited: true,
            thread_author: None,
            reactions_left_out: 2,
            ts: Ts::parse("1107856560.000002").unwrap(),
            author: "U1".to_owned(),
            author_name: Some("Anna B".to_owned()),
            is_bot: false,
            text: "@Anna Bell & I".to_owned(),
            subtype: Some("thread_broadcast".to_owned()),
            thread: Ts::parse("1107856560.000001"),
            edited: Ts::parse("1107856561.0"),
            reactions: vec![Reaction { name: "+1".to_owned(), users, count: 2 }],
            own: None,
        }
    );
}

#[test]
fn finds_the_author() {
    for (record, author, name, is_bot) in [
        (r#"{"user":"U1","text":"x","ts":"1.0"}"#, "U1", None, false),
        (r#"{"user":"U1","bot_id":"B1","text":"x","ts":"1.0"}"#, "U1", None, true),
        (
            r#"{"subtype":"bot_message","bot_id":"B1","username":"hal","text":"x","ts":"1.0"}"#,
            "B1",
            Some("hal"),
            true,
        ),
        (
            r#"{"bot_id":"B1","bot_profile":{"name":"hal"},"text":"x","ts":"1.0"}"#,
            "B1",
            Some("hal"),
            true,
        ),
        (
            r#"{"subtype":"bot_message","username":"hal","text":"x","ts":"1.0"}"#,
            "hal",
            Some("hal"),
            true,
        ),
        (
            r#"{"subtype":"bot_message","bot_profile":{"id":"B9","name":"Poller"},"text":"x","ts":"1.0"}"#,
            "B9",
            Some("Poller"),
            true,
        ),
        (r#"{"user":"","text":"x","ts":"1.0"}"#, "unknown", Some("Unknown author"), false),
        (
            r#"{"subtype":"file_comment","comment":{"user":"U2"},"text":"x","ts":"1.0"}"#,
            "U2",
            None,
            false,
        ),
    ] {
        let found = message(record);
        assert_eq!(found.author, author, "{record}");
        assert_eq!((found.author_name.as_deref(), found.is_bot), (name, is_bot), "{record}");
    }
}

#[test]
fn an_app_names_itself_for_each_message() {
    let named = message(r#"{"bot_id":"B1","username":"alice (irc)","text":"x","ts":"1.0"}"#);
    assert_eq!(named.own_name.as_deref(), Some("alice (irc)"));
    let person = message(r#"{"user":"U1","username":"anna","text":"x","ts":"1.0"}"#);
    assert_eq!(person.own_name, None, "people have one name");
}

#[test]
fn records_of_one_time_are_told_apart_wherever_reading_begins() {
    let record =
        |user: &str, text: &str| format!(r#"{{"user":"{user}","text":"{text}","ts":"1.0"}}"#);
    let edited = r#"{"user":"U2","text":"c","ts":"1.0","edited":{"user":"U2","ts":"2.0"}}"#;
    let day = [
        record("U1", "a"),
        record("U1", "a"),
        record("U2", "b"),
        edited.to_owned(),
        record("U1", "d"),
    ];
    let files = [
        ("general/all.json", format!("[{}]", day.join(","))),
        ("general/zz.json", format!("[{}]", record("U2", "b"))),
    ];
    let files: Vec<(&str, &str)> =
        files.iter().map(|(name, json)| (*name, json.as_str())).collect();
    let bytes = export(&files);
    let told = |found: &[crate::bundles::chat::slack::Record]| -> Vec<String> {
        let told = |outcome: &Outcome| match outcome {
            Outcome::Message(message) => format!("{}{}", message.text, message.occurrence),
            Outcome::Skipped(kind) => kind.clone(),
            other => panic!("{other:?}"),
        };
        found.iter().map(|record| told(&record.outcome)).collect()
    };
    let all = records(&mut open(&bytes).unwrap(), Position::default());
    let wanted = ["duplicate", "a0", "duplicate", "c1", "d2", "duplicate_version"];
    assert_eq!(told(&all), wanted, "the newest version of each");
    for done in 1..all.len() {
        let rest = records(&mut open(&bytes).unwrap(), all[done - 1].next);
        assert_eq!(rest, all[done..], "reading goes on behind record {done}");
    }
}

#[test]
fn the_newer_of_two_versions_is_the_message_in_any_order() {
    let record = |text: &str, edited: &str| {
        let edited = if edited.is_empty() {
            String::new()
        } else {
            format!(r#","edited":{{"user":"U1","ts":"{edited}"}}"#)
        };
        format!(r#"{{"user":"U1","text":"{text}","ts":"1.0"{edited}}}"#)
    };
    let texts = |files: &[&[String]]| -> Vec<String> {
        let named = |(number, records): (usize, &&[String])| {
            (format!("general/{number}.json"), format!("[{}]", records.join(",")))
        };
        let files: Vec<(String, String)> = files.iter().enumerate().map(named).collect();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
        let found = records(&mut open(&export(&files)).unwrap(), Position::default());
        let told = |outcome: &Outcome| match outcome {
            Outcome::Message(message) => message.text.clone(),
            Outcome::Skipped(kind) => kind.clone(),
            other => panic!("{other:?}"),
        };
        found.iter().map(|record| told(&record.outcome)).collect()
    };
    let (old, new) = (record("old", ""), record("new", "2.0"));
    let newest = record("newest", "3.0");
    let other = "duplicate_version";
    for files in [[vec![old.clone()], vec![new.clone()]], [vec![old.clone(), new.clone()], vec![]]]
    {
        let files: Vec<&[String]> = files.iter().map(Vec::as_slice).collect();
        assert_eq!(texts(&files), [other, "new"], "{files:?}");
    }
    assert_eq!(
        texts(&[slice::from_ref(&new), slice::from_ref(&old)]),
        ["new", other],
        "whatever is read first"
    );
    assert_eq!(texts(&[&[newest.clone(), old.clone(), new.clone()]]), ["newest", other, other]);
    // A day that is there twice, without a time of the edit.
    assert_eq!(texts(&[&[record("a", "")], &[record("b", "")]]), [other, "b"]);
    // Texts of one file that nobody edited are messages of their own, also where the day is there twice.
    let (a, b) = (record("a", ""), record("b", ""));
    assert_eq!(texts(&[&[a.clone(), b.clone()]]), ["a", "b"]);
    let twice = [a.clone(), b.clone()];
    assert_eq!(texts(&[&twice, &twice]), ["duplicate", "duplicate", "a", "b"]);
    assert_eq!(texts(&[&[a, b, new]]), ["a", other, "new"], "of the message before it");
}

#[test]
fn a_record_of_a_deletion_names_the_message() {
    let deletion = |record: &str| match outcome(record) {
        Outcome::Deleted(deletion) => (deletion.ts.to_string(), deletion.author, deletion.kind),
        other => panic!("{record}: {other:?}"),
    };
    for (record, ts, author, kind) in [
        (
            r#"{"subtype":"tombstone","user":"USLACKBOT","ts":"5.0","text":"gone"}"#,
            "5.000000",
            None,
            "tombstone",
        ),
        (r#"{"subtype":"tombstone","user":"U1","ts":"5.0"}"#, "5.000000", Some("U1"), "tombstone"),
        (
            r#"{"subtype":"message_deleted","ts":"9.0","deleted_ts":"5.0","previous_message":{"user":"U2"}}"#,
            "5.000000",
            Some("U2"),
            "message_deleted",
        ),
        (
            r#"{"subtype":"message_deleted","ts":"9.0","previous_message":{"ts":"5.0"}}"#,
            "5.000000",
            None,
            "message_deleted",
        ),
    ] {
        assert_eq!(deletion(record), (ts.to_owned(), author.map(str::to_owned), kind), "{record}");
    }
    let skipped = Outcome::Skipped("message_deleted".to_owned());
    assert_eq!(outcome(r#"{"subtype":"message_deleted","ts":"9.0"}"#), skipped);
    // The message is in the archive too, as it was before.
    let tombstone = r#"{"subtype":"tombstone","user":"USLACKBOT","ts":"1.000002"}"#;
    let found = outcomes_of_file(&format!("[{tombstone},{MESSAGE},{LATER}]"));
    let [Outcome::Deleted(_), Outcome::Message(_), Outcome::Skipped(kind)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(kind, "duplicate_version");
}

#[test]
fn half_a_character_costs_no_record() {
    let found = message(
        r#"{"user":"U1","text":"cut \ud83d","ts":"1.0","user_profile":{"status":"\ude00"}}"#,
    );
    assert_eq!(found.text, "cut \u{fffd}");
}

#[test]
fn records_beyond_those_of_one_time_that_are_told_apart_are_named() {
    let record = |number: u32| format!(r#"{{"user":"U1","text":"{number}","ts":"1.0"}}"#);
    let day: Vec<String> = (0..300).map(record).collect();
    let bytes = export(&[("general/all.json", &format!("[{}]", day.join(",")))]);
    let all = records(&mut open(&bytes).unwrap(), Position::default());
    let is_message = |outcome: &Outcome| matches!(outcome, Outcome::Message(_));
    assert!(all[..256].iter().all(|record| is_message(&record.outcome)));
    let reason = "there are more than 256 records of its time".to_owned();
    assert!(all[256..].iter().all(|record| record.outcome == Outcome::Failed(reason.clone())));
    assert_eq!(all.len(), 300);
}

#[test]
fn a_thread_parent_is_no_reply() {
    let found = message(r#"{"user":"U1","text":"x","ts":"1.0","thread_ts":"1.000000"}"#);
    assert_eq!(found.thread, None);
}

#[test]
fn skips_what_nobody_said() {
    let long = format!(r#"{{"subtype":"{}"}}"#, "a".repeat(65));
    for (record, kind) in [
        (r#"{"type":"message","subtype":"channel_join","user":"U1","text":"x"}"#, "channel_join"),
        (r#"{"subtype":"group_join","ts":"junk"}"#, "group_join"),
        (r#"{"subtype":"tombstone"}"#, "tombstone"),
        (r#"{"type":"presence_change"}"#, "presence_change"),
        (r#"{"subtype":"Odd kind"}"#, "other"),
        (r#"{"subtype":""}"#, "other"),
        (&long, "other"),
        (r#"{"user":"U1","text":" \n","ts":"1.0"}"#, "empty"),
        (r#"{"user":"U1","ts":"1.0","files":[]}"#, "empty"),
        (r#"{"user":"U1","text":"","ts":"1.0","files":[{"id":"F1"}]}"#, "file_without_text"),
        (r#"{"subtype":"file_share","user":"U1","text":"","ts":"1.0"}"#, "file_without_text"),
    ] {
        assert_eq!(outcome(record), Outcome::Skipped(kind.to_owned()), "{record}");
    }
}

#[test]
fn a_broken_record_spoils_no_other() {
    let digits: String = (0..200_000).map(|number: u32| number.to_string()).collect();
    let long_text = format!(r#"{{"user":"U1","text":"{digits}","ts":"1.0"}}"#);
    for (record, reason) in [
        (r#"{"user":"U1" "text":"secret"}"#, "not valid JSON at line 1 column 14"),
        (r#"{"user":"U1",]}"#, "not valid JSON"),
        ("", "not a JSON object"),
        ("null", "not a JSON object"),
        (r#"["message","U1","secret"]"#, "not a JSON object"),
        (r#"{"user":"U1","text":["secret"],"ts":"1.0"}"#, "text is not a string"),
        (r#"{"user":"U1","text":"secret"}"#, "ts is missing"),
        (r#"{"user":"U1","text":"secret","ts":1.5}"#, "ts is missing or not a string"),
        (r#"{"user":"U1","text":"secret","ts":"-1.0"}"#, "ts is not a timestamp"),
        (r#"{"user":"U1","text":"secret","ts":"1.0","thread_ts":"x"}"#, "thread_ts"),
        (r#"{"user":"U\u0000","text":"secret","ts":"1.0"}"#, "author holds a NUL"),
        (r#"{"user":"U1","text":"secret\u0000","ts":"1.0"}"#, "text holds a NUL"),
        (r#"{"type":7}"#, "type is not a string"),
        (r#"{"subtype":[]}"#, "subtype is not a string"),
        (&long_text, "longer than 1 MiB"),
    ] {
        let Outcome::Failed(found) = outcome(record) else { panic!("{record}") };
        assert!(found.contains(reason), "{found}");
        assert!(!found.contains("secret"), "{found}");
    }
}

#[test]
fn a_long_record_spoils_no_other() {
    let long = format!(r#"{{"user":"U1","text":"x","ts":"1.0","y":"{}"}}"#, "x".repeat(200));
    let json = format!("[{MESSAGE},{long},{LATER}]");
    let limits = Limits { max_record_bytes: 200, ..Limits::default() };
    let bytes = export(&[("general/2020-01-01.json", &json)]);
    let mut archive = Archive::open(file(&bytes), limits).unwrap();
    assert_eq!(archive.survey().unwrap().records, 3);
    let found = records(&mut archive, Position::default());
    let reason = "record is longer than 200 bytes".to_owned();
    assert_eq!(found[1].outcome, Outcome::Failed(reason));
    assert!(matches!(found[2].outcome, Outcome::Message(_)), "{found:?}");
}

#[test]
fn a_broken_file_is_one_failed_record_after_its_good_ones() {
    for (json, good, reason) in [
        ("{}".to_owned(), 0, "not a JSON array"),
        (String::new(), 0, "not a JSON array"),
        (format!("[{MESSAGE},{MESSAGE}"), 1, "never ends"),
        (format!("[{MESSAGE},{{\"a\":[{MESSAGE}]"), 1, "never ends"),
        (format!("[{MESSAGE}][]"), 1, "data after the end"),
    ] {
        let found = outcomes_of_file(&json);
        assert_eq!(found.len(), good + 1, "{json}");
        assert!(found[..good].iter().all(|outcome| matches!(outcome, Outcome::Message(_))));
        assert!(matches!(&found[good], Outcome::Failed(text) if text.contains(reason)), "{json}");
    }
    assert!(outcomes_of_file("[]").is_empty());
}
