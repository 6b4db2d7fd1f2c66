//! What became of each event: the log that owners read, and how they have one delivered again.

use axum::extract::State;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{
    http::{BodyError, Json, Limit, Path, Query, current_trace},
    ids::{TraceId, WebhookId},
    journal::{Cursor, Position, ResetReason, Topic},
    store::{Error, Reader, Row, Store, Tx, Value},
    sweep,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    attempt::{Attempt, Message},
    deliver,
    dispatch::DELIVERIES,
    events::Events,
    page,
    store::{self, Stored},
};
use crate::{
    access::OfWebhook,
    error::ApiError,
    jobs::{Engine, Job, NewJob},
    state::AppState,
};

/// Deliveries that are kept of a webhook.
const MOST: i64 = 1_000;
/// The type of what tells that the log did not go on.
pub(super) const RESET: &str = "reset";

const PENDING: &str = "pending";
const DELIVERED: &str = "delivered";
const FAILED: &str = "failed";
const SKIPPED: &str = "skipped";

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(redeliver))
        .routes(routes!(skip))
        .routes(routes!(replay))
}

/// What became of one event.
#[derive(Serialize, utoipa::ToSchema)]
struct Delivery {
    /// Its number in the project's log.
    seq: i64,
    r#type: String,
    /// `webhook-id` of the call.
    message_id: String,
    /// `pending` while it is tried again, `delivered`, `failed` when that was given up, or `skipped`: by an owner, because its
    /// type is not wanted any more, or because the log does not have its event any more.
    status: String,
    attempts: i64,
    /// What the URL answered last, if it did.
    http_status: Option<i64>,
    /// Why the last attempt failed: `timeout`, `unreachable`, `connection_lost`, `address_refused`, `redirected`, `gone`,
    /// `not_accepted`.
    error: Option<String>,
    /// How long the last attempt took.
    duration_ms: i64,
    /// When the last attempt ended.
    at: Timestamp,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Deliveries {
    deliveries: Vec<Delivery>,
    next: Option<i64>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct DeliveriesPage {
    /// At most 200.
    #[serde(default)]
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    limit: Limit,
    /// `next` of the page before.
    cursor: Option<i64>,
}

/// Lists what was delivered, newest first: the last thousand, for a week.
#[utoipa::path(get, path = "/webhooks/{id}/deliveries", tag = "webhooks",
    params(("id" = WebhookId, Path), DeliveriesPage),
    responses((status = 200, body = Deliveries), (status = 403), (status = 404)))]
async fn list(
    webhook: OfWebhook,
    Query(DeliveriesPage { limit, cursor }): Query<DeliveriesPage>,
) -> Result<Json<Deliveries>, ApiError> {
    let (id, before) = (webhook.id, cursor.unwrap_or(i64::MAX));
    let sql = format!(
        "SELECT {COLUMNS} FROM webhook_deliveries WHERE webhook_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3"
    );
    let read = move |reader: &Reader<'_>| {
        reader.query(&sql, &[id.into(), before.into(), limit.and_one().into()], read)
    };
    let mut deliveries: Vec<Delivery> =
        webhook.owner.read(read).await.map_err(|error: Error| error)?;
    let next = limit.cut(&mut deliveries).map(|last| last.seq);
    Ok(Json(Deliveries { deliveries, next }))
}

const COLUMNS: &str =
    "seq, type, message_id, status, attempts, http_status, error, duration_ms, at";

fn read(row: &Row<'_>) -> Result<Delivery, Error> {
    Ok(Delivery {
        seq: row.get(0)?,
        r#type: row.get(1)?,
        message_id: row.get(2)?,
        status: row.get(3)?,
        attempts: row.get(4)?,
        http_status: row.get(5)?,
        error: row.get(6)?,
        duration_ms: row.get(7)?,
        at: row.get(8)?,
    })
}

/// Part of a delivery's path.
#[derive(Deserialize)]
struct OfDelivery {
    seq: i64,
}

/// Delivers an event again, besides those that wait, in a job of the caller's.
#[utoipa::path(post, path = "/webhooks/{id}/deliveries/{seq}/redeliver", tag = "webhooks",
    params(("id" = WebhookId, Path), ("seq" = i64, Path)),
    responses((status = 202, body = Job), (status = 403), (status = 404),
        (status = 409, description = "It is still being delivered, or was no event"), (status = 503)))]
async fn redeliver(
    State(engine): State<Engine>,
    webhook: OfWebhook,
    Path(OfDelivery { seq }): Path<OfDelivery>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<Job>), ApiError> {
    let id = webhook.id;
    let found = webhook.owner.read(move |reader| find(reader, id, seq)).await?;
    let Kept { kind, is_pending, .. } = found.ok_or(ApiError::NotFound("the delivery"))?;
    if is_pending {
        return Err(ApiError::Conflict("it is being delivered and will be tried again".into()));
    }
    if kind == RESET {
        return Err(ApiError::Conflict("a reset is not delivered again".into()));
    }
    let new = NewJob {
        owner: webhook.owner.id.clone(),
        project_id: webhook.project_id,
        bundle: deliver::BUNDLE.into(),
        operation: deliver::OPERATION.into(),
        input: json!({"webhook_id": id, "seq": seq}),
        trace: current_trace().unwrap_or_else(TraceId::mint),
    };
    let job = engine.submit(new.into(), webhook.owner.roles, None).await?;
    let location = [(header::LOCATION, format!("/api/integrations/jobs/{}", job.id))];
    Ok((StatusCode::ACCEPTED, location, Json(job)))
}

/// Gives up the one event that the URL does not take, and goes on behind it: at once, or when the webhook is switched on again.
#[utoipa::path(post, path = "/webhooks/{id}/deliveries/{seq}/skip", tag = "webhooks",
    params(("id" = WebhookId, Path), ("seq" = i64, Path)),
    responses((status = 200, body = Delivery), (status = 403), (status = 404),
        (status = 409, description = "It was delivered or skipped, or others are before it")))]
async fn skip(
    webhook: OfWebhook,
    Path(OfDelivery { seq }): Path<OfDelivery>,
) -> Result<Json<Delivery>, ApiError> {
    let id = webhook.id;
    let skipped = webhook.owner.write(move |tx| skip_next(tx, id, seq)).await?;
    tracing::info!(webhook.id = %id, seq, "delivery skipped");
    Ok(Json(skipped))
}

/// Sets the webhook behind the event that waits, if that is this one, and returns what is kept of its delivery.
fn skip_next(tx: &mut Tx<'_>, id: WebhookId, seq: i64) -> Result<Delivery, ApiError> {
    let webhook = store::find_locked(tx, id)?.ok_or(ApiError::NotFound("the webhook"))?;
    let sql =
        format!("SELECT {COLUMNS} FROM webhook_deliveries WHERE webhook_id = $1 AND seq = $2");
    let delivery = tx.find(&sql, &[id.into(), seq.into()], read)?;
    let delivery = delivery.ok_or(ApiError::NotFound("the delivery"))?;
    if ![PENDING, FAILED].contains(&&*delivery.status) {
        let message = format!("the delivery is {}, so it holds nothing up", delivery.status);
        return Err(ApiError::Conflict(message));
    }
    let held_up = || ApiError::Conflict("another event is before it, or it was passed".into());
    let position = place_behind(tx, &webhook, &delivery)?.ok_or_else(held_up)?;
    let cursor = Cursor::at(&Topic::project(webhook.project_id), position).to_string();
    if !store::set_cursor(tx, id, &webhook.cursor, (&cursor, position))? {
        return Err(held_up());
    }
    tx.execute(SKIP, &[id.into(), seq.into(), SKIPPED.into()])?;
    Ok(Delivery { status: SKIPPED.into(), ..delivery })
}

/// Events that are looked through for one that waits before another.
const MAX_EVENTS_BETWEEN: i64 = 1_000;

/// Returns the place in the log behind a delivery that is the next one, `None` if another one is.
fn place_behind(
    reader: &Reader<'_>,
    webhook: &Stored,
    delivery: &Delivery,
) -> Result<Option<Position>, Error> {
    let log = Topic::project(webhook.project_id);
    let Some(start) = reader.start_or_first_kept(&log, &webhook.cursor)? else { return Ok(None) };
    if delivery.r#type == RESET || start.reset.is_some() {
        // A reset that waits is before every event.
        let is_next = delivery.r#type == RESET && start.reset.is_some();
        return Ok(is_next.then_some(start.position));
    }
    let distance = delivery.seq - start.position.seq;
    if !(1..=MAX_EVENTS_BETWEEN).contains(&distance) {
        return Ok(None);
    }
    let mut entries = reader.entries(&log, start.position.seq, distance)?;
    let last = entries.pop().map(|last| last.position);
    let is_next = last.is_some()
        && last == Message::position(&delivery.message_id)
        && !entries.iter().any(|entry| webhook.events.have(&entry.kind));
    Ok(last.filter(|_| is_next))
}

/// Marks the deliveries that wait as skipped whose types the webhook does not want any more.
pub(super) fn skip_unwanted(tx: &mut Tx<'_>, id: WebhookId, events: &Events) -> Result<(), Error> {
    let sql = "SELECT seq, type FROM webhook_deliveries WHERE webhook_id = $1 AND status = $2";
    let pending = tx.query(sql, &[id.into(), PENDING.into()], |row| {
        Ok((row.get::<i64>(0)?, row.get::<String>(1)?))
    })?;
    for (seq, _) in pending.iter().filter(|(_, kind)| kind != RESET && !events.have(kind)) {
        tx.execute(SKIP, &[id.into(), (*seq).into(), SKIPPED.into()])?;
    }
    Ok(())
}

/// Marks the deliveries that wait as skipped: a reset has told the receiver that they are not made.
pub(super) fn skip_pending(tx: &mut Tx<'_>, id: WebhookId) -> Result<(), Error> {
    let sql = "UPDATE webhook_deliveries SET status = $3 WHERE webhook_id = $1 AND status = $2";
    tx.execute(sql, &[id.into(), PENDING.into(), SKIPPED.into()]).map(drop)
}

const SKIP: &str = "UPDATE webhook_deliveries SET status = $3 WHERE webhook_id = $1 AND seq = $2";

/// From when on events are delivered again.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Replay {
    /// Within the last week: a delivery whose last attempt ended then or later is made again.
    from: Timestamp,
}

/// Events that are delivered again.
#[derive(Serialize, utoipa::ToSchema)]
struct Replayed {
    /// Number of kept deliveries that are made again, at most a thousand: those of events that the webhook still wants and
    /// the project's log still has.
    deliveries: i64,
    /// Number of the first of them in the project's log.
    seq: Option<i64>,
}

/// Sets the webhook back in the project's log, so that all kept deliveries since a time are made again, in order and with the
/// same `webhook-id`, skipped ones too.
#[utoipa::path(post, path = "/webhooks/{id}/replay", tag = "webhooks", params(("id" = WebhookId, Path)),
    request_body = Replay,
    responses((status = 200, body = Replayed), (status = 403), (status = 404),
        (status = 422, description = "The time is in the future, or longer ago than a week")))]
async fn replay(
    webhook: OfWebhook,
    body: Result<Json<Replay>, BodyError>,
) -> Result<Json<Replayed>, ApiError> {
    let Json(Replay { from }) = body?;
    let id = webhook.id;
    let replayed = webhook.owner.write(move |tx| set_back(tx, id, from)).await?;
    tracing::info!(webhook.id = %id, %from, replayed.deliveries, "deliveries replayed");
    Ok(Json(replayed))
}

/// Sets the webhook back before the first delivery since `from` whose event the log still has, unless the webhook is there or
/// before already.
fn set_back(tx: &mut Tx<'_>, id: WebhookId, from: Timestamp) -> Result<Replayed, ApiError> {
    let now = tx.now();
    if from > now || from < now.before(DELIVERIES) {
        let message = "must be within the last week".into();
        return Err(ApiError::Field { field: "from".into(), message });
    }
    let webhook = store::find_locked(tx, id)?.ok_or(ApiError::NotFound("the webhook"))?;
    // A delivery that was made again since then may be far before the deliveries of the range.
    let sql = "SELECT previous FROM webhook_deliveries WHERE webhook_id = $1 AND seq > \
               (SELECT COALESCE(MAX(seq), 0) FROM webhook_deliveries WHERE webhook_id = $1 AND at < $2) ORDER BY seq LIMIT 1";
    let previous: Option<String> = tx.find(sql, &[id.into(), from.into()], |row| row.get(0))?;
    let nothing = Replayed { deliveries: 0, seq: None };
    let Some(previous) = previous else { return Ok(nothing) };
    let log = Topic::project(webhook.project_id);
    let gone = || ApiError::Conflict("the log does not go on there any more".into());
    let at = page::position(webhook.project_id, &webhook.cursor).map_err(|_| gone())?;
    let start = tx.start_or_first_kept(&log, &previous)?.ok_or_else(gone)?;
    let is_there = matches!(start.reset, None | Some(ResetReason::Expired));
    if !is_there || start.position.epoch != at.epoch {
        return Err(gone());
    }
    // The events that wait are behind `at`: a webhook that has yet to be told of a hole is not taken past it.
    if at.seq <= start.position.seq {
        return Ok(nothing);
    }
    let sql = "SELECT seq, type, message_id FROM webhook_deliveries WHERE webhook_id = $1 AND seq > $2 AND seq <= $3 \
               ORDER BY seq";
    let params = [id.into(), start.position.seq.into(), at.seq.into()];
    let kept = tx.query(sql, &params, |row| {
        Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<String>(2)?))
    })?;
    let is_made_again = |(_, kind, message): &(i64, String, String)| {
        let epoch = Message::position(message).map(|position| position.epoch);
        webhook.events.have(kind) && kind != RESET && epoch == Some(at.epoch)
    };
    let again: Vec<_> = kept.into_iter().filter(is_made_again).collect();
    let Some((first, ..)) = again.first() else { return Ok(nothing) };
    let cursor = Cursor::at(&log, start.position).to_string();
    if !store::set_cursor(tx, id, &webhook.cursor, (&cursor, start.position))? {
        return Err(ApiError::Conflict("the webhook has moved on meanwhile; try again".into()));
    }
    let deliveries = i64::try_from(again.len()).unwrap_or(i64::MAX);
    Ok(Replayed { deliveries, seq: Some(*first) })
}

/// A delivery as it is kept, so that it can be made again.
#[derive(Debug)]
pub(super) struct Kept {
    kind: String,
    is_pending: bool,
    /// The cursor before it.
    pub(super) previous: String,
}

/// Returns what is kept of a delivery.
pub(super) fn find(reader: &Reader<'_>, id: WebhookId, seq: i64) -> Result<Option<Kept>, Error> {
    let sql =
        "SELECT type, status, previous FROM webhook_deliveries WHERE webhook_id = $1 AND seq = $2";
    reader.find(sql, &[id.into(), seq.into()], |row| {
        let is_pending = row.get::<String>(1)? == PENDING;
        Ok(Kept { kind: row.get(0)?, is_pending, previous: row.get(2)? })
    })
}

/// Writes down what came of an attempt; `is_last` says that a failed one is not followed by another.
pub(super) fn record(
    tx: &mut Tx<'_>,
    id: WebhookId,
    message: &Message,
    previous: &str,
    attempt: Attempt,
    is_last: bool,
) -> Result<(), Error> {
    let status = match attempt.failure {
        None => DELIVERED,
        Some(_) if is_last => FAILED,
        Some(_) => PENDING,
    };
    let sql = "INSERT INTO webhook_deliveries (webhook_id, seq, message_id, type, previous, status, attempts, http_status, error, \
               duration_ms, at) VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $9, $10) \
               ON CONFLICT (webhook_id, seq) DO UPDATE SET message_id = excluded.message_id, type = excluded.type, \
               previous = excluded.previous, status = excluded.status, http_status = excluded.http_status, \
               attempts = 1 + CASE WHEN webhook_deliveries.message_id = excluded.message_id THEN webhook_deliveries.attempts ELSE 0 END, \
               error = excluded.error, duration_ms = excluded.duration_ms, at = excluded.at";
    let duration = i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX);
    let params: [Value<'_>; 10] = [
        id.into(),
        message.seq.into(),
        (&message.id).into(),
        (&message.kind).into(),
        previous.into(),
        status.into(),
        attempt.http_status.map(i64::from).into(),
        attempt.failure.map(|failure| failure.code).into(),
        duration.into(),
        tx.now().into(),
    ];
    tx.execute(sql, &params).map(drop)
}

/// Webhooks that one query looks through for too many deliveries.
const LOOKED_AT: usize = 100;

/// Deletes deliveries from before `oldest`, those of each webhook beyond the newest thousand, and all of webhooks that are
/// gone. Returns how many.
pub(super) async fn prune(store: &Store, oldest: Timestamp) -> Result<usize, Error> {
    let old = move |tx: &mut Tx<'_>| {
        let params = [oldest.into(), PENDING.into()];
        // A delivery that waits is kept as long as its webhook is before it.
        let condition = "at < $1 AND (status <> $2 OR EXISTS (SELECT 1 FROM webhooks w \
                         WHERE w.id = webhook_id AND w.seq >= webhook_deliveries.seq))";
        sweep::delete_some(tx, TABLE, KEY, condition, &params)
    };
    let mut deleted = sweep::delete_all(store, old).await?;
    let mut after = Some(WebhookId(Uuid::nil()));
    while let Some(from) = after {
        let (surplus, next) = store.read(move |reader| surplus(reader, from)).await?;
        after = next;
        for (id, last) in surplus {
            let delete = move |tx: &mut Tx<'_>| {
                let params = [id.into(), last.into()];
                sweep::delete_some(tx, TABLE, KEY, "webhook_id = $1 AND seq <= $2", &params)
            };
            deleted += sweep::delete_all(store, delete).await?;
        }
    }
    Ok(deleted)
}

const TABLE: &str = "webhook_deliveries";
const KEY: &str = "webhook_id, seq";

/// Looks through the deliveries of some webhooks after one. Returns each that has too many, with the number of the last one
/// to delete, and the last webhook that it looked at, `None` at the end.
#[expect(clippy::type_complexity, reason = "two lists of one step")]
fn surplus(
    reader: &Reader<'_>,
    after: WebhookId,
) -> Result<(Vec<(WebhookId, i64)>, Option<WebhookId>), Error> {
    let (mut after, mut surplus) = (after, Vec::new());
    for _ in 0..LOOKED_AT {
        // From one webhook to the next in the key, not through all rows.
        let next = "SELECT webhook_id FROM webhook_deliveries WHERE webhook_id > $1 ORDER BY webhook_id LIMIT 1";
        let Some(id) = reader.find(next, &[after.into()], |row| row.get(0))? else {
            return Ok((surplus, None));
        };
        after = id;
        let exists =
            reader.find("SELECT 1 FROM webhooks WHERE id = $1", &[id.into()], |_| Ok(()))?;
        let last = if exists.is_some() {
            let sql = "SELECT seq FROM webhook_deliveries WHERE webhook_id = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2";
            reader.find(sql, &[id.into(), MOST.into()], |row| row.get(0))?
        } else {
            Some(i64::MAX)
        };
        surplus.extend(last.map(|last| (id, last)));
    }
    Ok((surplus, Some(after)))
}

/// Deletes some deliveries of a webhook, and returns how many.
pub(super) fn delete_some(tx: &mut Tx<'_>, id: WebhookId) -> Result<usize, Error> {
    sweep::delete_some(tx, TABLE, KEY, "webhook_id = $1", &[id.into()])
}
