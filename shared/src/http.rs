//! Listeners, and the manners of the public ones: trace ids, sessions, one shape of errors, extractors that keep to it.

mod client_address;
mod cors;
mod extract;
mod failure;
mod hosts;
mod internal;
mod listener;
mod page;
mod safety;
pub(crate) mod trace;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use tower_http::catch_panic::CatchPanicLayer;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use self::listener::fuzzing;
pub(crate) use self::trace::{ClaimedSession, claimed_session, query_value};
pub use self::{
    client_address::{ClientAddress, TrustedProxies},
    extract::{BodyBytes, BodyError, Json, Path, Query, RetryKey, check_json_depth},
    failure::Failure,
    hosts::{DemoAccess, Hosts},
    internal::serve_internal,
    listener::{ConnectionGuard, Connections, Detach, Detached, ListenConfig, serve_public},
    page::Limit,
    trace::{current as current_trace, scope as with_trace},
};
use crate::{lifecycle::Lifecycle, limits::Gate};

/// The longest body of a JSON request in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Asked by a proxy (`deploy/nginx`) that can bring what is refused to another replica, which is then told to.
const DRAIN_ELSEWHERE: HeaderName = HeaderName::from_static("x-drain-elsewhere");
const ACCEL_REDIRECT: HeaderName = HeaderName::from_static("x-accel-redirect");

/// Puts the manners around a service's routes. Everything passes the flood guard of `gate`; with demo users, a `demo` that
/// watches for clients of other machines, and only names of this machine are answered.
pub fn layered(
    routes: Router,
    lifecycle: &Lifecycle,
    cors_origin: &[String],
    gate: Option<&Gate>,
    demo: Option<&DemoAccess>,
) -> anyhow::Result<Router> {
    let health = crate::health::routes(lifecycle.clone());
    let routes = routes
        .layer(middleware::from_fn_with_state(lifecycle.clone(), refuse_when_closing))
        .merge(health)
        .fallback(|| async {
            Failure::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
        })
        .method_not_allowed_fallback(|| async {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path has no such method",
            )
        })
        .layer(CatchPanicLayer::custom(|_| Failure::internal().into_response()));
    let routes = match demo {
        Some(access) => routes
            .layer(middleware::from_fn_with_state(access.clone(), hosts::watch_forwarded))
            .layer(middleware::from_fn_with_state(Hosts::default(), hosts::only_ours)),
        None => routes,
    };
    let routes = match gate {
        Some(gate) => gate.before(routes),
        None => routes,
    };
    let routes = routes
        .layer(middleware::from_fn(trace::middleware))
        .layer(middleware::from_fn_with_state(lifecycle.clone(), close_when_draining))
        .layer(cors::layer(cors_origin)?)
        .layer(middleware::from_fn(cors::only_for_pages));
    let routes = match gate {
        Some(gate) => gate.before_preflights(routes),
        None => routes,
    };
    Ok(routes.layer(middleware::from_fn(safety::middleware)))
}

async fn refuse_when_closing(
    State(lifecycle): State<Lifecycle>,
    request: Request,
    next: Next,
) -> Response {
    if lifecycle.is_closing() {
        if request.headers().contains_key(DRAIN_ELSEWHERE) {
            // Never the client's words: a proxy that passes its header on would go where it says. And nothing else, as
            // the proxy would add it to the other's answer.
            return (StatusCode::SERVICE_UNAVAILABLE, [(ACCEL_REDIRECT, "@elsewhere")])
                .into_response();
        }
        // Not before the drain is over: a client that comes back in it would be refused again.
        let after = lifecycle.refuses_for() + Failure::retry_pause();
        return Failure::retry_after(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "this instance is going away",
            after,
        )
        .with("status", "draining")
        .into_response();
    }
    next.run(request).await
}

/// Ends connections by and by while the process is stopping, so that none is ended just when it is being used.
async fn close_when_draining(
    State(lifecycle): State<Lifecycle>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if lifecycle.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
