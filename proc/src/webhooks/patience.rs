//! How long a receiver that takes nothing is waited for.

use std::time::Duration;

use shared::time::Timestamp;

/// The pause after a first failure; it doubles up to the longest.
const FIRST: Duration = Duration::from_secs(1);
pub(super) const LONGEST: Duration = Duration::from_mins(10);
/// Time for which one event is tried. A receiver that asks for more time than that is given up.
pub(super) const PATIENCE: Duration = Duration::from_hours(72);

/// What becomes of a webhook whose next event was not taken.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    TryAt(Timestamp),
    GiveUp,
}

/// Decides after the `failures`th failure in a row, the first of which was at `since`; `asked` is what the receiver has
/// asked for, and `jitter`, from 0 to 1, spreads what is tried again.
pub(super) fn next(
    failures: i64,
    since: Timestamp,
    now: Timestamp,
    asked: Option<Duration>,
    jitter: f64,
) -> Next {
    let asked = asked.unwrap_or_default();
    if now.since(since) >= PATIENCE || asked > PATIENCE {
        return Next::GiveUp;
    }
    let doubled = u32::try_from(failures.clamp(1, 16) - 1).unwrap_or(0);
    let pause = (FIRST * (1 << doubled)).min(LONGEST).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0);
    Next::TryAt(now.after(pause.max(asked)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SINCE: Timestamp = Timestamp::from_ms(1_000_000);

    fn pause(failures: i64, asked: Option<Duration>, jitter: f64) -> Duration {
        match next(failures, SINCE, SINCE, asked, jitter) {
            Next::TryAt(at) => at.since(SINCE),
            Next::GiveUp => panic!("it was given up"),
        }
    }

    #[test]
    fn it_is_tried_soon_then_seldom_and_when_it_asks_to_be() {
        assert_eq!(pause(1, None, 0.5), FIRST);
        assert_eq!(pause(4, None, 0.5), 8 * FIRST);
        assert_eq!(pause(40, None, 0.5), LONGEST);
        assert_eq!(pause(1, Some(Duration::from_secs(30)), 0.5), Duration::from_secs(30));
        assert_eq!(pause(9, Some(Duration::from_secs(30)), 0.5), 256 * FIRST);
        assert_eq!(pause(1, Some(PATIENCE), 0.5), PATIENCE);
        let too_long = Some(PATIENCE + FIRST);
        assert_eq!(next(1, SINCE, SINCE, too_long, 0.5), Next::GiveUp);
        let almost = SINCE.after(PATIENCE).before(Duration::from_millis(1));
        assert!(matches!(next(400, SINCE, almost, None, 0.5), Next::TryAt(_)));
        assert_eq!(next(1, SINCE, SINCE.after(PATIENCE), None, 0.5), Next::GiveUp);
    }

    proptest! {
        #[test]
        fn pauses_grow_and_have_their_bounds(failures in i64::MIN..i64::MAX, jitter in -1.0..2.0f64) {
            let this = pause(failures, None, jitter);
            prop_assert!(this >= FIRST * 3 / 4 && this <= LONGEST * 5 / 4);
            prop_assert!(pause(failures.saturating_add(1), None, jitter) >= this);
        }
    }
}
