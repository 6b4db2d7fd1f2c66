//! Jobs as rows.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value as Json;
use shared::{
    ids::JobId,
    store::{Error, Reader, Row, Tx, Value},
};
use uuid::Uuid;

use super::super::machine::{Job, Share};
use crate::raw_json::RawJson;

pub(super) const COLUMNS: &str = "j.id, j.owner, j.project_id, j.bundle, j.operation, j.input, j.state, j.attempt, \
    j.max_attempts, j.crashes, j.fence, j.worker, j.run_after, j.priority, j.shares, j.share_limit, j.progress, \
    j.checkpoint, j.result, j.error, j.trace_id, j.created_at, j.started_at, j.finished_at, j.unique_key, j.snoozed_ms, \
    j.snoozed_at";

/// Returns those of the jobs that there are.
pub(super) fn find_all(reader: &Reader<'_>, ids: &[JobId]) -> Result<HashMap<JobId, Job>, Error> {
    let ids: Vec<Value<'_>> = ids.iter().map(|id| (*id).into()).collect();
    let found =
        reader.query_in(&format!("SELECT {COLUMNS} FROM jobs j WHERE"), "j.id", &ids, read)?;
    Ok(found.into_iter().map(|job| (job.id, job)).collect())
}

/// Writes new jobs; `keys` are what makes them the same jobs when they are asked for again, if anything does.
pub(super) fn insert<'a>(
    tx: &mut Tx<'_>,
    jobs: impl Iterator<Item = &'a Job>,
    keys: &[String],
    request: Option<&[u8]>,
) -> Result<(), Error> {
    let rows: Vec<_> = jobs.map(|job| (Changed::from(job), job.input.to_string())).collect();
    let mut values: Vec<Value<'_>> = Vec::with_capacity(rows.len() * INSERTED);
    for (number, (changed, input)) in rows.iter().enumerate() {
        let job = changed.job;
        values.extend(changed.values());
        let given: [Value<'_>; INSERTED - CHANGEABLE.len()] = [
            (&job.owner).into(),
            job.project_id.into(),
            (&job.bundle).into(),
            (&job.operation).into(),
            input.into(),
            job.max_attempts.into(),
            job.priority.into(),
            job.share.as_ref().map(|share| &share.name).into(),
            job.share.as_ref().map(|share| share.limit).into(),
            (&job.trace_id).into(),
            keys.get(number).into(),
            request.into(),
            job.created_at.into(),
            job.unique_key.as_ref().into(),
        ];
        values.extend(given);
    }
    let before = format!(
        "INSERT INTO jobs ({}, owner, project_id, bundle, operation, input, max_attempts, priority, shares, share_limit, \
         trace_id, idempotency, request, created_at, unique_key)",
        CHANGEABLE.join(", ")
    );
    tx.execute_rows(&before, "", INSERTED, &values)
}

/// Writes what can change of jobs.
pub(super) fn save<'a>(tx: &mut Tx<'_>, jobs: impl Iterator<Item = &'a Job>) -> Result<(), Error> {
    let rows: Vec<Changed<'a>> = jobs.map(Changed::from).collect();
    let values: Vec<Value<'_>> = rows.iter().flat_map(Changed::values).collect();
    tx.update_rows("jobs", &CHANGEABLE, &values)
}

/// Writes what can change of jobs that have just left their worker, if they had not before; returns which.
pub(super) fn save_left<'a>(
    tx: &mut Tx<'_>,
    jobs: impl Iterator<Item = &'a Job>,
) -> Result<HashSet<Uuid>, Error> {
    let rows: Vec<Changed<'a>> = jobs.map(Changed::from).collect();
    let values: Vec<Value<'_>> = rows.iter().flat_map(Changed::values).collect();
    tx.advance_rows("jobs", &CHANGEABLE, "fence", &values)
}

/// Columns of a new job.
const INSERTED: usize = CHANGEABLE.len() + 14;
const CHANGEABLE: [&str; 16] = [
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
    "snoozed_ms",
    "snoozed_at",
];

/// A job's changeable parts as text.
struct Changed<'a> {
    job: &'a Job,
    progress: String,
    checkpoint: Option<String>,
    result: Option<&'a str>,
    error: Option<String>,
}

impl<'a> From<&'a Job> for Changed<'a> {
    fn from(job: &'a Job) -> Self {
        let text = |value: &Option<Json>| value.as_ref().map(Json::to_string);
        Self {
            job,
            progress: written(&job.progress),
            checkpoint: text(&job.checkpoint),
            result: job.result.as_ref().map(RawJson::as_str),
            error: job.error.as_ref().map(written),
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
            (*result).into(),
            error.as_ref().into(),
            job.started_at.into(),
            job.finished_at.into(),
            i64::try_from(job.snoozed.as_millis()).unwrap_or(i64::MAX).into(),
            job.snoozed_at.into(),
        ]
    }
}

/// Writes what can always be written.
fn written(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
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
        input: row.json::<Json>(5)?.into(),
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
        result: raw(row, 18)?,
        error: optional(row, 19)?,
        trace_id: row.get(20)?,
        created_at: row.get(21)?,
        started_at: row.get(22)?,
        finished_at: row.get(23)?,
        unique_key: row.get(24)?,
        snoozed: Duration::from_millis(row.get::<i64>(25)?.try_into().unwrap_or(0)),
        snoozed_at: row.get(26)?,
    })
}

/// Returns JSON as it was written.
fn raw(row: &Row<'_>, column: usize) -> Result<Option<RawJson>, Error> {
    let text: Option<String> = row.get(column)?;
    let raw = text.map(RawJson::from_text).transpose();
    raw.map_err(|_| Error::Column { column })
}

fn optional<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> Result<Option<T>, Error> {
    let text: Option<String> = row.get(column)?;
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|_| Error::Column { column })
}
