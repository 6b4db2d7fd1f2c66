//! What pages of other origins may read, and what browsers are told about every answer.

use std::time::Duration;

use reqwest::Method;
use tokio::time::timeout;

use crate::support::{Answer, Client, PATIENCE, Parley};

const PAGE: &str = "https://chat.example";

async fn from_page(client: &Client, path: &str) -> Answer {
    Answer::to(client.request("GET", path).header("origin", PAGE)).await
}

/// Holds an answer to being readable by the page, with what it needs to come back.
#[track_caller]
fn is_readable(answer: &Answer) {
    assert_eq!(answer.header("access-control-allow-origin"), PAGE, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert!(answer.header("vary").to_lowercase().contains("origin"), "{answer:?}");
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    let exposed: Vec<&str> = exposed.split(',').map(str::trim).collect();
    for name in answer.head.keys().map(reqwest::header::HeaderName::as_str) {
        if name.starts_with("x-") && name != "x-content-type-options" || name == "retry-after" {
            assert!(exposed.contains(&name), "{name} is not exposed: {exposed:?}");
        }
    }
}

#[track_caller]
fn is_safe(answer: &Answer) {
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{answer:?}");
    assert_eq!(answer.header("referrer-policy"), "no-referrer", "{answer:?}");
    let policy = "default-src 'none'; frame-ancestors 'none'";
    assert_eq!(answer.header("content-security-policy"), policy, "{answer:?}");
}

#[tokio::test]
async fn a_page_of_another_origin_reads_refusals_and_when_to_come_back() {
    let flags = ["--cors-origin", PAGE, "--rate-limit-reads=1/0.001", "--drain-spread", "5s"];
    let mut parley = Parley::start_with(&flags).await;
    let ada = parley.as_user("ada");
    let project = ada.project().await;
    let me = from_page(&parley.as_user("nobody"), "/api/auth/me").await;
    is_readable(&me);
    me.refused(401, "unauthenticated");
    is_readable(&from_page(&ada, "/api/auth/me").await);
    let limited = from_page(&ada, "/api/auth/me").await;
    is_readable(&limited);
    assert!(!limited.header("retry-after").is_empty());
    limited.refused(429, "rate_limited");
    let mut stream = project.stream("").await.0;
    parley.signal();
    let draining = async {
        loop {
            let answer = from_page(&parley.as_user("grace"), "/api/auth/me").await;
            if answer.status == 503 {
                break answer;
            }
        }
    };
    let draining = timeout(PATIENCE, draining).await.expect("it refuses");
    is_readable(&draining);
    assert!(!draining.header("retry-after").is_empty());
    draining.refused(503, "draining");
    stream.rest().await;
    assert!(parley.ended().await.success());
}

#[tokio::test]
async fn a_page_may_read_what_a_stream_says_of_itself() {
    let parley = Parley::start_with(&["--cors-origin", PAGE]).await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    let request = project.client.request("GET", &path).header("origin", PAGE);
    let head = request.send().await.expect("an answer").headers().clone();
    let stream = Answer { status: 200, head, body: serde_json::Value::Null };
    is_readable(&stream);
    is_safe(&stream);
    assert!(!stream.header("x-sse-connection-id").is_empty());
}

#[tokio::test]
async fn a_preflight_is_answered_before_anything_is_asked_or_counted() {
    let parley = Parley::start_with(&["--cors-origin", PAGE, "--rate-limit-sends=1/0.001"]).await;
    let client = parley.client();
    let preflight = async |origin: &str| {
        let request = client.request("OPTIONS", "/api/chat/projects").header("origin", origin);
        let request = request.header("access-control-request-method", Method::POST.as_str());
        let asked = "authorization,content-type,user-session-id";
        Answer::to(request.header("access-control-request-headers", asked)).await
    };
    for _ in 0..5 {
        let allowed = preflight(PAGE).await;
        assert_eq!(allowed.status, 200);
        assert_eq!(allowed.header("access-control-allow-origin"), PAGE);
        assert!(allowed.header("access-control-allow-methods").contains("POST"));
        assert!(allowed.header("access-control-allow-headers").contains("authorization"));
        let age = allowed.header("access-control-max-age").parse().expect("seconds");
        assert!(Duration::from_secs(age) >= Duration::from_hours(2));
    }
    for origin in
        ["https://chat.example.evil", "http://chat.example", "https://chat.example:8443", "null"]
    {
        assert_eq!(preflight(origin).await.header("access-control-allow-origin"), "", "{origin}");
    }
}

#[tokio::test]
async fn every_answer_says_what_it_is_not() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    for (client, path, status) in [
        (&ada, "/api/auth/me", 200),
        (&ada, "/api/integrations/bundles", 200),
        (&ada, "/openapi.json", 200),
        (&ada, "/health", 200),
        (&ada, "/nothing", 404),
        (&ada, "/api/chat/projects/junk", 400),
        (&parley.client(), "/api/auth/me", 401),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        is_safe(&answer);
        assert_eq!(answer.header("access-control-expose-headers"), "", "no page asks");
        if status >= 400 {
            assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        }
    }
    for origin in ["https://chat.example/", "chat.example", "null"] {
        let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let said = Parley::refusal(&dir, &["--cors-origin", origin]).await;
        assert!(said.contains("CORS_ORIGIN"), "{said}");
    }
}
