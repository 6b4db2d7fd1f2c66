//! Times of a schedule: a cron line in a time zone.
//!
//! When clocks change, a line goes by the rule of Vixie's and Debian's cron. A line without `*` in minute and hour goes by the
//! clock on the wall: times that the clock jumps over are made up for once, right after the jump, and a time that the clock
//! shows twice fires the first time. A line with `*` in either goes by the time that passes.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    ToSpan,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use shared::time::Timestamp;

/// The longest line that is looked at.
const MAX_LINE: usize = 120;
/// Fields from the last to the first, each with the largest step that has a meaning in it.
const MAX_STEPS: [(&str, u32); 6] = [
    ("weekday", 7),
    ("month", 12),
    ("day of the month", 31),
    ("hour", 23),
    ("minute", 59),
    ("second", 59),
];

/// Why there are no times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("{0}")]
    Line(String),
    #[error(
        "there is no time zone of this name, which is one of the IANA's, such as `Europe/Berlin`"
    )]
    TimeZone,
}

impl Invalid {
    /// Names the field that is wrong.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Line(_) => "cron",
            Self::TimeZone => "time_zone",
        }
    }
}

/// The times of a cron line in a time zone, each of them once.
#[derive(Clone, Debug)]
pub(super) struct Times {
    cron: Cron,
    zone: TimeZone,
    /// Minute or hour has a `*`.
    is_by_real_time: bool,
    /// Why the line is not taken from anybody any more. One that was taken before goes on.
    flaw: Option<String>,
}

impl Times {
    /// Reads a line of five fields, or of six with the second before them.
    pub(super) fn parse(line: &str, zone: &str) -> Result<Self, Invalid> {
        let invalid = |message: &str| Err(Invalid::Line(message.into()));
        if line.len() > MAX_LINE {
            return invalid("the line is longer than 120 bytes");
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() == 6 && fields[0].parse::<u8>().is_err() {
            return invalid("the second is one number, so that nothing fires twice a minute");
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed);
        let cron = parser.build().parse(line).map_err(|error| Invalid::Line(error.to_string()))?;
        // One that has no name stands for a zone that nobody knows.
        let zone = TimeZone::get(zone).ok().filter(|zone| zone.iana_name().is_some());
        let zone = zone.ok_or(Invalid::TimeZone)?;
        let is_by_real_time = match *fields {
            [name] => name.eq_ignore_ascii_case("@hourly"),
            [.., minute, hour, _, _, _] => [minute, hour].iter().any(|it| it.contains(['*', '?'])),
            _ => false,
        };
        Ok(Self { cron, zone, is_by_real_time, flaw: flaw(&fields) })
    }

    /// Returns the zone's name as the IANA spells it.
    pub(super) fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or_default()
    }

    /// Returns the first time after `after`, `None` if it never fires again.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(after.as_ms()).ok()?;
        let next = if self.is_by_real_time {
            self.next_by_real_time(after)
        } else {
            self.next_by_the_wall(after)
        };
        Some(Timestamp::from_ms(next?.as_millisecond()))
    }

    /// Returns the first time after `now` of a line that somebody has just written.
    pub(super) fn first(&self, now: Timestamp) -> Result<Timestamp, Invalid> {
        if let Some(flaw) = &self.flaw {
            return Err(Invalid::Line(flaw.clone()));
        }
        self.next(now)
            .ok_or_else(|| Invalid::Line("there is no such day, so it never fires".into()))
    }

    /// Returns the next time by the clock on the wall.
    fn next_by_the_wall(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut shown = self.zone.to_datetime(after);
        loop {
            shown = self.next_shown(shown, false)?;
            let time = match self.zone.to_ambiguous_timestamp(shown).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(shown).ok()?,
                AmbiguousOffset::Fold { before, .. } => before.to_timestamp(shown).ok()?,
                // The clock jumps over it: the moment of the jump.
                AmbiguousOffset::Gap { before, .. } => {
                    let later = before.to_timestamp(shown).ok()?.checked_add(1.second()).ok()?;
                    self.zone.preceding(later).next()?.timestamp()
                }
            };
            // On the second way through an hour, what is shown was due on the first.
            if time > after {
                return Some(time);
            }
        }
    }

    /// Returns the next time at which the clock shows what the line says, as often as it does.
    fn next_by_real_time(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let (mut from, mut is_inclusive) = (after, false);
        loop {
            let offset = self.zone.to_offset(from);
            let shown = self.next_shown(offset.to_datetime(from), is_inclusive)?;
            let time = offset.to_timestamp(shown).ok()?;
            let change = self.zone.following(from).next().map(|change| change.timestamp());
            let Some(change) = change.filter(|change| *change <= time) else { return Some(time) };
            // Clocks change before. Nothing matches until two days before the time, whatever the offset is then.
            from = change.max(time.checked_sub(48.hours()).ok()?);
            is_inclusive = true;
        }
    }

    /// Returns the next time that matches the line on a clock which never changes.
    fn next_shown(&self, after: DateTime, is_inclusive: bool) -> Option<DateTime> {
        let after = after.with().subsec_nanosecond(0).build().ok()?;
        let after = after.to_zoned(TimeZone::UTC).ok()?;
        Some(self.cron.find_next_occurrence(&after, is_inclusive).ok()?.datetime())
    }
}

/// Returns why a line is not what whoever wrote it meant: a step that is larger than its field.
fn flaw(fields: &[&str]) -> Option<String> {
    fields.iter().rev().zip(MAX_STEPS).find_map(|(field, (name, most))| {
        let mut steps = field.split(',').filter_map(|part| part.split_once('/')?.1.parse().ok());
        let step = steps.find(|step: &u32| *step > most)?;
        Some(format!("a step of the {name} is 1 to {most}, not {step}"))
    })
}

#[cfg(test)]
mod tests;
