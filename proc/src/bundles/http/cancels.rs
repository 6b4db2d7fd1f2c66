//! Tells bundles that have accepted a job that nobody waits for it any more, whichever way it ended.

use std::time::Duration;

use futures_util::future::join_all;
use shared::store::{Error, Store};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{self, Dead},
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

/// Tells the bundle, if this replica is the one to do it now. Until the bundle hears of it, it is told again, up to a minute
/// apart and for a day.
async fn tell(store: &Store, caller: &Caller, dead: Dead) -> Result<(), Error> {
    let name = dead.bundle.clone();
    let bundle = if dead.is_at_work {
        store.read(move |reader| store::find_kept(reader, &name)).await?
    } else {
        None
    };
    let heard = match bundle {
        Some(_) if dead.is_given_up(store.now()) => {
            tracing::warn!(job.id = %dead.job, bundle = dead.bundle, "a bundle did not take a cancel for a day");
            true
        }
        Some(bundle) => {
            let (job, fence) = (dead.job, dead.fence);
            let begun = dead.clone();
            if !store.write(move |tx| calls::begin_cancel(tx, &begun)).await? {
                return Ok(());
            }
            caller.cancel(&bundle, job, fence).await
        }
        // The call is over, or there is nobody to tell.
        None => true,
    };
    if heard { store.write(move |tx| calls::forget(tx, &dead)).await } else { Ok(()) }
}
