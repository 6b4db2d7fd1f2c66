//! Logs of jobs: lines that an operation writes while it works, for the job's owner to read.
//!
//! An operation hands its lines to a [`LogWriter`], which writes them in groups beside it: a flood of lines takes none of the
//! operation's time. Over [`MAX_LINES`] lines are counted, and the log's last line gives their number.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use shared::{
    http::{Json, Limit, Query},
    ids::JobId,
    store::{self, Reader, Tx, Value},
    time::Timestamp,
};
use tokio::{
    select,
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{JobContext, machine::Refused};
use crate::{access::Content, error::ApiError, jobs, state::AppState};

/// Lines that a job's log keeps; more are counted and dropped.
const MAX_LINES: i64 = 10_000;
/// Lines that one transaction writes.
const MAX_GROUP_LINES: usize = 500;
/// Longest time for which a line waits for others that are written with it.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);
/// Pause after a write that the database did not take.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// One line of a job's log.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct LogLine {
    line: i64,
    at: Timestamp,
    /// `info`, `warn` or `error`.
    level: String,
    message: String,
}

/// Line that is to be written.
#[derive(Clone, Debug)]
pub(crate) struct NewLine {
    pub(crate) at: Timestamp,
    pub(crate) level: &'static str,
    pub(crate) message: String,
}

/// Adds a line to the job's log.
pub(crate) fn append(
    tx: &mut Tx<'_>,
    id: JobId,
    level: &'static str,
    message: &str,
) -> Result<(), store::Error> {
    let line = NewLine { at: tx.now(), level, message: message.to_owned() };
    append_all(tx, id, &[line], 0).map(drop)
}

/// Adds lines to the job's log as far as it has room for them, and counts the others and `dropped` more. Returns whether the
/// log is full.
pub(crate) fn append_all(
    tx: &mut Tx<'_>,
    id: JobId,
    lines: &[NewLine],
    dropped: i64,
) -> Result<bool, store::Error> {
    let sql = "SELECT COALESCE(MAX(line), 0) FROM job_logs WHERE job_id = $1";
    let last: i64 = tx.find(sql, &[id.into()], |row| row.get(0))?.unwrap_or(0);
    let room = usize::try_from(MAX_LINES - last).unwrap_or(0);
    let (kept, over) = lines.split_at(room.min(lines.len()));
    let rows: Vec<Value<'_>> = kept
        .iter()
        .zip(last + 1..)
        .flat_map(|(line, number)| {
            let NewLine { at, level, message } = line;
            [id.into(), number.into(), (*at).into(), (*level).into(), message.into()]
        })
        .collect();
    let before = "INSERT INTO job_logs (job_id, line, at, level, message)";
    tx.execute_rows(before, "", 5, &rows)?;
    let dropped = dropped + i64::try_from(over.len()).unwrap_or(i64::MAX);
    if dropped > 0 {
        let now = tx.now();
        tx.execute(
            "INSERT INTO job_logs (job_id, line, at, level, message, dropped) VALUES ($1, $2, $3, 'warn', $4, $5) \
             ON CONFLICT (job_id, line) DO UPDATE SET at = excluded.at, dropped = job_logs.dropped + excluded.dropped",
            // The count is put into the message when the line is read.
            &[id.into(), (MAX_LINES + 1).into(), now.into(), "lines were dropped".into(), dropped.into()],
        )?;
    }
    Ok(kept.len() == room)
}

/// Writes the lines of one attempt in groups, in the order in which they came.
#[derive(Debug)]
pub(super) struct LogWriter {
    pending: Mutex<Pending>,
    /// Notified when lines come, when their number reaches a group, and when all are to be written.
    changed: Notify,
    /// Notified when lines have been written or given up.
    written: Notify,
}

/// Lines that wait to be written.
#[derive(Debug, Default)]
struct Pending {
    lines: VecDeque<NewLine>,
    /// Lines behind these that the log has no room for.
    dropped: i64,
    /// When the oldest of them came.
    since: Option<Instant>,
    /// Number of lines that came in all.
    said: u64,
    /// Number of lines that have been written or given up.
    done: u64,
    /// No more lines come.
    is_ended: bool,
    /// Somebody waits until all are written.
    is_urgent: bool,
    /// The log has no room for more lines.
    is_full: bool,
}

impl Pending {
    /// Returns whether a line came, or none will.
    fn has_begun(&self) -> bool {
        self.said > 0 || self.is_ended
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }

    /// Returns whether a group is to be written now, or none will come.
    fn is_due(&self) -> bool {
        let is_old = || self.since.is_some_and(|since| since.elapsed() >= FLUSH_INTERVAL);
        let is_group = || self.is_urgent || self.lines.len() >= MAX_GROUP_LINES || is_old();
        self.is_ended || !self.is_empty() && is_group()
    }
}

/// Lines that are written together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) lines: Vec<NewLine>,
    /// Number of further lines, which were dropped.
    pub(super) dropped: i64,
}

impl LogWriter {
    pub(super) fn new() -> Self {
        Self { pending: Mutex::default(), changed: Notify::new(), written: Notify::new() }
    }

    /// Takes a line, which is written soon.
    pub(super) fn push(&self, line: NewLine) {
        let mut pending = self.pending();
        pending.said += 1;
        pending.since.get_or_insert_with(Instant::now);
        // No more than the log can have room for are held in memory.
        let room = usize::try_from(MAX_LINES).unwrap_or(usize::MAX);
        if pending.is_full || pending.lines.len() >= room {
            pending.dropped += 1;
        } else {
            pending.lines.push_back(line);
        }
        let is_news = pending.said == 1 || [1, MAX_GROUP_LINES].contains(&pending.lines.len());
        let is_first_dropped = pending.dropped == 1;
        drop(pending);
        if is_news || is_first_dropped {
            self.changed.notify_one();
        }
    }

    /// Waits until every line that came so far is written, or given up.
    pub(super) async fn flushed(&self) {
        let said = self.pending().said;
        loop {
            let written = self.written.notified();
            {
                let mut pending = self.pending();
                if pending.done >= said {
                    return;
                }
                pending.is_urgent = true;
            }
            self.changed.notify_one();
            written.await;
        }
    }

    /// Ends the log: no more lines come, and those that are left are written now.
    pub(super) fn end(&self) {
        self.pending().is_ended = true;
        self.changed.notify_one();
    }

    /// Writes lines as they come, until [`LogWriter::end`] and the last of them. Gives lines up that belong to a job which is
    /// another worker's by now, and all of them when the database is away at `shutdown`.
    pub(super) async fn run(&self, context: &JobContext, shutdown: &CancellationToken) {
        while !self.pending().has_begun() {
            self.changed.notified().await;
        }
        // On the heap, as the log of most jobs is empty.
        Box::pin(self.write(context, shutdown)).await;
    }

    async fn write(&self, context: &JobContext, shutdown: &CancellationToken) {
        loop {
            self.due().await;
            // A group is due whenever there are lines, except at the end.
            let Some(group) = self.take() else { return };
            let written = group.clone();
            match context.append_log(group).await {
                Ok(is_full) => self.pending().is_full |= is_full,
                Err(jobs::Error::Store(error))
                    if error.is_temporary() && !shutdown.is_cancelled() =>
                {
                    tracing::debug!(job.id = %context.job().id, %error, "lines of a log wait for the database");
                    self.put_back(written);
                    shutdown.run_until_cancelled(sleep(RETRY_PAUSE)).await;
                    continue;
                }
                Err(jobs::Error::Refused(Refused::Stale)) => {}
                Err(error) => {
                    tracing::warn!(job.id = %context.job().id, %error, "failed to write a job's log");
                }
            }
            let count = u64::try_from(written.dropped).unwrap_or(0) + written.lines.len() as u64;
            self.pending().done += count;
            self.written.notify_waiters();
        }
    }

    /// Waits until a group is to be written, or none will come.
    async fn due(&self) {
        loop {
            let changed = self.changed.notified();
            let since = {
                let pending = self.pending();
                if pending.is_due() {
                    return;
                }
                pending.since
            };
            match since {
                None => changed.await,
                Some(since) => select! {
                    () = changed => {}
                    () = sleep_until(since + FLUSH_INTERVAL) => {}
                },
            }
        }
    }

    fn take(&self) -> Option<Group> {
        let mut pending = self.pending();
        if pending.is_empty() {
            (pending.since, pending.is_urgent) = (None, false);
            return None;
        }
        let count = pending.lines.len().min(MAX_GROUP_LINES);
        let lines: Vec<NewLine> = pending.lines.drain(..count).collect();
        let dropped =
            if pending.lines.is_empty() { std::mem::take(&mut pending.dropped) } else { 0 };
        if pending.is_empty() {
            (pending.since, pending.is_urgent) = (None, false);
        }
        Some(Group { lines, dropped })
    }

    fn put_back(&self, group: Group) {
        let mut pending = self.pending();
        for line in group.lines.into_iter().rev() {
            pending.lines.push_front(line);
        }
        pending.dropped += group.dropped;
        pending.since.get_or_insert_with(Instant::now);
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns at most `limit` lines after line `after`, in order.
pub(super) fn read(
    reader: &Reader<'_>,
    job: &Content,
    after: i64,
    limit: i64,
) -> Result<Vec<LogLine>, store::Error> {
    let sql = "SELECT line, at, level, message, dropped FROM job_logs WHERE job_id = $1 AND line > $2 ORDER BY line LIMIT $3";
    reader.query(sql, &[job.id.into(), after.into(), limit.into()], |row| {
        let message = match row.get::<Option<i64>>(4)? {
            None => row.get(3)?,
            Some(1) => format!("1 line was dropped: a log keeps {MAX_LINES}"),
            Some(dropped) => format!("{dropped} lines were dropped: a log keeps {MAX_LINES}"),
        };
        Ok(LogLine { line: row.get(0)?, at: row.get(1)?, level: row.get(2)?, message })
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

/// Shows a job's log, oldest line first: at most 10,000 lines, and one with the number of those that were dropped.
#[utoipa::path(get, path = "/jobs/{id}/logs", tag = "jobs", params(("id" = JobId, Path), LogsPage),
    responses((status = 200, body = Logs), (status = 404)))]
async fn logs(job: Content, Query(page): Query<LogsPage>) -> Result<Json<Logs>, ApiError> {
    let limit = page.limit;
    let after = page.cursor.unwrap_or(0);
    let mut logs = job.read(move |reader, job| read(reader, job, after, limit.and_one())).await?;
    let next = limit.cut(&mut logs).map(|last| last.line);
    Ok(Json(Logs { logs, next }))
}
