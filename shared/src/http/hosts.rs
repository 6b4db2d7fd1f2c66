//! Names that a listener answers to: a page whose name was made to resolve to this machine sends its own name as `Host`.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, uri::Authority};

use super::Failure;

/// Names of internal listeners besides addresses and `localhost`; a clone is the same list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Arc<[String]>);

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let name = |name: &str| {
            let is_name =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
            if is_name {
                Ok(name.to_ascii_lowercase())
            } else {
                Err(format!("`{name}` is no host name; write names without scheme and port"))
            }
        };
        names.map(name).collect::<Result<_, _>>().map(Self)
    }
}

impl Hosts {
    /// Returns whether a request names a host that is ours. A request without a host comes from no browser.
    pub(crate) fn admit<T>(&self, request: &http::Request<T>) -> bool {
        let host = match request.headers().get(header::HOST) {
            Some(host) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
            None => match request.uri().authority() {
                Some(authority) => Some(authority.clone()),
                None => return true,
            },
        };
        host.is_some_and(|host| self.contain(host.host()))
    }

    fn contain(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = bare.strip_suffix('.').unwrap_or(bare);
        bare.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Refuses what is asked of another host.
pub(super) async fn only_ours(
    State(hosts): State<Hosts>,
    request: Request,
    next: Next,
) -> Response {
    if hosts.admit(&request) { next.run(request).await } else { refusal() }
}

/// Refuses what is asked of another host, except gRPC, whose calls are signed.
pub(super) async fn only_ours_or_grpc(
    hosts: State<Hosts>,
    request: Request,
    next: Next,
) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return next.run(request).await;
    }
    only_ours(hosts, request, next).await
}

fn refusal() -> Response {
    let message = "this host name is not allowed: use an IP address or localhost (internal listeners also take names in INTERNAL_HOSTS)";
    Failure::new(StatusCode::FORBIDDEN, "forbidden", message).traced().into_response()
}

/// Switch of the demo users: they may sign in while every client is on this machine. A clone is the same switch.
#[derive(Clone, Debug, Default)]
pub struct DemoAccess {
    is_closed: Arc<AtomicBool>,
}

impl DemoAccess {
    /// Returns whether a client that is not on this machine was ever forwarded.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    fn watch(&self, headers: &HeaderMap) {
        if !self.is_closed() && is_from_elsewhere(headers) {
            self.is_closed.store(true, Ordering::Relaxed);
            tracing::error!(
                "a proxy forwards clients that are not on this machine: the demo users are refused from now on; set AUTH_USERS_FILE"
            );
        }
    }
}

/// Closes demo access as soon as a request was forwarded from elsewhere.
pub(super) async fn watch_forwarded(
    State(access): State<DemoAccess>,
    request: Request,
    next: Next,
) -> Response {
    access.watch(request.headers());
    next.run(request).await
}

/// Returns whether a forwarding header names an address that is not of this machine, or anything that is no address. The
/// other headers count only without `X-Forwarded-For`: a proxy that writes it may pass them on as clients sent them.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    if headers.contains_key("x-forwarded-for") {
        let lists = headers.get_all("x-forwarded-for").iter();
        let mut entries = lists.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        return entries.any(|entry| !is_loopback(entry));
    }
    let lists = headers.get_all("x-real-ip").iter();
    let listed = lists.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let forwarded = headers.get_all(header::FORWARDED).iter();
    let forwarded = forwarded.flat_map(|value| value.as_bytes().split(|byte| b",;".contains(byte)));
    let forwarded = forwarded.filter_map(|pair| {
        let text = std::str::from_utf8(pair).unwrap_or("for=?").trim();
        let (name, value) = text.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim().trim_matches('"').as_bytes())
    });
    listed.chain(forwarded).any(|entry| !is_loopback(entry))
}

fn is_loopback(entry: &[u8]) -> bool {
    let text = std::str::from_utf8(entry).unwrap_or("?").trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let addr = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()));
    addr.is_ok_and(|addr: IpAddr| addr.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn addresses_localhost_and_configured_names_are_ours() {
        let hosts: Hosts = "proc, metrics.example".parse().unwrap();
        for (host, ours) in [
            ("127.0.0.1:9010", true),
            ("10.1.2.3", true),
            ("[::1]:9010", true),
            ("localhost:9010", true),
            ("LOCALHOST.", true),
            ("proc:9020", true),
            ("Metrics.Example", true),
            ("rebound.evil.example:9010", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.example@127.0.0.1:1", true),
            ("", false),
            ("a b", false),
        ] {
            let request = http::Request::builder().header("host", host).body(()).unwrap();
            assert_eq!(hosts.admit(&request), ours, "{host}");
        }
        let request = http::Request::builder().uri("http://evil.example/").body(()).unwrap();
        assert!(!hosts.admit(&request));
        assert!(hosts.admit(&http::Request::new(())));
        assert!("http://proc".parse::<Hosts>().is_err());
    }

    #[test]
    fn only_loopback_clients_may_be_forwarded_to_demo_users() {
        for (name, value, elsewhere) in [
            ("x-forwarded-for", "127.0.0.1", false),
            ("x-forwarded-for", "127.0.0.1, [::1]:4711, ::ffff:127.0.0.1", false),
            ("x-forwarded-for", "203.0.113.9, 127.0.0.1", true),
            ("x-forwarded-for", "unknown", true),
            ("x-real-ip", "10.0.0.1", true),
            ("forwarded", "for=127.0.0.1;proto=http, for=\"[::1]:80\"", false),
            ("forwarded", "proto=http;For=\"[2001:db8::1]\"", true),
            ("forwarded", "for=_hidden", true),
            ("host", "203.0.113.9", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(is_from_elsewhere(&headers), elsewhere, "{name}: {value}");
        }
    }
}
