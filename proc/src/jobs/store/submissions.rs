//! New jobs: what makes a submission the same one, how many may wait, and which begin as they are made.

use std::{collections::HashMap, sync::Arc};

use shared::{
    ids::{IdempotencyKey, JobId, UserId},
    journal::Topic,
    store::{self, Reader, Tx},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    super::{
        Error,
        machine::{self, Command, Event, Job},
        queue::{LATEST, QueueLimit},
    },
    Told, apply, claims, find, rows, tell,
};
use crate::webhooks;

/// What makes a repeated submission the same submission.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    pub(crate) key: IdempotencyKey,
    /// Digest of everything else that was asked.
    pub(crate) request: [u8; 32],
}

impl Idempotency {
    /// Returns the key of one of the jobs that the submission made. No key of a caller has a space.
    fn key_of(&self, number: usize) -> String {
        if number == 0 { self.key.to_string() } else { format!("{} {number}", self.key) }
    }
}

/// A worker that has places for new jobs.
#[derive(Copy, Clone, Debug)]
pub(in super::super) struct Places {
    pub(in super::super) worker: Uuid,
    /// How many new jobs may begin.
    pub(in super::super) free: usize,
    /// How many others may, which are for those who wait.
    pub(in super::super) spare: usize,
}

/// A job that was submitted.
#[derive(Clone, Debug)]
pub(in super::super) struct Submitted {
    pub(in super::super) job: Arc<Job>,
    /// This submission has given it to the worker that had places.
    pub(in super::super) begins: bool,
}

/// Writes a new job, or finds the one that the same request made before.
pub(crate) fn submit(
    tx: &mut Tx<'_>,
    job: &Job,
    idempotency: Option<&Idempotency>,
    limit: &QueueLimit,
) -> Result<Job, Error> {
    let submitted = submit_all(tx, std::slice::from_ref(job), idempotency, limit, None)?;
    let submitted = submitted.into_iter().next().ok_or(Error::NotFound)?;
    Ok(Arc::unwrap_or_clone(submitted.job))
}

/// Writes new jobs of one owner and operation, all or none, or finds those that the same request made before. Where there
/// are places for all who wait, they begin at once as far as there are more, and need not be claimed.
pub(in super::super) fn submit_all(
    tx: &mut Tx<'_>,
    jobs: &[Job],
    idempotency: Option<&Idempotency>,
    limit: &QueueLimit,
    places: Option<Places>,
) -> Result<Vec<Submitted>, Error> {
    let Some(first) = jobs.first() else { return Ok(Vec::new()) };
    // A log that is new is nobody's yet: made first, it keeps the same request on another replica waiting.
    let log = Topic::user(&first.owner);
    if tx.head(&log)?.is_none() {
        tx.ensure(&log)?;
    }
    if let Some(idempotency) = idempotency {
        let repeated = repeated(tx, jobs, idempotency)?;
        if !repeated.is_empty() {
            return Ok(repeated);
        }
    }
    let sames = sames(tx, jobs)?;
    let (fresh, now) = (sames.iter().filter(|same| same.is_none()).count(), tx.now());
    let nobody_waits = fresh > 0 && admit(tx, limit, &first.owner, now, fresh)? == Some(0);
    let mut places = match places {
        Some(_) if !nobody_waits && waits_behind_others(first) => None,
        Some(places) if nobody_waits || have_places(tx, places.spare, now)? => Some(places),
        _ => None,
    };
    let (mut submitted, mut told, mut keys) = (Vec::<Submitted>::new(), Vec::new(), Vec::new());
    let mut new = Vec::new();
    for (job, same) in jobs.iter().zip(sames) {
        let (job, begins) = match same {
            Some(Same::Unfinished(id)) => (find(tx, id)?.into(), false),
            Some(Same::Of(number)) => (submitted[number].job.clone(), false),
            None => {
                told.push(Told::new(job, Event::Queued, now));
                keys.extend(idempotency.map(|idempotency| idempotency.key_of(new.len())));
                new.push(submitted.len());
                match take_place(tx, job, &mut places, now)? {
                    Some((running, event)) => {
                        told.extend(event.map(|event| Told::new(&running, event, now)));
                        (running.into(), true)
                    }
                    None => (job.clone().into(), false),
                }
            }
        };
        submitted.push(Submitted { job, begins });
    }
    let requests = idempotency.map(|idempotency| idempotency.request.as_slice());
    rows::insert(tx, new.into_iter().map(|number| &*submitted[number].job), &keys, requests)?;
    tell(tx, told)?;
    Ok(submitted)
}

/// Returns whether a new job may not begin while others wait: they may wait for the same place, and the oldest goes first.
/// Deliveries don't, since an owner's are made again and again.
fn waits_behind_others(job: &Job) -> bool {
    job.share.is_some() && job.bundle != webhooks::BUNDLE
}

/// Gives a new job to the worker, if that has a place for it and the job may begin.
fn take_place(
    tx: &mut Tx<'_>,
    job: &Job,
    places: &mut Option<Places>,
    now: Timestamp,
) -> Result<Option<(Job, Option<Event>)>, Error> {
    let Some(Places { worker, free, .. }) = places.as_mut().filter(|places| places.free > 0) else {
        return Ok(None);
    };
    if job.run_after > now || !claims::take_share(tx, job)? {
        return Ok(None);
    }
    *free -= 1;
    Ok(Some(machine::transition(job.clone(), Command::Claim { worker: *worker }, now)?))
}

/// What a submitted job is the same as.
#[derive(Copy, Clone, Debug)]
enum Same {
    /// One that has not ended.
    Unfinished(JobId),
    /// Another of the submission.
    Of(usize),
}

/// Returns what each of the jobs is the same as. Whoever submits for an owner holds their log, so nobody else adds one
/// meanwhile.
fn sames(reader: &Reader<'_>, jobs: &[Job]) -> Result<Vec<Option<Same>>, Error> {
    let mut first = HashMap::new();
    let mut sames = Vec::with_capacity(jobs.len());
    for (number, job) in jobs.iter().enumerate() {
        sames.push(match unfinished(reader, job)? {
            Some(id) => Some(Same::Unfinished(id)),
            None => job.unique_key.as_ref().and_then(|key| {
                let first = *first.entry(key).or_insert(number);
                (first != number).then_some(Same::Of(first))
            }),
        });
    }
    Ok(sames)
}

/// Returns the jobs that the same request made before, as far as they are kept; none if it is the first.
pub(in super::super) fn repeated(
    reader: &Reader<'_>,
    jobs: &[Job],
    idempotency: &Idempotency,
) -> Result<Vec<Submitted>, Error> {
    let sql = "SELECT id, request FROM jobs WHERE owner = $1 AND bundle = $2 AND operation = $3 AND idempotency = $4";
    let mut repeated = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        let key = idempotency.key_of(number);
        let params =
            [(&job.owner).into(), (&job.bundle).into(), (&job.operation).into(), (&key).into()];
        let found = reader.find(sql, &params, |row| Ok((row.get(0)?, row.get::<Vec<u8>>(1)?)))?;
        match found {
            Some((id, request)) if request == idempotency.request => {
                repeated.push(Submitted { job: find(reader, id)?.into(), begins: false });
            }
            Some(_) => return Err(Error::IdempotencyConflict),
            // The first job may have been deleted before the others.
            None if number == 0 && !is_used(reader, jobs, idempotency)? => break,
            None => {}
        }
    }
    Ok(repeated)
}

/// Returns whether any job behind the first of a batch was made with the key.
fn is_used(
    reader: &Reader<'_>,
    jobs: &[Job],
    idempotency: &Idempotency,
) -> Result<bool, store::Error> {
    let [first, others @ ..] = jobs else { return Ok(false) };
    let mut keys: Vec<String> = (1..=others.len()).map(|n| idempotency.key_of(n)).collect();
    let Some(last) = keys.last().cloned() else { return Ok(false) };
    // Few lengths of the list, so that few statements are prepared.
    keys.resize(keys.len().next_power_of_two(), last);
    let numbers: Vec<String> = (4..keys.len() + 4).map(|number| format!("(${number})")).collect();
    let sql = format!(
        "WITH keys (name) AS (VALUES {}) SELECT 1 FROM keys k JOIN jobs j ON j.owner = $1 AND j.bundle = $2 \
         AND j.operation = $3 AND j.idempotency = k.name LIMIT 1",
        numbers.join(", ")
    );
    let made_of = [(&first.owner).into(), (&first.bundle).into(), (&first.operation).into()];
    let params: Vec<_> = made_of.into_iter().chain(keys.iter().map(Into::into)).collect();
    Ok(reader.find(&sql, &params, |_| Ok(()))?.is_some())
}

/// Starts an ended job over, if the queue has room for it.
pub(in super::super) fn retry(
    tx: &mut Tx<'_>,
    id: JobId,
    limit: &QueueLimit,
) -> Result<Job, Error> {
    let job = find(tx, id)?;
    if unfinished(tx, &job)?.is_some_and(|same| same != id) {
        return Err(Error::Superseded);
    }
    admit(tx, limit, &job.owner, tx.now(), 1)?;
    apply(tx, id, Command::Retry)
}

/// Returns the job that has not ended and has the same unique key.
fn unfinished(reader: &Reader<'_>, job: &Job) -> Result<Option<JobId>, store::Error> {
    let Some(key) = &job.unique_key else { return Ok(None) };
    let sql = "SELECT id FROM jobs WHERE owner = $1 AND bundle = $2 AND operation = $3 AND unique_key = $4 \
               AND state IN ('queued', 'running', 'interrupted')";
    let params = [(&job.owner).into(), (&job.bundle).into(), (&job.operation).into(), key.into()];
    reader.find(sql, &params, |row| row.get(0))
}

/// Lets more jobs of an owner join those who wait, of which no more are counted than matter. Owners submit side by side, so
/// together they may go past the limit by as many as do so at the same moment. Returns how many wait if they were counted.
///
/// A job that was put back, because its bundle is away or asked for time, takes no place of the queue: one bundle that is away
/// must not stop all others. Such jobs count against their owner alone, who may have as many of them as the queue has places.
fn admit(
    reader: &Reader<'_>,
    limit: &QueueLimit,
    owner: &UserId,
    now: Timestamp,
    more: usize,
) -> Result<Option<usize>, Error> {
    if limit.admits_by_the_last_count(more) {
        return Ok(None);
    }
    let most = i64::from(limit.most);
    // In an order that their index has, or PostgreSQL may think that all jobs are as quickly looked at.
    let sql = "SELECT COUNT(*), COUNT(CASE WHEN snoozed_at IS NOT NULL AND run_after > $2 THEN 1 END) FROM \
               (SELECT snoozed_at, run_after FROM jobs WHERE state IN ('queued', 'interrupted') \
               ORDER BY owner, rank, id LIMIT $1) waiting";
    let params = [most.into(), now.into()];
    let counts = reader.find(sql, &params, |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
    let (all, put_back) = counts.unwrap_or_default();
    let waiting = if all >= most && put_back > 0 {
        let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE state IN ('queued', 'interrupted') \
                   AND (snoozed_at IS NULL OR run_after <= $2) ORDER BY owner, rank, id LIMIT $1) waiting";
        reader.find(sql, &params, |row| row.get(0))?.unwrap_or(0)
    } else {
        all - put_back
    };
    if put_back >= limit.owners_most() {
        let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE owner = $1 AND state IN ('queued', 'interrupted') \
                   AND snoozed_at IS NOT NULL AND run_after > $2 ORDER BY rank, id LIMIT $3) waiting";
        let params = [owner.into(), now.into(), limit.owners_most().into()];
        let own = reader.find(sql, &params, |row| row.get::<i64>(0))?.unwrap_or(0);
        if own >= limit.owners_most() {
            return Err(Error::QueueFull { retry_after: LATEST });
        }
    }
    let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
    let has_crowd = put_back >= limit.owners_most() / 2;
    let admitted = limit.admit(waiting, more, has_crowd);
    admitted.map_err(|retry_after| Error::QueueFull { retry_after })?;
    Ok(Some(waiting))
}

/// Says whether so many places are enough for all who wait and could begin.
fn have_places(reader: &Reader<'_>, places: usize, now: Timestamp) -> Result<bool, store::Error> {
    let sql = "SELECT 1 FROM jobs WHERE state IN ('queued', 'interrupted') AND run_after <= $1 \
               ORDER BY owner, rank, id LIMIT 1 OFFSET $2";
    let places = i64::try_from(places).unwrap_or(i64::MAX);
    Ok(reader.find(sql, &[now.into(), places.into()], |_| Ok(()))?.is_none())
}
