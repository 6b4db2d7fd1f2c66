//! Limits of requests: how often one caller may come, by kind of request, and how many are answered at once.

mod buckets;
mod class;
mod credentials;
mod flood;
mod in_flight;
mod more;
mod rate;

use std::{
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use governor::Quota;
use http::{Method, StatusCode, request::Parts};
use tokio_util::sync::CancellationToken;

use self::{
    buckets::{Budget, Monotonic, Who},
    credentials::SeenCredentials,
    flood::{FloodBudgets, ShownHere, Vouched},
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

/// Interval at which budgets of the flood guard that are whole again are dropped.
const FLOOD_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Number of those intervals after which the other budgets are swept too.
const FLOOD_SWEEPS_PER_SWEEP: u32 = 60;
/// Credentials of one address that are verified although the address has spent its budget: at once, and a second.
const VERIFICATIONS: Quota = Quota::per_second(NonZeroU32::MIN.saturating_add(4))
    .allow_burst(NonZeroU32::MIN.saturating_add(19));

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
    /// How many requests one caller may make in all, before any other limit and for any path: at once, and a second. A caller is the user of a credential that was seen before, else the client address. `off` is no limit; `/health` has none.
    #[arg(long, env = "FLOOD_LIMIT", default_value = "400/200")]
    pub flood_limit: Rate,
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
    /// `None` if the guard is off.
    flood: Option<FloodBudgets>,
    /// Verifications of addresses that have spent their budget.
    verifications: Budget,
    seen: SeenCredentials,
}

impl Limits {
    /// Begins with whole budgets.
    #[must_use]
    pub fn new(config: &LimitsConfig) -> Self {
        let budget = |rate: &Rate| Some(Budget::new(rate.quota()?, Monotonic::default()));
        let inner = Inner {
            classes: Class::ALL.map(|class| config.rates(class).map(budget)),
            in_flight: InFlight::new(config.max_in_flight.get()),
            flood: config.flood_limit.quota().and_then(FloodBudgets::new),
            verifications: Budget::new(VERIFICATIONS, Monotonic::default()),
            seen: SeenCredentials::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Puts the limits before a service's routes.
    pub fn guard(&self, routes: Router, gate: &Gate) -> Router {
        routes
            .route_layer(from_fn_with_state(gate.clone(), hold))
            .route_layer(from_fn_with_state(self.clone(), shed))
    }

    /// Returns what decides about requests of a service whose callers `auth` knows.
    #[must_use]
    pub fn gate(&self, auth: Auth, proxies: TrustedProxies) -> Gate {
        Gate { limits: self.clone(), auth, proxies }
    }

    /// Drops budgets that are whole again, until shutdown.
    pub async fn sweep(self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(FLOOD_SWEEP_INTERVAL);
        for number in 0_u32.. {
            if shutdown.run_until_cancelled(tick.tick()).await.is_none() {
                return;
            }
            if let Some(flood) = &self.inner.flood {
                flood.sweep();
            }
            if number.is_multiple_of(FLOOD_SWEEPS_PER_SWEEP) {
                let budgets = self.inner.classes.iter().flat_map(PerRole::values).flatten();
                budgets.chain([&self.inner.verifications]).for_each(Budget::sweep);
            }
        }
    }

    fn take(&self, class: Class, roles: Roles, who: Who, spend: bool) -> Result<(), Duration> {
        let budget = self.inner.classes[class as usize].of(roles);
        budget.as_ref().map_or(Ok(()), |budget| budget.take(who, spend))
    }
}

/// Decides whether a request of a service passes.
#[derive(Clone, Debug)]
pub struct Gate {
    limits: Limits,
    auth: Auth,
    proxies: TrustedProxies,
}

/// Why a request does not pass.
enum Blocked {
    /// The budget is spent; there is more after this time.
    Spent(Duration),
    /// The same credential was refused a moment ago.
    RefusedBefore,
}

impl From<Duration> for Blocked {
    fn from(wait: Duration) -> Self {
        Self::Spent(wait)
    }
}

impl Gate {
    /// Puts the flood guard before routes, inside of CORS, so that pages can read its refusals.
    pub(crate) fn before(&self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self.clone(), flood::hold))
    }

    /// Puts the flood guard before CORS for preflights, which CORS answers itself.
    pub(crate) fn before_preflights(&self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self.clone(), hold_preflight))
    }

    /// Takes the request from its caller's budget, or says why not.
    ///
    /// A credential that was good before is verified and charged to its user, whatever else comes from the address. One
    /// that is new is verified too, but if the address has spent its budget on bad ones, within a second budget.
    async fn admit(&self, parts: &mut Parts, class: Class, peer: IpAddr) -> Result<(), Blocked> {
        let Inner { seen, verifications, .. } = &*self.limits.inner;
        let address = Who::Address(self.proxies.client(peer, &parts.headers).key());
        let route = if class == Class::Opens { Route::Stream } else { Route::Other };
        let here = parts.extensions.get::<ShownHere>();
        let shown = here.map_or_else(|| self.auth.shown(parts, route), |here| here.0);
        let known = shown.as_ref().and_then(|shown| seen.find(shown, self.auth.now()));
        if known.is_none() && parts.extensions.get::<Vouched>().is_none() {
            if shown.as_ref().is_some_and(|shown| seen.is_refused(shown)) {
                return Err(Blocked::RefusedBefore);
            }
            let left = self.limits.take(class, Roles::default(), address.clone(), false);
            if let Err(wait) = left {
                if shown.is_none() {
                    return Err(wait.into());
                }
                verifications.take(address.clone(), true)?;
            }
        }
        match self.auth.identify(parts, route).await {
            Ok(User { id, roles, expires_at, .. }) => {
                if let (Some(shown), None) = (shown, known) {
                    seen.accept(&shown, &id, expires_at);
                }
                let who = Who::User(id);
                // Of the others each request is one, always.
                if class == Class::Submits {
                    parts.extensions.insert(More::of(&self.limits, class, roles, who.clone()));
                }
                let spend = class != Class::Opens || parts.method != Method::HEAD;
                Ok(self.limits.take(class, roles, who, spend)?)
            }
            // The handler says that it cannot be found out.
            Err(Refused::Store(_) | Refused::Unavailable) => Ok(()),
            Err(refused) => {
                if let (Some(shown), Refused::Unauthenticated) = (shown, refused) {
                    seen.refuse(&shown);
                }
                // A failure counts by every method: `HEAD` guesses as well as `GET`.
                Ok(self.limits.take(class, Roles::default(), address, true)?)
            }
        }
    }
}

async fn hold_preflight(state: State<Gate>, request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS {
        return flood::hold(state, request, next).await;
    }
    next.run(request).await
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
        Err(Blocked::Spent(wait)) => refusal(class, wait).into_response(),
        Err(Blocked::RefusedBefore) => Refused::Unauthenticated.into_response(),
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
