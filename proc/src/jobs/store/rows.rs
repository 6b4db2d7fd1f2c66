//! Jobs as rows.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use shared::{
    ids::JobId,
    store::{Error, Reader, Row, Tx, Value},
};

use super::{
    super::machine::{Job, Share},
    Idempotency,
};

pub(super) const COLUMNS: &str = "j.id, j.owner, j.project_id, j.bundle, j.operation, j.input, j.state, j.attempt, \
    j.max_attempts, j.crashes, j.fence, j.worker, j.run_after, j.priority, j.shares, j.share_limit, j.progress, \
    j.checkpoint, j.result, j.error, j.trace_id, j.created_at, j.started_at, j.finished_at, j.unique_key";

/// Returns those of the jobs that there are.
pub(super) fn find_all(reader: &Reader<'_>, ids: &[JobId]) -> Result<HashMap<JobId, Job>, Error> {
    let ids: Vec<Value<'_>> = ids.iter().map(|id| (*id).into()).collect();
    let found =
        reader.query_in(&format!("SELECT {COLUMNS} FROM jobs j WHERE"), "j.id", &ids, read)?;
    Ok(found.into_iter().map(|job| (job.id, job)).collect())
}

pub(super) fn insert(
    tx: &mut Tx<'_>,
    job: &Job,
    idempotency: Option<&Idempotency>,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO jobs (id, owner, project_id, bundle, operation, input, state, attempt, max_attempts, crashes, fence, \
         run_after, priority, rank, shares, share_limit, progress, trace_id, idempotency, request, created_at, unique_key) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
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
            job.priority.into(),
            job.rank().into(),
            job.share.as_ref().map(|share| &share.name).into(),
            job.share.as_ref().map(|share| share.limit).into(),
            (&json!(job.progress).to_string()).into(),
            (&job.trace_id).into(),
            idempotency.map(|idempotency| &idempotency.key).into(),
            idempotency.map(|idempotency| idempotency.request.as_slice()).into(),
            job.created_at.into(),
            job.unique_key.as_ref().into(),
        ],
    )?;
    Ok(())
}

/// Writes what can change of jobs.
pub(super) fn save<'a>(tx: &mut Tx<'_>, jobs: impl Iterator<Item = &'a Job>) -> Result<(), Error> {
    let rows: Vec<Changed<'a>> = jobs.map(Changed::from).collect();
    let values: Vec<Value<'_>> = rows.iter().flat_map(Changed::values).collect();
    tx.update_rows("jobs", &CHANGEABLE, &values)
}

const CHANGEABLE: [&str; 14] = [
    "id",
    "state",
    "attempt",
    "crashes",
    "fence",
    "worker",
    "run_after",
    "rank",
    "progress",
    "checkpoint",
    "result",
    "error",
    "started_at",
    "finished_at",
];

/// A job's changeable parts as text.
struct Changed<'a> {
    job: &'a Job,
    progress: String,
    checkpoint: Option<String>,
    result: Option<String>,
    error: Option<String>,
}

impl<'a> From<&'a Job> for Changed<'a> {
    fn from(job: &'a Job) -> Self {
        let text = |value: &Option<Json>| value.as_ref().map(Json::to_string);
        Self {
            job,
            progress: json!(job.progress).to_string(),
            checkpoint: text(&job.checkpoint),
            result: text(&job.result),
            error: job.error.as_ref().map(|error| json!(error).to_string()),
        }
    }
}

impl Changed<'_> {
    fn values(&self) -> [Value<'_>; CHANGEABLE.len()] {
        let Self { job, progress, checkpoint, result, error } = self;
        [
            job.id.into(),
            job.state.as_str().into(),
            job.attempt.into(),
            job.crashes.into(),
            job.fence.into(),
            job.worker.map_or(Value::Null, Value::Uuid),
            job.run_after.into(),
            job.rank().into(),
            progress.into(),
            checkpoint.as_ref().into(),
            result.as_ref().into(),
            error.as_ref().into(),
            job.started_at.into(),
            job.finished_at.into(),
        ]
    }
}

pub(super) fn read(row: &Row<'_>) -> Result<Job, Error> {
    let state = row.get::<String>(6)?.parse().map_err(|()| Error::Column { column: 6 })?;
    let share: Option<String> = row.get(14)?;
    let limit: Option<i64> = row.get(15)?;
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
        run_after: row.get(12)?,
        priority: row.get(13)?,
        share: share.zip(limit).map(|(name, limit)| Share { name, limit }),
        progress: row.json(16)?,
        checkpoint: optional(row, 17)?,
        result: optional(row, 18)?,
        error: optional(row, 19)?,
        trace_id: row.get(20)?,
        created_at: row.get(21)?,
        started_at: row.get(22)?,
        finished_at: row.get(23)?,
        unique_key: row.get(24)?,
    })
}

fn optional<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> Result<Option<T>, Error> {
    let text: Option<String> = row.get(column)?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|_| Error::Column { column })
}
