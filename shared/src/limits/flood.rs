//! Flood guard: one budget a caller before everything else, for every path, known or not.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{Quota, clock::QuantaInstant, middleware::NoOpMiddleware};
use http::{StatusCode, request::Parts};
use tower::{Layer, Service};
use tower_governor::{
    GovernorError, GovernorLayer,
    governor::{GovernorConfig, GovernorConfigBuilder},
    key_extractor::KeyExtractor,
};

use super::{Gate, buckets::Who, class};
use crate::{
    auth::{Refused, Route, Shown},
    http::Failure,
};

/// Addresses that have a budget of their own. Beyond them, addresses share [`CROWDS`] budgets until the next sweep.
const MAX_ADDRESSES: usize = 100_000;
const CROWDS: u64 = 4_096;

type Layered = GovernorLayer<CallerOfRequest, NoOpMiddleware<QuantaInstant>, Body>;
type Config = GovernorConfig<CallerOfRequest, NoOpMiddleware<QuantaInstant>>;

/// Budgets of the guard; a clone has the same ones.
#[derive(Clone)]
pub(super) struct FloodBudgets {
    config: Arc<Config>,
    layer: Layered,
    /// Upper bound of how many addresses have a budget: those that the last sweep left, and every request since.
    addresses: Arc<AtomicUsize>,
}

impl fmt::Debug for FloodBudgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FloodBudgets").finish_non_exhaustive()
    }
}

/// Caller that a request is charged to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
enum Caller {
    /// User of a known credential, by their number.
    User(u64),
    /// Network of the client address.
    Address(IpAddr),
    /// All addresses of one share, while there are too many to count each.
    Crowd(u64),
}

/// Reads the caller that the guard has put into the request's extensions.
#[derive(Copy, Clone, Debug)]
struct CallerOfRequest;

impl KeyExtractor for CallerOfRequest {
    type Key = Caller;

    fn extract<T>(&self, request: &http::Request<T>) -> Result<Caller, GovernorError> {
        request.extensions().get().copied().ok_or(GovernorError::UnableToExtractKey)
    }
}

/// Mark of a request whose credential the guard has verified over the address's budget.
#[derive(Copy, Clone, Debug)]
pub(super) struct Vouched;

/// Credential of the request, so that its digest is made once.
#[derive(Copy, Clone, Debug)]
pub(super) struct ShownHere(pub(super) Option<Shown>);

impl FloodBudgets {
    pub(super) fn new(quota: Quota) -> Option<Self> {
        let mut config = GovernorConfigBuilder::default();
        config.period(quota.replenish_interval()).burst_size(quota.burst_size().get());
        let config = Arc::new(config.key_extractor(CallerOfRequest).finish()?);
        let layer = GovernorLayer::new(config.clone()).error_handler(|error| {
            let GovernorError::TooManyRequests { wait_time: seconds, .. } = error else {
                return Failure::internal().into_response();
            };
            // The library cuts the fraction off, and a client that waits too short is refused again.
            refusal(Duration::from_secs(seconds.saturating_add(1)))
        });
        Some(Self { config, layer, addresses: Arc::default() })
    }

    /// Drops the budgets that are whole again.
    pub(super) fn sweep(&self) {
        let limiter = self.config.limiter();
        limiter.retain_recent();
        limiter.shrink_to_fit();
        self.addresses.store(limiter.len(), Ordering::Relaxed);
    }

    fn caller_at(&self, gate: &Gate, address: IpAddr) -> Caller {
        if self.addresses.fetch_add(1, Ordering::Relaxed) < MAX_ADDRESSES {
            return Caller::Address(address);
        }
        Caller::Crowd(gate.limits.inner.seen.number_of(&address) % CROWDS)
    }

    /// Takes one request from a caller's budget.
    fn take(&self, caller: Caller) -> bool {
        self.config.limiter().check_key(&caller).is_ok()
    }
}

fn refusal(wait: Duration) -> Response {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let message = "too many requests from this caller; slow down";
    Failure::retry_after(status, "rate_limited", message, wait).traced().into_response()
}

/// Charges a request to its caller and serves it, or refuses it.
pub(super) async fn hold(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    static FORWARDED: Once = Once::new();
    if gate.proxies.is_empty() && request.headers().contains_key("x-forwarded-for") {
        FORWARDED.call_once(|| {
            tracing::warn!(
                "a request was forwarded (X-Forwarded-For) and TRUSTED_PROXIES is not set: all clients behind the proxy \
                 share the limits of one address"
            );
        });
    }
    let Some(budgets) = &gate.limits.inner.flood else { return next.run(request).await };
    let path = request.uri().path();
    // A proxy that is told to slow down would take the instance for dead.
    if ["/health", "/health/ready", "/health/live"].contains(&path) {
        return next.run(request).await;
    }
    let route = class::route(request.method(), path);
    let (mut parts, body) = request.into_parts();
    let Some(&ConnectInfo::<SocketAddr>(peer)) = parts.extensions.get() else {
        tracing::error!("a listener does not name its peers");
        return Failure::internal().traced().into_response();
    };
    let shown = gate.auth.shown(&parts, route);
    let seen = &gate.limits.inner.seen;
    let known = shown.as_ref().and_then(|shown| seen.find(shown, gate.auth.now()));
    parts.extensions.insert(ShownHere(shown));
    let network = || gate.proxies.client(peer.ip(), &parts.headers).network();
    let caller = match known {
        Some(known) => Caller::User(known.user),
        None => budgets.caller_at(&gate, network()),
    };
    if let (None, Some(shown)) = (known, shown) {
        if budgets.take(caller) {
            return next.run(Request::from_parts(parts, body)).await;
        }
        return match gate.admit_unknown(&mut parts, route, &shown, budgets).await {
            Ok(()) => next.run(Request::from_parts(parts, body)).await,
            Err(refused) => refused,
        };
    }
    parts.extensions.insert(caller);
    let mut governed = budgets.layer.layer(next);
    let Ok(response) = governed.call(Request::from_parts(parts, body)).await;
    response
}

impl Gate {
    /// Verifies a credential that is not known, of an address that has spent its budget. A good one is charged to its user.
    async fn admit_unknown(
        &self,
        parts: &mut Parts,
        route: Route,
        shown: &Shown,
        budgets: &FloodBudgets,
    ) -> Result<(), Response> {
        let inner = &self.limits.inner;
        let over = || refusal(Duration::from_secs(1));
        if inner.seen.is_refused(shown) {
            return Err(over());
        }
        inner.verifications.take(self.address(parts), true).map_err(refusal)?;
        match self.auth.vouch(parts, route).await {
            Ok(Some(identity)) => {
                inner.seen.accept(shown, &identity.id, identity.expires_at);
                let user = Caller::User(inner.seen.number_of(&identity.id));
                if !budgets.take(user) {
                    return Err(over());
                }
            }
            // The handler says that it cannot be found out.
            Ok(None) | Err(Refused::Store(_) | Refused::Unavailable) => {}
            Err(refused) => {
                if matches!(refused, Refused::Unauthenticated) {
                    inner.seen.refuse(shown);
                }
                return Err(over());
            }
        }
        parts.extensions.insert(Vouched);
        Ok(())
    }

    fn address(&self, parts: &Parts) -> Who {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(peer)| peer.ip());
        Who::Address(self.proxies.client(peer, &parts.headers).key())
    }
}
