//! Waits of jobs that a wrong clock has made too long.

use std::time::Duration;

use shared::{
    ids::{JobId, UserId},
    journal::Topic,
    store::{Error, Reader, Store, Tx},
    time::{CLOCK_TOLERANCE, Timestamp},
};

/// Longest time for which a job is put back, see [`super::JobError::after`].
const MAX_WAIT: Duration = Duration::from_hours(24);
/// Longest time between attempts that is nobody's wish.
const MAX_BACKOFF: Duration = Duration::from_mins(5);
/// Jobs that are read at once; the next round goes on.
const PAGE: i64 = 500;

/// Job that waits for too long.
#[derive(Clone, Debug)]
struct Late {
    id: JobId,
    owner: UserId,
    run_after: Timestamp,
}

/// Lets jobs run now that wait for longer than a day. A job that was made or began in the future was put back by the same
/// clock, so that it waits for no longer than between two attempts.
pub(crate) async fn repair(database: &Store, now: Timestamp) -> Result<(), Error> {
    for late in database.read(move |reader| late(reader, now)).await? {
        let (row, log) = (late.clone(), Topic::user(&late.owner));
        if database.write_in(log, move |tx| run_at(tx, &row, now)).await? {
            tracing::warn!(
                job.id = %late.id, run_after = %late.run_after,
                "a clock was wrong: a job waited for a time too far away"
            );
        }
    }
    Ok(())
}

fn late(reader: &Reader<'_>, now: Timestamp) -> Result<Vec<Late>, Error> {
    let sql = "SELECT id, owner, run_after FROM jobs WHERE state IN ('queued', 'interrupted') AND (run_after > $1 \
               OR (run_after > $2 AND (created_at > $3 OR started_at > $3))) AND run_after <> created_at LIMIT $4";
    let params = [
        now.after(MAX_WAIT + CLOCK_TOLERANCE).into(),
        now.after(MAX_BACKOFF).into(),
        now.after(CLOCK_TOLERANCE).into(),
        PAGE.into(),
    ];
    reader.query(sql, &params, |row| {
        Ok(Late { id: row.get(0)?, owner: row.get(1)?, run_after: row.get(2)? })
    })
}

fn run_at(tx: &mut Tx<'_>, late: &Late, now: Timestamp) -> Result<bool, Error> {
    // The rank is the time less the priority, as in `Job::rank`.
    let sql = "UPDATE jobs SET run_after = $3, rank = rank - run_after + $3 \
               WHERE id = $1 AND run_after = $2 AND state IN ('queued', 'interrupted')";
    Ok(tx.execute(sql, &[late.id.into(), late.run_after.into(), now.into()])? > 0)
}
