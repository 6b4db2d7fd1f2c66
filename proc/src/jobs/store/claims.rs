//! Who runs what: claims, the leases of workers, and what jobs share.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    sync::Arc,
};

use shared::{
    ids::{JobId, UserId},
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    super::{
        Error as JobsError,
        engine::lanes::Kind,
        machine::{Claim, Command, Job, Share},
    },
    COLUMNS, apply_to, read,
};
use crate::webhooks;

const WAITING: &str = "j.state IN ('queued', 'interrupted')";
/// It is due, and what it shares with others is not all taken.
///
/// A job that was never put off is due whatever the clock says, and so is one that had begun before it was interrupted: a
/// clock that was set back holds neither up. The limit is the one of now, and that of the job's row where it has no other.
const FREE: &str = "(j.run_after <= $1 OR j.run_after = j.created_at OR j.state = 'interrupted') AND (j.shares IS NULL \
    OR (SELECT COUNT(*) FROM job_shares s WHERE s.name = j.shares) \
    < COALESCE((SELECT l.most FROM share_limits l WHERE l.name = j.shares), j.share_limit))";

/// An owner who has jobs to run.
#[derive(Clone, Debug)]
pub(in super::super) struct Waiting {
    pub(in super::super) owner: UserId,
    /// Number of the owner's jobs that workers run now.
    running: i64,
    /// How many are to run, as far as anybody has room for them.
    due: i64,
    /// The place of the first of them.
    rank: i64,
}

/// Returns who has jobs to run; at most `limit` of each are counted.
pub(in super::super) fn waiting_owners(
    reader: &Reader<'_>,
    now: Timestamp,
    limit: i64,
    kind: Kind,
) -> Result<Vec<Waiting>, Error> {
    let sql = waiting_owners_sql(kind);
    let owners = reader.query(&sql, &[now.into(), limit.into()], |row| {
        let (running, due) = (row.get(1)?, row.get(2)?);
        let rank = row.get::<Option<i64>>(3)?.unwrap_or(i64::MAX);
        Ok(Waiting { owner: row.get(0)?, running, due, rank })
    })?;
    Ok(owners.into_iter().filter(|waiting| waiting.due > 0).collect())
}

/// Returns the query for who has jobs to run. It goes from owner to owner along the index of the kind, however many jobs each
/// has.
pub(in super::super) fn waiting_owners_sql(kind: Kind) -> String {
    let of_kind = of_kind(kind);
    format!(
        "WITH RECURSIVE owners (owner) AS (SELECT MIN(j.owner) FROM jobs j WHERE {WAITING} AND {of_kind} \
         UNION ALL SELECT (SELECT MIN(j.owner) FROM jobs j WHERE {WAITING} AND {of_kind} AND j.owner > o.owner) \
         FROM owners o WHERE o.owner IS NOT NULL) \
         SELECT o.owner, (SELECT COUNT(*) FROM jobs j WHERE j.state = 'running' AND j.owner = o.owner AND j.worker IS NOT NULL), \
         (SELECT COUNT(*) FROM (SELECT 1 FROM jobs j WHERE {WAITING} AND j.owner = o.owner AND {of_kind} AND {FREE} LIMIT $2) due), \
         (SELECT j.rank FROM jobs j WHERE {WAITING} AND j.owner = o.owner AND {of_kind} AND {FREE} ORDER BY j.rank, j.id LIMIT 1) \
         FROM owners o WHERE o.owner IS NOT NULL"
    )
}

fn of_kind(kind: Kind) -> String {
    let is = match kind {
        Kind::Jobs => "<>",
        Kind::Deliveries => "=",
    };
    format!("j.bundle {is} '{}'", webhooks::BUNDLE)
}

/// Shares free places out: each goes to the owner with the fewest running, and of those to who waits for longest. A place of
/// the reserve goes to an owner that `is_idle`, as the first one.
pub(in super::super) fn share_out(
    owners: Vec<Waiting>,
    mut open: usize,
    mut reserve: usize,
    is_idle: impl Fn(&UserId) -> bool,
) -> Vec<(UserId, usize)> {
    let count = |given: usize| i64::try_from(given).unwrap_or(i64::MAX);
    let order = |index: usize, owner: &Waiting, given: usize| {
        Reverse((owner.running.saturating_add(count(given)), owner.rank, index))
    };
    let mut given = vec![0_usize; owners.len()];
    let indexed = owners.iter().enumerate();
    let mut next: BinaryHeap<_> = indexed.map(|(index, owner)| order(index, owner, 0)).collect();
    while let Some(Reverse((_, _, index))) = next.pop() {
        if open > 0 {
            open -= 1;
        } else if reserve > 0 && given[index] == 0 && is_idle(&owners[index].owner) {
            reserve -= 1;
        } else {
            continue;
        }
        given[index] += 1;
        if count(given[index]) < owners[index].due {
            next.push(order(index, &owners[index], given[index]));
        }
    }
    let shares = owners.into_iter().zip(given).map(|(waiting, given)| (waiting.owner, given));
    shares.filter(|(_, given)| *given > 0).collect()
}

/// Claims at most `limit` of the owner's jobs.
pub(in super::super) fn claim(
    tx: &mut Tx<'_>,
    worker: Uuid,
    owner: &UserId,
    limit: i64,
    kind: Kind,
) -> Result<Vec<Arc<Job>>, JobsError> {
    let of_kind = of_kind(kind);
    let sql = format!(
        "SELECT {COLUMNS} FROM jobs j WHERE {WAITING} AND j.owner = $2 AND {of_kind} AND {FREE} ORDER BY j.rank, j.id LIMIT $3"
    );
    let due = tx.query(&sql, &[tx.now().into(), owner.into(), limit.into()], read)?;
    let (mut commands, mut shares) = (Vec::new(), HashMap::new());
    for job in &due {
        if take_share_of(tx, job, &mut shares)? {
            commands.push((job.id, Command::Claim { worker }));
        }
    }
    let due = due.into_iter().map(|job| (job.id, job.into())).collect();
    apply_to(tx, due, commands)?.into_iter().collect()
}

/// Places of jobs that share something, as a transaction knows them.
#[derive(Debug)]
struct Places {
    limit: usize,
    taken: BTreeSet<i64>,
}

impl Places {
    fn read(reader: &Reader<'_>, share: &Share) -> Result<Self, Error> {
        let sql = "SELECT NULL, most FROM share_limits WHERE name = $1 \
                   UNION ALL SELECT n, 0 FROM job_shares WHERE name = $1";
        let rows: Vec<(Option<i64>, i64)> =
            reader.query(sql, &[(&share.name).into()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let limit = rows.iter().find(|(place, _)| place.is_none()).map(|(_, most)| *most);
        let limit = usize::try_from(limit.unwrap_or(share.limit)).unwrap_or(0);
        Ok(Self { limit, taken: rows.into_iter().filter_map(|(place, _)| place).collect() })
    }

    /// Returns the lowest free place. Those beyond a limit that was lowered count too.
    fn free(&self) -> Option<i64> {
        if self.taken.len() >= self.limit {
            return None;
        }
        (0..)
            .zip(&self.taken)
            .find(|(n, taken)| n != *taken)
            .map(|(n, _)| n)
            .or_else(|| i64::try_from(self.taken.len()).ok())
    }
}

/// Takes one of what the job shares with others, if it shares anything; says whether it may begin.
pub(super) fn take_share(tx: &mut Tx<'_>, job: &Job) -> Result<bool, Error> {
    take_share_of(tx, job, &mut HashMap::new())
}

/// Like [`take_share`], with what the transaction knows already.
fn take_share_of(
    tx: &mut Tx<'_>,
    job: &Job,
    known: &mut HashMap<String, Places>,
) -> Result<bool, Error> {
    let Some(share) = &job.share else { return Ok(true) };
    if !known.contains_key(&share.name) {
        known.insert(share.name.clone(), Places::read(tx, share)?);
    }
    let Some(places) = known.get_mut(&share.name) else { return Ok(false) };
    let Some(free) = places.free() else { return Ok(false) };
    // Taken by this job, or by another replica's.
    places.taken.insert(free);
    // Another replica may have taken it just now; whoever is second waits for the next turn.
    let sql = "INSERT INTO job_shares (name, n, job_id) VALUES ($1, $2, $3) ON CONFLICT (name, n) DO NOTHING";
    Ok(tx.execute(sql, &[(&share.name).into(), free.into(), job.id.into()])? == 1)
}

/// Gives back what the job had taken.
pub(super) fn give_back(tx: &mut Tx<'_>, id: JobId) -> Result<(), Error> {
    tx.execute("DELETE FROM job_shares WHERE job_id = $1", &[id.into()]).map(drop)
}

/// Keeps a worker, and with it all of its jobs, for another lease.
pub(in super::super) fn renew(
    tx: &mut Tx<'_>,
    worker: Uuid,
    until: Timestamp,
) -> Result<(), Error> {
    let sql = "INSERT INTO workers (id, lease_until) VALUES ($1, $2) \
               ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until";
    tx.execute(sql, &[Value::Uuid(worker), until.into()]).map(drop)
}

/// Forgets workers that are gone and have no jobs left.
pub(in super::super) fn forget(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Error> {
    let sql = "DELETE FROM workers WHERE lease_until < $1 \
               AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.state = 'running' AND j.worker = workers.id)";
    tx.execute(sql, &[now.into()]).map(drop)
}

/// A running job, its owner, and the claim that it runs under.
type Held = (JobId, UserId, Claim);

/// Returns the jobs that a worker has.
pub(in super::super) fn of_worker(reader: &Reader<'_>, worker: Uuid) -> Result<Vec<Held>, Error> {
    let sql = "SELECT id, owner, worker, fence FROM jobs WHERE state = 'running' AND worker = $1";
    reader.query(sql, &[Value::Uuid(worker)], held)
}

fn held(row: &Row<'_>) -> Result<Held, Error> {
    Ok((row.get(0)?, row.get(1)?, Claim { worker: Some(row.get(2)?), fence: row.get(3)? }))
}

/// Returns running jobs whose worker's lease ended before `now`. A job that its bundle has accepted has no worker to lose.
pub(in super::super) fn lost(reader: &Reader<'_>, now: Timestamp) -> Result<Vec<Held>, Error> {
    let sql = "SELECT j.id, j.owner, j.worker, j.fence FROM jobs j LEFT JOIN workers w ON w.id = j.worker \
               WHERE j.state = 'running' AND j.worker IS NOT NULL AND (w.id IS NULL OR w.lease_until < $1)";
    reader.query(sql, &[now.into()], held)
}

#[cfg(test)]
mod tests;
