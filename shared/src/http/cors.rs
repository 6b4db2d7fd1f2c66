//! Which pages of other origins may read answers, and what of them.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderName, HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

/// How long a browser may remember what it was allowed; each cuts that to its own longest.
const MAX_AGE: Duration = Duration::from_hours(24);

/// What a page of another origin may read besides the few that browsers always show.
const EXPOSED: [HeaderName; 17] = [
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    header::LOCATION,
    header::ETAG,
    header::ACCEPT_RANGES,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    HeaderName::from_static("preference-applied"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("x-trace-id"),
    HeaderName::from_static("x-accel-buffering"),
    HeaderName::from_static("x-sse-connection-id"),
    HeaderName::from_static("x-sse-connection-limit"),
    HeaderName::from_static("x-sse-current-connections"),
    HeaderName::from_static("x-heartbeat-interval"),
    HeaderName::from_static("x-silence-threshold"),
    HeaderName::from_static("x-stream-max-seconds"),
];

/// Lets pages of the configured origins, exactly these, read every answer: errors and their `Retry-After` too.
pub(super) fn layer(origins: &[String]) -> anyhow::Result<CorsLayer> {
    let origins = origins.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let origins = origins.map(origin).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(EXPOSED))
        .max_age(MAX_AGE))
}

/// Takes out what is for pages of other origins where no page asks: it is half of a head.
pub(super) async fn only_for_pages(request: Request, next: Next) -> Response {
    let is_page = request.headers().contains_key(header::ORIGIN);
    let mut response = next.run(request).await;
    if !is_page {
        let headers = response.headers_mut();
        headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    }
    response
}

/// Reads an origin as browsers write it; one that is written otherwise would never be a page's.
fn origin(text: &str) -> anyhow::Result<HeaderValue> {
    ensure!(
        text != "*",
        "CORS_ORIGIN names origins; `*` would let any page use a visitor's cookies"
    );
    let is_origin = text.parse::<Uri>().is_ok_and(|uri| {
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        let host = uri.authority().filter(|host| host.as_str().chars().all(is_host));
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme));
        scheme.zip(host).is_some_and(|(scheme, host)| text == format!("{scheme}://{host}"))
    });
    ensure!(
        is_origin && text == text.to_lowercase(),
        "CORS_ORIGIN: `{text}` is no origin, which is as in https://chat.example or http://localhost:5173"
    );
    text.parse().context("CORS_ORIGIN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_are_taken() {
        for text in ["http://localhost:5173", "https://chat.example", "http://[::1]:8000"] {
            assert!(origin(text).is_ok(), "{text}");
        }
        for text in [
            "*",
            "null",
            "chat.example",
            "//chat.example",
            "https://chat.example/",
            "https://chat.example/app",
            "https://Chat.example",
            "https://*.chat.example",
            "https://ada@chat.example",
            "ftp://chat.example",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
