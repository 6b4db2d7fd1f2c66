//! Limits of requests: how often one caller may come, by kind of request, and how many are answered at once.

mod buckets;
mod class;
mod in_flight;
mod more;
mod rate;

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header, request::Parts};
use quick_cache::sync::Cache;
use tokio_util::sync::CancellationToken;

use self::{
    buckets::{Budget, Monotonic, Who},
    in_flight::InFlight,
};
pub use self::{
    class::Class,
    in_flight::Aside,
    more::{More, TooMuch},
    rate::{PerRole, Rate},
};
use crate::{
    auth::{Auth, Refused, Roles, Route, User},
    http::{Failure, TrustedProxies},
};

/// Credentials that are remembered as good.
const PROVEN: usize = 100_000;
/// How often whoever has a whole budget is forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Settings of limits.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct LimitsConfig {
    /// How often a caller may look at something: how many times at once, and how many a second in the long run. Roles may have more: `50/10,admin=500/100`; `off` is no limit.
    #[arg(long, env = "RATE_LIMIT_READS", default_value = "50/10")]
    pub rate_limit_reads: PerRole<Rate>,
    /// How often a caller may change something.
    #[arg(long, env = "RATE_LIMIT_SENDS", default_value = "20/5")]
    pub rate_limit_sends: PerRole<Rate>,
    /// How often a caller may open a stream.
    #[arg(long, env = "RATE_LIMIT_OPENS", default_value = "15/1")]
    pub rate_limit_opens: PerRole<Rate>,
    /// How often a caller may call an operation, repeat a job or upload a file.
    #[arg(long, env = "RATE_LIMIT_SUBMITS", default_value = "10/1")]
    pub rate_limit_submits: PerRole<Rate>,
    /// How many requests are answered at once; more are refused. Streams, and requests that wait for an event or for their client, do not count.
    #[arg(long, env = "MAX_IN_FLIGHT", default_value = "4096")]
    pub max_in_flight: NonZeroUsize,
}

impl LimitsConfig {
    fn rates(&self, class: Class) -> &PerRole<Rate> {
        match class {
            Class::Reads => &self.rate_limit_reads,
            Class::Sends => &self.rate_limit_sends,
            Class::Opens => &self.rate_limit_opens,
            Class::Submits => &self.rate_limit_submits,
        }
    }
}

/// The limits of the process; a clone is the same limits.
#[derive(Clone, Debug)]
pub struct Limits {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// In the order of [`Class::ALL`].
    classes: [PerRole<Option<Budget>>; 4],
    in_flight: InFlight,
    /// Credentials that were good when last seen, by a hash that only this process knows.
    proven: Cache<u64, ()>,
    hasher: RandomState,
}

impl Limits {
    /// Begins with whole budgets.
    #[must_use]
    pub fn new(config: &LimitsConfig) -> Self {
        let budget = |rate: &Rate| Some(Budget::new(rate.quota()?, Monotonic::default()));
        let inner = Inner {
            classes: Class::ALL.map(|class| config.rates(class).map(budget)),
            in_flight: InFlight::new(config.max_in_flight.get()),
            proven: Cache::new(PROVEN),
            hasher: RandomState::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Puts the limits before a service's routes.
    pub fn guard(&self, routes: Router, auth: Auth, proxies: TrustedProxies) -> Router {
        let gate = Gate { limits: self.clone(), auth, proxies };
        routes
            .route_layer(from_fn_with_state(gate, hold))
            .route_layer(from_fn_with_state(self.clone(), shed))
    }

    /// Forgets callers who have a whole budget, now and then, until shutdown.
    pub async fn sweep(self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let budgets = self.inner.classes.iter().flat_map(PerRole::values).flatten();
            budgets.for_each(Budget::sweep);
        }
    }

    fn take(&self, class: Class, roles: Roles, who: Who, spend: bool) -> Result<(), Duration> {
        let budget = self.inner.classes[class as usize].of(roles);
        budget.as_ref().map_or(Ok(()), |budget| budget.take(who, spend))
    }

    /// Returns what the request shows as its credentials, `None` if there are none.
    fn shown(&self, parts: &Parts, class: Class) -> Option<u64> {
        let headers = [&header::AUTHORIZATION, &header::COOKIE];
        let shown = headers.map(|name| parts.headers.get(name).map(AsRef::<[u8]>::as_ref));
        let query = parts.uri.query().filter(|_| class == Class::Opens);
        let any = shown.iter().any(Option::is_some) || query.is_some();
        any.then(|| self.inner.hasher.hash_one((shown, query)))
    }
}

/// What decides whether a request of a service passes.
#[derive(Clone, Debug)]
struct Gate {
    limits: Limits,
    auth: Auth,
    proxies: TrustedProxies,
}

impl Gate {
    /// Takes the request from its caller's budget, or says how long it is until there is one.
    async fn admit(&self, parts: &mut Parts, class: Class, peer: IpAddr) -> Result<(), Duration> {
        let address = Who::Address(self.proxies.client(peer, &parts.headers).key());
        let spend = class != Class::Opens || parts.method != Method::HEAD;
        // An address that has spent its budget on bad credentials may not try further ones: who guesses would see which are
        // good by their being let in. Those that were good before still are.
        let proven = &self.limits.inner.proven;
        let shown = self.limits.shown(parts, class);
        if shown.is_none_or(|shown| proven.get(&shown).is_none()) {
            self.limits.take(class, Roles::default(), address.clone(), false)?;
        }
        let route = if class == Class::Opens { Route::Stream } else { Route::Other };
        match self.auth.identify(parts, route).await {
            Ok(User { id, roles, .. }) => {
                if let Some(shown) = shown {
                    proven.insert(shown, ());
                }
                let who = Who::User(id);
                // Of the others each request is one, always.
                if class == Class::Submits {
                    parts.extensions.insert(More::of(&self.limits, class, roles, who.clone()));
                }
                self.limits.take(class, roles, who, spend)
            }
            // Who it is could not be found out, which the handler will say.
            Err(Refused::Store(_) | Refused::Unavailable) => Ok(()),
            Err(_) => self.limits.take(class, Roles::default(), address, spend),
        }
    }
}

async fn hold(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("/", MatchedPath::as_str);
    let Some(class) = Class::of(request.method(), route) else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    let Some(&ConnectInfo::<SocketAddr>(peer)) = parts.extensions.get() else {
        tracing::error!("a listener does not say who its peers are");
        return Failure::internal().into_response();
    };
    match gate.admit(&mut parts, class, peer.ip()).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(wait) => refusal(class, wait).into_response(),
    }
}

fn refusal(class: Class, wait: Duration) -> Failure {
    let message = match class {
        Class::Reads => "too many requests; slow down",
        Class::Sends => "too many changes; slow down",
        Class::Opens => "too many streams opened; slow down",
        Class::Submits => "too many submissions; slow down",
    };
    Failure::retry_after(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message, wait)
}

async fn shed(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    let Some(place) = limits.inner.in_flight.enter() else {
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        return Failure::retry(busy, "backpressure", "the server is overloaded").into_response();
    };
    request.extensions_mut().insert(Aside::of(&place));
    let response = next.run(request).await;
    drop(place);
    response
}
