//! Deletes jobs that ended long ago, with what they left.

use std::time::Duration;

use shared::{
    ids::{JobId, UserId},
    journal::Topic,
    store::{Error, Store, Tx, Value},
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{artifacts, blobs::Blobs, webhooks};

/// Deliveries have a log of their own, so their jobs, of which there are many, are kept for this long.
const DELIVERIES: Duration = Duration::from_hours(1);
/// Jobs deleted in one go.
const MOST: i64 = 200;
const ENDED: &str = "state IN ('succeeded', 'failed', 'cancelled')";

/// Deletes what ended longer ago than `age`, now and then, until shutdown.
pub(crate) async fn keep(store: Store, blobs: Blobs, age: Duration, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_mins(10));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let all = (None, age);
        let deliveries = (Some(webhooks::BUNDLE), age.min(DELIVERIES));
        for (bundle, age) in [all, deliveries] {
            let sweep = sweep(&store, &blobs, bundle, Timestamp::now().before(age));
            match shutdown.run_until_cancelled(sweep).await {
                Some(Err(error)) => tracing::warn!(%error, "old jobs were not deleted"),
                Some(Ok(jobs)) if jobs > 0 => tracing::info!(jobs, "old jobs deleted"),
                _ => {}
            }
        }
    }
}

/// Deletes jobs of a bundle, or of all, that ended before `oldest`, and returns how many.
pub(super) async fn sweep(
    store: &Store,
    blobs: &Blobs,
    bundle: Option<&'static str>,
    oldest: Timestamp,
) -> anyhow::Result<usize> {
    // Ids are in the order of their making, and a job has ended after it was made.
    let made = u128::try_from(oldest.as_ms()).unwrap_or_default() << 80;
    let (mut after, until) = (JobId(Uuid::nil()), JobId(Uuid::from_u128(made)));
    let mut deleted = 0;
    loop {
        let sql = format!(
            "SELECT id, owner FROM jobs WHERE id > $1 AND id < $2 AND {ENDED} AND finished_at < $3 \
             AND bundle = COALESCE($4, bundle) ORDER BY id LIMIT $5"
        );
        let old = store.read(move |reader| {
            let params = [after.into(), until.into(), oldest.into(), bundle.into(), MOST.into()];
            reader.query(&sql, &params, |row| Ok((row.get(0)?, row.get(1)?)))
        });
        let old: Result<Vec<(JobId, UserId)>, Error> = old.await;
        let old = old?;
        let Some((last, _)) = old.last() else { return Ok(deleted) };
        after = *last;
        for (id, owner) in old {
            // Bytes first: the row is what a next sweep finds them by.
            blobs.sweep(&artifacts::folder(id), Duration::ZERO).await?;
            let log = Topic::user(&owner);
            deleted += store.write_in(log, move |tx| delete(tx, id, oldest)).await?;
        }
    }
}

/// Deletes the job unless somebody has begun it anew.
fn delete(tx: &mut Tx<'_>, id: JobId, oldest: Timestamp) -> Result<usize, Error> {
    let sql = format!("DELETE FROM jobs WHERE id = $1 AND {ENDED} AND finished_at < $2");
    let deleted = tx.execute(&sql, &[id.into(), oldest.into()])?;
    if deleted > 0 {
        let id = [Value::from(id)];
        tx.execute("DELETE FROM job_logs WHERE job_id = $1", &id)?;
        tx.execute("DELETE FROM artifacts WHERE job_id = $1", &id)?;
    }
    Ok(deleted)
}
