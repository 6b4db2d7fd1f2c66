//! Calls of a bundle, and every way in which they may fail.

use std::time::Duration;

use http::StatusCode;
use reqwest::Response;
use serde::Serialize;
use serde_json::Value;
use shared::{
    ids::{JobId, ProjectId, UserId},
    store::Clock,
};
use tokio::time::{Instant, sleep_until};

use super::{away::Away, store::Registered};
use crate::{
    jobs::JobError,
    outgoing::{Connected, Outgoing, Unsent, retry_after},
};

/// Code of the error of a bundle that could not be connected to.
const UNREACHABLE: &str = "bundle_unreachable";
const CANCEL: Duration = Duration::from_secs(5);

/// What a bundle is sent.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Message<'a> {
    /// Do it.
    Run {
        job: JobId,
        /// Which worker asks; a callback shows it.
        fence: i64,
        attempt: i64,
        operation: &'a str,
        project_id: ProjectId,
        owner: &'a UserId,
        input: &'a Value,
        callback_url: &'a str,
        timeout_seconds: u64,
    },
    /// Nobody waits for it any more.
    Cancel { job: JobId, fence: i64 },
}

/// How a bundle answers a call.
#[derive(Debug)]
pub(super) enum Answered {
    /// In lines, from now on, for as long as is left of the bundle's time.
    Lines(Response, Duration),
    /// It will call back.
    Accepted,
    /// The bundle failed, or could not be called.
    Failed(JobError),
}

/// Calls bundles; a clone is the same one.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) outgoing: Outgoing,
    /// Tells which secrets are good.
    pub(super) clock: Clock,
    pub(super) away: Away,
}

impl Caller {
    /// Asks a bundle to do something within a time, which begins with the connection. Dropped, the connection is closed.
    pub(super) async fn run(
        &self,
        bundle: &Registered,
        id: &str,
        message: &Message<'_>,
        limit: Duration,
    ) -> Answered {
        if self.away.is_left_alone(&bundle.url, Instant::now()) {
            return Answered::Failed(unreachable().snoozed(None));
        }
        let connected = Connected::default();
        let sent = connected.watch(self.send(bundle, id, message));
        let time_is_over = async { sleep_until(connected.wait().await + limit).await };
        let answered = tokio::select! {
            biased;
            sent = sent => match sent {
                Ok(response) => answered(response, limit.saturating_sub(connected.elapsed())),
                Err(error) => Answered::Failed(error),
            },
            () = time_is_over => Answered::Failed(took_too_long()),
        };
        match &answered {
            Answered::Failed(error) if error.code == UNREACHABLE => {
                self.away.note(&bundle.url, Instant::now());
            }
            _ => self.away.forget(&bundle.url),
        }
        answered
    }

    /// Tells a bundle that nobody waits for it any more, and says whether it has heard.
    pub(super) async fn cancel(&self, bundle: &Registered, job: JobId, fence: i64) -> bool {
        let (id, message) = (format!("{job}.{fence}.cancel"), Message::Cancel { job, fence });
        let told = tokio::time::timeout(CANCEL, self.send(bundle, &id, &message)).await;
        matches!(told, Ok(Ok(response)) if !is_passing(response.status()))
    }

    async fn send(
        &self,
        bundle: &Registered,
        id: &str,
        message: &Message<'_>,
    ) -> Result<Response, JobError> {
        let body = serde_json::to_vec(message).map_err(|_| internal())?;
        let secrets = bundle.secrets(self.clock.now());
        let accept = "application/x-ndjson";
        let sent = self.outgoing.post(&bundle.url, &secrets, id, body.into(), accept).await;
        sent.map_err(|unsent| match unsent {
            Unsent::Refused(refused) => JobError::permanent("address_refused", refused.to_string()),
            // The bundle was asked for nothing yet.
            Unsent::NotConnected => unreachable().snoozed(None),
            Unsent::Lost => connection_lost(),
            Unsent::NotMade => internal(),
        })
    }
}

fn unreachable() -> JobError {
    JobError::transient(UNREACHABLE, "the bundle could not be connected to")
}

fn asked_for_time(after: Duration) -> JobError {
    let message = format!("the bundle asked to be called in {} seconds", after.as_secs());
    JobError::transient("bundle_busy", message).snoozed(Some(after))
}

/// Returns the error for a bundle whose time is over.
pub(super) fn took_too_long() -> JobError {
    JobError::transient("timeout", "the operation took too long")
}

fn internal() -> JobError {
    JobError::permanent("internal", "the call could not be made")
}

fn answered(response: Response, left: Duration) -> Answered {
    let status = response.status();
    let transient = |code, message: &str| Answered::Failed(JobError::transient(code, message));
    match status {
        StatusCode::OK => Answered::Lines(response, left),
        StatusCode::ACCEPTED => Answered::Accepted,
        _ if status.is_redirection() => Answered::Failed(JobError::permanent(
            "redirected",
            "the bundle answered with a redirect, which is not followed",
        )),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            match retry_after(response.headers()) {
                Some(after) => Answered::Failed(asked_for_time(after)),
                None => transient("bundle_busy", "the bundle is busy"),
            }
        }
        _ if is_passing(status) => {
            transient("bundle_unavailable", &format!("the bundle answered {}", status.as_u16()))
        }
        _ => Answered::Failed(JobError::permanent(
            "bundle_refused",
            format!("the bundle answered {}", status.as_u16()),
        )),
    }
}

/// Says whether the same call may be answered otherwise a little later.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS]
            .contains(&status)
}

/// Says that the answer ended before its end.
pub(super) fn connection_lost() -> JobError {
    JobError::transient(
        "connection_lost",
        "the connection to the bundle was lost before its result",
    )
}
