//! Calls of a bundle: signed, to where the guard allows, and every way in which they may fail.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Response, Url, redirect};
use serde::Serialize;
use serde_json::Value;
use shared::{
    ids::{JobId, ProjectId, UserId},
    time::Timestamp,
};

use super::{
    address::{Guard, Refused},
    signature::{ID, SIGNATURE, Secret, TIMESTAMP, seconds},
};
use crate::{HttpBundlesConfig, jobs::JobError};

const CONNECT: Duration = Duration::from_secs(10);
/// How soon a machine that went without a word is missed.
const KEEPALIVE: Duration = Duration::from_secs(15);
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
    /// In lines, from now on.
    Lines(Response),
    /// It will call back.
    Accepted,
    /// It asks to be called later.
    Later(Duration),
    Failed(JobError),
}

/// Calls bundles; a clone is the same one.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    client: Client,
    guard: Guard,
}

impl Caller {
    pub(super) fn new(config: &HttpBundlesConfig) -> anyhow::Result<Self> {
        let guard = Guard::new(config);
        let client = Client::builder()
            .user_agent(concat!("parley/", env!("CARGO_PKG_VERSION")))
            .https_only(!guard.allows_loopback())
            .dns_resolver(guard.clone())
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            // Each call looks the name up, and is guarded, anew.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE)
            .tcp_keepalive_retries(2)
            .build()
            .context("failed to make the client of bundles")?;
        Ok(Self { client, guard })
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Asks a bundle to do something. Dropped, the connection is closed.
    pub(super) async fn run(
        &self,
        url: &Url,
        secret: &Secret,
        id: &str,
        message: &Message<'_>,
    ) -> Answered {
        match self.send(url, secret, id, message).await {
            Ok(response) => answered(response),
            Err(error) => Answered::Failed(error),
        }
    }

    /// Tells a bundle that nobody waits for it any more, and says whether it has heard.
    pub(super) async fn cancel(&self, url: &Url, secret: &Secret, job: JobId, fence: i64) -> bool {
        let (id, message) = (format!("{job}.{fence}.cancel"), Message::Cancel { job, fence });
        let told = tokio::time::timeout(CANCEL, self.send(url, secret, &id, &message)).await;
        matches!(told, Ok(Ok(response)) if !is_passing(response.status()))
    }

    async fn send(
        &self,
        url: &Url,
        secret: &Secret,
        id: &str,
        message: &Message<'_>,
    ) -> Result<Response, JobError> {
        self.guard.check(url).map_err(refused)?;
        let internal = |_| JobError::permanent("internal", "the call could not be made");
        let body =
            Bytes::from(serde_json::to_vec(message).map_err(|error| internal(error.into()))?);
        let at = Timestamp::now();
        let mut head = HeaderMap::new();
        let signature = secret.sign(id, at, &body);
        let signed = [(ID, id), (TIMESTAMP, &seconds(at).to_string()), (SIGNATURE, &signature)];
        for (name, value) in signed {
            head.insert(
                name,
                HeaderValue::from_str(value).map_err(|e| internal(anyhow::Error::from(e)))?,
            );
        }
        head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        head.insert(header::ACCEPT, HeaderValue::from_static("application/x-ndjson"));
        let sent = self.client.post(url.clone()).headers(head).body(body).send().await;
        sent.map_err(|error| failed(&error))
    }
}

fn answered(response: Response) -> Answered {
    let status = response.status();
    let transient = |code, message: &str| Answered::Failed(JobError::transient(code, message));
    match status {
        StatusCode::OK => Answered::Lines(response),
        StatusCode::ACCEPTED => Answered::Accepted,
        _ if status.is_redirection() => Answered::Failed(JobError::permanent(
            "redirected",
            "the bundle answered with a redirect, which is not followed",
        )),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            match retry_after(response.headers()) {
                Some(after) => Answered::Later(after),
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

fn retry_after(head: &HeaderMap) -> Option<Duration> {
    let seconds = head.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn refused(refused: Refused) -> JobError {
    JobError::permanent("address_refused", refused.to_string())
}

/// Says what a failure of the connection means to the job. Its own words stay in the log: they may name addresses.
fn failed(error: &reqwest::Error) -> JobError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = String::new();
    while let Some(reason) = cause {
        innermost = reason.to_string();
        if let Some(reason) = reason.downcast_ref::<Refused>() {
            return refused(*reason);
        }
        cause = reason.source();
    }
    tracing::info!(%error, cause = innermost, "a bundle could not be called");
    if error.is_connect() {
        JobError::transient("bundle_unreachable", "the bundle could not be connected to")
    } else {
        connection_lost()
    }
}

/// Says that the answer ended before its end.
pub(super) fn connection_lost() -> JobError {
    JobError::transient(
        "connection_lost",
        "the connection to the bundle was lost before its result",
    )
}
