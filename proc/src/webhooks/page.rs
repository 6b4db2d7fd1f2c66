//! What has happened in a project, as its owner would see it: asked of ingress, whose rules decide.

use proto::{Event, GetEventsRequest, GetEventsResponse};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use shared::{
    ids::ProjectId,
    journal::{Cursor, Position, Topic},
    time::Timestamp,
};
use tonic::Code;

use super::{attempt::Message, deliveries::RESET, store::Stored};
use crate::{
    ingress::principal,
    jobs::{JobContext, JobError},
};

/// Events that are asked for at once.
const PAGE: u32 = 100;

/// An event that the webhook wants.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) message: Message,
    /// The cursors before it and after it.
    pub(super) previous: String,
    pub(super) cursor: String,
}

/// Some of what has happened.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    /// The cursor after all of it, wanted or not.
    pub(super) end: String,
}

/// Why there is no page.
#[derive(Debug)]
pub(super) enum Unread {
    /// The webhook's owner is no owner of the project any more.
    NotOwner,
    Unavailable(JobError),
}

impl From<JobError> for Unread {
    fn from(error: JobError) -> Self {
        Self::Unavailable(error)
    }
}

/// Reads the events after a cursor. If the log does not go on there, the page is one reset, and delivery goes on with the
/// first event that is kept, or at the end of a log that is another one.
pub(super) async fn read(
    context: &JobContext,
    webhook: &Stored,
    after: &str,
) -> Result<Page, Unread> {
    let answer = get(context, webhook, after, PAGE).await?;
    let mut previous = after.to_owned();
    let mut items = Vec::new();
    if let Some(reason) = &answer.reset {
        items.push(reset(webhook, reason, previous, &answer.cursor, context.store().now())?);
    } else {
        for event in answer.events {
            let cursor = event.cursor.clone();
            if webhook.events.have(&event.r#type) {
                items.push(item(webhook, event, previous)?);
            }
            previous = cursor;
        }
    }
    Ok(Page { items, end: answer.cursor })
}

/// Reads the one event after a cursor, if it is still there.
pub(super) async fn one(
    context: &JobContext,
    webhook: &Stored,
    after: &str,
) -> Result<Option<Item>, Unread> {
    let answer = get(context, webhook, after, 1).await?;
    let first = answer.events.into_iter().next();
    Ok(first.map(|event| item(webhook, event, after.to_owned())).transpose()?)
}

async fn get(
    context: &JobContext,
    webhook: &Stored,
    after: &str,
    limit: u32,
) -> Result<GetEventsResponse, Unread> {
    let principal = principal(&webhook.owner, webhook.project_id, &context.job().trace_id);
    let request = GetEventsRequest { principal: Some(principal), after: after.into(), limit };
    match context.ingress().chat().get_events(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if [Code::NotFound, Code::PermissionDenied].contains(&status.code()) => {
            Err(Unread::NotOwner)
        }
        Err(status) => {
            tracing::info!(code = ?status.code(), "events could not be read for a webhook");
            Err(JobError::transient("unavailable", "chat does not answer").into())
        }
    }
}

/// What every event has.
#[derive(Deserialize)]
struct Happened {
    at: Timestamp,
}

fn item(webhook: &Stored, event: Event, previous: String) -> Result<Item, JobError> {
    let position = position(webhook.project_id, &event.cursor)?;
    let data = RawValue::from_string(event.json).map_err(|_| unreadable())?;
    let Happened { at } = serde_json::from_str(data.get()).map_err(|_| unreadable())?;
    let message = Message::new(webhook.id, event.r#type, position, at, &data);
    Ok(Item { message: message.map_err(|_| unreadable())?, previous, cursor: event.cursor })
}

/// What a receiver is told if the log does not go on where it was: what it knows of the project is to be fetched anew.
#[derive(Serialize)]
struct Reset<'a> {
    r#type: &'a str,
    project_id: ProjectId,
    reason: &'a str,
}

fn reset(
    webhook: &Stored,
    reason: &str,
    previous: String,
    cursor: &str,
    now: Timestamp,
) -> Result<Item, JobError> {
    let position = position(webhook.project_id, cursor)?;
    let event = Reset { r#type: RESET, project_id: webhook.project_id, reason };
    let data = to_raw_value(&event).map_err(|_| unreadable())?;
    let message = Message::new(webhook.id, RESET.into(), position, now, &data);
    let message = message.map_err(|_| unreadable())?;
    Ok(Item { message, previous, cursor: cursor.into() })
}

/// Returns where in the project's log a cursor is.
pub(super) fn position(project: ProjectId, cursor: &str) -> Result<Position, JobError> {
    let cursor: Cursor = cursor.parse().map_err(|_| unreadable())?;
    cursor.position(&Topic::project(project)).ok_or_else(unreadable)
}

fn unreadable() -> JobError {
    JobError::permanent("internal", "an event could not be read")
}
