//! Slack's message timestamps, which are also the ids of messages.

use std::fmt;

/// Holds a point in time in microseconds since the epoch, never before it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ts(i64);

impl Ts {
    /// Parses Slack's form, such as `1107856560.000001`, with one to six digits of fraction.
    ///
    /// Returns `None` for anything else and for times that do not fit.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (seconds, fraction) = text.split_once('.')?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(seconds) || !digits(fraction) || fraction.len() > 6 {
            return None;
        }
        let seconds: i64 = seconds.parse().ok()?;
        let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
        seconds.checked_mul(1_000_000)?.checked_add(fraction).map(Self)
    }

    /// Takes microseconds since the epoch; `None` for what is before it.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (micros >= 0).then_some(Self(micros))
    }

    /// Returns the microseconds since the epoch.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::Ts;
    use proptest::prelude::*;

    #[test]
    fn parses_and_orders_by_time() {
        let micros = |text| Ts::parse(text).map(Ts::micros);
        assert_eq!(micros("1107856560.000001"), Some(1_107_856_560_000_001));
        assert_eq!(micros("1.5"), Some(1_500_000));
        assert_eq!(micros("9223372036854.775807"), Some(i64::MAX));
        assert!(Ts::parse("9.0") < Ts::parse("10.0"));
    }

    #[test]
    fn rejects_junk() {
        for junk in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "-1.0",
            "+1.0",
            "1.0000001",
            "1.0 ",
            "1e3.0",
            "1.2.3",
            "９.0",
            "9223372036854.775808",
            "99999999999999999999.0",
        ] {
            assert_eq!(Ts::parse(junk), None, "{junk}");
        }
    }

    proptest! {
        #![proptest_config(super::super::tests::seeded())]

        #[test]
        fn display_is_parsed_back(micros in 0..=i64::MAX) {
            prop_assert_eq!(Ts::parse(&Ts(micros).to_string()), Some(Ts(micros)));
        }
    }
}
