//! Lines are the same however they come in parts, and end in time.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn any_line() -> impl Strategy<Value = Line> {
    let told =
        (prop::option::of(0.0..1.0), any::<u64>(), any::<Option<u64>>(), any::<Option<String>>());
    let told = told.prop_map(|(fraction, done, total, message)| {
        Line::Progress(Told { fraction, done, total, unit: None, message })
    });
    let log = any::<String>().prop_map(|text| Line::Log(Log::Text(text)));
    prop_oneof![told, log]
}

proptest! {
    #[test]
    fn an_answer_is_the_same_in_any_parts(
        said in prop::collection::vec(any_line(), 0..20),
        result in any::<String>(),
        cuts in prop::collection::vec(1usize..50, 1..20),
        blank in "(\r?\n){0,3}",
    ) {
        let mut expected = said;
        expected.push(Line::Result(json!(result).into()));
        let text: String = expected.iter().map(|line| json!(line).to_string() + "\n" + &blank).collect();
        let (mut lines, mut read, mut rest) = (Lines::default(), Vec::new(), text.as_bytes());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, after) = rest.split_at((*cut).min(rest.len()));
            read.extend(lines.push(part).unwrap());
            rest = after;
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_bytes_break_the_reader(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)) {
        let mut lines = Lines::default();
        if parts.iter().all(|part| lines.push(part).is_ok()) {
            lines.finish();
        }
    }

    #[test]
    fn progress_is_a_fraction_whatever_was_told(fraction in any::<f64>(), done in any::<u64>(), total in any::<Option<u64>>()) {
        let fraction = Some(fraction).filter(|fraction| fraction.is_finite());
        let progress = Progress::from(Told { fraction, done, total, ..Told::default() });
        prop_assert!(progress.fraction.is_none_or(|fraction| (0.0..=1.0).contains(&fraction)));
    }
}

#[test]
fn what_is_no_line_is_refused_and_what_follows_the_last_is_not_read() {
    for garbage in [
        "hello",
        "[]",
        "{}",
        "null",
        "7",
        r#"{"result":1,"log":"x"}"#,
        r#"{"reslt":1}"#,
        r#"{"progress":{"done":-1}}"#,
        r#"{"error":{"code":"x"}}"#,
        r#"{"progress":{"done":1.5}}"#,
        r#"{"progress":{"done":1e300}}"#,
        r#"{"progress":{"done":NaN}}"#,
        r#"{"log":"\ud83"}"#,
        "{\"log\":\"\u{fffd}",
        "\u{1f}",
    ] {
        let pushed = Lines::default().push(format!("{garbage}\n").as_bytes());
        assert_eq!(pushed.unwrap_err(), Unreadable::Garbage { line: 1 }, "{garbage}");
    }
    let lines = Lines::default().push(b"{\"result\":null}\ngarbage\n").unwrap();
    assert_eq!(lines, [Line::Result(Value::Null.into())]);
    let later = Lines::default().push(b"{\"log\":\"\"}\n\n{\"result\":NaN}\n").unwrap_err();
    assert_eq!(later, Unreadable::Garbage { line: 3 });
    assert!(later.to_string().starts_with("line 3 of the bundle's answer"), "{later}");
    let mut unended = Lines::default();
    assert_eq!(unended.push(br#"{"result":1}"#).unwrap(), []);
    assert_eq!(unended.finish(), Some(Line::Result(json!(1).into())));
}

#[test]
fn a_line_and_an_answer_have_their_ends() {
    let fits = format!("{{\"log\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES - 10));
    assert_eq!(fits.len(), MAX_LINE_BYTES);
    assert_eq!(Lines::default().push(format!("{fits}\n").as_bytes()).unwrap().len(), 1);
    let longer = format!("{{\"log\":\"{}\"}}\n", "x".repeat(MAX_LINE_BYTES));
    assert_eq!(Lines::default().push(longer.as_bytes()).unwrap_err(), Unreadable::TooLarge);
    let (mut lines, part) = (Lines::default(), vec![b'\n'; 1 << 20]);
    for _ in 0..16 {
        lines.push(&part).unwrap();
    }
    assert_eq!(lines.push(b"\n").unwrap_err(), Unreadable::TooLarge);
}

#[test]
fn errors_and_logs_are_fit_to_be_kept() {
    let failed = |code: &str| {
        let message = format!("a\0{}", "ö".repeat(5_000));
        JobError::from(Failed { code: code.into(), message, retryable: true })
    };
    assert_eq!(failed("quota.exceeded").code, "quota.exceeded");
    for code in ["", "a b", "<b>", &"x".repeat(65)] {
        assert_eq!(failed(code).code, "bundle_failed");
    }
    let message = failed("x").message;
    assert!(
        message.starts_with('a') && !message.contains('\0') && message.chars().count() == 1_000
    );
    let (level, message) = Log::Levelled { level: Level::Warn, message: "\0x".into() }.parts();
    assert_eq!((level, &*message), ("warn", "x"));
}

#[test]
fn what_writers_of_other_languages_add_is_read() {
    let line = |text: &str| {
        let mut lines = Lines::default().push(format!("{text}\n").as_bytes()).unwrap();
        lines.pop().unwrap()
    };
    let progress = |done, total| Line::Progress(Told { done, total, ..Told::default() });
    assert_eq!(line("\u{feff}{\"result\": 1}"), Line::Result(json!(1).into()));
    assert_eq!(line(r#"{"progress": {"done": 3.0, "total": 4e0}}"#), progress(3, Some(4)));
    assert_eq!(line(r#"{"progress": {"done": null, "total": null}}"#), progress(0, None));
    for (level, read) in [
        ("\"debug\"", Level::Info),
        ("\"INFO\"", Level::Info),
        ("null", Level::Info),
        ("30", Level::Info),
        ("\"warning\"", Level::Warn),
        ("\"Error\"", Level::Error),
        ("\"CRITICAL\"", Level::Error),
    ] {
        let log = line(&format!(r#"{{"log": {{"level": {level}, "message": "x"}}}}"#));
        let expected = Line::Log(Log::Levelled { level: read, message: "x".into() });
        assert_eq!(log, expected, "{level}");
    }
    for (written, read) in [
        (r"\ud83d", "\u{fffd}"),
        (r"\uDE00x", "\u{fffd}x"),
        (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (r"\ud83d\n", "\u{fffd}\n"),
        (r"\\ud83d", r"\ud83d"),
        (r"\ud83d\ude00", "\u{1f600}"),
    ] {
        let log = line(&format!(r#"{{"log": "{written}"}}"#));
        assert_eq!(log, Line::Log(Log::Text(read.into())), "{written}");
    }
}
