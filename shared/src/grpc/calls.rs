//! A call: signed, with a deadline and a trace, made again elsewhere if that is safe.

use std::{
    error::Error,
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header, request};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, ConnectError, Status, TimeoutExpired, body::Body, transport};
use tower::{Service, ServiceExt};

use super::{
    MAX_DEADLINE, Peer, REPLICA, TIMEOUT,
    deadline::{self, Until},
    peer::Replica,
};
use crate::{http::trace, service_token, store::budget, time::Timestamp};

/// How often a call is made at most.
const ATTEMPTS: u32 = 3;

/// Makes calls to a peer's replicas, for tonic's generated clients; a clone makes the same.
#[derive(Clone)]
pub struct Calls {
    peer: Peer,
    deadline: Duration,
    /// Until when a stream may go on that was answered in time.
    stream: Option<Duration>,
    repeatable: bool,
}

/// What came of an attempt.
enum Failed {
    /// It never left.
    Unsent(Status),
    /// Nobody knows how far it came.
    Lost(Status),
    /// It took too long.
    Late,
    /// The replica would rather have another one do it.
    Declined(Response<Body>),
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, deadline, stream, repeatable } = self;
        let mut calls = f.debug_struct("Calls");
        calls.field("peer", peer).field("deadline", deadline).field("stream", stream);
        calls.field("repeatable", repeatable).finish()
    }
}

impl Calls {
    pub(super) fn new(peer: Peer, deadline: Duration) -> Self {
        Self { peer, deadline, stream: None, repeatable: false }
    }

    /// Says that these calls may reach a replica more than once: they only read, or name what they write. Any other call is
    /// made again only if it never left.
    #[must_use]
    pub fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// Says that the answer is a stream, which may go on so long after it has begun.
    #[must_use]
    pub fn streaming(self, stream: Duration) -> Self {
        Self { stream: Some(stream), ..self }
    }

    async fn make(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        // A request that has waited for its database already waits less for its peer.
        let left = budget::left().map_or(self.deadline, |left| self.deadline.min(left));
        let _wait = budget::Wait::begin();
        let over = Instant::now() + left;
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let route = timeout_at(over, self.peer.route()).await.unwrap_or_default();
        let mut failed = None;
        for attempt in 0..ATTEMPTS {
            let Some(replica) = route.get(attempt as usize % route.len().max(1)) else { break };
            let again = attempt as usize >= route.len();
            let (stop, left) = (over <= Instant::now(), over - Instant::now());
            match &failed {
                Some(_) if stop => break,
                None | Some(Failed::Unsent(_)) => {}
                // Once more the same replica: it may only have closed an old connection.
                Some(Failed::Lost(_)) if self.repeatable => {}
                Some(Failed::Late | Failed::Declined(_)) if self.repeatable && !again => {}
                Some(_) => break,
            }
            // While there is another replica and time for it, one that hangs does not get all of the time.
            let patience =
                if self.repeatable && route.len() > 1 { left / (ATTEMPTS - attempt) } else { left };
            let outcome = self.attempt(replica, &head, &body, Instant::now() + patience).await;
            let failure = match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let why = match &failure {
                Failed::Unsent(status) | Failed::Lost(status) => status.message(),
                Failed::Late => "too late",
                Failed::Declined(_) => "declined",
            };
            tracing::debug!(address = %replica.address(), attempt, why, path = head.uri.path(), "a call failed");
            failed = Some(failure);
        }
        match failed {
            // The only one that is an answer.
            Some(Failed::Declined(answer)) => Ok(answer),
            Some(Failed::Unsent(status) | Failed::Lost(status)) => Err(status),
            Some(Failed::Late) => Err(deadline::exceeded()),
            None => Err(Status::unavailable("no replica is known")),
        }
    }

    /// Makes the call once; twice if another process has come to be at the replica's address, which does nothing but say so.
    async fn attempt(
        &self,
        replica: &Replica,
        head: &request::Parts,
        body: &Bytes,
        over: Instant,
    ) -> Result<Response<Body>, Failed> {
        let id = self.id(replica, over).await?;
        match self.send(replica, &id, head, body, over).await {
            Err(Failed::Declined(answer))
                if answer.headers().get(REPLICA).is_some_and(|other| *other != id) =>
            {
                let id = self.id(replica, over).await?;
                self.send(replica, &id, head, body, over).await
            }
            outcome => outcome,
        }
    }

    async fn id(&self, replica: &Replica, over: Instant) -> Result<HeaderValue, Failed> {
        let id = timeout_at(over, replica.id(self.peer.inner.me.other())).await;
        let id = id.map_err(|_| Failed::Late)?;
        id.ok_or_else(|| {
            self.peer.suspect(replica);
            Failed::Unsent(Status::unavailable("the replica does not answer"))
        })
    }

    async fn send(
        &self,
        replica: &Replica,
        id: &HeaderValue,
        head: &request::Parts,
        body: &Bytes,
        over: Instant,
    ) -> Result<Response<Body>, Failed> {
        let left = over - Instant::now();
        let whole = self.stream.unwrap_or(left).min(MAX_DEADLINE);
        let mut request = Request::new(Body::new(Full::new(body.clone())));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers.clone();
        let introduced = self.introduce(id, head.uri.path(), body, request.headers_mut(), whole);
        introduced.map_err(Failed::Unsent)?;
        let ends = Instant::now() + whole;
        let answered = timeout_at(over, replica.channel.clone().oneshot(request)).await;
        match answered {
            Err(_) => Err(Failed::Late),
            Ok(Err(error)) => {
                let failed = failure(&error);
                if !matches!(failed, Failed::Late) {
                    self.peer.suspect(replica);
                }
                Err(failed)
            }
            Ok(Ok(answer)) => {
                replica.learn_id(answer.headers());
                match code(answer.headers()) {
                    Some(Code::Unavailable) => Err(Failed::Declined(answer)),
                    Some(Code::DeadlineExceeded) => Err(Failed::Late),
                    _ => Ok(answer.map(|body| Body::new(Until::new(body, ends)))),
                }
            }
        }
    }

    /// Adds the signature of a call, its replica, its deadline and its trace to the headers.
    fn introduce(
        &self,
        id: &HeaderValue,
        path: &str,
        body: &[u8],
        headers: &mut HeaderMap,
        left: Duration,
    ) -> Result<(), Status> {
        let inner = &self.peer.inner;
        let call = service_token::Call { replica: id.to_str().unwrap_or_default(), path };
        let token = inner.token.sign(inner.me, call, body, Timestamp::now());
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Status::internal("the service token is no header value"))?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(REPLICA, id.clone());
        headers.insert(TIMEOUT, deadline::header(left));
        let trace = trace::current().and_then(|trace| HeaderValue::from_str(trace.as_str()).ok());
        if let Some(trace) = trace {
            headers.insert(trace::TRACE, trace);
        }
        Ok(())
    }
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().make(request))
    }
}

fn failure(error: &transport::Error) -> Failed {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    let (mut unsent, mut late) = (false, false);
    while let Some(error) = source {
        unsent |= error.is::<ConnectError>();
        late |= error.is::<TimeoutExpired>();
        source = error.source();
    }
    let message = format!("{error:?}");
    if late {
        Failed::Late
    } else if unsent {
        Failed::Unsent(Status::unavailable(message))
    } else {
        Failed::Lost(Status::unavailable(message))
    }
}

/// Returns the code of an answer that is only a status.
fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}
