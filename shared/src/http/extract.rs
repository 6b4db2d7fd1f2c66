//! Extractors whose refusals have the contract's shape.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};

use super::Failure;

/// Why a request's input was refused.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The syntax is wrong.
    #[error("{0}")]
    Invalid(String),
    /// One field is wrong.
    #[error("{field}: {message}")]
    Field { field: String, message: String },
    /// There is too much of it.
    #[error("the body is too large")]
    TooLarge,
    /// It is not JSON.
    #[error("send the body as application/json")]
    MediaType,
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        let message = error.to_string();
        match error {
            BodyError::Invalid(_) => Self::new(StatusCode::BAD_REQUEST, "invalid_request", message),
            BodyError::Field { field, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", message)
                    .with("field", field)
            }
            BodyError::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message),
            BodyError::MediaType => {
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
            }
        }
    }
}

impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        Failure::from(self).into_response()
    }
}

/// A JSON body, in and out.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = BodyError;

    async fn from_request(request: Request, state: &S) -> Result<Self, BodyError> {
        let media_type =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type =
            media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(BodyError::MediaType);
        }
        let body =
            Bytes::from_request(request, state).await.map_err(|rejection| {
                match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => BodyError::TooLarge,
                    _ => BodyError::Invalid("the body ended early".into()),
                }
            })?;
        parse(&body).map(Self)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    // To serde an array is a struct too, its fields in order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(BodyError::Invalid("the body is not a JSON object".into()));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner();
        let message = inner.to_string();
        // An escape such as \ud800 alone: the syntax is JSON's, but no text has this character.
        let surrogate = message.contains("surrogate") || message.contains("end of hex escape");
        if inner.is_data() || surrogate {
            let field = named_field(&message).unwrap_or(field);
            return BodyError::Field { field, message };
        }
        BodyError::Invalid(format!("the body is not JSON: {message}"))
    })?;
    json.end().map_err(|error| BodyError::Invalid(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// A missing or unknown field is named in serde's message, while its path is only the object's.
fn named_field(message: &str) -> Option<String> {
    let (before, after) = message.split_once('`')?;
    let named = ["missing field ", "unknown field ", "duplicate field "].contains(&before);
    if named { Some(after.split_once('`')?.0.to_owned()) } else { None }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// The parts of the path, parsed.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = BodyError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, BodyError> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| BodyError::Invalid(rejection.body_text()))
    }
}

/// The query string, parsed. Fields it does not know are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = BodyError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, BodyError> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| BodyError::Invalid(rejection.body_text()))
    }
}
