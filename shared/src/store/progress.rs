//! Progress of the threads that use the database, which shows a database that does not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::Error;
use crate::metrics::Metrics;

/// A lane whose threads are all busy for this long, without one finished statement, is taken to have no database.
pub(super) const SILENCE: Duration = Duration::from_secs(4);

/// Progress of the threads of one lane: readers, writers, or the writer of leases.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    /// Threads that wait for work with a sound connection.
    idle: AtomicUsize,
    /// Milliseconds from `started` to the latest finished statement, or to when the latest thread began to work.
    moved_ms: AtomicU64,
    /// Milliseconds from `started` to the latest finished statement.
    answered_ms: AtomicU64,
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            idle: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            answered_ms: AtomicU64::new(0),
        })
    }

    /// Notes that a thread waits for work.
    pub(super) fn rest(&self) {
        self.begun();
        self.idle.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a thread has begun to work.
    pub(super) fn work(&self) {
        self.begun();
        self.idle.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that the threads have a while from now on.
    pub(super) fn begun(&self) {
        self.moved_ms.fetch_max(self.now_ms(), Ordering::Relaxed);
    }

    /// Notes a finished statement.
    pub(super) fn moved(&self) {
        let now_ms = self.now_ms();
        self.moved_ms.fetch_max(now_ms, Ordering::Relaxed);
        self.answered_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns whether a statement of this lane has finished lately.
    pub(super) fn was_answered_lately(&self) -> bool {
        let answered = Duration::from_millis(self.answered_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(answered) < SILENCE
    }

    /// Returns how long the threads have been waiting for the database, zero if one of them is free.
    pub(super) fn silent_for(&self) -> Duration {
        if self.idle.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(moved)
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent_for() >= SILENCE
    }
}

/// Refusal of writes by a database that answers: its disk is full or fails, or it is read-only.
///
/// The refusal begins with the first write that the database refuses. It is over once a write is committed
/// [`Refusal::HOLD`] after the last refused one: on a full disk a small write may still succeed between others.
#[derive(Debug)]
pub(super) struct Refusal {
    started: Instant,
    /// Milliseconds from `started` to the first refused write of this refusal, plus one; zero while writes succeed.
    first_ms: AtomicU64,
    /// The same of the latest refused write.
    last_ms: AtomicU64,
}

impl Refusal {
    /// Time that has to pass after the last refused write.
    pub(super) const HOLD: Duration = Duration::from_secs(3);

    pub(super) fn new() -> Arc<Self> {
        let (first_ms, last_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { started: Instant::now(), first_ms, last_ms })
    }

    /// Notes a write that the database refused.
    pub(super) fn refused(&self, error: &Error) {
        let now_ms = self.now_ms();
        self.last_ms.fetch_max(now_ms, Ordering::Relaxed);
        let begins =
            self.first_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if begins {
            tracing::error!(%error, "the database refuses writes, so the process is not ready");
        }
    }

    /// Notes a committed write.
    pub(super) fn written(&self) {
        if self.first_ms.load(Ordering::Relaxed) == 0 {
            return;
        }
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        if Duration::from_millis(self.now_ms().saturating_sub(last_ms)) >= Self::HOLD
            && self.first_ms.swap(0, Ordering::Relaxed) != 0
        {
            tracing::info!("the database accepts writes again");
        }
    }

    /// Returns for how long writes have been refused, `None` while they succeed.
    pub(super) fn lasts(&self) -> Option<Duration> {
        let first_ms = self.first_ms.load(Ordering::Relaxed);
        (first_ms != 0).then(|| Duration::from_millis(self.now_ms().saturating_sub(first_ms)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).map_or(u64::MAX, |ms| ms + 1)
    }
}

/// View of the database: does it answer, and does it accept writes? A clone is the same view. It does not keep the store
/// open.
#[derive(Clone, Debug)]
pub struct Health {
    pub(super) lanes: Arc<[Arc<Progress>]>,
    pub(super) refusal: Arc<Refusal>,
}

impl Health {
    /// Returns whether the database serves this process: no lane has been waiting for it for too long, and it accepts
    /// writes.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.is_answering() && self.refusal.lasts().is_none()
    }

    /// Returns whether the database answers this process: no lane has been waiting for it for too long.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        !self.lanes.iter().any(|lane| lane.is_silent())
    }

    /// Returns how long the database has not answered, zero while it does.
    fn silent_for(&self) -> Duration {
        self.lanes.iter().map(|lane| lane.silent_for()).max().unwrap_or_default()
    }

    /// Adds to the metrics of a service how long the database has not answered, and how long it has refused writes.
    pub fn tell(self, metrics: &Metrics) {
        let help =
            "How long the database has refused the writes of this process, 0 while it accepts them";
        let refusal = self.refusal.clone();
        let seconds = move || Some(refusal.lasts().map_or(0, |lasts| lasts.as_secs().max(1)));
        metrics.gauge("database_refuses_writes_seconds", help, seconds);
        let help = "How long the database has not answered this process, 0 while it does";
        let seconds = move || {
            let silent = self.silent_for();
            Some(if silent >= SILENCE { silent.as_secs() } else { 0 })
        };
        metrics.gauge("database_silent_seconds", help, seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_silent_only_while_no_thread_is_free() {
        let lane = Progress::new();
        lane.rest();
        lane.rest();
        lane.work();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(lane.silent_for(), Duration::ZERO, "one thread is free");
        lane.work();
        std::thread::sleep(Duration::from_millis(5));
        assert!(lane.silent_for() >= Duration::from_millis(4), "{:?}", lane.silent_for());
        lane.moved();
        assert!(lane.silent_for() < Duration::from_millis(4), "{:?}", lane.silent_for());
        lane.rest();
        assert_eq!(lane.silent_for(), Duration::ZERO);
    }

    #[test]
    fn one_small_write_does_not_end_a_refusal_that_goes_on() {
        let refusal = Refusal::new();
        refusal.written();
        assert_eq!(refusal.lasts(), None);
        refusal.refused(&Error::Gone);
        assert!(refusal.lasts().is_some());
        refusal.written();
        assert!(refusal.lasts().is_some(), "the last refused write was just now");
        refusal.last_ms.store(0, Ordering::Relaxed);
        let refusal = Refusal {
            started: Instant::now().checked_sub(Refusal::HOLD).unwrap(),
            ..Arc::into_inner(refusal).unwrap()
        };
        refusal.written();
        assert_eq!(refusal.lasts(), None);
    }
}
