//! The way in: who calls, for how long, how many at once, on whose behalf.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tonic::{Code, Status, body::Body as GrpcBody, server::NamedService, service::Routes};
use tower::Service as TowerService;
use tracing::Instrument;

use super::{
    MAX_DEADLINE,
    deadline::{self, Until},
    health,
};
use crate::{
    http::trace,
    ids::TraceId,
    lifecycle::Lifecycle,
    service_token::{Service, ServiceToken},
    time::Timestamp,
};

/// Calls answered at once; further ones are told to go to another replica.
const MAX_RUNNING: usize = 512;

/// What every call passes.
#[derive(Clone)]
struct Gate {
    me: Service,
    token: ServiceToken,
    running: Arc<Semaphore>,
}

/// The gRPC services of an internal listener.
#[derive(Clone, Debug)]
pub struct Services {
    routes: Routes,
    names: Vec<&'static str>,
}

impl Services {
    /// Begins with one.
    pub fn of<S>(service: S) -> Self
    where
        S: Served,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        Self { routes: Routes::from(Router::new()), names: Vec::new() }.and(service)
    }

    /// Adds another.
    #[must_use]
    pub fn and<S>(mut self, service: S) -> Self
    where
        S: Served,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        Self { routes: self.routes.add_service(service), ..self }
    }
}

/// A service as tonic generates it.
pub trait Served:
    TowerService<http::Request<GrpcBody>, Error = Infallible>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Served for S where
    S: TowerService<http::Request<GrpcBody>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Returns the routes of an internal listener: the gRPC services, for the other service alone, and the process's health.
pub fn routes(
    me: Service,
    services: Services,
    token: ServiceToken,
    lifecycle: &Lifecycle,
) -> Router {
    let gate = Gate { me, token, running: Arc::new(Semaphore::new(MAX_RUNNING)) };
    let calls = services.routes.into_axum_router();
    let health = health::server(lifecycle.clone(), services.names);
    let health = Routes::from(Router::new()).add_service(health).into_axum_router();
    calls.route_layer(middleware::from_fn_with_state(gate, pass)).merge(health).fallback(unknown)
}

/// Says to a gRPC client that there is no such service, in its own terms.
async fn unknown(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if kind.starts_with(b"application/grpc") {
        Status::unimplemented("there is no such service here").into_http()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

/// Lets the other service's calls pass and bounds them.
async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !gate.knows(request.headers(), path) {
        tracing::debug!(path, "a call without identity was refused");
        return Status::unauthenticated("unauthenticated").into_http();
    }
    let Ok(running) = gate.running.clone().try_acquire_owned() else {
        return Status::unavailable("this instance is overloaded").into_http();
    };
    let within = deadline::of(request.headers()).unwrap_or(MAX_DEADLINE).min(MAX_DEADLINE);
    let deadline = Instant::now() + within;
    let trace =
        request.headers().get(trace::TRACE).and_then(|value| value.to_str().ok()?.parse().ok());
    let trace: TraceId = trace.unwrap_or_else(TraceId::mint);
    let span = tracing::debug_span!("call", trace.id = %trace, path);
    let serve = async move {
        let answered = timeout_at(deadline, next.run(request)).await;
        let mut response = answered.unwrap_or_else(|_| deadline::exceeded().into_http());
        by_the_book(response.headers_mut());
        tracing::debug!(code = ?code(response.headers()), "call served");
        drop(running);
        response
    };
    let response = trace::scope(trace, serve.instrument(span)).await;
    response.map(|body| Body::new(Until::new(body, deadline)))
}

impl Gate {
    fn knows(&self, headers: &HeaderMap, path: &str) -> bool {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        self.token.check(token, self.me, path, Timestamp::now())
    }
}

/// gRPC's code for a message that is too long is `RESOURCE_EXHAUSTED`; tonic's is `OUT_OF_RANGE`, which nothing else here
/// answers.
fn by_the_book(headers: &mut HeaderMap) {
    if code(headers) == Code::OutOfRange {
        headers.insert(Status::GRPC_STATUS, (Code::ResourceExhausted as i32).into());
    }
}

/// Returns the code of an answer that is only a status; of others it comes later, and is `Ok` until then.
fn code(headers: &HeaderMap) -> Code {
    headers.get(Status::GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}
