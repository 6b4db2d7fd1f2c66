//! Makes the jobs that deliver: looks now and then for webhooks whose project has gone on. Any number of processes may.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use shared::{
    ids::TraceId,
    journal::{Cursor, Topic},
    store::{Error, Reader, Store},
    time::Timestamp,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    deliver, deliveries,
    store::{self, Place, Stored},
};
use crate::jobs::{self, Engine, NewJob};

const LOOK: Duration = Duration::from_secs(1);
/// Webhooks that are read in one go.
const PAGE: i64 = 64;
/// Webhooks that are seen to side by side.
const AT_ONCE: usize = 16;
/// Entries that are looked through for one that a webhook wants.
const AHEAD: i64 = 200;

/// Interval at which expired rows are deleted.
pub(crate) const TIDY_INTERVAL: Duration = Duration::from_mins(10);
/// How long deliveries are kept.
pub(super) const DELIVERIES: Duration = Duration::from_hours(7 * 24);
/// How long a webhook is kept that was disabled since its owner is none any more.
const LEFT_BEHIND: Duration = Duration::from_hours(30 * 24);

/// Makes jobs until shutdown.
pub(crate) async fn dispatch(engine: Engine, store: Store, shutdown: CancellationToken) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        if let Err(error) = look(&engine, &store, &mut last).await {
            tracing::warn!(%error, "webhooks were not looked at");
        }
    }
}

/// Deletes what is kept of webhooks for too long. Returns how many rows.
pub(crate) async fn tidy(store: &Store, now: Timestamp) -> Result<usize, Error> {
    let webhooks = store::forget(store, now.before(LEFT_BEHIND)).await?;
    Ok(webhooks + deliveries::prune(store, now.before(DELIVERIES)).await?)
}

/// What is to be done for a webhook whose log has grown.
pub(super) enum Ahead {
    /// There is something that it wants, or its log is another one.
    Deliver,
    /// Nothing up to here is wanted.
    Skip(Cursor),
}

/// Sees to every webhook that is due, once, beginning behind the `last` one that the look before has seen to: where the queue
/// has no room for all, they have their turns.
async fn look(engine: &Engine, store: &Store, last: &mut Option<Place>) -> Result<(), jobs::Error> {
    let (began, now) = (last.take(), store.now());
    let (mut after, mut wrapped) = (began, began.is_none());
    loop {
        let due = page(store, now, after).await?;
        let is_whole = i64::try_from(due.len()).is_ok_and(|length| length == PAGE);
        let end = due.last().map(|(_, webhook)| webhook.place());
        // Beyond where it began all have had their turn.
        let is_round = |place: Place| wrapped && began.is_some_and(|began| place > began);
        let turn: Vec<_> =
            due.into_iter().filter(|(_, webhook)| !is_round(webhook.place())).collect();
        let acting = turn.iter().filter(|(ahead, _)| matches!(ahead, Ahead::Deliver));
        let acting = acting.map(|(_, webhook)| (webhook.owner.clone(), webhook.project_id));
        // One call for all; if it fails, each job asks for itself.
        let _ = engine.know_roles(acting).await;
        let mut turn = stream::iter(turn)
            .map(async |(ahead, webhook)| {
                (webhook.place(), see_to(engine, store, ahead, webhook).await)
            })
            .buffered(AT_ONCE);
        while let Some((place, outcome)) = turn.next().await {
            match outcome {
                Ok(()) => after = Some(place),
                // The next look begins here, and what it waits for stays where it is.
                Err(jobs::Error::QueueFull { .. }) => {
                    *last = after;
                    return Ok(());
                }
                Err(error) => {
                    *last = Some(place);
                    return Err(error);
                }
            }
        }
        match end {
            Some(end) if is_whole && !is_round(end) => after = Some(end),
            _ if wrapped => return Ok(()),
            _ => (after, wrapped) = (None, true),
        }
    }
}

async fn page(
    store: &Store,
    now: Timestamp,
    after: Option<Place>,
) -> Result<Vec<(Ahead, Stored)>, jobs::Error> {
    let due = store.read(move |reader| {
        let due = store::due(reader, now, after, PAGE)?;
        let look = |webhook: Stored| Ok((ahead(reader, &webhook)?, webhook));
        due.into_iter().map(look).collect::<Result<Vec<_>, Error>>()
    });
    Ok(due.await?)
}

async fn see_to(
    engine: &Engine,
    store: &Store,
    ahead: Ahead,
    webhook: Stored,
) -> Result<(), jobs::Error> {
    match ahead {
        Ahead::Deliver => engine.submit_aside(job(&webhook).into()).await.map(drop),
        Ahead::Skip(to) => {
            let project = Topic::project(webhook.project_id);
            let Some(position) = to.position(&project) else { return Ok(()) };
            let (id, from, to) = (webhook.id, webhook.cursor, to.to_string());
            let skip = store.write(move |tx| store::advance(tx, id, &from, (&to, position)));
            let _: Option<_> = skip.await.map_err(jobs::Error::Store)?;
            Ok(())
        }
    }
}

/// Looks by the types of events alone, so that what nobody wants makes no jobs. What is in them is asked of ingress.
pub(super) fn ahead(reader: &Reader<'_>, webhook: &Stored) -> Result<Ahead, Error> {
    let log = Topic::project(webhook.project_id);
    let start = reader.start_or_first_kept(&log, &webhook.cursor)?;
    let Some(start) = start.filter(|start| start.reset.is_none()) else {
        return Ok(Ahead::Deliver);
    };
    let entries = reader.entries(&log, start.position.seq, AHEAD)?;
    if entries.iter().any(|entry| webhook.events.have(&entry.kind)) {
        return Ok(Ahead::Deliver);
    }
    let last = entries.last().map_or(start.position, |last| last.position);
    Ok(Ahead::Skip(Cursor::at(&log, last)))
}

fn job(webhook: &Stored) -> NewJob {
    NewJob {
        owner: webhook.owner.clone(),
        project_id: webhook.project_id,
        bundle: deliver::BUNDLE.into(),
        operation: deliver::OPERATION.into(),
        input: json!({"webhook_id": webhook.id}),
        trace: TraceId::mint(),
    }
}
