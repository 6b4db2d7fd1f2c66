//! Jobs of bundles that were deleted: those that wait end at once, with a reason.

use std::{collections::BTreeMap, time::Duration};

use shared::{
    ids::{JobId, UserId},
    journal::Topic,
    store::{Error, Reader, Store, Tx},
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::store;
use crate::jobs::{self, JobError, machine::Command};

/// Interval at which jobs of deleted bundles are looked for, such as a job that was submitted at the same moment.
const INTERVAL: Duration = Duration::from_secs(5);
/// Jobs that are read at once.
const MAX_BATCH: i64 = 200;
/// Rounds that one call makes; the next one goes on.
const MAX_ROUNDS: usize = 50;

/// Ends jobs of deleted bundles, and forgets the bundles and old secrets after a day, until shutdown.
pub(super) async fn run(store: Store, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        if let Some(Err(error)) = shutdown.run_until_cancelled(sweep(&store)).await {
            tracing::warn!(%error, "failed to look after deleted bundles");
        }
    }
}

async fn sweep(store: &Store) -> Result<(), Error> {
    for bundle in store.read(store::deleted).await? {
        let ended = end_jobs(store, &bundle).await?;
        if ended > 0 {
            tracing::info!(bundle, ended, "ended jobs of a deleted bundle");
        }
    }
    if store.read(store::has_expired).await? {
        store.write(store::expire).await?;
    }
    Ok(())
}

/// Ends the jobs of a deleted bundle that wait for a worker or for a callback. Returns how many.
pub(super) async fn end_jobs(store: &Store, bundle: &str) -> Result<usize, Error> {
    let mut ended = 0;
    for _ in 0..MAX_ROUNDS {
        let name = bundle.to_owned();
        let mut waiting = BTreeMap::<UserId, Vec<JobId>>::new();
        for (owner, job) in store.read(move |reader| waiting_jobs(reader, &name)).await? {
            waiting.entry(owner).or_default().push(job);
        }
        let before = ended;
        for (owner, jobs) in waiting {
            let name = bundle.to_owned();
            let end = move |tx: &mut Tx<'_>| abandon(tx, &name, &jobs);
            ended += store.write_in(Topic::user(&owner), end).await?;
        }
        if ended == before {
            break;
        }
    }
    Ok(ended)
}

/// Returns jobs of a bundle that wait, with their owners. A call that is being answered, or has been, goes on.
fn waiting_jobs(reader: &Reader<'_>, bundle: &str) -> Result<Vec<(UserId, JobId)>, Error> {
    let sql = "SELECT owner, id FROM jobs WHERE state IN ('queued', 'interrupted') AND bundle = $1 \
               UNION ALL SELECT j.owner, j.id FROM jobs j JOIN http_calls c ON c.job_id = j.id AND c.attempt = j.attempt \
               AND c.started_at = j.started_at WHERE j.state = 'running' AND c.bundle = $1 AND c.state = 'accepted' LIMIT $2";
    reader.query(sql, &[bundle.into(), MAX_BATCH.into()], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Ends jobs of one owner, unless the bundle is there again. Returns how many.
fn abandon(tx: &mut Tx<'_>, bundle: &str, jobs: &[JobId]) -> Result<usize, Error> {
    if store::find(tx, bundle)?.is_some() {
        return Ok(0);
    }
    let error = JobError::permanent("unknown_operation", "the bundle was deleted");
    let end = |job: &JobId| (*job, Command::Abandon { error: error.clone() });
    let outcomes = jobs::apply_all(tx, jobs.iter().map(end).collect())?;
    Ok(outcomes.iter().filter(|outcome| outcome.is_ok()).count())
}
