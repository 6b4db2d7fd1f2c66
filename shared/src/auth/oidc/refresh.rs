//! Keeps the issuer's keys fresh: by and by, and at once when a token names a key that is not there.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use rand::RngExt as _;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::keys::{Key, KeySet};

/// How long keys are taken as they are.
const TTL: Duration = Duration::from_mins(10);
/// How long after a fetch that a token asked for the next one may be asked for: anybody can make up names of keys.
const COOLDOWN: Duration = Duration::from_secs(30);
/// The first pause while there are no keys at all.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// How long a request waits for keys: longer than a fetch takes.
const PATIENCE: Duration = Duration::from_secs(12);

/// The keys that there are; a clone is the same ones.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    state: watch::Receiver<State>,
    demand: Arc<Demand>,
}

/// Fetches keys until shutdown.
#[derive(Debug)]
pub(super) struct Refresher {
    state: watch::Sender<State>,
    demand: Arc<Demand>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// The last ones that came, however long ago.
    keys: Option<Arc<KeySet>>,
    /// How many demands the fetches so far have answered.
    answered: u64,
}

#[derive(Debug, Default)]
struct Demand {
    asked: Mutex<Asked>,
    wake: Notify,
}

#[derive(Copy, Clone, Debug, Default)]
struct Asked {
    times: u64,
    last: Option<Instant>,
}

impl Keys {
    /// Returns the key of the name for the algorithm, `None` inside if the issuer has no such one, `None` outside if it
    /// never gave any. Asks the issuer for keys it did not have, all callers together and no more than once a cooldown.
    pub(super) async fn find(&self, kid: &str, algorithm: Algorithm) -> Option<Option<Arc<Key>>> {
        let found = || Some(self.current()?.find(kid, algorithm));
        if let Some(key) = found()? {
            return Some(Some(key));
        }
        self.refresh().await;
        found()
    }

    /// Returns the keys that there are, `None` if the issuer never gave any.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.state.borrow().keys.clone()
    }

    /// Asks the issuer for keys it did not have, all callers together and no more than once a cooldown.
    pub(super) async fn refresh(&self) {
        let number = self.demand.ask();
        let mut state = self.state.clone();
        let _ = timeout(PATIENCE, state.wait_for(|state| state.answered >= number)).await;
    }

    /// Says whether the issuer still has the key.
    pub(super) fn hold(&self, key: &Arc<Key>) -> bool {
        self.current().is_some_and(|keys| keys.hold(key))
    }
}

impl Demand {
    /// Returns the number of the fetch to wait for; if it is too early for another, that of the last, which may be over.
    fn ask(&self) -> u64 {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.last.is_none_or(|last| last.elapsed() >= COOLDOWN) {
            *asked = Asked { times: asked.times + 1, last: Some(Instant::now()) };
            self.wake.notify_one();
        }
        asked.times
    }

    fn times(&self) -> u64 {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).times
    }
}

impl Refresher {
    pub(super) fn new() -> (Keys, Self) {
        let (sender, state) = watch::channel(State::default());
        let demand = Arc::<Demand>::default();
        (Keys { state, demand: demand.clone() }, Self { state: sender, demand })
    }

    /// Fetches now and whenever it is time, one at a time. What could not be fetched leaves the keys as they are.
    pub(super) async fn run<F>(
        self,
        fetch: impl Fn(Option<Arc<KeySet>>) -> F,
        shutdown: CancellationToken,
    ) where
        F: Future<Output = anyhow::Result<KeySet>>,
    {
        let mut retry = FIRST_RETRY;
        loop {
            let number = self.demand.times();
            let before = self.state.borrow().keys.clone();
            let fetching = fetch(before.clone());
            let Some(fetched) = shutdown.run_until_cancelled(fetching).await else { return };
            let pause = match &fetched {
                Ok(_) => TTL,
                Err(_) if before.is_some() => COOLDOWN,
                // Not all replicas at once.
                Err(_) => retry.mul_f64(rand::rng().random_range(0.8..1.2)),
            };
            match fetched {
                Ok(keys) => self.state.send_modify(|state| {
                    *state = State { keys: Some(Arc::new(keys)), answered: number };
                }),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the issuer's keys could not be fetched"
                    );
                    self.state.send_modify(|state| state.answered = number);
                    retry = (retry * 2).min(COOLDOWN);
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.demand.wake.notified() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
