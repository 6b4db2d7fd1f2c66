//! Jobs in the database: every change is one transaction with the entry that tells of it.

use std::fmt::Write;

use serde_json::{Value as Json, json};
use shared::{
    ids::{IdempotencyKey, JobId, ProjectId, UserId},
    journal::Topic,
    store::{self, Reader, Row, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    Error,
    machine::{self, Claim, Command, Event, Job, State},
    queue::QueueLimit,
};

const COLUMNS: &str = "j.id, j.owner, j.project_id, j.bundle, j.operation, j.input, j.state, j.attempt, \
    j.max_attempts, j.crashes, j.fence, j.worker, j.lease_until, j.run_after, j.progress, j.checkpoint, \
    j.result, j.error, j.trace_id, j.created_at, j.started_at, j.finished_at";

/// What makes a repeated submission the same submission.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    pub(crate) key: IdempotencyKey,
    /// Digest of everything else that was asked.
    pub(crate) request: [u8; 32],
}

/// Which jobs a list holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) owner: Option<UserId>,
    pub(crate) project_id: Option<ProjectId>,
    pub(crate) state: Option<State>,
    pub(crate) bundle: Option<String>,
    pub(crate) unfinished: bool,
    /// Only jobs older than this one.
    pub(crate) before: Option<JobId>,
}

/// Writes a new job, or finds the one that the same request made before.
pub(crate) fn submit(
    tx: &mut Tx<'_>,
    job: &Job,
    idempotency: Option<&Idempotency>,
    limit: QueueLimit,
) -> Result<Job, Error> {
    if let Some(idempotency) = idempotency {
        let sql = "SELECT id, request FROM jobs WHERE owner = $1 AND bundle = $2 AND operation = $3 AND idempotency = $4";
        let params = [
            (&job.owner).into(),
            (&job.bundle).into(),
            (&job.operation).into(),
            (&idempotency.key).into(),
        ];
        let found = tx.find(sql, &params, |row| Ok((row.get(0)?, row.get::<Vec<u8>>(1)?)))?;
        if let Some((id, request)) = found {
            return if request == idempotency.request {
                find(tx, id)
            } else {
                Err(Error::IdempotencyConflict)
            };
        }
    }
    make_room(tx, limit)?;
    insert(tx, job, idempotency)?;
    tell(tx, job, Event::Queued)?;
    Ok(job.clone())
}

/// Starts an ended job over, if the queue has room for it.
pub(crate) fn retry(tx: &mut Tx<'_>, id: JobId, limit: QueueLimit) -> Result<Job, Error> {
    make_room(tx, limit)?;
    apply(tx, id, Command::Retry)
}

fn make_room(reader: &Reader<'_>, limit: QueueLimit) -> Result<(), Error> {
    let waiting = u32::try_from(waiting(reader, limit.most.into())?).unwrap_or(u32::MAX);
    limit.admit(waiting).map_err(|retry_after| Error::QueueFull { retry_after })
}

/// Returns how many jobs nobody runs yet; by their index, and no further than it matters.
pub(crate) fn waiting(reader: &Reader<'_>, at_most: i64) -> Result<i64, store::Error> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE state IN ('queued', 'interrupted') LIMIT $1) waiting";
    Ok(reader.find(sql, &[at_most.into()], |row| row.get(0))?.unwrap_or(0))
}

/// Puts a job through the machine and writes what came of it, with the entry that tells of it.
pub(crate) fn apply(tx: &mut Tx<'_>, id: JobId, command: Command) -> Result<Job, Error> {
    let (job, event) = machine::transition(find(tx, id)?, command, Timestamp::now())?;
    save(tx, &job)?;
    if let Some(event) = event {
        tell(tx, &job, event)?;
    }
    Ok(job)
}

/// Claims the job that is due, of the owner with the fewest running and then the oldest, if there is one.
pub(crate) fn claim(
    tx: &mut Tx<'_>,
    worker: Uuid,
    lease: std::time::Duration,
) -> Result<Option<Job>, Error> {
    let sql = "SELECT j.id FROM jobs j LEFT JOIN \
               (SELECT owner, COUNT(*) AS running FROM jobs WHERE state = 'running' GROUP BY owner) r ON r.owner = j.owner \
               WHERE j.state IN ('queued', 'interrupted') AND j.run_after <= $1 \
               ORDER BY COALESCE(r.running, 0), j.run_after, j.id LIMIT 1";
    let due: Option<JobId> = tx.find(sql, &[Timestamp::now().into()], |row| row.get(0))?;
    due.map(|id| apply(tx, id, Command::Claim { worker, lease })).transpose()
}

/// Keeps every job of a worker for another lease and returns which they are.
pub(crate) fn renew(
    tx: &mut Tx<'_>,
    worker: Uuid,
    until: Timestamp,
) -> Result<Vec<JobId>, store::Error> {
    let sql = "UPDATE jobs SET lease_until = $2 WHERE state = 'running' AND worker = $1";
    tx.execute(sql, &[Value::Uuid(worker), until.into()])?;
    let sql = "SELECT id FROM jobs WHERE state = 'running' AND worker = $1";
    tx.query(sql, &[Value::Uuid(worker)], |row| row.get(0))
}

/// Takes jobs from workers whose lease ended before `now`, and returns how many.
pub(crate) fn reap(tx: &mut Tx<'_>, now: Timestamp) -> Result<usize, Error> {
    let sql = "SELECT id FROM jobs WHERE state = 'running' AND lease_until < $1";
    let lost: Vec<JobId> = tx.query(sql, &[now.into()], |row| row.get(0))?;
    for id in &lost {
        apply(tx, *id, Command::Lose)?;
    }
    Ok(lost.len())
}

/// Refuses a worker that has lost its job.
pub(crate) fn check(reader: &Reader<'_>, id: JobId, claim: Claim) -> Result<(), Error> {
    let sql =
        "SELECT 1 FROM jobs WHERE id = $1 AND state = 'running' AND fence = $2 AND worker = $3";
    let held = reader.find(
        sql,
        &[id.into(), claim.fence.into(), Value::Uuid(claim.worker)],
        |_| Ok(()),
    )?;
    held.ok_or(Error::Refused(machine::Refused::Stale))
}

/// Returns the job.
pub(crate) fn find(reader: &Reader<'_>, id: JobId) -> Result<Job, Error> {
    let sql = format!("SELECT {COLUMNS} FROM jobs j WHERE j.id = $1");
    reader.find(&sql, &[id.into()], read)?.ok_or(Error::NotFound)
}

/// Returns at most `limit` jobs, newest first.
pub(crate) fn list(
    reader: &Reader<'_>,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Job>, store::Error> {
    let mut sql = format!("SELECT {COLUMNS} FROM jobs j WHERE 1 = 1");
    let mut params: Vec<Value<'_>> = Vec::new();
    let wanted = [
        ("j.owner =", filter.owner.as_ref().map(Into::into)),
        ("j.project_id =", filter.project_id.map(Into::into)),
        ("j.state =", filter.state.map(|state| state.as_str().into())),
        ("j.bundle =", filter.bundle.as_ref().map(Into::into)),
        ("j.id <", filter.before.map(Into::into)),
    ];
    for (condition, value) in wanted {
        if let Some(value) = value {
            params.push(value);
            // Writing to a string cannot fail.
            let _ = write!(sql, " AND {condition} ${}", params.len());
        }
    }
    if filter.unfinished {
        sql += " AND j.state IN ('queued', 'running', 'interrupted')";
    }
    params.push(limit.into());
    let _ = write!(sql, " ORDER BY j.id DESC LIMIT ${}", params.len());
    reader.query(&sql, &params, read)
}

/// Appends the event to the log of its owner and to everybody's.
fn tell(tx: &mut Tx<'_>, job: &Job, event: Event) -> Result<(), store::Error> {
    let data = json!({
        "type": event.as_str(),
        "project_id": job.project_id,
        "at": Timestamp::now(),
        "actor": job.owner,
        "trace_id": job.trace_id,
        "job": super::Job::from(job),
    })
    .to_string();
    tx.append(&Topic::user(&job.owner), event.as_str(), &data)?;
    tx.append(&Topic::jobs(), event.as_str(), &data)?;
    Ok(())
}

fn insert(
    tx: &mut Tx<'_>,
    job: &Job,
    idempotency: Option<&Idempotency>,
) -> Result<(), store::Error> {
    tx.execute(
        "INSERT INTO jobs (id, owner, project_id, bundle, operation, input, state, attempt, max_attempts, crashes, fence, \
         run_after, progress, trace_id, idempotency, request, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        &[
            job.id.into(),
            (&job.owner).into(),
            job.project_id.into(),
            (&job.bundle).into(),
            (&job.operation).into(),
            (&job.input.to_string()).into(),
            job.state.as_str().into(),
            job.attempt.into(),
            job.max_attempts.into(),
            job.crashes.into(),
            job.fence.into(),
            job.run_after.into(),
            (&json!(job.progress).to_string()).into(),
            (&job.trace_id).into(),
            idempotency.map(|idempotency| &idempotency.key).into(),
            idempotency.map(|idempotency| idempotency.request.as_slice()).into(),
            job.created_at.into(),
        ],
    )?;
    Ok(())
}

fn save(tx: &mut Tx<'_>, job: &Job) -> Result<(), store::Error> {
    let text = |value: &Option<Json>| value.as_ref().map(Json::to_string);
    tx.execute(
        "UPDATE jobs SET state = $2, attempt = $3, crashes = $4, fence = $5, worker = $6, lease_until = $7, run_after = $8, \
         progress = $9, checkpoint = $10, result = $11, error = $12, started_at = $13, finished_at = $14 WHERE id = $1",
        &[
            job.id.into(),
            job.state.as_str().into(),
            job.attempt.into(),
            job.crashes.into(),
            job.fence.into(),
            job.worker.map_or(Value::Null, Value::Uuid),
            job.lease_until.into(),
            job.run_after.into(),
            (&json!(job.progress).to_string()).into(),
            text(&job.checkpoint).as_ref().into(),
            text(&job.result).as_ref().into(),
            job.error.as_ref().map(|error| json!(error).to_string()).as_ref().into(),
            job.started_at.into(),
            job.finished_at.into(),
        ],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Job, store::Error> {
    let state = row.get::<String>(6)?.parse().map_err(|()| store::Error::Column { column: 6 })?;
    Ok(Job {
        id: row.get(0)?,
        owner: row.get(1)?,
        project_id: row.get(2)?,
        bundle: row.get(3)?,
        operation: row.get(4)?,
        input: row.json(5)?,
        state,
        attempt: row.get(7)?,
        max_attempts: row.get(8)?,
        crashes: row.get(9)?,
        fence: row.get(10)?,
        worker: row.get(11)?,
        lease_until: row.get(12)?,
        run_after: row.get(13)?,
        progress: row.json(14)?,
        checkpoint: optional(row, 15)?,
        result: optional(row, 16)?,
        error: optional(row, 17)?,
        trace_id: row.get(18)?,
        created_at: row.get(19)?,
        started_at: row.get(20)?,
        finished_at: row.get(21)?,
    })
}

fn optional<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> Result<Option<T>, store::Error> {
    let text: Option<String> = row.get(column)?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|_| store::Error::Column { column })
}
