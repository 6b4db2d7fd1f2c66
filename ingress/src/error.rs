//! What a request may be answered instead of its answer.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use shared::{http::Failure, store};

/// One variant for each outcome that a client can act on; all else is `Internal`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
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
            error => Self::Internal(error.into()),
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
            Self::NotFound(_) => Failure::new(StatusCode::NOT_FOUND, "not_found", message),
            Self::Forbidden(_) => Failure::new(StatusCode::FORBIDDEN, "forbidden", message),
            Self::Conflict(_) => Failure::new(StatusCode::CONFLICT, "conflict", message),
            Self::IdempotencyConflict => {
                Failure::new(StatusCode::CONFLICT, "idempotency_conflict", message)
            }
            Self::Field { field, .. } => {
                Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", message).with("field", field)
            }
            Self::Invalid(_) => Failure::new(StatusCode::BAD_REQUEST, "invalid_request", message),
            Self::Unavailable => {
                Failure::retry(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message)
            }
            Self::SseDisabled { fallback } => {
                Failure::retry(StatusCode::SERVICE_UNAVAILABLE, "sse_disabled", &message)
                    .with("fallback", fallback)
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
