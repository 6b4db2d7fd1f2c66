//! Leases: a process keeps what it has in the database for as long as it renews one row.
//!
//! A replica has connection slots, a worker has jobs, a writer has answers. Each renews its row every fifth of the lease,
//! with the time of the database's clock. Three rules make a lease safe, however clocks are set:
//!
//! - **Taking over.** A process may take what another one left only after it has itself renewed for a whole lease without
//!   a gap ([`Lease::may_take_over`]). After the database was away every live holder therefore renews first.
//! - **Holding.** A process whose own lease has run out, by its monotonic clock, stops its work by itself
//!   ([`Lease::hold`]). The work goes on once the lease is renewed and what was taken meanwhile is sorted out.
//! - **Fences.** A write that comes too late in spite of both is refused by the fence of the job or answer.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::Topic;
use crate::{
    sabotage::Sabotage,
    store::{Error, Store, Tx},
    time::Timestamp,
};

/// Renewals in the time of a lease.
const RENEWALS: u32 = 5;

/// A process's lease, with which it keeps what it has; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Lease {
    store: Store,
    length: Duration,
    state: watch::Sender<State>,
}

/// Renewals so far, by the monotonic clock.
#[derive(Copy, Clone, Debug, Default)]
struct State {
    /// When the last renewal was sent.
    renewed: Option<Instant>,
    /// When the first of those renewals was sent between which there was no gap.
    unbroken: Option<Instant>,
    /// Steps of the database's clock at the last renewal.
    steps: u64,
}

impl State {
    fn ends(self, length: Duration) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + length)
    }

    /// Notes a renewal. Half a lease without one is a gap: a holder that renewed just before it still has time to renew.
    /// So is a step of the clock by which leases end.
    fn renew(&mut self, sent: Instant, steps: u64, length: Duration) {
        let is_gap = steps != self.steps
            || self.renewed.is_none_or(|renewed| sent.duration_since(renewed) >= length / 2);
        if is_gap {
            self.unbroken = Some(sent);
        }
        (self.renewed, self.steps) = (Some(sent), steps);
    }

    fn may_take_over(self, now: Instant, length: Duration) -> bool {
        let lasts = self.unbroken.is_some_and(|since| now.duration_since(since) >= length);
        let is_fresh = self.renewed.is_some_and(|at| now.duration_since(at) < length / 2);
        lasts && is_fresh
    }
}

impl Lease {
    /// Makes a lease that lasts for `length` after each renewal. It is not held until it is renewed.
    #[must_use]
    pub fn new(store: &Store, length: Duration) -> Self {
        Self { store: store.clone(), length, state: watch::Sender::default() }
    }

    /// Returns how long the lease lasts after a renewal.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Returns how often the lease is to be renewed.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.length / RENEWALS
    }

    /// Renews the lease: runs `renew` with the time of the database's clock. The lease is held on only after
    /// [`Renewal::confirm`], before which the caller gives up what others took while it was not held.
    ///
    /// No other write of `topic`, if there is one, happens meanwhile.
    pub async fn renew<T, E, F>(&self, topic: Option<Topic>, renew: F) -> Result<Renewal<'_, T>, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(&mut Tx<'_>, Timestamp) -> Result<T, E> + Send + 'static,
    {
        let sent = Instant::now();
        let work = move |tx: &mut Tx<'_>| {
            let now = tx.keep_clock()?;
            renew(tx, now)
        };
        let outcome = match topic {
            Some(topic) => self.store.write_lease_in(topic, work).await?,
            None => self.store.write_lease(work).await?,
        };
        Ok(Renewal { lease: self, sent, outcome })
    }

    /// Returns whether the lease is held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state.borrow().ends(self.length).is_some_and(|ends| Instant::now() < ends)
    }

    /// Returns whether this process may take over what belongs to holders whose leases have run out.
    #[must_use]
    pub fn may_take_over(&self) -> bool {
        self.store.sabotage() == Some(Sabotage::ReapAtOnce)
            || self.state.borrow().may_take_over(Instant::now(), self.length)
    }

    /// Returns the time of the oldest renewal of a holder that is not to be taken for gone, `now` being the time by the
    /// database's clock.
    #[must_use]
    pub fn oldest(&self, now: Timestamp) -> Timestamp {
        if self.may_take_over() { now.before(self.length) } else { Timestamp::from_ms(i64::MIN) }
    }

    /// Waits until the lease is held.
    pub async fn held(&self) {
        let mut state = self.state.subscribe();
        let is_held =
            |state: &State| state.ends(self.length).is_some_and(|ends| Instant::now() < ends);
        // The sender is this lease's, so it is not gone.
        let _ = state.wait_for(is_held).await;
    }

    /// Does `work` for as long as the lease is held: while it is not, the work stands still.
    pub async fn hold<F: Future>(&self, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        loop {
            let ends = self.state.borrow().ends(self.length);
            let Some(ends) = ends.filter(|ends| Instant::now() < *ends) else {
                self.held().await;
                continue;
            };
            let mut over = std::pin::pin!(sleep_until(ends));
            let step = poll_fn(|context| {
                if Instant::now() >= ends {
                    return Poll::Ready(None);
                }
                if let Poll::Ready(output) = work.as_mut().poll(context) {
                    return Poll::Ready(Some(output));
                }
                // Last, so that work which is done at once costs no timer.
                over.as_mut().poll(context).map(|()| None)
            });
            if let Some(output) = step.await {
                return output;
            }
        }
    }
}

/// A renewal that is in the database.
#[derive(Debug)]
#[must_use = "the lease is not held before it is confirmed"]
pub struct Renewal<'a, T> {
    lease: &'a Lease,
    sent: Instant,
    /// Outcome of the renewing work.
    pub outcome: T,
}

impl<T> Renewal<'_, T> {
    /// Has the lease be held from the time at which the renewal was sent.
    pub fn confirm(self) -> T {
        let Self { lease, sent, outcome } = self;
        let steps = lease.store.clock().steps();
        lease.state.send_modify(|state| state.renew(sent, steps, lease.length));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tempfile::TempDir;
    use tokio::time::advance;

    use super::*;
    use crate::bus::Bus;

    const LENGTH: Duration = Duration::from_secs(10);

    fn lease() -> (Lease, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &Bus::default()).unwrap();
        (Lease::new(&store, LENGTH), folder)
    }

    /// Renews with every interval until `length` has passed.
    async fn renew_for(lease: &Lease, length: Duration) {
        let until = Instant::now() + length;
        loop {
            renew(lease);
            if Instant::now() >= until {
                return;
            }
            advance(lease.interval()).await;
        }
    }

    fn renew(lease: &Lease) {
        Renewal { lease, sent: Instant::now(), outcome: () }.confirm();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_takes_over_before_a_whole_lease_of_renewals() {
        let (lease, _folder) = lease();
        assert!(!lease.may_take_over(), "a lease that was never renewed takes over");
        renew_for(&lease, lease.interval() * (RENEWALS - 1)).await;
        assert!(!lease.may_take_over(), "less than a lease was enough to take over");
        renew_for(&lease, lease.interval()).await;
        assert!(lease.may_take_over(), "a whole lease of renewals was not enough");
        assert_eq!(lease.oldest(Timestamp::from_ms(60_000)), Timestamp::from_ms(50_000));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_gap_nobody_takes_over_for_a_whole_lease() {
        for gap in [LENGTH / 2, LENGTH * 4] {
            let (lease, _folder) = lease();
            renew_for(&lease, LENGTH * 2).await;
            advance(gap).await;
            assert!(!lease.may_take_over(), "took over before the first renewal after {gap:?}");
            renew(&lease);
            assert!(!lease.may_take_over(), "took over with the first renewal after {gap:?}");
            renew_for(&lease, lease.interval() * (RENEWALS - 1)).await;
            assert!(!lease.may_take_over(), "took over less than a lease after {gap:?}");
            renew_for(&lease, lease.interval() * 2).await;
            assert!(lease.may_take_over(), "never took over again after {gap:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_of_the_databases_clock_counts_as_a_gap() {
        let mut state = State::default();
        let start = Instant::now();
        for second in 0..20 {
            state.renew(start + Duration::from_secs(second), 0, LENGTH);
        }
        let last = start + Duration::from_secs(20);
        assert!(state.may_take_over(last, LENGTH));
        state.renew(last, 1, LENGTH);
        assert!(!state.may_take_over(last, LENGTH), "all leases seem to have run out at once");
    }

    #[tokio::test(start_paused = true)]
    async fn work_stands_still_while_the_lease_is_not_held_and_then_goes_on() {
        let (lease, _folder) = lease();
        let steps = std::sync::Arc::new(AtomicU32::new(0));
        let (counted, holding) = (steps.clone(), lease.clone());
        let mut work = tokio::task::JoinSet::new();
        work.spawn(async move {
            let count = async {
                for _ in 0..40 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            };
            holding.hold(count).await;
        });
        let pass = async |seconds: u64| {
            for _ in 0..seconds * 10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        pass(5).await;
        assert_eq!(steps.load(Ordering::Relaxed), 0, "work began without a lease");
        renew(&lease);
        pass(30).await;
        let done = steps.load(Ordering::Relaxed);
        assert!((9..=10).contains(&done), "{done} steps in a lease of 10 s");
        renew_for(&lease, Duration::ZERO).await;
        for _ in 0..20 {
            renew(&lease);
            pass(2).await;
        }
        work.join_next().await.unwrap().unwrap();
        assert_eq!(steps.load(Ordering::Relaxed), 40, "the work did not go on");
    }
}
