//! Presence in the database.

use shared::{
    ids::{ProjectId, UserId},
    store::{Error, Reader, Row, Tx},
    time::Timestamp,
};

use super::{Presentness, UserPresence};
use crate::{access::Caller, replica, streams::slots::Scope};

const COLUMNS: &str = "user_id, state, since FROM presence";
/// Of a row whose user has no stream on any replica.
const ABSENT: &str = "NOT EXISTS (SELECT 1 FROM slots s JOIN replicas r ON r.id = s.replica \
                      WHERE s.scope = presence.scope AND r.seen_at >= $1)";

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

/// Writes down how present the caller is; returns `None` if that is nothing new.
pub(super) fn set(
    tx: &mut Tx<'_>,
    caller: &Caller,
    state: Presentness,
    now: Timestamp,
) -> Result<Option<UserPresence>, Error> {
    put(tx, caller, state, now, "presence.state <> excluded.state")
}

/// Writes down that the caller has come; returns `None` if they were there.
pub(super) fn come(
    tx: &mut Tx<'_>,
    caller: &Caller,
    now: Timestamp,
) -> Result<Option<UserPresence>, Error> {
    put(tx, caller, Presentness::Online, now, "presence.state = 'offline'")
}

fn put(
    tx: &mut Tx<'_>,
    caller: &Caller,
    state: Presentness,
    now: Timestamp,
    if_there: &str,
) -> Result<Option<UserPresence>, Error> {
    let scope = Scope::Project(caller.project, caller.user.clone()).key();
    let sql = format!(
        "INSERT INTO presence (project_id, user_id, scope, state, since) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (project_id, user_id) DO UPDATE SET state = excluded.state, since = excluded.since WHERE {if_there}"
    );
    let params = [
        caller.project.into(),
        (&caller.user).into(),
        (&*scope).into(),
        state.as_str().into(),
        now.into(),
    ];
    let changed = tx.execute(&sql, &params)? > 0;
    Ok(changed.then(|| UserPresence { user: caller.user.clone(), state, since: now }))
}

/// Returns how present the caller is.
pub(super) fn get(reader: &Reader<'_>, caller: &Caller) -> Result<Option<UserPresence>, Error> {
    let sql = format!("SELECT {COLUMNS} WHERE project_id = $1 AND user_id = $2");
    reader.find(&sql, &[caller.project.into(), (&caller.user).into()], read)
}

/// Takes the caller out, unless they have a stream somewhere; says whether it did.
pub(super) fn leave(tx: &mut Tx<'_>, caller: &Caller, now: Timestamp) -> Result<bool, Error> {
    let sql = format!("DELETE FROM presence WHERE project_id = $2 AND user_id = $3 AND {ABSENT}");
    let oldest = replica::oldest(now);
    Ok(tx.execute(&sql, &[oldest.into(), caller.project.into(), (&caller.user).into()])? > 0)
}

/// Returns whom nobody took out who should have: their replica is gone.
pub(super) fn forgotten(
    reader: &Reader<'_>,
    before: Timestamp,
    now: Timestamp,
) -> Result<Vec<(ProjectId, UserId)>, Error> {
    let sql = format!("SELECT project_id, user_id FROM presence WHERE since < $2 AND {ABSENT}");
    reader.query(&sql, &[replica::oldest(now).into(), before.into()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}
