//! The one shape of errors.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rand::RngExt as _;
use serde_json::{Map, Value, json};

use crate::ids::TraceId;

/// An answer that says what went wrong: `{"error", "message", "trace_id", …}`.
#[derive(Clone, Debug)]
pub struct Failure {
    status: StatusCode,
    body: Map<String, Value>,
    headers: HeaderMap,
    /// The trace of a refusal that comes before there is a request.
    trace: Option<TraceId>,
}

impl Failure {
    /// Says `code` to programs and `message` to people.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("error".into(), code.into());
        body.insert("message".into(), message.into().into());
        Self { status, body, headers: HeaderMap::new(), trace: None }
    }

    /// Says that trying again in one to three seconds may succeed.
    #[must_use]
    pub fn retry(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self::retry_after(status, code, message, Self::retry_pause())
    }

    /// Returns how long a client is to wait, for each another time of one to three seconds.
    pub(super) fn retry_pause() -> Duration {
        Duration::from_millis(rand::rng().random_range(1_000..3_000))
    }

    /// Says that trying again after a time may succeed.
    #[must_use]
    pub fn retry_after(
        status: StatusCode,
        code: &'static str,
        message: &str,
        after: Duration,
    ) -> Self {
        // Rounded up: who waits that long has waited long enough.
        let ms = u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self::new(status, code, message)
            .with("retry_after_ms", ms)
            .with_header(header::RETRY_AFTER, ms.div_ceil(1000))
    }

    /// Says that it is our fault, and nothing else.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error")
    }

    /// Returns the status of the answer.
    #[must_use]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Mints the trace, for where the middleware does not.
    #[must_use]
    pub(crate) fn traced(mut self) -> Self {
        self.trace = Some(TraceId::mint());
        self
    }

    /// Adds a field to the body.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body.insert(field.into(), value.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(mut self) -> Response {
        let trace = super::trace::current();
        let trace = trace.as_ref().or(self.trace.as_ref());
        let id = trace.map_or(Value::Null, |trace| json!(trace.as_str()));
        self.body.insert("trace_id".into(), id);
        let mut response = (self.status, axum::Json(self.body)).into_response();
        let headers = response.headers_mut();
        if let Some(trace) = &self.trace
            && let Ok(trace) = HeaderValue::from_str(trace.as_str())
        {
            headers.insert(super::trace::TRACE, trace);
        }
        headers.extend(self.headers);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
