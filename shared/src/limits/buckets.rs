//! Who has spent how much of a budget: a number each, and only so many of them.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos, state::StateStore,
};
use quick_cache::sync::Cache;

use crate::ids::UserId;

/// Callers that a budget remembers; beyond them whoever came once and not again is forgotten, who then has a whole budget.
const CALLERS: usize = 100_000;

/// Whose budget it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    User(UserId),
    /// Nobody who has proved who they are, by the client address' key.
    Address(String),
}

/// A question to a budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ask {
    who: Who,
    /// Otherwise nothing is taken.
    spend: bool,
}

/// One limit with the budgets of all callers that it is for.
pub(super) struct Budget<C: Clock<Instant = Nanos> = Monotonic> {
    limiter: RateLimiter<Ask, Buckets, C, NoOpMiddleware<Nanos>>,
    buckets: Buckets,
    quota: Quota,
    start: Nanos,
}

impl<C: Clock<Instant = Nanos>> fmt::Debug for Budget<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("callers", &self.buckets.0.len()).finish_non_exhaustive()
    }
}

impl<C: Clock<Instant = Nanos>> Budget<C> {
    pub(super) fn new(quota: Quota, clock: C) -> Self {
        let buckets = Buckets(Arc::new(Cache::new(CALLERS)));
        let start = clock.now();
        let limiter = RateLimiter::new(quota, buckets.clone(), clock);
        Self { limiter, buckets, quota, start }
    }

    /// Takes one request from the caller's budget, or says how long it is until there is one. Without `spend` it only says
    /// what would be.
    pub(super) fn take(&self, who: Who, spend: bool) -> Result<(), Duration> {
        let ask = Ask { who, spend };
        self.limiter
            .check_key(&ask)
            .map_err(|refused| refused.wait_time_from(self.limiter.clock().now()))
    }

    /// Takes more requests for a caller whose request has been taken, or says how long it is until they and another such
    /// request can be. Returns `None` if so many never can.
    pub(super) fn take_more(&self, who: Who, more: usize) -> Option<Result<(), Duration>> {
        let Some(more) = NonZeroU32::new(u32::try_from(more).ok()?) else { return Some(Ok(())) };
        if more >= self.quota.burst_size() {
            return None;
        }
        let taken = self.limiter.check_key_n(&Ask { who, spend: true }, more).ok()?;
        Some(taken.map_err(|refused| {
            let wait = refused.wait_time_from(self.limiter.clock().now());
            wait + self.quota.replenish_interval()
        }))
    }

    /// Returns how many requests can be taken at once.
    pub(super) fn burst(&self) -> u32 {
        self.quota.burst_size().get()
    }

    /// Forgets who has a whole budget again.
    pub(super) fn sweep(&self) {
        let now = u64::from(self.limiter.clock().now()).saturating_sub(self.start.into());
        self.buckets.0.retain(|_, bucket| bucket.load(Ordering::Relaxed) > now);
    }
}

/// For each caller the time, in nanoseconds since the start, when their budget is whole again; 0 is since ever.
#[derive(Clone)]
struct Buckets(Arc<Cache<Who, Arc<AtomicU64>>>);

impl StateStore for Buckets {
    type Key = Ask;

    fn measure_and_replace<T, F, E>(&self, ask: &Ask, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let known = |time: u64| if time == 0 { None } else { Some(Nanos::from(time)) };
        if !ask.spend {
            let time = self.0.get(&ask.who).map_or(0, |bucket| bucket.load(Ordering::Relaxed));
            return measure(known(time)).map(|(answer, _)| answer);
        }
        let bucket = self.0.get_or_insert_with(&ask.who, || Ok::<_, E>(Arc::default()))?;
        let mut before = bucket.load(Ordering::Relaxed);
        loop {
            let (answer, after) = measure(known(before))?;
            let (order, after) = (Ordering::Relaxed, after.into());
            match bucket.compare_exchange_weak(before, after, order, order) {
                Ok(_) => return Ok(answer),
                Err(now) => before = now,
            }
        }
    }
}

/// The process's clock.
#[derive(Clone, Debug)]
pub(super) struct Monotonic(Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    fn budget(burst: u32, per_second: u32) -> (Budget<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_second(NonZeroU32::new(per_second).unwrap());
        let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap());
        (Budget::new(quota, clock.clone()), clock)
    }

    fn at(address: u32) -> Who {
        Who::Address(address.to_string())
    }

    fn ada() -> Who {
        Who::User("ada".parse().unwrap())
    }

    #[test]
    fn each_caller_has_their_own_and_a_user_is_no_address() {
        let (budget, _) = budget(2, 1);
        for who in [ada(), Who::Address("ada".into()), at(1)] {
            assert_eq!(budget.take(who.clone(), true), Ok(()));
            assert_eq!(budget.take(who.clone(), true), Ok(()));
            assert_eq!(budget.take(who, true), Err(Duration::from_secs(1)));
        }
    }

    #[test]
    fn a_look_says_what_would_be_and_takes_nothing() {
        let (budget, clock) = budget(1, 2);
        for _ in 0..5 {
            assert_eq!(budget.take(ada(), false), Ok(()));
        }
        assert_eq!(budget.take(ada(), true), Ok(()));
        clock.advance(Duration::from_millis(100));
        for _ in 0..5 {
            assert_eq!(budget.take(ada(), false), Err(Duration::from_millis(400)));
        }
    }

    #[test]
    fn a_request_that_asks_for_many_gets_them_after_it_has_waited_once() {
        let (budget, clock) = budget(10, 1);
        let ask = |more| budget.take(ada(), true).map(|()| budget.take_more(ada(), more));
        assert_eq!(ask(0), Ok(Some(Ok(()))));
        assert_eq!(ask(10), Ok(None));
        // Seven are left, and with itself it wants ten.
        let Ok(Some(Err(wait))) = ask(9) else { panic!("there were ten") };
        clock.advance(wait);
        assert_eq!(ask(9), Ok(Some(Ok(()))));
        assert_eq!(budget.take(ada(), true), Err(Duration::from_secs(1)));
    }

    #[test]
    fn who_has_a_whole_budget_is_forgotten_and_nobody_else() {
        let (budget, clock) = budget(2, 1);
        budget.take(at(1), true).unwrap();
        clock.advance(Duration::from_millis(500));
        budget.take(at(2), true).unwrap();
        budget.take(at(2), true).unwrap();
        clock.advance(Duration::from_millis(600));
        budget.sweep();
        assert_eq!(budget.buckets.0.len(), 1);
        assert!(budget.take(at(2), false).is_err());
        clock.advance(Duration::from_secs(2));
        budget.sweep();
        assert_eq!(budget.buckets.0.len(), 0);
    }

    #[test]
    fn a_million_callers_take_the_room_of_so_many_and_who_keeps_coming_is_remembered() {
        let (budget, _) = budget(5, 1);
        for number in 0..1_000_000 {
            if number % 10_000 == 0 {
                let _ = budget.take(ada(), true);
            }
            budget.take(at(number), true).unwrap();
        }
        assert!(budget.buckets.0.len() <= CALLERS);
        assert!(budget.take(ada(), true).is_err());
    }

    #[test]
    fn what_many_threads_take_at_once_is_exactly_the_budget() {
        let (budget, _) = budget(1_000, 1);
        let taken = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| budget.take(ada(), true).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(taken, 1_000);
    }

    proptest! {
        /// However requests fall: never more than burst and rate allow, and who waits as long as they are told gets through.
        #[test]
        fn waiting_as_long_as_told_succeeds(
            burst in 1_u32..20,
            per_second in 1_u32..50,
            pauses in prop::collection::vec(0_u64..300, 1..100),
        ) {
            let (budget, clock) = budget(burst, per_second);
            let (mut taken, mut passed) = (0_u64, 0_u64);
            for pause in pauses {
                clock.advance(Duration::from_millis(pause));
                passed += pause;
                match budget.take(ada(), true) {
                    Ok(()) => taken += 1,
                    // Whole milliseconds, rounded up, as the answer has it.
                    Err(wait) => {
                        let wait = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap();
                        prop_assert!(wait <= 1_000_u64.div_ceil(per_second.into()));
                        clock.advance(Duration::from_millis(wait));
                        passed += wait;
                        prop_assert_eq!(budget.take(ada(), true), Ok(()));
                        taken += 1;
                    }
                }
                prop_assert!(taken <= u64::from(burst) + passed * u64::from(per_second) / 1_000);
            }
        }
    }
}
