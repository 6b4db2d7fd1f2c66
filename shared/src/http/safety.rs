//! What browsers are told about every answer, so that none is taken for something else.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderName, HeaderValue, header};

/// Unless the answer says something else itself: a page needs more than data does.
const DEFAULTS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// Headers that an answer of the API depends on: who is calling.
const VARY: HeaderValue = HeaderValue::from_static("authorization, cookie");
/// For an answer that says nothing of caches itself.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// Adds the headers, and keeps errors and private answers out of caches.
pub(super) async fn middleware(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_private = ["/api/", "/sse/", "/stream/"].iter().any(|root| path.starts_with(root));
    let mut response = next.run(request).await;
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    let headers = response.headers_mut();
    // The proxy would take these over into the answer that it fetches instead.
    if headers.contains_key(super::ACCEL_REDIRECT) {
        return response;
    }
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(value);
    }
    if is_private {
        headers.append(header::VARY, VARY);
        headers.entry(header::CACHE_CONTROL).or_insert(PRIVATE);
    }
    if is_error {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
