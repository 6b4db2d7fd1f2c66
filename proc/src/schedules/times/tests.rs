//! Which times a line has, also on the days that clocks change.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_ms(time.as_millisecond())
}

/// Returns the first times after `start`, up to `end`, in UTC.
fn between(line: &str, zone: &str, start: &str, end: &str) -> Vec<String> {
    let (times, end) = (Times::parse(line, zone).unwrap(), at(end));
    let next = |time: &Timestamp| times.next(*time).filter(|next| *next <= end);
    let all = std::iter::successors(next(&at(start)), next);
    all.map(|time| time.to_string().replace(":00.000Z", "")).collect()
}

#[test]
fn a_line_fires_by_the_clock_on_the_wall() {
    // Half past eight in Berlin, on the last two days of winter time and the first two of summer time.
    assert_eq!(
        between("30 8 * * *", "Europe/Berlin", "2026-03-27T00:00:00Z", "2026-03-31T00:00:00Z"),
        ["2026-03-27T07:30", "2026-03-28T07:30", "2026-03-29T06:30", "2026-03-30T06:30"]
    );
    assert_eq!(
        between("0 9 * * MON-FRI", "UTC", "2026-11-20T00:00:00Z", "2026-11-24T00:00:00Z"),
        ["2026-11-20T09:00", "2026-11-23T09:00"]
    );
    // A day of the month or of the week, as cron has always had it.
    assert_eq!(
        between("0 0 13 * FRI", "UTC", "2026-11-10T00:00:00Z", "2026-11-16T00:00:00Z"),
        ["2026-11-13T00:00"]
    );
    assert_eq!(
        between("0 0 L * *", "UTC", "2028-01-15T00:00:00Z", "2028-03-15T00:00:00Z"),
        ["2028-01-31T00:00", "2028-02-29T00:00"]
    );
    assert_eq!(
        between("30 0 12 * * *", "UTC", "2026-11-20T12:00:00Z", "2026-11-21T00:00:00Z"),
        ["2026-11-20T12:00:30.000Z"]
    );
}

/// Line, zone, start, end, and times.
type Case<'a> = (&'a str, &'a str, (&'a str, &'a str), &'a [&'a str]);

const BERLIN: &str = "Europe/Berlin";
const SPRING: (&str, &str) = ("2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z");
const AUTUMN: (&str, &str) = ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");

/// Lines with a zone, the time between two moments, and the times that they have there.
const CHANGES: &[Case<'static>] = &[
    // Without `*` in minute and hour: made up for once, right after the jump, and never twice.
    ("30 2 * * *", BERLIN, SPRING, &["2027-03-28T01:00"]),
    ("0 2,14 * * *", BERLIN, SPRING, &["2027-03-28T01:00", "2027-03-28T12:00"]),
    ("15,45 2 * * *", BERLIN, SPRING, &["2027-03-28T01:00"]),
    ("15,45 2 28 3 *", BERLIN, SPRING, &["2027-03-28T01:00"]),
    ("15 2,3 * * *", BERLIN, SPRING, &["2027-03-28T01:00", "2027-03-28T01:15"]),
    ("0 1-4 * * *", BERLIN, SPRING, &["2027-03-28T00:00", "2027-03-28T01:00", "2027-03-28T02:00"]),
    ("30 15 2 * * *", BERLIN, SPRING, &["2027-03-28T01:00"]),
    ("0-59 2 * * *", BERLIN, SPRING, &["2027-03-28T01:00"]),
    ("30 2 * * *", BERLIN, AUTUMN, &["2026-10-25T00:30"]),
    ("0 2,14 * * *", BERLIN, AUTUMN, &["2026-10-25T00:00", "2026-10-25T13:00"]),
    ("15,45 2 * * *", BERLIN, AUTUMN, &["2026-10-25T00:15", "2026-10-25T00:45"]),
    ("15,45 2 28 3 *", BERLIN, AUTUMN, &[]),
    ("30 1-3 * * *", BERLIN, AUTUMN, &["2026-10-24T23:30", "2026-10-25T00:30", "2026-10-25T02:30"]),
    ("0 3 * * *", BERLIN, AUTUMN, &["2026-10-25T02:00"]),
    ("@daily", BERLIN, AUTUMN, &["2026-10-25T23:00"]),
    // With `*`: by the time that passes.
    ("*/30 2 * * *", BERLIN, SPRING, &[]),
    (
        "*/30 1-3 * * *",
        BERLIN,
        SPRING,
        &["2027-03-28T00:00", "2027-03-28T00:30", "2027-03-28T01:00", "2027-03-28T01:30"],
    ),
    (
        "*/30 2 * * *",
        BERLIN,
        AUTUMN,
        &["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30"],
    ),
    (
        "30 */2 * * *",
        BERLIN,
        ("2027-03-28T00:00:00Z", "2027-03-28T05:00:00Z"),
        &["2027-03-28T02:30", "2027-03-28T04:30"],
    ),
    (
        "0 * * * *",
        BERLIN,
        ("2026-10-24T23:00:00Z", "2026-10-25T02:00:00Z"),
        &["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"],
    ),
    (
        "@hourly",
        BERLIN,
        ("2026-10-24T23:00:00Z", "2026-10-25T02:00:00Z"),
        &["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"],
    ),
    // Half an hour, on the other half of the globe.
    (
        "15 2 * * *",
        "Australia/Lord_Howe",
        ("2026-10-03T13:00:00Z", "2026-10-04T12:00:00Z"),
        &["2026-10-03T15:30"],
    ),
    (
        "45 2 * * *",
        "Australia/Lord_Howe",
        ("2026-10-03T13:00:00Z", "2026-10-04T12:00:00Z"),
        &["2026-10-03T15:45"],
    ),
    (
        "45 1 * * *",
        "Australia/Lord_Howe",
        ("2026-04-04T12:00:00Z", "2026-04-05T12:00:00Z"),
        &["2026-04-04T14:45"],
    ),
    (
        "45 * * * *",
        "Australia/Lord_Howe",
        ("2026-04-04T14:00:00Z", "2026-04-04T16:30:00Z"),
        &["2026-04-04T14:45", "2026-04-04T15:15", "2026-04-04T16:15"],
    ),
    // No midnight, so that a day begins at one.
    (
        "0 0 * * *",
        "Africa/Cairo",
        ("2026-04-23T12:00:00Z", "2026-04-24T12:00:00Z"),
        &["2026-04-23T22:00"],
    ),
    (
        "30 0 24 4 *",
        "Africa/Cairo",
        ("2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z"),
        &["2026-04-23T22:00"],
    ),
    // Two midnights.
    (
        "0 0 * * *",
        "America/Havana",
        ("2026-10-31T12:00:00Z", "2026-11-01T12:00:00Z"),
        &["2026-11-01T04:00"],
    ),
    // The gap is on another date than in Europe.
    (
        "30 2 * * *",
        "America/New_York",
        ("2027-03-13T12:00:00Z", "2027-03-15T12:00:00Z"),
        &["2027-03-14T07:00", "2027-03-15T06:30"],
    ),
    (
        "30 2 * * *",
        "America/New_York",
        ("2027-03-27T12:00:00Z", "2027-03-28T12:00:00Z"),
        &["2027-03-28T06:30"],
    ),
    // A day that never was.
    (
        "0 12 30 12 *",
        "Pacific/Apia",
        ("2011-12-01T00:00:00Z", "2012-02-01T00:00:00Z"),
        &["2011-12-30T10:00"],
    ),
    ("0 12 * * *", "UTC", SPRING, &["2027-03-28T12:00"]),
];

#[test]
fn times_on_the_days_that_clocks_change_are_those_of_vixie_cron() {
    for (line, zone, (start, end), expected) in CHANGES {
        assert_eq!(between(line, zone, start, end), *expected, "{line} in {zone} from {start}");
    }
}

#[test]
fn what_is_no_line_or_never_fires_says_so() {
    let refusal = |line: &str| {
        let times =
            Times::parse(line, "UTC").and_then(|times| times.first(at("2026-11-21T00:00:00Z")));
        let invalid = times.expect_err(line);
        assert_eq!(invalid.field(), "cron", "{line}");
        invalid.to_string()
    };
    for line in [
        "",
        " ",
        "x",
        "* * * *",
        "* * * * * * *",
        "61 * * * *",
        "* 24 * * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "0 0 1-99999999999999999999 * *",
        "@reboot",
        "🦀 * * * *",
        "\0 * * * *",
    ] {
        refusal(line);
    }
    for line in [
        "*/90 * * * *",
        "0 */24 * * *",
        "0 0 */32 * *",
        "0 0 1 */13 *",
        "0 0 * * 0/8",
        "0,*/60 * * * *",
    ] {
        assert!(refusal(line).contains("step"), "{line}");
    }
    for line in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30W 2 *"] {
        assert!(refusal(line).contains("never"), "{line}");
    }
    for line in ["* * * * * *", "0,30 * * * * *", "*/10 0 0 * * *"] {
        assert!(refusal(line).contains("second"), "{line}");
    }
    assert!(refusal(&format!("{} * * * *", "0,".repeat(60))).contains("longer"));
}

#[test]
fn a_time_zone_has_a_name() {
    for zone in
        ["", "Nowhere", "Etc/Unknown", "+01:00", "CET-1CEST", "../../etc/passwd", "Europe/Berlin "]
    {
        assert_eq!(Times::parse("0 0 * * *", zone).unwrap_err(), Invalid::TimeZone, "{zone}");
    }
    assert_eq!(Times::parse("0 0 * * *", "europe/berlin").unwrap().zone(), "Europe/Berlin");
}

#[test]
fn a_step_that_was_once_taken_goes_on() {
    let times = Times::parse("*/90 * * * *", "UTC").unwrap();
    assert_eq!(times.next(at("2026-11-21T00:10:00Z")), Some(at("2026-11-21T01:00:00Z")));
}

/// A field with numbers of a range.
fn field(range: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = String> {
    let (low, high) = (*range.start(), *range.end());
    prop_oneof![
        Just("*".to_owned()),
        range.clone().prop_map(|number| number.to_string()),
        (2..=high).prop_map(|step| format!("*/{step}")),
        (range.clone(), range).prop_map(|(one, other)| format!(
            "{}-{}",
            one.min(other),
            one.max(other)
        )),
    ]
    .prop_filter("in range", move |field| !field.is_empty() && low <= high)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn times_only_go_forward_and_none_is_between_them(
        minute in field(0..=59), hour in field(0..=23), weekday in field(0..=6),
        start in 1_700_000_000_000_i64..2_000_000_000_000,
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    ) {
        let times = Times::parse(&format!("{minute} {hour} * * {weekday}"), zone).unwrap();
        let mut time = Timestamp::from_ms(start);
        for _ in 0..20 {
            let next = times.next(time).unwrap();
            prop_assert!(next > time);
            // Whoever asks from anywhere before it is told the same.
            let middle = Timestamp::from_ms(i64::midpoint(time.as_ms(), next.as_ms()));
            prop_assert_eq!(times.next(middle), Some(next));
            prop_assert_eq!(times.next(Timestamp::from_ms(next.as_ms() - 1)), Some(next));
            time = next;
        }
    }

    #[test]
    fn any_text_is_a_line_or_refused(line in "\\PC{0,40}|[-0-9*/,LW#?+ A-Z]{0,40}", zone in "\\PC{0,20}") {
        if let Ok(times) = Times::parse(&line, "UTC") {
            let start = Timestamp::from_ms(1_700_000_000_000);
            prop_assert!(times.next(start).is_none_or(|next| next > start));
        }
        let _ = Times::parse("* * * * *", &zone);
    }
}
