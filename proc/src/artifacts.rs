//! Artifacts: the files that jobs make, whole or by range.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use http_range_header::{EndPosition, StartPosition};
use serde::Serialize;
use shared::{
    http::Path,
    ids::JobId,
    store::{self, Reader, Row, Store, Tx, Value},
    time::Timestamp,
};
use std::{collections::HashSet, ops::RangeInclusive, time::Duration};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    UploadsConfig,
    access::Content,
    blobs::{Blobs, Written},
    bundles,
    error::ApiError,
    jobs::{self, Job},
    state::AppState,
};

/// An artifact as a job's result names it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Artifact {
    #[serde(skip)]
    job: JobId,
    name: String,
    bytes: u64,
    sha256: String,
    url: String,
}

impl Artifact {
    pub(crate) fn new(job: JobId, name: &str, written: Written) -> Self {
        let url = format!("/api/integrations/jobs/{job}/artifacts/{name}");
        Self { job, name: name.into(), bytes: written.bytes, sha256: written.sha256, url }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Returns where a job's artifacts are.
pub(crate) fn folder(job: JobId) -> String {
    format!("{FOLDER}/{job}")
}

/// Writes down an artifact that is complete, in place of one that an attempt before made.
pub(crate) fn insert(
    tx: &mut Tx<'_>,
    job: &Job,
    artifact: &Artifact,
    blob: &str,
    media_type: &str,
) -> Result<(), jobs::Error> {
    tx.execute(
        "INSERT INTO artifacts (job_id, name, blob, media_type, bytes, sha256, created_at, owner, project_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (job_id, name) DO UPDATE SET blob = excluded.blob, media_type = excluded.media_type, \
         bytes = excluded.bytes, sha256 = excluded.sha256, created_at = excluded.created_at",
        &[
            artifact.job.into(),
            (&artifact.name).into(),
            blob.into(),
            media_type.into(),
            i64::try_from(artifact.bytes).unwrap_or(i64::MAX).into(),
            (&artifact.sha256).into(),
            tx.now().into(),
            (&job.owner).into(),
            job.project_id.into(),
        ],
    )?;
    Ok(())
}

/// Interval at which the files of old exports are deleted.
pub(crate) const EXPORT_SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Folder of all artifacts; each job has one in it.
const FOLDER: &str = "artifacts";
/// Jobs that are looked up in one go.
const MAX_LOOKED_UP: usize = 1_000;
/// Artifacts that are deleted in one go.
const MAX_SWEPT: i64 = 200;

/// An artifact that is to be deleted.
type Doomed = (JobId, String, String);

/// Deletes the files of exports that are older than `max_age` at `now`. Returns how many.
pub(crate) async fn sweep_exports(
    store: &Store,
    blobs: &Blobs,
    max_age: Duration,
    now: Timestamp,
) -> anyhow::Result<usize> {
    let (oldest, mut deleted) = (now.before(max_age), 0);
    loop {
        let sql = "SELECT a.job_id, a.name, a.blob FROM artifacts a JOIN jobs j ON j.id = a.job_id \
                   WHERE a.created_at < $1 AND j.bundle = $2 AND j.operation = $3 ORDER BY a.created_at LIMIT $4";
        let read = store.read(move |reader| {
            let (bundle, operation) = bundles::EXPORT;
            let params = [oldest.into(), bundle.into(), operation.into(), MAX_SWEPT.into()];
            reader.query(sql, &params, doomed)
        });
        let expired: Result<Vec<Doomed>, store::Error> = read.await;
        let expired = expired?;
        if expired.is_empty() {
            return Ok(deleted);
        }
        deleted += expired.len();
        delete(store, blobs, expired).await?;
    }
}

/// Deletes artifacts whose job is gone: a process left them behind that ended between the two. Returns how many.
pub(crate) async fn sweep_orphans(store: &Store, blobs: &Blobs) -> anyhow::Result<usize> {
    let sql = "SELECT a.job_id, a.name, a.blob FROM artifacts a \
               WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = a.job_id) LIMIT $1";
    let read = store.read(move |reader| reader.query(sql, &[MAX_SWEPT.into()], doomed));
    let orphans: Result<Vec<Doomed>, store::Error> = read.await;
    let orphans = orphans?;
    let deleted = orphans.len();
    delete(store, blobs, orphans).await?;
    delete_unlisted(store, blobs).await?;
    Ok(deleted)
}

/// Deletes the files of jobs that are gone and that no artifact lists: an attempt that was killed left them.
async fn delete_unlisted(store: &Store, blobs: &Blobs) -> anyhow::Result<()> {
    let folders = blobs.folders(FOLDER).await?;
    let jobs: Vec<JobId> = folders.iter().filter_map(|name| name.parse().ok()).collect();
    for some in jobs.chunks(MAX_LOOKED_UP) {
        let asked = some.to_vec();
        let read = store.read(move |reader| {
            let ids: Vec<Value<'_>> = asked.iter().map(|job| (*job).into()).collect();
            reader.query_in("SELECT id FROM jobs WHERE", "id", &ids, |row| row.get(0))
        });
        let there: Result<Vec<JobId>, store::Error> = read.await;
        let there: HashSet<JobId> = there?.into_iter().collect();
        // A job is there before its first file.
        for job in some.iter().filter(|job| !there.contains(job)) {
            delete_of_job(store, blobs, *job).await?;
        }
    }
    Ok(())
}

/// Deletes everything that a job made, once the job is gone.
pub(crate) async fn delete_of_job(store: &Store, blobs: &Blobs, job: JobId) -> anyhow::Result<()> {
    // Bytes first: the rows are what the sweep of orphans finds them by.
    blobs.delete_all(&folder(job)).await?;
    let sql = "DELETE FROM artifacts WHERE job_id = $1";
    let deleted: Result<usize, store::Error> =
        store.write(move |tx| tx.execute(sql, &[job.into()])).await;
    deleted?;
    Ok(())
}

fn doomed(row: &Row<'_>) -> Result<Doomed, store::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// Deletes bytes first: a row is what a next sweep finds them by.
async fn delete(store: &Store, blobs: &Blobs, artifacts: Vec<Doomed>) -> anyhow::Result<()> {
    for (job, name, blob) in artifacts {
        blobs.delete(&blob).await?;
        // An attempt may have written it anew meanwhile.
        let sql = "DELETE FROM artifacts WHERE job_id = $1 AND name = $2 AND blob = $3";
        let delete =
            store.write(move |tx| tx.execute(sql, &[job.into(), (&name).into(), (&blob).into()]));
        let deleted: Result<usize, store::Error> = delete.await;
        deleted?;
    }
    Ok(())
}

struct Stored {
    blob: String,
    media_type: String,
    bytes: u64,
    sha256: String,
    created_at: Timestamp,
}

fn find(reader: &Reader<'_>, job: &Content, name: &str) -> Result<Option<Stored>, jobs::Error> {
    let sql = "SELECT blob, media_type, bytes, sha256, created_at FROM artifacts WHERE job_id = $1 AND name = $2";
    let found = reader.find(sql, &[job.id.into(), name.into()], |row| {
        let bytes = u64::try_from(row.get::<i64>(2)?).unwrap_or(0);
        Ok(Stored {
            blob: row.get(0)?,
            media_type: row.get(1)?,
            bytes,
            sha256: row.get(3)?,
            created_at: row.get(4)?,
        })
    })?;
    Ok(found)
}

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(download))
}

/// Downloads an artifact, or one range of it, if the conditions of the request hold (RFC 9110 §13.2.2).
#[utoipa::path(get, path = "/jobs/{id}/artifacts/{name}", tag = "jobs",
    params(("id" = JobId, Path), ("name" = String, Path), ("Range" = Option<String>, Header),
        ("If-Range" = Option<String>, Header), ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header)),
    responses((status = 200), (status = 206), (status = 304), (status = 404), (status = 412), (status = 416)))]
async fn download(
    method: Method,
    State(blobs): State<Blobs>,
    State(config): State<UploadsConfig>,
    job: Content,
    Path((_id, name)): Path<(JobId, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = name.clone();
    let is_export = (job.bundle.as_str(), job.operation.as_str()) == bundles::EXPORT;
    let found = job
        .read(move |reader, job| Ok::<_, jobs::Error>((find(reader, job, &wanted)?, reader.now())));
    let (found, now) = found.await?;
    let oldest = now.before(config.export_max_age);
    let found = found.filter(|stored| !is_export || stored.created_at >= oldest);
    let Stored { blob, media_type, bytes, sha256, .. } =
        found.ok_or(ApiError::NotFound("the artifact"))?;
    let etag = format!("\"{sha256}\"");
    let version =
        [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, "private, no-cache".into())];
    match precondition(&headers, &etag) {
        Precondition::Holds => {}
        Precondition::Failed => return Err(ApiError::PreconditionFailed),
        Precondition::NotModified => {
            let mut response = (StatusCode::NOT_MODIFIED, version).into_response();
            if method == Method::HEAD {
                // Without it the length of the empty body would be told.
                response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
            }
            return Ok(response);
        }
    }
    // A range is defined for GET alone.
    let range = if method == Method::GET { range(&headers, &etag, bytes)? } else { None };
    let part = range.as_ref().map(|range| *range.start()..range.end() + 1);
    let length = part.as_ref().map_or(bytes, |part| part.end - part.start);
    let body = Body::from_stream(blobs.read(&blob, part).await?);
    let head = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::ACCEPT_RANGES, "bytes".into()),
    ];
    Ok(match range {
        None => (version, head, body).into_response(),
        Some(range) => {
            let range = format!("bytes {}-{}/{bytes}", range.start(), range.end());
            (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], version, head, body)
                .into_response()
        }
    })
}

/// Outcome of a request's conditions on the version.
#[derive(Debug, PartialEq)]
enum Precondition {
    Holds,
    /// The client wants another version (`If-Match`).
    Failed,
    /// The client has this version (`If-None-Match`).
    NotModified,
}

/// Evaluates `If-Match` and `If-None-Match`.
fn precondition(headers: &HeaderMap, etag: &str) -> Precondition {
    if headers.contains_key(header::IF_MATCH) && !names(headers, &header::IF_MATCH, etag, false) {
        return Precondition::Failed;
    }
    let has = names(headers, &header::IF_NONE_MATCH, etag, true);
    if has { Precondition::NotModified } else { Precondition::Holds }
}

/// Returns whether a header is `*` or lists the version. A weak tag (`W/"…"`) counts where a comparison may be weak.
fn names(headers: &HeaderMap, header: &HeaderName, etag: &str, may_be_weak: bool) -> bool {
    let lines = headers.get_all(header).iter().filter_map(|line| line.to_str().ok());
    // Our tags are hexadecimal digits: what a comma within another tag would cut off is none of them.
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| {
        let strong = tag.strip_prefix("W/").filter(|_| may_be_weak).unwrap_or(tag);
        tag == "*" || strong == etag
    })
}

/// Returns the one range that is asked for. What cannot be read, several ranges, and a range of another version
/// (`If-Range`) mean the whole, as RFC 9110 has it.
fn range(
    headers: &HeaderMap,
    etag: &str,
    bytes: u64,
) -> Result<Option<RangeInclusive<u64>>, ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(asked) = text(header::RANGE) else { return Ok(None) };
    if headers.contains_key(header::IF_RANGE) && text(header::IF_RANGE) != Some(etag) {
        return Ok(None);
    }
    let Ok(parsed) = http_range_header::parse_range_header(asked) else { return Ok(None) };
    let [one] = parsed.ranges.as_slice() else { return Ok(None) };
    if matches!((one.start, one.end), (StartPosition::Index(first), EndPosition::Index(last)) if last < first)
    {
        return Ok(None);
    }
    // A suffix longer than the whole is the whole; the library refuses it.
    if bytes > 0 && matches!(one.start, StartPosition::FromLast(last) if last >= bytes) {
        return Ok(Some(0..=bytes - 1));
    }
    let range = parsed.validate(bytes).ok().and_then(|ranges| ranges.into_iter().next());
    let range = range.filter(|range| *range.start() < bytes);
    range.map(Some).ok_or(ApiError::Range { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_the_rest_is_the_whole() {
        let ask = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::RANGE, text.parse().unwrap())]);
            range(&headers, "\"x\"", 10).map_err(|_| ())
        };
        assert_eq!(ask("bytes=0-3"), Ok(Some(0..=3)));
        assert_eq!(ask("bytes=8-99"), Ok(Some(8..=9)));
        assert_eq!(ask("bytes=-4"), Ok(Some(6..=9)));
        assert_eq!(ask("bytes=-99"), Ok(Some(0..=9)));
        assert_eq!(ask("bytes=10-"), Err(()));
        assert_eq!(ask("bytes=0-1,3-4"), Ok(None));
        assert_eq!(ask("lines=1-2"), Ok(None));
        assert_eq!(ask("bytes=5-2"), Ok(None), "RFC 9110 §14.1.1: invalid, so ignored");
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        let headers = HeaderMap::from_iter([
            (header::RANGE, "bytes=0-3".parse().unwrap()),
            (header::IF_RANGE, "\"old\"".parse().unwrap()),
        ]);
        assert!(matches!(range(&headers, "\"new\"", 10), Ok(None)));
    }
}
