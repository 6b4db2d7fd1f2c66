//! Why a caller is not let in, in the one shape of errors.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::{http::Failure, store::Error};

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("credentials are missing or not valid")]
    Unauthenticated,
    /// The issuer's keys do not have the token's yet: the same token may be good a moment later.
    #[error("credentials are missing or not valid")]
    UnknownKey,
    /// The credential is good, and its session was ended.
    #[error("credentials are missing or not valid")]
    SessionEnded,
    #[error("pages of another origin may not use the cookie")]
    ForeignPage,
    #[error("who is calling cannot be told just now")]
    Unavailable,
    #[error("the session is another user's")]
    ForeignSession,
    #[error("a session id has 1 to 128 characters of A-Z a-z 0-9 . _ -")]
    InvalidSession,
    #[error(transparent)]
    Store(#[from] Error),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let message = self.to_string();
        match self {
            Self::Unauthenticated | Self::UnknownKey | Self::SessionEnded => {
                Failure::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
            }
            Self::ForeignSession | Self::ForeignPage => {
                Failure::new(StatusCode::FORBIDDEN, "forbidden", message)
            }
            Self::Unavailable => {
                Failure::retry(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message)
            }
            Self::InvalidSession => {
                Failure::new(StatusCode::BAD_REQUEST, "invalid_request", message)
            }
            Self::Store(Error::Overloaded) => Failure::retry(
                StatusCode::SERVICE_UNAVAILABLE,
                "backpressure",
                "too many writes are waiting",
            ),
            Self::Store(error) if error.is_temporary() => {
                tracing::warn!(%error, "a session could not be read");
                Failure::retry(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    "a part of the service that this needs is not available",
                )
            }
            Self::Store(error) => {
                tracing::error!(%error, "a session could not be read");
                Failure::internal()
            }
        }
        .into_response()
    }
}
