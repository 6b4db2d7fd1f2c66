//! nginx as a process, and its configuration for production.

use std::{fs, path::Path, process::Command};

use reqwest::Method;
use serde_json::Value;

use crate::support::Origin;

/// An address where nobody is.
const NOBODY: &str = "127.0.0.1:1";

#[test]
fn the_configuration_for_production_is_sound() {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../nginx"));
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("site")).unwrap();
    fs::copy(source.join("nginx.conf"), dir.path().join("nginx.conf")).unwrap();
    for file in fs::read_dir(source.join("site")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join("site").join(file.file_name())).unwrap();
    }
    let mut command = Command::new("nginx");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin:/opt/homebrew/bin");
    let output = command.arg("-t").arg("-c").arg(dir.path().join("nginx.conf")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Who is not root may not open its logs, which comes after.
    assert!(said.contains("syntax is ok"), "{said}");
    assert!(!said.contains("[emerg]") || !output.status.success(), "{said}");
}

#[tokio::test]
async fn it_stops_is_killed_with_its_workers_and_comes_back() {
    let nobody = [NOBODY.parse().unwrap()];
    let origin = Origin::before(&nobody, &nobody).await;
    let nginx = &origin.nginx;
    nginx.kill().await.unwrap();
    // The port is free, so no worker is left.
    nginx.start().await.unwrap();
    assert!(nginx.stop().await.unwrap().success());
    nginx.start().await.unwrap();
    assert!(origin.request(Method::GET, "/").send().await.is_ok());
}

#[tokio::test]
async fn what_it_says_itself_has_the_services_shape() {
    let nobody = [NOBODY.parse().unwrap()];
    let origin = Origin::before(&nobody, &nobody).await;
    let long = "x".repeat(200 * 1024);
    for (request, status, code) in [
        (origin.request(Method::GET, "/metrics"), 404, "not_found"),
        (origin.request(Method::GET, "/v1/debug/sse-connections/a/b"), 404, "not_found"),
        (origin.request(Method::POST, "/parley.v1.Jobs/Submit"), 404, "not_found"),
        (origin.request(Method::GET, "/api/auth/me"), 503, "unavailable"),
        (origin.request(Method::POST, "/api/chat/projects").body("{}"), 503, "unavailable"),
        (origin.request(Method::GET, "/api/integrations/jobs"), 503, "unavailable"),
        (origin.request(Method::GET, "/sse/stream"), 503, "unavailable"),
        (origin.request(Method::POST, "/api/chat/projects").body(long.clone()), 413, "too_large"),
        (
            origin.request(Method::GET, "/").header("cookie", &long[..40_000]),
            400,
            "invalid_request",
        ),
    ] {
        let answer = request.header("x-trace-id", "mine").send().await.unwrap();
        let head = answer.headers().clone();
        assert_eq!(answer.status(), status, "{code}");
        assert_eq!(head["content-type"], "application/json");
        assert_eq!(head["cache-control"], "no-store");
        assert_eq!(head.contains_key("retry-after"), status == 503);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"], code, "{body}");
        assert!(body["message"].is_string());
        assert_eq!(body["retry_after_ms"].is_u64(), status == 503, "{body}");
        // A head that is too long is not read to its end.
        if status != 400 {
            assert_eq!(
                (&body["trace_id"], &head["x-trace-id"]),
                (&"mine".into(), &"mine".parse().unwrap())
            );
        }
    }
    let answer = origin.request(Method::GET, "/metrics").header("x-trace-id", "no, \"no").send();
    let body: Value = answer.await.unwrap().json().await.unwrap();
    assert_eq!(body["trace_id"].as_str().unwrap().len(), 32, "what is no trace id is replaced");
}
