//! Calls of URLs that users have given: signed, to where the guard allows, and to nowhere that their answers name.

mod address;
mod connected;
mod sealed;
mod signature;

use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::{Client, Response, Url, redirect};
use shared::{secrets::Secrets, time::Timestamp};

use self::{
    address::Guard,
    signature::{ID, SIGNATURE, TIMESTAMP, seconds},
};
pub(crate) use self::{
    address::{Address, Refused},
    connected::Connected,
    sealed::{
        BUNDLE, OLD_BUNDLE, OLD_UNTIL, OLD_WEBHOOK, OldSecrets, SECRET_COLUMNS, Sealed, WEBHOOK,
    },
    signature::{NoSecret, Secret, SignedHead},
};
use crate::HttpBundlesConfig;

const CONNECT: Duration = Duration::from_secs(10);
/// How soon a machine that went without a word is missed.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Why there is no answer. The connection's own words stay in the log: they may name addresses.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsent {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it could not be connected to")]
    NotConnected,
    #[error("the connection was lost")]
    Lost,
    #[error("the call could not be made")]
    NotMade,
}

/// The client for all that users have given; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    client: Client,
    guard: Guard,
    secrets: Secrets,
}

impl Outgoing {
    pub(crate) fn new(config: &HttpBundlesConfig, secrets: Secrets) -> anyhow::Result<Self> {
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
            .connector_layer(connected::NoteConnections)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE)
            .tcp_keepalive_retries(2)
            .build()
            .context("failed to make the client for URLs of users")?;
        Ok(Self { client, guard, secrets })
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Posts a body of JSON, signed at this moment with each of the secrets. Dropped, the connection is closed.
    pub(crate) async fn post(
        &self,
        url: &Url,
        secrets: &[&Sealed],
        id: &str,
        body: Bytes,
        accept: &'static str,
    ) -> Result<Response, Unsent> {
        self.guard.check(url)?;
        let secrets = secrets.iter().map(|sealed| self.open(sealed));
        let secrets = secrets.collect::<Option<Vec<Secret>>>().ok_or(Unsent::NotMade)?;
        let head = head(&secrets, id, &body, accept).map_err(|_| Unsent::NotMade)?;
        let sent = self.client.post(url.clone()).headers(head).body(body).send().await;
        // A URL may be a secret too.
        sent.map_err(|error| unsent(&error.without_url()))
    }
}

fn head(
    secrets: &[Secret],
    id: &str,
    body: &[u8],
    accept: &'static str,
) -> Result<HeaderMap, http::header::InvalidHeaderValue> {
    let at = Timestamp::now();
    let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(id, at, body)).collect();
    let signature = signatures.join(" ");
    let mut head = HeaderMap::new();
    for (name, value) in [(ID, id), (TIMESTAMP, &seconds(at).to_string()), (SIGNATURE, &signature)]
    {
        head.insert(HeaderName::from_static(name), HeaderValue::from_str(value)?);
    }
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.insert(header::ACCEPT, HeaderValue::from_static(accept));
    Ok(head)
}

fn unsent(error: &reqwest::Error) -> Unsent {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = String::new();
    while let Some(reason) = cause {
        innermost = reason.to_string();
        if let Some(refused) = reason.downcast_ref::<Refused>() {
            return Unsent::Refused(*refused);
        }
        cause = reason.source();
    }
    tracing::info!(%error, cause = innermost, "a URL could not be called");
    if error.is_connect() { Unsent::NotConnected } else { Unsent::Lost }
}

/// Shortest time for which a server that asks to be left alone is left alone: `Retry-After: 0` is no invitation to a loop.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// Returns how long an answer asks to be left alone: `Retry-After` in seconds, or as a date (RFC 9110 §10.2.3). A date is
/// compared with the answer's own `Date` where there is one, so that it does not matter whose clock is wrong.
pub(crate) fn retry_after(head: &HeaderMap) -> Option<Duration> {
    let text = |name| head.get(name)?.to_str().ok().map(str::trim);
    let date = |text| httpdate::parse_http_date(text).ok();
    let asked = text(header::RETRY_AFTER)?;
    let is_number = !asked.is_empty() && asked.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        // Digits alone fail only where 64 bits do not hold them.
        Duration::from_secs(asked.parse().unwrap_or(u64::MAX))
    } else {
        let now = text(header::DATE).and_then(date).unwrap_or_else(SystemTime::now);
        date(asked)?.duration_since(now).unwrap_or_default()
    };
    Some(wait.max(SHORTEST_RETRY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_seconds_or_a_date_and_never_less_than_a_second() {
        let head = |asked: &'static str, date: Option<&'static str>| {
            let date = date.map(|date| (header::DATE, HeaderValue::from_static(date)));
            let asked = (header::RETRY_AFTER, HeaderValue::from_static(asked));
            date.into_iter().chain([asked]).collect::<HeaderMap>()
        };
        let now = Some("Sun, 06 Nov 1994 08:49:30 GMT");
        for (asked, seconds) in [
            ("30", Some(30)),
            ("0", Some(1)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(7)),
            ("Sun Nov  6 08:49:37 1994", Some(7)),
            // A date that is past.
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(1)),
            ("99999999999999999999", Some(u64::MAX)),
            ("", None),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&head(asked, now)), expected, "{asked}");
        }
        let tomorrow = SystemTime::now() + Duration::from_hours(24);
        let text = httpdate::fmt_http_date(tomorrow);
        let head = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
        let wait = retry_after(&head).expect("a date");
        assert!(wait > Duration::from_hours(23) && wait <= Duration::from_hours(24), "{wait:?}");
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
