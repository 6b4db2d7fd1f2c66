//! Deletes jobs that ended long ago, with what they left.

use std::{collections::BTreeMap, time::Duration};

use shared::{
    ids::{JobId, UserId},
    journal::Topic,
    store::{Error, Store, Tx, Value},
    sweep::{self, MAX_ROWS},
    time::Timestamp,
};
use uuid::Uuid;

use crate::{artifacts, blobs::Blobs, webhooks};

/// Interval at which old jobs are deleted.
pub(crate) const INTERVAL: Duration = Duration::from_mins(10);
/// Deliveries have a log of their own, so their jobs, of which there are many, are kept for this long.
const DELIVERIES: Duration = Duration::from_hours(1);
/// Jobs that one query finds.
const MOST: i64 = 200;
const ENDED: &str = "state IN ('succeeded', 'failed', 'cancelled')";

/// Jobs that are kept for equally long.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    /// They have an index of their own.
    Delivery,
}

impl Kind {
    fn condition(self) -> String {
        match self {
            Self::Any => String::new(),
            // Spelled as in the index.
            Self::Delivery => format!("AND bundle = '{}'", webhooks::BUNDLE),
        }
    }
}

/// Deletes the jobs that ended longer ago than `age`, and the webhooks' jobs that ended longer than an hour ago. Returns how
/// many.
pub(crate) async fn run(
    store: &Store,
    blobs: &Blobs,
    age: Duration,
    now: Timestamp,
) -> anyhow::Result<usize> {
    let deliveries = sweep(store, blobs, Kind::Delivery, now.before(age.min(DELIVERIES))).await?;
    let others = sweep(store, blobs, Kind::Any, now.before(age)).await?;
    artifacts::sweep_orphans(store, blobs).await?;
    Ok(deliveries + others)
}

/// Returns the query for jobs that ended before `$3`, in the order of their ids.
pub(super) fn old(kind: Kind) -> String {
    format!(
        "SELECT id, owner FROM jobs WHERE id > $1 AND id < $2 AND {ENDED} AND finished_at < $3 {} ORDER BY id LIMIT $4",
        kind.condition()
    )
}

/// Deletes jobs of a kind that ended before `oldest`, and returns how many.
pub(super) async fn sweep(
    store: &Store,
    blobs: &Blobs,
    kind: Kind,
    oldest: Timestamp,
) -> anyhow::Result<usize> {
    // Ids are in the order of their making, and a job has ended after it was made.
    let made = u128::try_from(oldest.as_ms()).unwrap_or_default() << 80;
    let (mut after, until) = (JobId(Uuid::nil()), JobId(Uuid::from_u128(made)));
    let mut deleted = 0;
    loop {
        let sql = old(kind);
        let old = store.read(move |reader| {
            let params = [after.into(), until.into(), oldest.into(), MOST.into()];
            reader.query(&sql, &params, |row| Ok((row.get(0)?, row.get(1)?)))
        });
        let old: Result<Vec<(JobId, UserId)>, Error> = old.await;
        let old = old?;
        let Some((last, _)) = old.last() else { return Ok(deleted) };
        after = *last;
        let mut by_owner: BTreeMap<UserId, Vec<JobId>> = BTreeMap::new();
        for (id, owner) in old {
            by_owner.entry(owner).or_default().push(id);
        }
        for (owner, mut ids) in by_owner {
            while !ids.is_empty() {
                let some = ids.clone();
                let delete = move |tx: &mut Tx<'_>| delete(tx, &some, oldest);
                let (done, gone) = store.write_in(Topic::user(&owner), delete).await?;
                ids.drain(..done);
                deleted += gone.len();
                // Jobs first: one that was begun anew meanwhile keeps what it has made.
                for job in gone {
                    artifacts::delete_of_job(store, blobs, job).await?;
                }
            }
        }
    }
}

/// Deletes jobs in their order, unless somebody has begun them anew, and as many as one transaction may. Returns how many it
/// is done with, and which of them it deleted.
fn delete(tx: &mut Tx<'_>, ids: &[JobId], oldest: Timestamp) -> Result<(usize, Vec<JobId>), Error> {
    let (mut done, mut deleted, mut rows) = (0, Vec::new(), 0);
    for id in ids {
        let is_old = format!("SELECT 1 FROM jobs WHERE id = $1 AND {ENDED} AND finished_at < $2");
        if tx.find(&is_old, &[(*id).into(), oldest.into()], |_| Ok(()))?.is_some() {
            let job = *id;
            let id = [Value::from(job)];
            rows += sweep::delete_some(tx, "job_logs", "job_id, line", "job_id = $1", &id)?;
            if rows >= MAX_ROWS {
                // The rest of the lines, and the job with them, in the next transaction.
                break;
            }
            tx.erases();
            rows += tx.execute("DELETE FROM jobs WHERE id = $1", &id)?;
            deleted.push(job);
        }
        done += 1;
    }
    Ok((done, deleted))
}
