//! Webhooks in the database.

use std::str::FromStr;

use reqwest::Url;
use serde::Serialize;
use serde_json::json;
use shared::{
    ids::{ProjectId, UserId, WebhookId},
    journal::{Cursor, Position, Topic},
    store::{Error, Reader, Row, Store, Tx, Value},
    sweep,
    time::{CLOCK_TOLERANCE, Timestamp},
};
use uuid::Uuid;

use super::{
    deliver, deliveries,
    events::Events,
    patience::{LONGEST, PATIENCE},
};
use crate::outgoing::{OLD_UNTIL, OLD_WEBHOOK, OldSecrets, Outgoing, Sealed, WEBHOOK};

const COLUMNS: &str = "w.id, w.project_id, w.owner, w.url, w.secret, w.events, w.state, w.reason, w.revision, w.cursor, \
    w.failures, w.failing_since, w.next_at, w.created_at, w.updated_at, w.old_secret, w.old_until, w.old_secret_2, \
    w.old_until_2, w.old_secret_3, w.old_until_3";

/// Whether a webhook is delivered to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = WebhookState)]
pub(crate) enum State {
    Active,
    /// An owner of the project has paused it.
    Paused,
    /// Parley has given it up, and says why.
    Disabled,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Active, Self::Paused, Self::Disabled];
        all.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// A webhook as it is kept.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) id: WebhookId,
    pub(crate) project_id: ProjectId,
    pub(super) owner: UserId,
    pub(super) url: Url,
    pub(super) secret: Sealed,
    /// Secrets before it that calls are signed with too.
    pub(super) old_secrets: OldSecrets,
    pub(super) events: Events,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    /// New with every change that is not a delivery.
    pub(super) revision: Uuid,
    /// What has been delivered of the project's log.
    pub(super) cursor: String,
    pub(super) failures: i64,
    pub(super) failing_since: Option<Timestamp>,
    pub(super) next_at: Timestamp,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// A webhook as somebody has left it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Revision(WebhookId, Uuid);

impl Stored {
    pub(super) fn revision(&self) -> Revision {
        Revision(self.id, self.revision)
    }
}

/// A webhook that is about to be.
#[derive(Clone)]
pub(super) struct New {
    pub(super) id: WebhookId,
    pub(super) project_id: ProjectId,
    pub(super) owner: UserId,
    pub(super) url: Url,
    pub(super) secret: Sealed,
    pub(super) events: Events,
}

/// Writes a webhook that gets what follows `head`.
pub(super) fn insert(tx: &mut Tx<'_>, new: &New, head: Position) -> Result<(), Error> {
    let (log, now) = (Topic::project(new.project_id), tx.now());
    tx.execute(
        "INSERT INTO webhooks (id, project_id, owner, url, secret, events, state, revision, log, cursor, epoch, seq, \
         job_key, failures, next_at, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8, $9, $10, $11, $12, 0, $13, $13, $13)",
        &[
            new.id.into(),
            new.project_id.into(),
            (&new.owner).into(),
            new.url.as_str().into(),
            new.secret.as_str().into(),
            (&json!(new.events).to_string()).into(),
            Value::Uuid(Uuid::now_v7()),
            log.as_str().into(),
            (&Cursor::at(&log, head).to_string()).into(),
            head.epoch.into(),
            head.seq.into(),
            (&deliver::job_key(new.id, None)).into(),
            now.into(),
        ],
    )?;
    Ok(())
}

pub(super) fn count(reader: &Reader<'_>, project: ProjectId) -> Result<i64, Error> {
    let sql = "SELECT COUNT(*) FROM webhooks WHERE project_id = $1";
    Ok(reader.find(sql, &[project.into()], |row| row.get(0))?.unwrap_or(0))
}

/// Returns the webhook, if there is one.
pub(crate) fn find(reader: &Reader<'_>, id: WebhookId) -> Result<Option<Stored>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM webhooks w WHERE w.id = $1");
    reader.find(&sql, &[id.into()], read)
}

/// Returns the webhook, which nobody moves until the end of the transaction.
pub(super) fn find_locked(tx: &mut Tx<'_>, id: WebhookId) -> Result<Option<Stored>, Error> {
    tx.execute("UPDATE webhooks SET cursor = cursor WHERE id = $1", &[id.into()])?;
    find(tx, id)
}

/// Returns a project's webhooks, oldest first.
pub(super) fn list(reader: &Reader<'_>, project: ProjectId) -> Result<Vec<Stored>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM webhooks w WHERE w.project_id = $1 ORDER BY w.id");
    reader.query(&sql, &[project.into()], read)
}

/// Place of a webhook in the order in which those that are due are served.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(Timestamp, Uuid);

impl Stored {
    pub(super) fn place(&self) -> Place {
        Place(self.next_at, self.id.0)
    }
}

/// Returns active webhooks behind a place whose log has grown, whose time has come, and that nobody is delivering to.
pub(super) fn due(
    reader: &Reader<'_>,
    now: Timestamp,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<Stored>, Error> {
    let Place(next_at, id) = after.unwrap_or(Place(Timestamp::from_ms(i64::MIN), Uuid::nil()));
    // A job of an owner before counts too: it may still be delivering.
    let sql = format!(
        "SELECT {COLUMNS} FROM webhooks w JOIN topics t ON t.name = w.log \
         WHERE w.state = 'active' AND w.next_at <= $1 AND (t.head > w.seq OR t.epoch <> w.epoch) \
         AND (w.next_at > $4 OR (w.next_at = $4 AND w.id > $5)) \
         AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.bundle = $2 AND j.operation = $3 \
         AND j.unique_key = w.job_key AND j.state IN ('queued', 'running', 'interrupted')) \
         ORDER BY w.next_at, w.id LIMIT $6"
    );
    let params = [
        now.into(),
        deliver::BUNDLE.into(),
        deliver::OPERATION.into(),
        next_at.into(),
        Value::Uuid(id),
        limit.into(),
    ];
    reader.query(&sql, &params, read)
}

/// What an owner of the project wants otherwise.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) url: Option<Url>,
    pub(super) events: Option<Events>,
    pub(super) active: Option<bool>,
    pub(super) by: UserId,
}

/// Changes a webhook, and has what waits tried at once.
pub(super) fn change(
    tx: &mut Tx<'_>,
    id: WebhookId,
    change: &Change,
) -> Result<Option<Stored>, Error> {
    let Some(mut webhook) = find(tx, id)? else { return Ok(None) };
    if let Some(url) = &change.url {
        webhook.url = url.clone();
    }
    if let Some(events) = &change.events {
        webhook.events = events.clone();
    }
    // The owner is the user who chose the URL and the events: the webhook ends with that user's role.
    if change.url.is_some() || change.events.is_some() {
        webhook.owner = change.by.clone();
    }
    match change.active {
        Some(true) if webhook.state != State::Active => {
            (webhook.state, webhook.reason) = (State::Active, None);
            webhook.owner = change.by.clone();
        }
        Some(false) => (webhook.state, webhook.reason) = (State::Paused, None),
        _ => {}
    }
    tx.execute(
        "UPDATE webhooks SET url = $2, events = $3, state = $4, reason = $5, owner = $6, revision = $7, failures = 0, \
         failing_since = NULL, next_at = $8, updated_at = $8 WHERE id = $1",
        &[
            id.into(),
            webhook.url.as_str().into(),
            (&json!(webhook.events).to_string()).into(),
            webhook.state.as_str().into(),
            webhook.reason.as_ref().into(),
            (&webhook.owner).into(),
            Value::Uuid(Uuid::now_v7()),
            tx.now().into(),
        ],
    )?;
    if change.events.is_some() {
        deliveries::skip_unwanted(tx, id, &webhook.events)?;
    }
    find(tx, id)
}

/// Gives a webhook a new secret, which only `by` knows, who becomes its owner. The secret before is good until `until`, in
/// the column of this number.
pub(super) fn rotate(
    tx: &mut Tx<'_>,
    before: &Stored,
    secret: &Sealed,
    outgoing: &Outgoing,
    (number, until): (usize, Timestamp),
    by: &UserId,
) -> Result<Option<Stored>, Error> {
    let (column, until_column) = (OLD_WEBHOOK[number], OLD_UNTIL[number]);
    // A secret is sealed for its column too. One that does not open is of no use and is dropped.
    let old = outgoing.reseal(&before.secret, column);
    let old = old.as_ref().map(Sealed::as_str);
    let sql = format!(
        "UPDATE webhooks SET {} = $5, {until_column} = $3, secret = $2, revision = $4, owner = $6 WHERE id = $1",
        column.column
    );
    let revision = Value::Uuid(Uuid::now_v7());
    let (id, secret) = (before.id, secret.as_str().into());
    tx.execute(&sql, &[id.into(), secret, until.into(), revision, old.into(), by.into()])?;
    find(tx, id)
}

/// Deletes a webhook. Its deliveries, of which there may be many, go with the next tidying.
pub(super) fn delete(tx: &mut Tx<'_>, id: WebhookId) -> Result<(), Error> {
    tx.execute("DELETE FROM webhooks WHERE id = $1", &[id.into()]).map(drop)
}

/// Deletes all webhooks of a project with their deliveries. Returns how many rows.
pub(crate) async fn delete_of_project(store: &Store, project: ProjectId) -> Result<usize, Error> {
    let webhooks = move |reader: &Reader<'_>| {
        let sql = "SELECT id FROM webhooks WHERE project_id = $1 ORDER BY id";
        reader.query(sql, &[project.into()], |row| row.get::<WebhookId>(0))
    };
    let mut deleted = 0;
    for id in store.read(webhooks).await? {
        let step = move |tx: &mut Tx<'_>| deliveries::delete_some(tx, id);
        deleted += sweep::delete_all(store, step).await?;
        store.write(move |tx| delete(tx, id)).await?;
        deleted += 1;
    }
    Ok(deleted)
}

/// Moves a webhook from one place in its log to a later one. Returns its revision, `None` if it was not there any more.
pub(super) fn advance(
    tx: &mut Tx<'_>,
    id: WebhookId,
    from: &str,
    to: (&str, Position),
) -> Result<Option<Uuid>, Error> {
    let (cursor, Position { epoch, seq, .. }) = to;
    let sql = "UPDATE webhooks SET cursor = $3, epoch = $4, seq = $5, failures = 0, failing_since = NULL \
               WHERE id = $1 AND cursor = $2 RETURNING revision";
    tx.find(sql, &[id.into(), from.into(), cursor.into(), epoch.into(), seq.into()], |row| {
        row.get(0)
    })
}

/// Moves a webhook whose next event was not taken past the events before it that are not wanted.
pub(super) fn pass(
    tx: &mut Tx<'_>,
    id: WebhookId,
    from: &str,
    to: (&str, Position),
) -> Result<(), Error> {
    let (cursor, Position { epoch, seq, .. }) = to;
    let sql = "UPDATE webhooks SET cursor = $3, epoch = $4, seq = $5 WHERE id = $1 AND cursor = $2";
    let params = [id.into(), from.into(), cursor.into(), epoch.into(), seq.into()];
    tx.execute(sql, &params).map(drop)
}

/// Sets a webhook from one place in its log to another, and has what waits there tried at once. A job that delivers to it
/// changes nothing any more. Returns whether the webhook was there.
pub(super) fn set_cursor(
    tx: &mut Tx<'_>,
    id: WebhookId,
    from: &str,
    to: (&str, Position),
) -> Result<bool, Error> {
    let (cursor, Position { epoch, seq, .. }) = to;
    let sql = "UPDATE webhooks SET cursor = $3, epoch = $4, seq = $5, revision = $6, failures = 0, failing_since = NULL, \
               next_at = $7 WHERE id = $1 AND cursor = $2";
    let revision = Value::Uuid(Uuid::now_v7());
    let now = tx.now().into();
    let params = [id.into(), from.into(), cursor.into(), epoch.into(), seq.into(), revision, now];
    Ok(tx.execute(sql, &params)? > 0)
}

/// Notes that the next event was not taken, unless somebody has changed the webhook meanwhile.
pub(super) fn wait(
    tx: &mut Tx<'_>,
    webhook: Revision,
    failures: i64,
    since: Timestamp,
    next_at: Timestamp,
) -> Result<bool, Error> {
    let sql = "UPDATE webhooks SET failures = $3, failing_since = $4, next_at = $5 WHERE id = $1 AND revision = $2";
    let Revision(id, revision) = webhook;
    let params = [id.into(), Value::Uuid(revision), failures.into(), since.into(), next_at.into()];
    Ok(tx.execute(sql, &params)? > 0)
}

/// Has webhooks tried now that a wrong clock has put off for longer than a receiver can ask for. A webhook that has failed
/// since a time in the future was put off by the same clock.
pub(crate) async fn repair(store: &Store, now: Timestamp) -> Result<(), Error> {
    let params =
        [now.after(PATIENCE + CLOCK_TOLERANCE), now.after(CLOCK_TOLERANCE), now.after(2 * LONGEST)];
    let late = move |reader: &Reader<'_>| {
        let sql = "SELECT id, next_at FROM webhooks WHERE state = 'active' \
                   AND (next_at > $1 OR (failing_since > $2 AND next_at > $3)) LIMIT 500";
        let read = |row: &Row<'_>| Ok((row.get::<WebhookId>(0)?, row.get::<Timestamp>(1)?));
        reader.query(sql, &params.map(Into::into), read)
    };
    for (id, wrong) in store.read(late).await? {
        let sql = "UPDATE webhooks SET next_at = $3, failing_since = CASE WHEN failing_since > $3 THEN $3 \
                   ELSE failing_since END WHERE id = $1 AND next_at = $2";
        let set = move |tx: &mut Tx<'_>| tx.execute(sql, &[id.into(), wrong.into(), now.into()]);
        if store.write(set).await? > 0 {
            tracing::warn!(webhook.id = %id, %wrong, "a clock was wrong: a webhook's next attempt was too far away");
        }
    }
    Ok(())
}

/// Gives a webhook up, unless somebody has changed it meanwhile.
pub(super) fn disable(tx: &mut Tx<'_>, webhook: Revision, reason: &str) -> Result<bool, Error> {
    let sql = "UPDATE webhooks SET state = 'disabled', reason = $3, revision = $4, updated_at = $5 \
               WHERE id = $1 AND revision = $2";
    let (Revision(id, old), new) = (webhook, Value::Uuid(Uuid::now_v7()));
    let params = [id.into(), Value::Uuid(old), reason.into(), new, tx.now().into()];
    Ok(tx.execute(sql, &params)? > 0)
}

/// Forgets webhooks whose owner had lost the right before `oldest` and that nobody has switched on since: those of
/// projects that are gone too.
pub(super) async fn forget(store: &Store, oldest: Timestamp) -> Result<usize, Error> {
    let step = move |tx: &mut Tx<'_>| {
        let condition = "state = 'disabled' AND reason = $1 AND updated_at < $2";
        let params = [deliver::NOT_OWNER.into(), oldest.into()];
        sweep::delete_some(tx, "webhooks", "id", condition, &params)
    };
    sweep::delete_all(store, step).await
}

fn read(row: &Row<'_>) -> Result<Stored, Error> {
    let id: WebhookId = row.get(0)?;
    Ok(Stored {
        id,
        project_id: row.get(1)?,
        owner: row.get(2)?,
        url: row.parse(3)?,
        secret: Sealed::new(WEBHOOK, id, row.get(4)?),
        old_secrets: OldSecrets::read(row, 15, OLD_WEBHOOK, id)?,
        events: row.json(5)?,
        state: row.parse(6)?,
        reason: row.get(7)?,
        revision: row.get(8)?,
        cursor: row.get(9)?,
        failures: row.get(10)?,
        failing_since: row.get(11)?,
        next_at: row.get(12)?,
        created_at: row.get(13)?,
        updated_at: row.get(14)?,
    })
}
