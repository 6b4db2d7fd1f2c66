//! The operation `webhook.deliver`: sends what has happened since the last time, one event after the other.
//!
//! A job delivers to one webhook as much as there is, and ends; the next one is made when there is more, or when it is time
//! to try again. While a receiver takes nothing there is no job: it would take a place in everybody's queue.

use std::{num::NonZeroUsize, time::Duration};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{
    ids::WebhookId,
    journal::Position,
    store::{self, Tx},
};
use tokio::time::Instant;

use super::{
    attempt::{Attempt, Failure, GONE, Message, attempt},
    deliveries::{self, RESET},
    page::{self, Item, Unread},
    patience::{self, Next},
    store::{self as webhooks, State, Stored},
};
use crate::{
    bundles::{Operation, parse, schema_of},
    ingress::Role,
    jobs::{JobContext, JobError, Share, deliveries_at_once, machine::Job},
    outgoing::Outgoing,
    raw_json::RawJson,
};

pub(crate) const BUNDLE: &str = "webhook";
pub(super) const OPERATION: &str = "deliver";
/// Why a webhook is disabled whose owner is none of the project any more.
pub(super) const NOT_OWNER: &str = "not_owner";
const FAILING: &str = "failing";

/// After how long a job makes way for others of its owner.
const TURN: Duration = Duration::from_secs(10);
/// Far beyond a turn and its last attempt.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Delivers.
pub(crate) struct Deliver {
    outgoing: Outgoing,
    /// How many of an owner's jobs run at once.
    at_once: i64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    #[schemars(with = "String")]
    webhook_id: WebhookId,
    /// The one event to deliver again; without it, all that have not been delivered.
    #[serde(default)]
    seq: Option<i64>,
}

/// Returns what there is one unfinished job for.
pub(super) fn job_key(webhook: WebhookId, again: Option<i64>) -> String {
    again.map_or_else(|| webhook.to_string(), |seq| format!("{webhook}_{seq}"))
}

#[async_trait]
impl Operation for Deliver {
    fn name(&self) -> &'static str {
        OPERATION
    }

    fn description(&self) -> &'static str {
        "Delivers the events of a project to a webhook."
    }

    fn role(&self) -> Role {
        Role::Owner
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    fn share(&self, job: &Job) -> Option<Share> {
        Some(Share { name: format!("{BUNDLE}/{}", job.owner), limit: self.at_once })
    }

    fn unique_key(&self, job: &Job) -> Option<String> {
        let Input { webhook_id, seq } = Input::deserialize(&*job.input).ok()?;
        Some(job_key(webhook_id, seq))
    }

    fn schema(&self) -> Value {
        schema_of::<Input>()
    }

    async fn refused(&self, context: &JobContext) {
        let Ok(Input { webhook_id, seq: None }) = Input::deserialize(&*context.job().input) else {
            return;
        };
        let found = context.store().read(move |reader| webhooks::find(reader, webhook_id)).await;
        let Ok::<_, store::Error>(Some(webhook)) = found else { return };
        // Another job judges the present owner.
        if webhook.owner == context.job().owner && webhook.state == State::Active {
            let work = Work { outgoing: &self.outgoing, context: context.clone(), webhook };
            if let Err(error) = work.disable(NOT_OWNER, None).await {
                tracing::warn!(webhook.id = %webhook_id, error.message, "a webhook was not disabled");
            }
        }
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError> {
        let Input { webhook_id, seq } = parse(input)?;
        let found = context.store().read(move |reader| webhooks::find(reader, webhook_id)).await;
        let Some(webhook) = found.map_err(|error| unavailable(&error))? else {
            return Ok(json!({"delivered": 0}).into());
        };
        let work = Work { outgoing: &self.outgoing, context, webhook };
        let delivered = match seq {
            None => work.catch_up().await?,
            Some(seq) => work.again(seq).await?,
        };
        Ok(json!({"delivered": delivered}).into())
    }
}

impl Deliver {
    /// A receiver that hangs keeps its delivery for as long as it is waited for, so one owner has half of those that a
    /// process makes at once.
    pub(crate) fn new(outgoing: Outgoing, workers: NonZeroUsize) -> Self {
        let at_once = i64::try_from(deliveries_at_once(workers) / 2).unwrap_or(i64::MAX);
        Self { outgoing, at_once }
    }
}

/// One job's work.
struct Work<'a> {
    outgoing: &'a Outgoing,
    context: JobContext,
    webhook: Stored,
}

impl Work<'_> {
    /// Delivers what there is, in order, until the first that is not taken.
    async fn catch_up(&self) -> Result<u64, JobError> {
        // It was changed since the job was made.
        if self.webhook.state != State::Active || self.webhook.owner != self.context.job().owner {
            return Ok(0);
        }
        let (began, mut delivered) = (Instant::now(), 0);
        let mut cursor = self.webhook.cursor.clone();
        loop {
            let page = match page::read(&self.context, &self.webhook, &cursor).await {
                Ok(page) => page,
                Err(Unread::NotOwner) => {
                    self.disable(NOT_OWNER, None).await?;
                    return Ok(delivered);
                }
                Err(Unread::Unavailable(error)) => return Err(error),
            };
            if page.end == cursor {
                return Ok(delivered);
            }
            for item in page.items {
                let attempt = self.attempt(&item).await;
                if let Some(failure) = attempt.failure {
                    let before = if delivered == 0 { self.webhook.failures } else { 0 };
                    self.failed(before, &cursor, &item, attempt, failure).await?;
                    return Err(not_taken(failure));
                }
                let is_same = self.advance(&cursor, &item.cursor, Some((&item, attempt))).await?;
                delivered += 1;
                cursor = item.cursor;
                if !is_same || began.elapsed() >= TURN {
                    return Ok(delivered);
                }
            }
            // What is behind the last of them is not wanted.
            if page.end != cursor && !self.advance(&cursor, &page.end, None).await? {
                return Ok(delivered);
            }
            cursor = page.end;
            if began.elapsed() >= TURN {
                return Ok(delivered);
            }
        }
    }

    /// Delivers one event again, whatever else there is to deliver.
    async fn again(&self, seq: i64) -> Result<u64, JobError> {
        let id = self.webhook.id;
        let kept = self.context.store().read(move |reader| deliveries::find(reader, id, seq)).await;
        let kept = kept.map_err(|error| unavailable(&error))?;
        let expired = || JobError::permanent("expired", "the event is not kept any more");
        let previous = kept.ok_or_else(expired)?.previous;
        let item = match page::one(&self.context, &self.webhook, &previous).await {
            Ok(item) => item.filter(|item| item.message.seq == seq).ok_or_else(expired)?,
            Err(Unread::NotOwner) => {
                let message = "the webhook's owner is no owner of the project any more";
                return Err(JobError::permanent(NOT_OWNER, message));
            }
            Err(Unread::Unavailable(error)) => return Err(error),
        };
        let attempt = self.attempt(&item).await;
        let Item { message, previous, .. } = item;
        let write = move |tx: &mut Tx<'_>| {
            if webhooks::find(tx, id)?.is_some() {
                deliveries::record(tx, id, &message, &previous, attempt, true)?;
            }
            Ok(())
        };
        self.context.write(write).await?;
        match attempt.failure {
            None => Ok(1),
            Some(failure) => {
                let error = JobError { retryable: failure.code != GONE, ..not_taken(failure) };
                Err(match failure.asked {
                    Some(asked) => error.after(asked),
                    None => error,
                })
            }
        }
    }

    async fn attempt(&self, item: &Item) -> Attempt {
        let Stored { url, secret, old_secrets, .. } = &self.webhook;
        let old = old_secrets.good(self.context.store().now());
        let secrets: Vec<_> = std::iter::once(secret).chain(old).collect();
        attempt(self.outgoing, url, &secrets, &item.message).await
    }

    /// Writes down how far the webhook is, and says whether it is otherwise as it was.
    async fn advance(
        &self,
        from: &str,
        to: &str,
        delivered: Option<(&Item, Attempt)>,
    ) -> Result<bool, JobError> {
        let position = page::position(self.webhook.project_id, to)?;
        let (id, from, to) = (self.webhook.id, from.to_owned(), to.to_owned());
        let delivered =
            delivered.map(|(item, attempt)| (item.message.clone(), item.previous.clone(), attempt));
        let moved = self.context.write(move |tx| {
            let revision = webhooks::advance(tx, id, &from, (&to, position))?;
            if let (Some(_), Some((message, previous, attempt))) = (revision, &delivered) {
                if message.kind == RESET {
                    deliveries::skip_pending(tx, id)?;
                }
                deliveries::record(tx, id, message, previous, *attempt, false)?;
            }
            Ok(revision)
        });
        Ok(moved.await? == Some(self.webhook.revision))
    }

    /// Writes down that an event was not taken, as often before as `failures`, and the time of the next attempt or the end.
    /// The webhook at `cursor` is moved to the event, past events that it does not want: what waits is what comes next.
    async fn failed(
        &self,
        failures: i64,
        cursor: &str,
        item: &Item,
        attempt: Attempt,
        failure: Failure,
    ) -> Result<(), JobError> {
        let (now, failures) = (self.context.store().now(), failures + 1);
        let since = self.webhook.failing_since.filter(|_| failures > 1).unwrap_or(now);
        let next = match failure.code {
            GONE => return self.disable(GONE, Some((cursor, item, attempt))).await,
            _ => patience::next(failures, since, now, failure.asked, rand::random()),
        };
        let Next::TryAt(next_at) = next else {
            return self.disable(FAILING, Some((cursor, item, attempt))).await;
        };
        let (id, webhook) = (self.webhook.id, self.webhook.revision());
        let refused = self.refused_item(cursor, item, attempt)?;
        let write = move |tx: &mut Tx<'_>| {
            if webhooks::wait(tx, webhook, failures, since, next_at)? {
                refused.record(tx, id, false)?;
            }
            Ok(())
        };
        self.context.write(write).await
    }

    async fn disable(
        &self,
        reason: &'static str,
        failed: Option<(&str, &Item, Attempt)>,
    ) -> Result<(), JobError> {
        let (id, webhook) = (self.webhook.id, self.webhook.revision());
        let refused =
            failed.map(|(cursor, item, attempt)| self.refused_item(cursor, item, attempt));
        let refused = refused.transpose()?;
        let write = move |tx: &mut Tx<'_>| {
            let is_disabled = webhooks::disable(tx, webhook, reason)?;
            if let (true, Some(refused)) = (is_disabled, &refused) {
                refused.record(tx, id, true)?;
            }
            Ok(is_disabled)
        };
        if self.context.write(write).await? {
            tracing::info!(webhook.id = %id, reason, "webhook disabled");
        }
        Ok(())
    }

    fn refused_item(
        &self,
        cursor: &str,
        item: &Item,
        attempt: Attempt,
    ) -> Result<RefusedItem, JobError> {
        let Item { message, previous, .. } = item.clone();
        let passed = if previous == cursor {
            None
        } else {
            Some((cursor.to_owned(), page::position(self.webhook.project_id, &previous)?))
        };
        Ok(RefusedItem { message, previous, passed, attempt })
    }
}

/// An event that the receiver did not take.
struct RefusedItem {
    message: Message,
    previous: String,
    /// Cursor of the webhook and the place right before the event, if there are events between that it does not want.
    passed: Option<(String, Position)>,
    attempt: Attempt,
}

impl RefusedItem {
    /// Writes the attempt down, in the transaction that found the webhook unchanged.
    fn record(&self, tx: &mut Tx<'_>, id: WebhookId, is_last: bool) -> Result<(), store::Error> {
        if let Some((from, position)) = &self.passed {
            webhooks::pass(tx, id, from, (&self.previous, *position))?;
        }
        deliveries::record(tx, id, &self.message, &self.previous, self.attempt, is_last)
    }
}

fn not_taken(failure: Failure) -> JobError {
    // What comes next is the webhook's to say, and not for the engine to try.
    JobError::permanent(failure.code, "the receiver did not take an event")
}

fn unavailable(error: &store::Error) -> JobError {
    tracing::warn!(%error, "a webhook could not be read");
    JobError::transient("unavailable", "the database did not answer")
}
