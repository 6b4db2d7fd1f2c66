//! The database's clock, which all processes of one database share.
//!
//! Clocks of machines differ and are set back. A time that one process writes and another one compares therefore comes
//! from the database: `PostgreSQL`'s `clock_timestamp()`, read now and then and carried on by the process's monotonic
//! clock, so that a statement needs no round trip for it. `SQLite` belongs to one process. Its clock is the machine's,
//! except that it never goes back: a machine whose clock was set back is waited for at nine tenths of the speed.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::time::Timestamp;

/// Difference from the expected time from which on a reading counts as a step of the database's clock.
const STEP: Duration = Duration::from_secs(1);
/// How far the machine's clock may have been set back while no process ran.
const FURTHEST: Duration = Duration::from_hours(24);

/// The database's clock; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Clock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    known: Mutex<Known>,
    steps: AtomicU64,
}

/// Source of the time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The clock of this machine.
    Machine,
    /// The clock of the server, see [`Clock::observe`].
    Server,
}

/// The last time that was read.
#[derive(Copy, Clone, Debug)]
struct Known {
    read_at: Instant,
    /// Nanoseconds since the Unix epoch.
    time: i64,
}

impl Known {
    fn at(self, instant: Instant) -> i64 {
        self.time.saturating_add(nanos(instant.saturating_duration_since(self.read_at)))
    }
}

impl Clock {
    /// Returns the clock of a database that this process has to itself.
    pub(super) fn of_machine() -> Self {
        Self::new(Kind::Machine)
    }

    /// Returns the clock of a server. Until it is read for the first time it shows this machine's time.
    pub(super) fn of_server() -> Self {
        Self::new(Kind::Server)
    }

    fn new(kind: Kind) -> Self {
        let known = Known { read_at: Instant::now(), time: machine() };
        let inner = Inner { kind, known: Mutex::new(known), steps: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the time. Nothing is read for it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let mut known = self.lock();
        let instant = Instant::now();
        if self.inner.kind == Kind::Machine {
            *known = forward(*known, instant, machine());
        }
        Timestamp::from_ms(known.at(instant).div_euclid(1_000_000))
    }

    /// Takes over the time `server`, in microseconds, which the server read after `sent` and before this call.
    pub(super) fn observe(&self, sent: Instant, server: i64) {
        let server = server.saturating_mul(1_000);
        let mut known = self.lock();
        let got = Instant::now();
        let expected = known.at(got);
        // The answer was on its way for a part of this time, so the time now lies within it.
        let latest = server.saturating_add(nanos(got.saturating_duration_since(sent)));
        if (server..=latest).contains(&expected) {
            return;
        }
        let step = u64::try_from(nanos(STEP)).unwrap_or(u64::MAX);
        if expected.abs_diff(server) >= step && expected.abs_diff(latest) >= step {
            self.inner.steps.fetch_add(1, Ordering::Relaxed);
        }
        *known = Known { read_at: got, time: server };
    }

    /// Continues from `last`, the time at which the database was last seen, if the machine's clock was set back since. A time
    /// that is further ahead than a day was not right.
    pub(super) fn continue_from(&self, last: Timestamp) {
        let last = last.as_ms().saturating_mul(1_000_000);
        let mut known = self.lock();
        let instant = Instant::now();
        let now = known.at(instant);
        if (now..now.saturating_add(nanos(FURTHEST))).contains(&last) {
            *known = Known { read_at: instant, time: last };
        }
    }

    /// Returns how often the clock was found set forward or back, the first reading included if that was another time.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.inner.steps.load(Ordering::Relaxed)
    }

    /// Returns whether the time has to be read from the database.
    pub(super) fn is_of_server(&self) -> bool {
        self.inner.kind == Kind::Server
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the machine's clock forward at once, and back by a tenth of the time that passes.
fn forward(known: Known, instant: Instant, machine: i64) -> Known {
    let passed = nanos(instant.saturating_duration_since(known.read_at));
    if machine >= known.time.saturating_add(passed) {
        return Known { read_at: instant, time: machine };
    }
    let slow = known.time.saturating_add(passed / 10 * 9 + passed % 10);
    Known { read_at: instant, time: slow.max(machine) }
}

fn machine() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        bus::Bus,
        store::{Error, Store, Tx},
    };

    const SECOND: i64 = 1_000_000_000;

    fn later(start: Instant, nanos: i64) -> Instant {
        start + Duration::from_nanos(nanos.unsigned_abs())
    }

    proptest! {
        #[test]
        fn the_machines_clock_may_be_set_and_time_goes_on(
            sets in prop::collection::vec((1..10 * SECOND, -3_600 * SECOND..3_600 * SECOND), 1..50),
        ) {
            let start = Instant::now();
            let (mut passed, mut offset) = (0, 0);
            let mut known = Known { read_at: start, time: 0 };
            for (wait, set) in sets {
                passed += wait;
                offset += set;
                let next = forward(known, later(start, passed), passed + offset);
                prop_assert!(next.time >= known.time + wait / 10 * 9, "time stood still");
                prop_assert!(next.time >= passed + offset, "time is behind the machine's");
                known = next;
            }
            let until = passed + 10 * known.time.abs_diff(passed + offset).cast_signed() + 100;
            let settled = forward(known, later(start, until), until + offset);
            prop_assert!((settled.time - until - offset).abs() <= 100, "it never comes back to the machine's");
        }
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_while_no_process_ran_continues() {
        let folder = tempfile::tempdir().unwrap();
        for (hours, continues) in [(1, true), (23, true), (25, false)] {
            let ahead = Duration::from_hours(hours);
            let last = Timestamp::now().after(ahead);
            let store = Store::open(folder.path(), &Bus::default()).unwrap();
            let keep = move |tx: &mut Tx<'_>| {
                tx.keep_clock()?;
                tx.execute("UPDATE clock SET time = $1", &[last.into()])
            };
            let kept: Result<_, Error> = store.write(keep).await;
            assert_eq!(kept.unwrap(), 1, "the time is not kept");
            drop(store);
            let store = Store::open(folder.path(), &Bus::default()).unwrap();
            assert_eq!(store.now() >= last, continues, "the clock was set back by {ahead:?}");
        }
    }

    #[test]
    fn the_servers_clock_is_taken_over_and_carried_on() {
        let clock = Clock::of_server();
        let hour_ahead = (machine() + 3_600 * SECOND) / 1_000;
        clock.observe(Instant::now(), hour_ahead);
        let ahead = clock.now().since(Timestamp::now());
        assert!(ahead.as_secs().abs_diff(3_600) <= 1, "the clock is {ahead:?} ahead");
        assert_eq!(clock.steps(), 1, "an hour is a step");
    }

    #[test]
    fn a_late_answer_does_not_turn_the_clock_back() {
        let clock = Clock::of_server();
        let sent = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        clock.observe(sent, machine() / 1_000 - 4_000_000);
        assert!(
            Timestamp::now().since(clock.now()) < Duration::from_secs(1),
            "an answer that was on its way for four seconds was taken for the present"
        );
        assert_eq!(clock.steps(), 0, "the answer fits the time that was known");
    }
}
