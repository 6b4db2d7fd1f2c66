//! Which process takes over the streams of one that stops: another replica, or the next one that is started.

use std::{sync::Arc, time::Duration};

use shared::lifecycle::Lifecycle;
use tokio::{sync::watch, time::timeout};

use super::stats::Stats;
use crate::replica::Replica;

/// Time that the database may take; without its answer there is no other replica.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Length of the drain from its beginning, where no other replica serves; nothing where one does.
#[derive(Clone, Debug)]
pub(crate) struct Relief(watch::Receiver<Option<Duration>>);

impl Relief {
    /// Returns for how long clients that come back are refused, as soon as that is known.
    pub(super) async fn rest_of_drain(&mut self) -> Duration {
        let known = self.0.wait_for(Option::is_some).await;
        known.ok().and_then(|rest| *rest).unwrap_or_default()
    }
}

/// Finds out, once the process is stopping, whether another replica serves.
#[derive(Debug)]
pub(crate) struct Search {
    found: watch::Sender<Option<Duration>>,
    /// Time that the process refuses clients from the beginning of the drain.
    drain: Duration,
}

impl Search {
    pub(crate) fn new(drain: Duration) -> (Self, Relief) {
        let found = watch::Sender::new(None);
        let relief = Relief(found.subscribe());
        (Self { found, drain }, relief)
    }

    pub(crate) async fn run(self, replica: Replica, stats: Arc<Stats>, lifecycle: Lifecycle) {
        lifecycle.draining().cancelled().await;
        stats.drain();
        let told = timeout(TIMEOUT, replica.tell(stats.to_json())).await;
        lifecycle.closing().cancelled().await;
        let is_served = match (told, timeout(TIMEOUT, replica.is_relieved()).await) {
            (Ok(Ok(())), Ok(Ok(is_served))) => is_served,
            (told, found) => {
                tracing::warn!(?told, ?found, "failed to look for other replicas");
                false
            }
        };
        let rest = if is_served { Duration::ZERO } else { self.drain };
        lifecycle.refuse_for(rest);
        self.found.send_replace(Some(rest));
    }
}
