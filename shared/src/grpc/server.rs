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
use uuid::Uuid;

use super::{
    MAX_DEADLINE, MAX_MESSAGE_BYTES, REPLICA,
    deadline::{self, Until},
    health,
};
use crate::{
    http::trace,
    ids::TraceId,
    lifecycle::Lifecycle,
    service_token::{Call, Checked, Nonces, Service, ServiceToken},
    time::Timestamp,
};

/// Calls answered at once; further ones are told to go to another replica.
const MAX_RUNNING: usize = 512;

/// The longest body of a call: one message behind its prefix of five bytes.
const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES + 5;

/// What every call passes.
#[derive(Clone)]
struct Gate {
    me: Service,
    token: ServiceToken,
    /// Id of this listener, which signatures name.
    replica: HeaderValue,
    nonces: Arc<Nonces>,
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
    let replica = HeaderValue::from_str(&Uuid::now_v7().to_string());
    let gate = Gate {
        me,
        token,
        replica: replica.unwrap_or(HeaderValue::from_static("")),
        nonces: Arc::default(),
        running: Arc::new(Semaphore::new(MAX_RUNNING)),
    };
    let named = middleware::from_fn_with_state(gate.replica.clone(), name);
    let calls = services.routes.into_axum_router();
    let health = health::server(lifecycle.clone(), services.names);
    let health = Routes::from(Router::new()).add_service(health).into_axum_router();
    let calls = calls.route_layer(middleware::from_fn_with_state(gate, pass));
    calls.merge(health).fallback(unknown).layer(named)
}

/// Names the replica in every answer.
async fn name(State(replica): State<HeaderValue>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(REPLICA, replica);
    response
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
    if request.headers().get(REPLICA).is_some_and(|replica| *replica != gate.replica) {
        // Another process has this address now: the caller signs anew, for this one.
        return Status::unavailable("the call is for another replica").into_http();
    }
    let Some(signed) = gate.signed(request.headers(), path) else {
        tracing::debug!(path, "a call without identity was refused");
        return Status::unauthenticated("unauthenticated").into_http();
    };
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
        let answer = async {
            match whole(request, &signed).await {
                Ok(request) => next.run(request).await,
                Err(refused) => refused.into_http(),
            }
        };
        let answered = timeout_at(deadline, answer).await;
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
    /// Returns the signature of the call if it is good and was not used before.
    fn signed(&self, headers: &HeaderMap, path: &str) -> Option<Checked> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let call = Call { replica: self.replica.to_str().unwrap_or_default(), path };
        let signed = self.token.check(token, self.me, call, Timestamp::now())?;
        self.nonces.is_new(&signed).then_some(signed)
    }
}

/// Reads the call's body, which is one message, and refuses one that was not signed.
async fn whole(request: Request, signed: &Checked) -> Result<Request, Status> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await;
    let body = body.map_err(|_| Status::resource_exhausted("the message is too long"))?;
    if !signed.covers(&body) {
        tracing::debug!("a call with another body than was signed was refused");
        return Err(Status::unauthenticated("unauthenticated"));
    }
    Ok(Request::from_parts(head, Body::from(body)))
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
