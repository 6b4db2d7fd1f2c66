//! Progress of the threads that use the database, which shows a database that does not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

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

/// View of the database: does it answer? A clone is the same view. It does not keep the store open.
#[derive(Clone, Debug)]
pub struct Health(pub(super) Arc<[Arc<Progress>]>);

impl Health {
    /// Returns whether the database answers this process: no lane has been waiting for it for too long.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        !self.0.iter().any(|lane| lane.is_silent())
    }

    /// Returns how long the database has not answered, zero while it does.
    fn silent_for(&self) -> Duration {
        self.0.iter().map(|lane| lane.silent_for()).max().unwrap_or_default()
    }

    /// Adds how long the database has not answered to the figures of a service.
    pub fn tell(self, metrics: &Metrics) {
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
}
