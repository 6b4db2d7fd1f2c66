//! A trace id and a session id for every request, on every answer.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use tracing::Instrument;

use crate::{
    ids::{SessionId, TraceId},
    store::budget::with_budget,
};

pub(crate) const TRACE: HeaderName = HeaderName::from_static("x-trace-id");
const SESSION: HeaderName = HeaderName::from_static("x-session-id");

tokio::task_local! {
    static CURRENT: TraceId;
}

/// Returns the trace of the request that is being served.
#[must_use]
pub fn current() -> Option<TraceId> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Does something as part of a trace.
pub async fn scope<T>(trace: TraceId, work: impl Future<Output = T>) -> T {
    CURRENT.scope(trace, work).await
}

/// The session that a request is in.
#[derive(Clone, Debug)]
pub(crate) enum ClaimedSession {
    /// Made for this request.
    Minted(SessionId),
    /// Shown by the client; whether it may is still to be asked.
    Shown(SessionId),
    /// Shown by the client, and no session id.
    Invalid,
}

/// Gives the request its ids and logs its outcome.
pub(super) async fn middleware(mut request: Request, next: Next) -> Response {
    let trace = request.headers().get(TRACE).and_then(|value| value.to_str().ok()?.parse().ok());
    let trace: TraceId = trace.unwrap_or_else(TraceId::mint);
    let claimed = match shown_session(request.headers(), request.uri().query().unwrap_or_default())
    {
        None => ClaimedSession::Minted(SessionId::mint()),
        Some(text) => text.parse().map_or(ClaimedSession::Invalid, ClaimedSession::Shown),
    };
    let session = match &claimed {
        ClaimedSession::Minted(session) | ClaimedSession::Shown(session) => {
            Some(session.to_string())
        }
        ClaimedSession::Invalid => None,
    };
    request.extensions_mut().insert(claimed);
    // The query may hold a token, so only the path is logged.
    let span = tracing::debug_span!("request", trace.id = %trace, method = %request.method(), path = request.uri().path());
    let serve = async move {
        let response = next.run(request).await;
        tracing::debug!(status = response.status().as_u16(), "request served");
        response
    };
    let mut response = scope(trace.clone(), with_budget(serve.instrument(span))).await;
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(TRACE, trace.as_str());
    if let Some(session) = session
        && !response.headers().contains_key(SESSION)
        && let Ok(session) = HeaderValue::from_str(&session)
    {
        response.headers_mut().insert(SESSION, session);
    }
    response
}

/// Returns the session that the request claims, `None` without the middleware.
pub(crate) fn claimed_session(parts: &Parts) -> Option<ClaimedSession> {
    parts.extensions.get().cloned()
}

fn shown_session(headers: &HeaderMap, query: &str) -> Option<String> {
    let header = |name: &str| {
        let value = headers.get(name).filter(|value| !value.is_empty())?;
        Some(value.to_str().unwrap_or("\u{0}").to_owned())
    };
    header("user-session-id")
        .or_else(|| query_value(query, "user_session_id"))
        .or_else(|| query_value(query, "session"))
        .or_else(|| header("x-session-token"))
}

/// Returns the first value of `name` in a query string that is not empty.
pub(crate) fn query_value(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}
