//! One attempt to deliver one event.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use reqwest::{Response, Url};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{ids::WebhookId, journal::Position, time::Timestamp};
use tokio::time::timeout;

use super::deliveries::RESET;
use crate::outgoing::{Outgoing, Sealed, Unsent, retry_after};

/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// What it says besides is read so far and so long, so that it can say it, and goes nowhere.
const MAX_READ_BYTES: usize = 64 * 1024;
const READ: Duration = Duration::from_secs(1);

/// The code of a receiver that wants no more of them.
pub(super) const GONE: &str = "gone";

/// What a receiver is sent.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: Timestamp,
    /// The event as it is on the stream.
    data: &'a RawValue,
}

/// An event that is to be delivered.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// What the receiver knows it by, the same at each attempt.
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) seq: i64,
    body: Bytes,
}

impl Message {
    /// Its id is made of all that says which entry of which log it is: a log that lost its end uses numbers again.
    pub(super) fn new(
        webhook: WebhookId,
        kind: String,
        position: Position,
        at: Timestamp,
        event: &RawValue,
    ) -> serde_json::Result<Self> {
        let body = serde_json::to_vec(&Body { r#type: &kind, timestamp: at, data: event })?;
        let Position { epoch, seq, tag } = position;
        // A reset is told beside the entry that it goes on after.
        let what = if kind == RESET { "_reset" } else { "" };
        let id = format!("{webhook}_{epoch}_{seq}_{tag}{what}");
        Ok(Self { id, kind, seq, body: body.into() })
    }

    /// Returns which entry of its log a message is of, by its id.
    pub(super) fn position(id: &str) -> Option<Position> {
        let mut parts = id.split('_').skip(1);
        let epoch = parts.next()?.parse().ok()?;
        Some(Position { epoch, seq: parts.next()?.parse().ok()?, tag: parts.next()?.parse().ok()? })
    }
}

/// What came of it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Attempt {
    pub(super) http_status: Option<u16>,
    pub(super) duration: Duration,
    pub(super) failure: Option<Failure>,
}

/// Why the event was not taken.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    /// For how long the receiver has asked to be left alone.
    pub(super) asked: Option<Duration>,
}

/// Sends the event once.
pub(super) async fn attempt(
    outgoing: &Outgoing,
    url: &Url,
    secrets: &[&Sealed],
    message: &Message,
) -> Attempt {
    let began = Instant::now();
    let sent = outgoing.post(url, secrets, &message.id, message.body.clone(), "*/*");
    let (http_status, failure) = match timeout(PATIENCE, sent).await {
        Ok(Ok(mut response)) => {
            let failure = refusal(&response);
            read(&mut response).await;
            (Some(response.status().as_u16()), failure)
        }
        Ok(Err(unsent)) => (None, Some(Failure { code: code(unsent), asked: None })),
        Err(_) => (None, Some(Failure { code: "timeout", asked: None })),
    };
    Attempt { http_status, duration: began.elapsed(), failure }
}

fn refusal(response: &Response) -> Option<Failure> {
    let status = response.status();
    let code = match status {
        _ if status.is_success() => return None,
        _ if status.is_redirection() => "redirected",
        StatusCode::GONE => GONE,
        _ => "not_accepted",
    };
    let is_busy =
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
    Some(Failure { code, asked: retry_after(response.headers()).filter(|_| is_busy) })
}

fn code(unsent: Unsent) -> &'static str {
    match unsent {
        Unsent::Refused(_) => "address_refused",
        Unsent::NotConnected => "unreachable",
        Unsent::Lost => "connection_lost",
        Unsent::NotMade => "internal",
    }
}

/// Lets the receiver say what it has to: some take a connection that is closed meanwhile for a failure of theirs.
async fn read(response: &mut Response) {
    let reading = async {
        let mut bytes = 0;
        while let Ok(Some(part)) = response.chunk().await {
            bytes += part.len();
            if bytes > MAX_READ_BYTES {
                break;
            }
        }
    };
    // How it ends changes nothing: its status has said all.
    let _ = timeout(READ, reading).await;
}
