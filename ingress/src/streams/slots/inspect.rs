//! Who holds slots: what inspection shows, and where an order about a stream has to go.

use shared::{
    ids::{ConnectionId, ProjectId, ReplicaId, SessionId, UserId},
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use super::{super::about::session_in, Scope, Slots};

/// An open stream of some replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) connection: ConnectionId,
    pub(crate) replica: ReplicaId,
    pub(crate) stream: String,
    /// The holder's JSON.
    pub(crate) about: String,
    pub(crate) scope: String,
}

const COLUMNS: &str = "SELECT s.connection, s.replica, s.stream, s.about, s.scope FROM slots s \
                       LEFT JOIN replicas r ON r.id = s.replica \
                       WHERE (s.replica = $1 OR r.seen_at >= $2)";

fn read(row: &Row<'_>) -> Result<Open, Error> {
    Ok(Open {
        connection: row.get(0)?,
        replica: row.get(1)?,
        stream: row.get(2)?,
        about: row.get(3)?,
        scope: row.get(4)?,
    })
}

/// Returns the first and the last key that a user's project streams may have. Collations may put those of other users
/// between them.
fn projects_of(user: &UserId) -> (Box<str>, Box<str>) {
    let key = |id| Scope::Project(ProjectId(id), user.clone()).key();
    (key(Uuid::nil()), key(Uuid::max()))
}

impl Slots {
    /// Returns a user's streams of a project.
    pub(crate) fn of_user_project(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        project: ProjectId,
        oldest: Timestamp,
    ) -> Result<Vec<Open>, Error> {
        let key = Scope::Project(project, user.clone()).key();
        let [own, oldest] = self.live(oldest);
        let sql = format!("{COLUMNS} AND s.scope = $3 ORDER BY s.n");
        reader.query(&sql, &[own, oldest, (&*key).into()], read)
    }

    /// Returns the replica that has a connection open. Reads the whole table: only an admin asks.
    pub(crate) fn find(
        &self,
        reader: &Reader<'_>,
        connection: ConnectionId,
        oldest: Timestamp,
    ) -> Result<Option<ReplicaId>, Error> {
        let [own, oldest] = self.live(oldest);
        let sql = format!("{COLUMNS} AND s.connection = $3");
        let open = reader.find(&sql, &[own, oldest, connection.into()], read)?;
        Ok(open.map(|open| open.replica))
    }

    /// Returns the channels that an open stream carries, as JSON; `None` is every channel, also of a stream that has gone.
    pub(crate) fn channels(reader: &Reader<'_>, open: &Open) -> Result<Option<String>, Error> {
        let sql = "SELECT channels FROM slots WHERE scope = $1 AND connection = $2";
        let params = [(&open.scope).into(), open.connection.into()];
        Ok(reader.find(sql, &params, |row| row.get(0))?.flatten())
    }

    /// Returns a user's streams of this name, in `project` or else in all projects. Only project streams are found, which
    /// are all that have channels: their keys start with the user, so this reads a few rows and opens pay for no index.
    pub(crate) fn find_stream(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        stream: &str,
        project: Option<ProjectId>,
        oldest: Timestamp,
    ) -> Result<Vec<Open>, Error> {
        let (first, last) = match project {
            Some(project) => {
                let key = Scope::Project(project, user.clone()).key();
                (key.clone(), key)
            }
            None => projects_of(user),
        };
        let [own, oldest] = self.live(oldest);
        let sql =
            format!("{COLUMNS} AND s.scope BETWEEN $3 AND $4 AND s.user_id = $5 AND s.stream = $6");
        let params = [own, oldest, (&*first).into(), (&*last).into(), user.into(), stream.into()];
        reader.query(&sql, &params, read)
    }

    /// Returns the session of each stream that a user has open of a project, or of jobs in one of `sessions`.
    pub(crate) fn sessions_of(
        &self,
        reader: &Reader<'_>,
        user: &UserId,
        sessions: &[SessionId],
        oldest: Timestamp,
    ) -> Result<Vec<SessionId>, Error> {
        let [own, oldest] = self.live(oldest);
        let (first, last) = projects_of(user);
        let sql = format!("{COLUMNS} AND s.scope BETWEEN $3 AND $4 AND s.user_id = $5");
        let params = [own, oldest, (&*first).into(), (&*last).into(), user.into()];
        let mut open = reader.query(&sql, &params, read)?;
        let keys: Vec<_> = sessions.iter().map(|id| Scope::Session(id.clone()).key()).collect();
        // Few lengths of the list, so that few statements are prepared: the last key fills it up.
        let filled = keys.iter().chain(keys.last().into_iter().cycle());
        let filled = filled.take(keys.len().next_power_of_two());
        let params: Vec<Value<'_>> =
            [own, oldest].into_iter().chain(filled.map(|key| (&**key).into())).collect();
        let numbers: Vec<String> = (3..=params.len()).map(|number| format!("${number}")).collect();
        if !numbers.is_empty() {
            let sql = format!("{COLUMNS} AND s.scope IN ({})", numbers.join(", "));
            open.extend(reader.query(&sql, &params, read)?);
        }
        Ok(open.iter().filter_map(|open| session_in(&open.about)).collect())
    }

    /// Writes the channels that an open stream carries.
    pub(crate) fn set_channels(
        tx: &mut Tx<'_>,
        open: &Open,
        channels: Option<&String>,
    ) -> Result<(), Error> {
        let sql = "UPDATE slots SET channels = $3 WHERE scope = $1 AND connection = $2";
        tx.execute(sql, &[(&open.scope).into(), open.connection.into(), channels.into()])?;
        Ok(())
    }

    fn live(&self, oldest: Timestamp) -> [Value<'static>; 2] {
        [self.replica.into(), oldest.into()]
    }
}
