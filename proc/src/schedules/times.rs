//! When a schedule fires: a cron line in a time zone.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::tz::TimeZone;
use shared::time::Timestamp;

/// The longest line that is looked at.
const MAX_LINE: usize = 120;

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
        Ok(Self { cron, zone: zone.ok_or(Invalid::TimeZone)? })
    }

    /// Returns the zone's name as the IANA spells it.
    pub(super) fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or_default()
    }

    /// Returns the first time after `after`, `None` if it never fires again.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(after.as_ms()).ok()?;
        let next = self.cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false);
        Some(Timestamp::from_ms(next.ok()?.timestamp().as_millisecond()))
    }

    /// Returns the first time after `now` of a line that somebody has just written.
    pub(super) fn first(&self, now: Timestamp) -> Result<Timestamp, Invalid> {
        self.next(now)
            .ok_or_else(|| Invalid::Line("there is no such day, so it never fires".into()))
    }
}

#[cfg(test)]
mod tests;
