//! Limits as settings say them: `50/10`, `off`, `50/10,admin=500/100`.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use governor::Quota;

use crate::auth::Roles;

/// How many requests at once, and how many a second go on being possible.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Rate {
    Off,
    Of { burst: NonZeroU32, per_second: f64 },
}

const MAX_BURST: u32 = 1_000_000;
const PER_SECOND: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let bad = |why: &str| {
            format!("`{text}` {why}: a limit is <burst>/<per second>, as in 50/10, or off")
        };
        let (burst, per_second) = text.split_once('/').ok_or_else(|| bad("is none"))?;
        let burst = burst.trim().parse().ok().filter(|burst: &NonZeroU32| burst.get() <= MAX_BURST);
        let burst = burst.ok_or_else(|| bad("has a burst that is not 1 to 1000000"))?;
        let per_second = per_second.trim().parse().ok().filter(|rate| PER_SECOND.contains(rate));
        let per_second =
            per_second.ok_or_else(|| bad("has a rate that is not 0.001 to 1000000"))?;
        Ok(Self::Of { burst, per_second })
    }
}

impl Rate {
    /// Returns the quota, `None` if there is no limit.
    pub(super) fn quota(self) -> Option<Quota> {
        let Self::Of { burst, per_second } = self else { return None };
        let period = Duration::from_secs_f64(1.0 / per_second);
        Quota::with_period(period).map(|quota| quota.allow_burst(burst))
    }
}

/// A value for everybody, and others for who has a role.
#[derive(Clone, Debug, PartialEq)]
pub struct PerRole<T> {
    everybody: T,
    roles: Vec<(&'static str, T)>,
}

impl<T> PerRole<T> {
    /// Makes something of each value.
    pub(super) fn map<U>(&self, make: impl Fn(&T) -> U) -> PerRole<U> {
        let roles = self.roles.iter().map(|(role, value)| (*role, make(value)));
        PerRole { everybody: make(&self.everybody), roles: roles.collect() }
    }

    /// Returns all values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.everybody).chain(self.roles.iter().map(|(_, value)| value))
    }

    /// Returns the value for who has these roles: the first that is named for one of them.
    #[must_use]
    pub fn of(&self, roles: Roles) -> &T {
        let names = roles.names();
        let raised = self.roles.iter().find(|(role, _)| names.contains(role));
        raised.map_or(&self.everybody, |(_, value)| value)
    }
}

impl<T: FromStr<Err: fmt::Display>> FromStr for PerRole<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| text.trim().parse::<T>().map_err(|error| error.to_string());
        let mut parts = text.split(',');
        let everybody = parse(parts.next().unwrap_or_default())?;
        let roles = parts.map(|part| {
            let (role, value) = part.split_once('=').ok_or_else(|| {
                format!("`{part}` is not <role>=<limit>, which follows the limit of everybody")
            })?;
            let known = Roles::NAMES.iter().find(|name| **name == role.trim());
            let known = known.ok_or_else(|| {
                format!("`{}` is no role; there is {}", role.trim(), Roles::NAMES.join(", "))
            })?;
            Ok((*known, parse(value)?))
        });
        let roles = roles.collect::<Result<Vec<_>, String>>()?;
        Ok(Self { everybody, roles })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(burst: u32, per_second: f64) -> Rate {
        Rate::Of { burst: NonZeroU32::new(burst).unwrap(), per_second }
    }

    #[test]
    fn a_role_has_its_own_limit() {
        let limit: PerRole<Rate> = "50/10, admin = 500/0.5".parse().unwrap();
        assert_eq!(*limit.of(Roles::default()), rate(50, 10.0));
        assert_eq!(*limit.of(Roles { admin: true }), rate(500, 0.5));
        let limit: PerRole<Rate> = "50/10,admin=off".parse().unwrap();
        assert_eq!(*limit.of(Roles { admin: true }), Rate::Off);
        let limit: PerRole<Rate> = "off".parse().unwrap();
        assert_eq!(*limit.of(Roles { admin: true }), Rate::Off);
    }

    #[test]
    fn a_bad_setting_is_refused_with_what_is_wrong() {
        for (text, wrong) in [
            ("", "is none"),
            ("50", "is none"),
            ("OFF", "is none"),
            ("0/10", "burst"),
            ("-1/10", "burst"),
            ("1000001/10", "burst"),
            ("50/0", "rate"),
            ("50/-1", "rate"),
            ("50/NaN", "rate"),
            ("50/inf", "rate"),
            ("50/10/3", "rate"),
            ("50/10,", "not <role>=<limit>"),
            ("50/10,500/100", "not <role>=<limit>"),
            ("50/10,amdin=500/100", "`amdin` is no role; there is admin"),
            ("50/10,admin=500", "is none"),
        ] {
            let refused = text.parse::<PerRole<Rate>>().unwrap_err();
            assert!(refused.contains(wrong), "{text}: {refused}");
        }
    }
}
