//! Projects that were deleted and whose data are being deleted, by ingress and by proc.
//!
//! The request that deletes a project deletes its row, without which nobody is let into it, and marks it here. Each service then
//! deletes its data in bounded steps, as often as it takes. It looks once more after `GRACE`, as work that had begun before
//! the deletion may have written something since.

use std::time::Duration;

use crate::{
    ids::ProjectId,
    journal::Topic,
    service_token::Service,
    store::{Error, Reader, Store, Tx},
    sweep,
    time::Timestamp,
};

/// How long after the deletion a service looks for the last time; the topic stays as long, for followers to see its end.
const GRACE: Duration = Duration::from_hours(1);
/// Projects that a service deletes the data of in one run.
const MAX_PROJECTS: i64 = 16;

/// A project whose data are to be deleted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub project: ProjectId,
    deleted_at: Timestamp,
}

/// Marks a project as deleted.
pub fn mark(tx: &mut Tx<'_>, project: ProjectId, now: Timestamp) -> Result<(), Error> {
    let sql = "INSERT INTO project_deletions (project_id, deleted_at, ingress_at, proc_at) VALUES ($1, $2, $2, $2) \
               ON CONFLICT (project_id) DO NOTHING";
    tx.execute(sql, &[project.into(), now.into()]).map(drop)
}

fn column(service: Service) -> &'static str {
    match service {
        Service::Ingress => "ingress_at",
        Service::Proc => "proc_at",
    }
}

/// Returns projects whose data the service has to delete.
pub fn due(reader: &Reader<'_>, service: Service, now: Timestamp) -> Result<Vec<Deletion>, Error> {
    let column = column(service);
    let sql = format!(
        "SELECT project_id, deleted_at FROM project_deletions WHERE {column} <= $1 ORDER BY {column} LIMIT $2"
    );
    reader.query(&sql, &[now.into(), MAX_PROJECTS.into()], |row| {
        Ok(Deletion { project: row.get(0)?, deleted_at: row.get(1)? })
    })
}

impl Deletion {
    /// Notes that the service has deleted all that there was of the project at `now`.
    pub fn done(self, tx: &mut Tx<'_>, service: Service, now: Timestamp) -> Result<(), Error> {
        let last_look = self.deleted_at.after(GRACE);
        let next = (now < last_look).then_some(last_look);
        let column = column(service);
        let sql = format!("UPDATE project_deletions SET {column} = $2 WHERE project_id = $1");
        tx.execute(&sql, &[self.project.into(), next.into()]).map(drop)
    }
}

/// Deletes the topics of projects that both services are done with, and then the marks. Returns how many rows it deleted.
pub async fn finish(store: &Store) -> Result<usize, Error> {
    let sql = "SELECT project_id FROM project_deletions WHERE ingress_at IS NULL AND proc_at IS NULL LIMIT $1";
    let done = store.read(move |reader| {
        reader.query(sql, &[MAX_PROJECTS.into()], |row| row.get::<ProjectId>(0))
    });
    let mut deleted = 0;
    for project in done.await? {
        let topic = Topic::project(project);
        let entries = {
            let topic = topic.clone();
            move |tx: &mut Tx<'_>| {
                sweep::delete_some(
                    tx,
                    "entries",
                    "topic, seq",
                    "topic = $1",
                    &[topic.as_str().into()],
                )
            }
        };
        deleted += sweep::delete_all::<Error>(store, entries).await?;
        let end = move |tx: &mut Tx<'_>| {
            tx.forget(&topic)?;
            tx.execute("DELETE FROM project_deletions WHERE project_id = $1", &[project.into()])
        };
        deleted += store.write::<_, Error, _>(end).await?;
    }
    Ok(deleted)
}
