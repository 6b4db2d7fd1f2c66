//! Deletion of proc's data of projects that were deleted: webhooks, schedules, answers, and the files of their jobs.
//!
//! The jobs stay with their owners, for as long as jobs are kept. The search index follows the projects' topics.

use std::time::Duration;

use shared::{
    deletion::{self, Deletion},
    ids::JobId,
    service_token::Service,
    store::{Error, Reader, Store, Tx},
    sweep,
    time::Timestamp,
};

use crate::{answers, artifacts, blobs::Blobs, webhooks};

/// Interval at which deleted projects are looked for.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Jobs whose files are deleted in one step.
const JOBS: i64 = 50;

/// Deletes what is left of deleted projects. Returns how many rows it deleted.
pub(crate) async fn run(store: &Store, blobs: &Blobs, now: Timestamp) -> anyhow::Result<usize> {
    let due = store.read(move |reader| deletion::due(reader, Service::Proc, now));
    let due: Result<Vec<Deletion>, Error> = due.await;
    let mut deleted = 0;
    for deletion in due? {
        let rows = purge(store, blobs, deletion).await?;
        let done = store.write(move |tx| deletion.done(tx, Service::Proc, now)).await;
        done.map_err(|error: Error| error)?;
        tracing::info!(project.id = %deletion.project, rows, "deleted the work of a project");
        deleted += rows;
    }
    Ok(deleted)
}

async fn purge(store: &Store, blobs: &Blobs, deletion: Deletion) -> anyhow::Result<usize> {
    let project = deletion.project;
    let mut deleted = webhooks::delete_of_project(store, project).await?;
    let schedules = move |tx: &mut Tx<'_>| {
        sweep::delete_some(tx, "schedules", "id", "project_id = $1", &[project.into()])
    };
    deleted += sweep::delete_all::<Error>(store, schedules).await?;
    deleted += answers::delete_of_project(store, project).await?;
    loop {
        let find = move |reader: &Reader<'_>| {
            let sql = "SELECT DISTINCT job_id FROM artifacts WHERE project_id = $1 ORDER BY job_id LIMIT $2";
            reader.query(sql, &[project.into(), JOBS.into()], |row| row.get::<JobId>(0))
        };
        let jobs: Result<Vec<JobId>, Error> = store.read(find).await;
        let jobs = jobs?;
        if jobs.is_empty() {
            return Ok(deleted);
        }
        // Bytes first: the rows are what the next run finds them by.
        for job in &jobs {
            blobs.delete_all(&artifacts::folder(*job)).await?;
        }
        let delete = move |tx: &mut Tx<'_>| {
            let delete = |rows, job: &JobId| {
                let sql = "DELETE FROM artifacts WHERE job_id = $1";
                Ok::<_, Error>(rows + tx.execute(sql, &[(*job).into()])?)
            };
            jobs.iter().try_fold(0, delete)
        };
        deleted += store.write(delete).await?;
    }
}
