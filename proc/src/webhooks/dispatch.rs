//! Makes the jobs that deliver: looks now and then for webhooks whose project has gone on. Any number of processes may.

use std::time::Duration;

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
    store::{self, Stored},
};
use crate::jobs::{self, Engine, NewJob};

const LOOK: Duration = Duration::from_secs(1);
/// Webhooks that are looked at in one go.
const AT_ONCE: i64 = 64;
/// Entries that are looked through for one that a webhook wants.
const AHEAD: i64 = 200;

/// How often what is kept for too long is deleted.
pub(crate) const TIDY_INTERVAL: Duration = Duration::from_mins(10);
/// How long deliveries are kept.
const DELIVERIES: Duration = Duration::from_hours(7 * 24);
/// How long a webhook is kept that was disabled since its owner is none any more.
const LEFT_BEHIND: Duration = Duration::from_hours(30 * 24);

/// Makes jobs until shutdown.
pub(crate) async fn dispatch(engine: Engine, store: Store, shutdown: CancellationToken) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        if let Err(error) = look(&engine, &store).await {
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

async fn look(engine: &Engine, store: &Store) -> Result<(), jobs::Error> {
    let due = store.read(|reader| {
        let due = store::due(reader, Timestamp::now(), AT_ONCE)?;
        let look = |webhook: Stored| Ok((ahead(reader, &webhook)?, webhook));
        due.into_iter().map(look).collect::<Result<Vec<_>, Error>>()
    });
    for (ahead, webhook) in due.await? {
        match ahead {
            Ahead::Deliver => match engine.submit_aside(job(&webhook).into()).await {
                Ok(_) => {}
                // It is looked at again, and what it waits for stays where it is.
                Err(jobs::Error::QueueFull { .. }) => return Ok(()),
                Err(error) => return Err(error),
            },
            Ahead::Skip(to) => {
                let project = Topic::project(webhook.project_id);
                let Some(position) = to.position(&project) else { continue };
                let (id, from, to) = (webhook.id, webhook.cursor, to.to_string());
                let skip = store.write(move |tx| store::advance(tx, id, &from, (&to, position)));
                let _: Option<_> = skip.await.map_err(jobs::Error::Store)?;
            }
        }
    }
    Ok(())
}

/// Looks by the types of events alone, so that what nobody wants makes no jobs. What is in them is asked of ingress.
pub(super) fn ahead(reader: &Reader<'_>, webhook: &Stored) -> Result<Ahead, Error> {
    let log = Topic::project(webhook.project_id);
    let start = reader.start(&log, Some(&webhook.cursor))?;
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
