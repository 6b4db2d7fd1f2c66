//! Tells bundles that have accepted a job that nobody waits for it any more, whichever way it ended.

use std::time::Duration;

use futures_util::future::join_all;
use shared::store::{Error, Store};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{self, Dead, MAX_CANCELS},
    client::Caller,
    store,
};

const LOOK: Duration = Duration::from_secs(1);
/// How many are told at once.
const AT_ONCE: i64 = 32;

/// Looks for calls of jobs that went on or ended without them, until shutdown.
pub(crate) async fn run(store: Store, caller: Caller, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        match store.read(|reader| calls::dead(reader, AT_ONCE)).await {
            Ok(dead) => {
                let told = join_all(dead.into_iter().map(|dead| tell(&store, &caller, dead)));
                for failed in told.await.into_iter().filter_map(Result::err) {
                    tracing::warn!(error = %failed, "a call of a bundle was not cleared away");
                }
            }
            Err(error) => tracing::warn!(%error, "calls of bundles cannot be read"),
        }
    }
}

/// Other replicas may do the same at the same time: to a bundle the same message twice is one.
async fn tell(store: &Store, caller: &Caller, dead: Dead) -> Result<(), Error> {
    let heard = if dead.is_at_work {
        let name = dead.bundle.clone();
        match store.read(move |reader| store::find(reader, &name)).await? {
            Some(bundle) => caller.cancel(&bundle.url, &bundle.secret, dead.job, dead.fence).await,
            // There is nobody to tell.
            None => true,
        }
    } else {
        true
    };
    if heard || dead.cancels + 1 >= MAX_CANCELS {
        store.write(move |tx| calls::forget(tx, &dead)).await
    } else {
        store.write(move |tx| calls::not_heard(tx, &dead)).await
    }
}
