//! What a request may be answered instead of its answer.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use rand::RngExt as _;
use shared::{
    http::{BodyError, Failure},
    limits::TooMuch,
    store,
};

use crate::{jobs, outgoing::Refused, storage::Exceeded};

/// One variant for each outcome that a client can act on; all else is `Internal`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Nobody knows who sends it.
    #[error("the signature is missing or not valid")]
    Unauthenticated,
    /// It does not exist, or the caller may not know that it does.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// The caller may see it and not do this to it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The state it is in does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The key was used for another request.
    #[error("this idempotency key was used with another body")]
    IdempotencyConflict,
    /// A field's value cannot be taken.
    #[error("{field}: {message}")]
    Field { field: String, message: String },
    /// The body is not what was asked for.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A parameter or header cannot be read.
    #[error("{0}")]
    Invalid(&'static str),
    /// The body is in a form that is not taken here.
    #[error("{0}")]
    MediaType(&'static str),
    /// There is too much of it.
    #[error("the body is larger than {max_bytes} bytes")]
    TooLarge { max_bytes: u64 },
    /// The caller would store more than they may.
    #[error(transparent)]
    Quota(#[from] Exceeded),
    /// The range begins after the end.
    #[error("the range is outside of the {bytes} bytes that there are")]
    Range { bytes: u64 },
    /// The version is another one than the client wants.
    #[error("the file is not of the version that If-Match names")]
    PreconditionFailed,
    /// Another service that is needed does not answer.
    #[error("a part of the service that this needs is not available")]
    Unavailable,
    /// Too many jobs are waiting; there may be room after this time.
    #[error("too many jobs are waiting")]
    QueueFull { retry_after: Duration },
    /// Too much is waiting.
    #[error("the server is overloaded")]
    Overloaded,
    /// The caller has come too often; the answer says when to come again.
    #[error("too many submissions")]
    RateLimited(Box<Failure>),
    /// Our fault.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Overloaded => Self::Overloaded,
            error if error.is_temporary() => {
                tracing::warn!(%error, "the database is away");
                Self::Unavailable
            }
            error => Self::Internal(error.into()),
        }
    }
}

impl From<TooMuch> for ApiError {
    fn from(too_much: TooMuch) -> Self {
        match too_much {
            TooMuch::Yet(failure) => Self::RateLimited(failure),
            TooMuch::Ever { most } => {
                let message =
                    format!("has more inputs than the {most} that you may submit at once");
                Self::Field { field: "data".into(), message }
            }
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::Field { field: "url".into(), message: refused.to_string() }
    }
}

impl From<jobs::Error> for ApiError {
    fn from(error: jobs::Error) -> Self {
        match error {
            jobs::Error::NotFound => Self::NotFound("the job"),
            jobs::Error::Refused(refused) => Self::Conflict(refused.to_string()),
            jobs::Error::QueueFull { retry_after } => Self::QueueFull { retry_after },
            jobs::Error::IdempotencyConflict => Self::IdempotencyConflict,
            jobs::Error::Superseded => Self::Conflict("another job does the same".into()),
            jobs::Error::Store(error) => error.into(),
        }
    }
}

impl From<object_store::Error> for ApiError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound("the file"),
            error => Self::Internal(error.into()),
        }
    }
}

impl From<tonic::Status> for ApiError {
    fn from(status: tonic::Status) -> Self {
        tracing::warn!(code = ?status.code(), message = status.message(), "ingress did not answer");
        Self::Unavailable
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let message = self.to_string();
        let refuse = |status, code| Failure::new(status, code, message.clone());
        let busy = |code| Failure::retry(StatusCode::SERVICE_UNAVAILABLE, code, &message);
        match self {
            Self::Unauthenticated => refuse(StatusCode::UNAUTHORIZED, "unauthenticated"),
            Self::NotFound(_) => refuse(StatusCode::NOT_FOUND, "not_found"),
            Self::Forbidden(_) => refuse(StatusCode::FORBIDDEN, "forbidden"),
            Self::Conflict(_) => refuse(StatusCode::CONFLICT, "conflict"),
            Self::IdempotencyConflict => refuse(StatusCode::CONFLICT, "idempotency_conflict"),
            Self::Field { field, .. } => {
                refuse(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field").with("field", field)
            }
            Self::Body(error) => error.into(),
            Self::Invalid(_) => refuse(StatusCode::BAD_REQUEST, "invalid_request"),
            Self::MediaType(_) => {
                refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            }
            Self::TooLarge { .. } => refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Quota(Exceeded { max, used }) => {
                refuse(StatusCode::PAYLOAD_TOO_LARGE, "quota_exceeded")
                    .with("quota", "storage")
                    .with("max", max)
                    .with("used", used)
            }
            Self::Range { bytes } => {
                let failure = refuse(StatusCode::RANGE_NOT_SATISFIABLE, "invalid_range");
                let range = [(http::header::CONTENT_RANGE, format!("bytes */{bytes}"))];
                return (range, failure).into_response();
            }
            Self::PreconditionFailed => {
                refuse(StatusCode::PRECONDITION_FAILED, "precondition_failed")
            }
            Self::QueueFull { retry_after } => {
                // Not all at once.
                let after = retry_after.mul_f64(rand::rng().random_range(1.0..1.5));
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Failure::retry_after(status, "backpressure", &message, after)
            }
            Self::RateLimited(failure) => *failure,
            Self::Unavailable => busy("unavailable"),
            Self::Overloaded => busy("backpressure"),
            Self::Internal(error) => {
                tracing::error!(?error, trace.id = ?shared::http::current_trace(), "request failed");
                Failure::internal()
            }
        }
        .into_response()
    }
}
