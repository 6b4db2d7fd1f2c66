//! Runs HTTP/1 on one connection, to its end or until an answer hands the connection over.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, Version, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};

use super::{
    body::{AnswerBody, RequestBody},
    state::State,
    tap::Tap,
};
use crate::http::Failure;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;
/// The longest head of a request in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// The most that is buffered of either direction in bytes; above the head's so that uploads come in larger parts.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How HTTP ended on a connection.
pub(super) enum Outcome<T, P> {
    /// An answer's first bytes are out, and the IO is `successor`'s.
    HandedOver { io: T, successor: P },
    /// The answer is out, while the peer may still be sending what nobody will read.
    Unread { io: T },
    /// There is nothing more to say or to hear.
    Ended,
}

/// How polling hyper ended.
enum End {
    HandedOver,
    Closed(hyper::Result<()>),
    TimedOut,
}

/// Drops what waits for the connection, whatever else still holds its state.
struct Waiting<'a, P>(&'a State<P>);

impl<P> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        drop(self.0.take_successor());
    }
}

/// Serves HTTP/1 on `io` until the connection ends; when `stopping` resolves, after the running request, or the first one.
pub(super) async fn drive<T, P, S, F>(
    io: T,
    state: &Arc<State<P>>,
    serve: S,
    stopping: impl Future<Output = ()>,
) -> Outcome<T, P>
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
    P: Send + 'static,
    S: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    let waiting = Waiting(state);
    let service = service_fn(|request: http::Request<Incoming>| {
        let has_two_lengths = state.requested();
        let answer = match fault(&request, has_two_lengths) {
            Some(refusal) => Err(refusal),
            None => Ok(serve(request.map(|incoming| RequestBody::wrap(incoming, state)))),
        };
        async move {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err(refusal) => refusal,
            };
            let body = |body| AnswerBody { body, state: state.clone() };
            Ok::<_, Infallible>(answer.map(body))
        }
    });
    let io = TokioIo::new(Tap::new(io, state.clone()));
    let mut connection = http1::Builder::new()
        // Hyper's would be one deadline for heads and for idle connections.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(io, service);
    let mut stopping = pin!(stopping);
    let (mut is_stopping, mut told) = (false, false);
    let mut alarm = pin!(sleep_until(state.deadline().unwrap_or_else(Instant::now)));
    let end = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            state.hurry();
        }
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Closed(ended));
        }
        // Told earlier, hyper would close a connection whose first request is on its way.
        if is_stopping && !told && !state.is_new() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(End::Closed(ended));
            }
        }
        if state.is_handed_over() {
            return Poll::Ready(End::HandedOver);
        }
        // The alarm may be early, never late: it is set anew when it rings, not at every request.
        while let Some(deadline) = state.deadline() {
            if deadline <= Instant::now() {
                return Poll::Ready(End::TimedOut);
            }
            if deadline < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        Poll::Pending
    });
    let end = end.await;
    let successor = waiting.0.take_successor();
    let parts = connection.into_parts();
    let io = parts.io.into_inner().into_inner();
    match (end, successor) {
        (End::HandedOver, Some(successor)) => Outcome::HandedOver { io, successor },
        (End::Closed(ended), _) => {
            let refused = ended.is_err_and(|error| error.is_parse());
            let unread = refused || state.is_unread() || !parts.read_buf.is_empty();
            if unread && !state.is_read_ended() { Outcome::Unread { io } } else { Outcome::Ended }
        }
        _ => Outcome::Ended,
    }
}

/// Refuses what two readers could understand differently, and closes: its sender may have hidden another request in it.
fn fault(request: &http::Request<Incoming>, has_two_lengths: bool) -> Option<Response> {
    const INVALID: (StatusCode, &str) = (StatusCode::BAD_REQUEST, "invalid_request");
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    let ((status, code), message) = match coding {
        _ if hosts > 1 => (INVALID, "the request names several hosts"),
        None if hosts == 0 && request.version() == Version::HTTP_11 => {
            (INVALID, "the request has no Host header")
        }
        // Hyper has taken the length out of the headers.
        Some(_) if has_two_lengths => {
            (INVALID, "the request has both Transfer-Encoding and Content-Length")
        }
        Some(coding) if !is_chunked(coding) || codings.next().is_some() => {
            let unknown = (StatusCode::NOT_IMPLEMENTED, "not_implemented");
            (unknown, "the only transfer coding that is taken is chunked")
        }
        Some(_) if hosts == 0 => (INVALID, "the request has no Host header"),
        None | Some(_) => return None,
    };
    let failure = Failure::new(status, code, message).traced();
    Some(([(header::CONNECTION, "close")], failure).into_response())
}
