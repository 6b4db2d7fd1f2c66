//! Extractors whose refusals have the contract's shape.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::{StatusCode, Uri, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};

use tokio::time::timeout;

use super::{
    Failure, MAX_BODY_BYTES,
    listener::{self, BodyEnd},
};
use crate::{
    ids::{IdempotencyKey, Invalid},
    limits::Aside,
};

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
    /// It did not come.
    #[error("the body did not come in time")]
    Timeout,
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
            BodyError::Timeout => Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", message),
            BodyError::MediaType => {
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
            }
        }
    }
}

/// A body that broke off.
impl From<axum::Error> for BodyError {
    fn from(error: axum::Error) -> Self {
        match error.into_inner().downcast_ref() {
            Some(BodyEnd::Stalled) => Self::Timeout,
            _ => Self::Invalid("the body ended early".into()),
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

    async fn from_request(request: Request, _: &S) -> Result<Self, BodyError> {
        let media_type =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type =
            media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
        let is_json = media_type.eq_ignore_ascii_case("application/json");
        let patience = listener::body_timeout(&request);
        let aside = Aside::find(request.extensions());
        let body = aside.wait(timeout(patience, read(request.into_body()))).await;
        let body = body.unwrap_or(Err(BodyError::Timeout));
        if !is_json {
            return Err(BodyError::MediaType);
        }
        let body = body?;
        parse(&body).map(Self)
    }
}

/// Bytes of a body of at most [`MAX_BODY_BYTES`], which has `BODY_TIMEOUT` to come and holds no in-flight place meanwhile.
#[derive(Clone, Debug)]
pub struct BodyBytes(pub Vec<u8>);

impl<S: Send + Sync> FromRequest<S> for BodyBytes {
    type Rejection = BodyError;

    async fn from_request(request: Request, _: &S) -> Result<Self, BodyError> {
        let patience = listener::body_timeout(&request);
        let aside = Aside::find(request.extensions());
        let body = aside.wait(timeout(patience, read(request.into_body()))).await;
        body.unwrap_or(Err(BodyError::Timeout)).map(Self)
    }
}

/// The most of a body that is read only to be thrown away: a client that is still sending when the connection closes may
/// never see why.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

async fn read(body: Body) -> Result<Vec<u8>, BodyError> {
    let (mut bytes, mut discarded) = (Vec::new(), 0);
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part?;
        if discarded == 0 && bytes.len() + part.len() <= MAX_BODY_BYTES {
            bytes.extend_from_slice(&part);
            continue;
        }
        discarded += part.len();
        if discarded > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if discarded == 0 { Ok(bytes) } else { Err(BodyError::TooLarge) }
}

/// The deepest nesting of arrays and objects in JSON that is taken.
const MAX_JSON_DEPTH: usize = 64;

/// Refuses JSON that is nested deeper than `MAX_JSON_DEPTH`, whatever a reader of it would take.
pub fn check_json_depth(json: &[u8]) -> Result<(), BodyError> {
    let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            let message = format!("the body is nested deeper than {MAX_JSON_DEPTH} levels");
            return Err(BodyError::Invalid(message));
        }
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    check_json_depth(body)?;
    // To serde an array is a struct too, its fields in order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(BodyError::Invalid("the body is not a JSON object".into()));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let message = error.into_inner().to_string();
        if is_json(body) {
            let field = named_field(&message).unwrap_or(field);
            BodyError::Field { field, message }
        } else {
            BodyError::Invalid(format!("the body is not JSON: {message}"))
        }
    })?;
    json.end().map_err(|error| BodyError::Invalid(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// Says whether the syntax is JSON's. The reader's own word is not enough: it takes a list in an enum's place, or `\ud800`
/// alone, which no text has, for errors of syntax.
fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
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
        // No name has a NUL, and PostgreSQL cannot even be asked for one.
        if parts.uri.path().contains("%00") {
            return Err(BodyError::Invalid("the path has a NUL character".into()));
        }
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| BodyError::Invalid(rejection.body_text()))
    }
}

/// The query string, parsed. Fields it does not know are ignored, and fields without a value are not given.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = BodyError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, BodyError> {
        let query = parts.uri.query().unwrap_or_default();
        let given = |pair: &&str| pair.split_once('=').is_some_and(|(_, value)| !value.is_empty());
        let query = if query.is_empty() || query.split('&').all(|pair| given(&pair)) {
            axum::extract::Query::try_from_uri(&parts.uri)
        } else {
            let given: Vec<&str> = query.split('&').filter(given).collect();
            let uri = Uri::try_from(format!("/?{}", given.join("&")));
            let uri = uri.map_err(|error| BodyError::Invalid(error.to_string()))?;
            axum::extract::Query::try_from_uri(&uri)
        };
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| BodyError::Invalid(rejection.body_text()))
    }
}

/// The header `Idempotency-Key`, if there is one: what makes a repeated request the same request.
#[derive(Clone, Debug)]
pub struct RetryKey(pub Option<IdempotencyKey>);

impl<S: Send + Sync> FromRequestParts<S> for RetryKey {
    type Rejection = BodyError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, BodyError> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let mut values = values.by_ref().filter(|value| !value.is_empty());
        let Some(value) = values.next() else { return Ok(Self(None)) };
        if values.any(|other| other != value) {
            return Err(BodyError::Invalid(
                "the request has two different Idempotency-Key headers".into(),
            ));
        }
        let key = value.to_str().unwrap_or_default().parse();
        key.map(|key| Self(Some(key)))
            .map_err(|error: Invalid| BodyError::Invalid(error.to_string()))
    }
}
