//! What a request may be answered instead of its answer.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, StatusCode};
use shared::{auth, http::Failure, store};

use crate::streams::slots::{Full, Kind, Refused};

/// When a client that was refused a stream should ask again.
const SLOT_RETRY: Duration = Duration::from_secs(10);

/// One variant for each outcome that a client can act on; all else is `Internal`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The caller is not let in, or not any more.
    #[error(transparent)]
    NotLetIn(#[from] auth::Refused),
    /// It does not exist, or the caller may not know that it does.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// The caller may see it and not do this to it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The state it is in does not allow it.
    #[error("{0}")]
    Conflict(&'static str),
    /// The key was used for another request.
    #[error("this idempotency key was used with another body")]
    IdempotencyConflict,
    /// A field's value cannot be taken.
    #[error("{field}: {message}")]
    Field { field: &'static str, message: String },
    /// A field has too much in it.
    #[error("{field}: {message}")]
    TooLarge { field: &'static str, message: &'static str },
    /// A parameter cannot be read.
    #[error("{0}")]
    Invalid(&'static str),
    /// Another service that is needed does not answer.
    #[error("a part of the service that this needs is not available")]
    Unavailable,
    /// Streams are switched off; the fallback is at this URL.
    #[error("event streams are switched off")]
    SseDisabled { fallback: String },
    /// This replica has as many streams as it may; another may have room.
    #[error("this instance has no room for another stream")]
    Full,
    /// The caller has as many streams open as they may.
    #[error(
        "SSE connection limit exceeded. Maximum {limit} connections allowed per {}.",
        .scope.for_people()
    )]
    TooManyConnections { scope: Kind, current: i64, limit: i64 },
    /// The caller has asked too often.
    #[error("too many questions; ask again later")]
    TooManyQuestions { retry_after: Duration },
    /// Too many writes are waiting.
    #[error("the server is overloaded")]
    Overloaded,
    /// Our fault.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Overloaded => Self::Overloaded,
            error if error.is_temporary() => {
                tracing::warn!(%error, trace.id = ?shared::http::current_trace(), "the database is away");
                Self::Unavailable
            }
            error => Self::Internal(error.into()),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full(Full { scope, current, limit }) => {
                Self::TooManyConnections { scope, current, limit }
            }
            Refused::Store(error) => error.into(),
        }
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let message = self.to_string();
        match self {
            Self::NotLetIn(refused) => return refused.into_response(),
            Self::NotFound(_) => Failure::new(StatusCode::NOT_FOUND, "not_found", message),
            Self::Forbidden(_) => Failure::new(StatusCode::FORBIDDEN, "forbidden", message),
            Self::Conflict(_) => Failure::new(StatusCode::CONFLICT, "conflict", message),
            Self::IdempotencyConflict => {
                Failure::new(StatusCode::CONFLICT, "idempotency_conflict", message)
            }
            Self::Field { field, .. } => {
                Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", message).with("field", field)
            }
            Self::TooLarge { field, .. } => {
                Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message).with("field", field)
            }
            Self::Invalid(_) => Failure::new(StatusCode::BAD_REQUEST, "invalid_request", message),
            Self::Unavailable => {
                Failure::retry(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message)
            }
            Self::SseDisabled { fallback } => {
                Failure::retry(StatusCode::SERVICE_UNAVAILABLE, "sse_disabled", &message)
                    .with("fallback", fallback)
            }
            Self::TooManyConnections { scope, current, limit } => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                Failure::retry_after(status, "too_many_connections", &message, SLOT_RETRY)
                    .with("scope", scope.as_str())
                    .with("current_connections", current)
                    .with("max_connections", limit)
                    .with(
                        "recommendation",
                        "Close other chat windows or switch this tab to follower mode",
                    )
                    .with_header(HeaderName::from_static("x-sse-connection-limit"), limit)
                    .with_header(HeaderName::from_static("x-sse-current-connections"), current)
            }
            Self::TooManyQuestions { retry_after } => {
                let status = StatusCode::TOO_MANY_REQUESTS;
                Failure::retry_after(status, "rate_limited", &message, retry_after)
            }
            Self::Full | Self::Overloaded => {
                Failure::retry(StatusCode::SERVICE_UNAVAILABLE, "backpressure", &message)
            }
            Self::Internal(error) => {
                tracing::error!(?error, trace.id = ?shared::http::current_trace(), "request failed");
                Failure::internal()
            }
        }
        .into_response()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    async fn answer(scope: Kind, current: i64, limit: i64) -> (Response, Value) {
        let refused = Refused::Full(Full { scope, current, limit });
        let (head, body) = ApiError::from(refused).into_response().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap();
        (Response::from_parts(head, axum::body::Body::empty()), body)
    }

    #[tokio::test]
    async fn a_refused_stream_says_what_is_full_and_what_to_do() {
        let (head, body) = answer(Kind::User, 5, 5).await;
        assert_eq!(head.status(), 429);
        for (name, value) in [
            ("retry-after", "10"),
            ("x-sse-connection-limit", "5"),
            ("x-sse-current-connections", "5"),
            ("cache-control", "no-store"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(head.headers()[name], value);
        }
        let expected = json!({
            "error": "too_many_connections",
            "message": "SSE connection limit exceeded. Maximum 5 connections allowed per user/project.",
            "current_connections": 5,
            "max_connections": 5,
            "retry_after_ms": 10_000,
            "recommendation": "Close other chat windows or switch this tab to follower mode",
            "scope": "user",
            "trace_id": null,
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn the_other_scopes_have_their_own_words() {
        for (kind, scope, per) in [(Kind::Session, "session", "session"), (Kind::Ip, "ip", "IP")] {
            let (_, body) = answer(kind, 1, 2).await;
            let message =
                format!("SSE connection limit exceeded. Maximum 2 connections allowed per {per}.");
            assert_eq!(body["message"], message);
            assert_eq!(body["scope"], scope);
            assert_eq!(body["current_connections"], 1);
        }
    }
}
