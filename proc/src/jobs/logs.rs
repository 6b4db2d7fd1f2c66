//! What a job says while it works, for its owner to read.

use serde::{Deserialize, Serialize};
use shared::{
    http::{Json, Limit, Query},
    ids::JobId,
    store::{self, Reader, Tx},
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{access::Content, error::ApiError, state::AppState};

/// Lines that a job may write; more are dropped.
const MAX_LINES: i64 = 10_000;

/// One line of a job's log.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct LogLine {
    line: i64,
    at: Timestamp,
    /// `info`, `warn` or `error`.
    level: String,
    message: String,
}

/// Adds a line to the job's log.
pub(crate) fn append(
    tx: &mut Tx<'_>,
    id: JobId,
    level: &str,
    message: &str,
) -> Result<(), store::Error> {
    let sql = "SELECT COALESCE(MAX(line), 0) FROM job_logs WHERE job_id = $1";
    let last: i64 = tx.find(sql, &[id.into()], |row| row.get(0))?.unwrap_or(0);
    if last < MAX_LINES {
        tx.execute(
            "INSERT INTO job_logs (job_id, line, at, level, message) VALUES ($1, $2, $3, $4, $5)",
            &[id.into(), (last + 1).into(), tx.now().into(), level.into(), message.into()],
        )?;
    }
    Ok(())
}

/// Returns at most `limit` lines after line `after`, in order.
pub(super) fn read(
    reader: &Reader<'_>,
    job: &Content,
    after: i64,
    limit: i64,
) -> Result<Vec<LogLine>, store::Error> {
    let sql = "SELECT line, at, level, message FROM job_logs WHERE job_id = $1 AND line > $2 ORDER BY line LIMIT $3";
    reader.query(sql, &[job.id.into(), after.into(), limit.into()], |row| {
        Ok(LogLine { line: row.get(0)?, at: row.get(1)?, level: row.get(2)?, message: row.get(3)? })
    })
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(logs))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct LogsPage {
    /// At most 200.
    #[serde(default)]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Limit,
    /// `next` of the page before.
    cursor: Option<i64>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Logs {
    logs: Vec<LogLine>,
    next: Option<i64>,
}

/// Shows what a job has to say, oldest first.
#[utoipa::path(get, path = "/jobs/{id}/logs", tag = "jobs", params(("id" = JobId, Path), LogsPage),
    responses((status = 200, body = Logs), (status = 404)))]
async fn logs(job: Content, Query(page): Query<LogsPage>) -> Result<Json<Logs>, ApiError> {
    let limit = page.limit;
    let after = page.cursor.unwrap_or(0);
    let mut logs = job.read(move |reader, job| read(reader, job, after, limit.and_one())).await?;
    let next = limit.cut(&mut logs).map(|last| last.line);
    Ok(Json(Logs { logs, next }))
}
