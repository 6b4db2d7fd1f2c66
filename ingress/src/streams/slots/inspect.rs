//! Who holds slots: what inspection shows, and where an order about a stream has to go.

use shared::{
    ids::{ConnectionId, ProjectId, ReplicaId, UserId},
    store::{Error, Reader, Row, Value},
    time::Timestamp,
};
use uuid::Uuid;

use super::{Scope, Slots};
use crate::replica;

/// An open stream of some replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) connection: ConnectionId,
    pub(crate) replica: ReplicaId,
    pub(crate) stream: String,
    /// The holder's JSON.
    pub(crate) about: String,
}

const COLUMNS: &str = "SELECT s.connection, s.replica, s.stream, s.about FROM slots s \
                       LEFT JOIN replicas r ON r.id = s.replica \
                       WHERE (s.replica = $1 OR r.seen_at >= $2)";

fn read(row: &Row<'_>) -> Result<Open, Error> {
    Ok(Open {
        connection: row.get(0)?,
        replica: row.get(1)?,
        stream: row.get(2)?,
        about: row.get(3)?,
    })
}

impl Slots {
    /// Returns a user's streams of a project.
    pub(crate) fn of_user_project(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        project: ProjectId,
        now: Timestamp,
    ) -> Result<Vec<Open>, Error> {
        let key = Scope::Project(project, user.clone()).key();
        let [own, oldest] = self.live(now);
        let sql = format!("{COLUMNS} AND s.scope = $3 ORDER BY s.n");
        reader.query(&sql, &[own, oldest, (&*key).into()], read)
    }

    /// Returns the replica that has a connection open. Reads the whole table: only an admin asks.
    pub(crate) fn find(
        &self,
        reader: &Reader<'_>,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Result<Option<ReplicaId>, Error> {
        let [own, oldest] = self.live(now);
        let sql = format!("{COLUMNS} AND s.connection = $3");
        let open = reader.find(&sql, &[own, oldest, connection.into()], read)?;
        Ok(open.map(|open| open.replica))
    }

    /// Returns a user's streams of this name, in whichever projects. Only project streams are found, which are all
    /// that have channels: their keys start with the user, so this reads a few rows and opens pay for no index.
    pub(crate) fn find_stream(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        stream: &str,
        now: Timestamp,
    ) -> Result<Vec<Open>, Error> {
        let key = |id| Scope::Project(ProjectId(id), user.clone()).key();
        let (first, last) = (key(Uuid::nil()), key(Uuid::max()));
        let [own, oldest] = self.live(now);
        // The user is compared too, as collations may put other names between.
        let sql =
            format!("{COLUMNS} AND s.scope BETWEEN $3 AND $4 AND s.user_id = $5 AND s.stream = $6");
        let params = [own, oldest, (&*first).into(), (&*last).into(), user.into(), stream.into()];
        reader.query(&sql, &params, read)
    }

    fn live(&self, now: Timestamp) -> [Value<'static>; 2] {
        [self.replica.into(), replica::oldest(now).into()]
    }
}
