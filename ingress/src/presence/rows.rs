//! Presence in the database.

use std::collections::BTreeSet;

use shared::{
    ids::{ProjectId, ReplicaId, UserId},
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};

use super::{Presentness, UserPresence};
use crate::{access::Caller, streams::slots::Scope};

const COLUMNS: &str = "user_id, state, since FROM presence";
/// Users that one sweep takes out; the next one goes on.
const MAX_SWEPT: usize = 1_000;
/// Projects whose rows one query reads.
const PROJECTS_A_QUERY: usize = 256;
/// Condition of a row whose user has no stream on any replica.
const ABSENT: &str = "NOT EXISTS (SELECT 1 FROM slots s JOIN replicas r ON r.id = s.replica \
                      WHERE s.scope = presence.scope AND r.seen_at >= $1)";

/// Condition of a row that belongs to no replica that is there.
const OWNER_IS_GONE: &str = "NOT EXISTS (SELECT 1 FROM replicas o \
                             WHERE o.id = presence.replica AND o.seen_at >= $1)";
/// Replica that has a stream of the row's user.
const HOLDER: &str = "SELECT s.replica FROM slots s JOIN replicas r ON r.id = s.replica \
                      WHERE s.scope = presence.scope AND r.seen_at >= $1 LIMIT 1";

fn read(row: &Row<'_>) -> Result<UserPresence, Error> {
    let state: String = row.get(1)?;
    let state = Presentness::from_name(&state).ok_or(Error::Column { column: 1 })?;
    Ok(UserPresence { user: row.get(0)?, state, since: row.get(2)? })
}

/// Returns everybody who is not offline.
pub(super) fn list(reader: &Reader<'_>, project: ProjectId) -> Result<Vec<UserPresence>, Error> {
    let sql =
        format!("SELECT {COLUMNS} WHERE project_id = $1 AND state <> 'offline' ORDER BY user_id");
    reader.query(&sql, &[project.into()], read)
}

/// Writes the state that the caller chose; returns `None` if nothing changed.
pub(super) fn set(
    tx: &mut Tx<'_>,
    caller: &Caller,
    replica: ReplicaId,
    state: Presentness,
    now: Timestamp,
) -> Result<Option<UserPresence>, Error> {
    put(tx, caller, replica, state, now, "presence.state <> excluded.state")
}

/// Writes that the caller came back after an absence; returns `None` if the caller was present.
pub(super) fn come(
    tx: &mut Tx<'_>,
    caller: &Caller,
    replica: ReplicaId,
    now: Timestamp,
) -> Result<Option<UserPresence>, Error> {
    put(tx, caller, replica, Presentness::Online, now, "presence.state = 'offline'")
}

/// Writes that the caller is still there; returns `None` if there is a row, whose state is kept.
pub(super) fn stay(
    tx: &mut Tx<'_>,
    caller: &Caller,
    replica: ReplicaId,
    now: Timestamp,
) -> Result<Option<UserPresence>, Error> {
    put(tx, caller, replica, Presentness::Online, now, "1 = 0")
}

/// Inserts the caller's row, or changes its state `if_there` is true of it; the row becomes the replica's in any case.
fn put(
    tx: &mut Tx<'_>,
    caller: &Caller,
    replica: ReplicaId,
    state: Presentness,
    now: Timestamp,
    if_there: &str,
) -> Result<Option<UserPresence>, Error> {
    let scope = Scope::Project(caller.project, caller.user.clone()).key();
    let sql = format!(
        "INSERT INTO presence (project_id, user_id, scope, state, since, replica) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (project_id, user_id) DO UPDATE SET state = excluded.state, since = excluded.since, \
         replica = excluded.replica WHERE {if_there}"
    );
    let (project, user) = (caller.project.into(), (&caller.user).into());
    let params =
        [project, user, (&*scope).into(), state.as_str().into(), now.into(), replica.into()];
    if tx.execute(&sql, &params)? > 0 {
        return Ok(Some(UserPresence { user: caller.user.clone(), state, since: now }));
    }
    let sql = "UPDATE presence SET replica = $3 WHERE project_id = $1 AND user_id = $2 \
               AND (replica IS NULL OR replica <> $3)";
    tx.execute(sql, &[project, user, replica.into()])?;
    Ok(None)
}

/// Returns how present the caller is.
pub(super) fn get(reader: &Reader<'_>, caller: &Caller) -> Result<Option<UserPresence>, Error> {
    let sql = format!("SELECT {COLUMNS} WHERE project_id = $1 AND user_id = $2");
    reader.find(&sql, &[caller.project.into(), (&caller.user).into()], read)
}

/// Takes the caller out, unless a stream is open on some replica or the row belongs to another replica that is there, which
/// is one that was seen since `oldest`; returns whether it did. A row of `replica` whose user has a stream elsewhere is handed to the replica with the stream.
pub(super) fn leave(
    tx: &mut Tx<'_>,
    caller: &Caller,
    replica: ReplicaId,
    oldest: Timestamp,
) -> Result<bool, Error> {
    let params =
        [oldest.into(), caller.project.into(), (&caller.user).into(), Value::from(replica)];
    let row =
        format!("project_id = $2 AND user_id = $3 AND (presence.replica = $4 OR {OWNER_IS_GONE})");
    let sql = format!("DELETE FROM presence WHERE {row} AND {ABSENT}");
    if tx.execute(&sql, &params)? > 0 {
        return Ok(true);
    }
    let sql = format!("UPDATE presence SET replica = ({HOLDER}) WHERE {row} AND NOT ({ABSENT})");
    tx.execute(&sql, &params)?;
    Ok(false)
}

/// Returns at most [`MAX_SWEPT`] users without a stream whose row belongs to a replica that is gone: it was not
/// seen since `oldest`.
pub(super) fn of_lost_replicas(
    reader: &Reader<'_>,
    oldest: Timestamp,
) -> Result<Vec<(ProjectId, UserId)>, Error> {
    let sql = format!(
        "SELECT project_id, user_id FROM presence WHERE {OWNER_IS_GONE} AND {ABSENT} LIMIT {MAX_SWEPT}"
    );
    reader.query(&sql, &[oldest.into()], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Returns which users of the projects have a row.
pub(super) fn present(
    reader: &Reader<'_>,
    projects: &[ProjectId],
) -> Result<BTreeSet<(ProjectId, UserId)>, Error> {
    let mut users = BTreeSet::new();
    for ids in projects.chunks(PROJECTS_A_QUERY) {
        // Few lengths of the list, so that few statements are prepared: the last id fills it up.
        let length = ids.len().next_power_of_two();
        let filled = ids.iter().chain(ids.last().into_iter().cycle()).take(length);
        let params: Vec<Value<'_>> = filled.map(|id| (*id).into()).collect();
        let numbers: Vec<String> = (1..=length).map(|number| format!("${number}")).collect();
        let sql = format!(
            "SELECT project_id, user_id FROM presence WHERE project_id IN ({})",
            numbers.join(", ")
        );
        users.extend(reader.query(&sql, &params, |row| Ok((row.get(0)?, row.get(1)?)))?);
    }
    Ok(users)
}
