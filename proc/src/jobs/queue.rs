//! How many jobs may wait, and how long it is until there is room again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{auth::Roles, limits::PerRole};
use tokio::time::Instant;

/// Jobs that are looked back on.
const REMEMBERED: usize = 32;
/// How long each is taken to last before any was taken.
const UNKNOWN: Duration = Duration::from_secs(10);
/// How long a count of those who wait is good for, while they are less than half of who may.
const GOOD_FOR: Duration = Duration::from_millis(250);
/// Sooner is not worth asking, and later nobody can tell.
const SOONEST: Duration = Duration::from_secs(1);
pub(super) const LATEST: Duration = Duration::from_mins(1);

/// The limits of the queue, and when this process took its last jobs from it.
#[derive(Debug)]
pub(super) struct Queue {
    limits: PerRole<u32>,
    taken: Mutex<Taken>,
    counted: Arc<Mutex<Option<Counted>>>,
}

/// How many waited, and when that was.
#[derive(Copy, Clone, Debug)]
struct Counted {
    waiting: usize,
    /// So many jobs were put back that their owners have to be looked at.
    has_crowd: bool,
    at: Instant,
}

impl Queue {
    pub(super) fn new(limits: PerRole<u32>) -> Self {
        Self { limits, taken: Mutex::default(), counted: Arc::default() }
    }

    /// Notes that a job was taken.
    pub(super) fn took(&self, now: Instant) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).took(now);
    }

    /// Returns what who has these roles is held to.
    pub(super) fn limit(&self, roles: Roles, now: Instant) -> QueueLimit {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.limits.values().copied().max().unwrap_or_default();
        let (mine, each) = (*self.limits.of(roles), taken.each(now));
        QueueLimit { mine, most, each, counted: self.counted.clone() }
    }
}

/// What a submission is held to.
#[derive(Clone, Debug)]
pub(crate) struct QueueLimit {
    /// How many may wait for this one to join them.
    mine: u32,
    /// How many may wait at all, so that no more have to be counted.
    pub(super) most: u32,
    /// How long it lasts until the next one is taken.
    each: Duration,
    /// The last count, of whoever made one.
    counted: Arc<Mutex<Option<Counted>>>,
}

impl QueueLimit {
    /// Returns the limit for what leaves half of the queue to others.
    pub(super) fn half(self) -> Self {
        Self { mine: self.mine.div_ceil(2), ..self }
    }

    /// Returns how many jobs that were put back an owner may have.
    pub(super) fn owners_most(&self) -> i64 {
        self.mine.into()
    }

    /// Lets some more join those who wait without a count, if that of a moment ago leaves room for twice as many.
    pub(super) fn admits_by_the_last_count(&self, more: usize) -> bool {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = counted.as_mut().filter(|last| last.at.elapsed() < GOOD_FOR) else {
            return false;
        };
        let all = last.waiting.saturating_add(more);
        let fits = !last.has_crowd && u32::try_from(all).is_ok_and(|all| all <= self.mine / 2);
        if fits {
            last.waiting = all;
        }
        fits
    }

    /// Notes a count, and whether `has_crowd` jobs that were put back; lets some more join those who wait, or says how long it
    /// may be until there is room.
    pub(super) fn admit(
        &self,
        waiting: usize,
        more: usize,
        has_crowd: bool,
    ) -> Result<(), Duration> {
        let waiting_then = waiting.saturating_add(more);
        let counted = Counted { waiting: waiting_then, has_crowd, at: Instant::now() };
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(counted);
        let all = u32::try_from(waiting.saturating_add(more)).unwrap_or(u32::MAX);
        match all.saturating_sub(self.mine) {
            0 => Ok(()),
            above => Err(self.each.saturating_mul(above).clamp(SOONEST, LATEST)),
        }
    }
}

/// When the last jobs were taken. Other replicas take some too, so it errs on the long side.
#[derive(Debug, Default)]
struct Taken(VecDeque<Instant>);

impl Taken {
    fn took(&mut self, now: Instant) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    fn each(&self, now: Instant) -> Duration {
        let jobs = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.front().map_or(UNKNOWN, |first| now.duration_since(*first) / jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_good_for_half_of_the_queue_and_a_moment() {
        let queue = Queue::new("10".parse().unwrap());
        let limit = || queue.limit(Roles::default(), Instant::now());
        assert!(!limit().admits_by_the_last_count(1));
        limit().admit(2, 1, false).unwrap();
        assert!(limit().admits_by_the_last_count(2));
        // Five are half of it, and nobody has looked since.
        assert!(!limit().admits_by_the_last_count(1));
        limit().admit(0, 1, false).unwrap();
        assert!(limit().half().admits_by_the_last_count(1));
        assert!(!limit().half().admits_by_the_last_count(1));
        limit().admit(0, 1, true).unwrap();
        assert!(!limit().admits_by_the_last_count(1), "their owners have to be looked at");
        let before = Instant::now().checked_sub(GOOD_FOR).unwrap();
        *queue.counted.lock().unwrap() = Some(Counted { waiting: 0, has_crowd: false, at: before });
        assert!(!limit().admits_by_the_last_count(1));
    }

    #[test]
    fn the_wait_is_as_long_as_those_before_take() {
        let (queue, start) = (Queue::new("2,admin=4".parse().unwrap()), Instant::now());
        let half = Duration::from_millis(500);
        let wait = |waiting, now| queue.limit(Roles::default(), now).admit(waiting, 1, false);
        assert_eq!(wait(1, start), Ok(()));
        assert_eq!(wait(2, start), Err(UNKNOWN));
        for number in 0..100 {
            queue.took(start + half * number);
        }
        // 32 in the last sixteen seconds.
        let now = start + half * 100;
        assert_eq!(wait(2, now), Err(SOONEST));
        assert_eq!(wait(7, now), Err(half * 6));
        assert_eq!(wait(1_000, now), Err(LATEST));
        // The longer it stands still, the longer it is taken to last.
        assert_eq!(wait(7, now + half * 96), Err(half * 6 * 4));
        assert_eq!(queue.limit(Roles { admin: true }, now).admit(3, 1, false), Ok(()));
        assert_eq!(queue.limit(Roles { admin: true }, now).admit(4, 1, false), Err(SOONEST));
    }
}
