//! Who is calling: credentials, sessions, traces, and what a public port has nothing of.

use std::sync::Arc;

use reqwest::header::HeaderValue;
use serde_json::json;

use crate::{
    sse::Sse,
    support::{Answer, Parley, text},
};

#[tokio::test]
async fn me_is_the_owner_of_the_token() {
    let parley = Parley::start().await;
    let me = parley.as_user("ada").get("/api/auth/me").await.is(200);
    assert_eq!((&me["user"], &me["name"]), (&json!("ada"), &json!("Ada")));
    assert_eq!((&me["roles"], &me["auth_mode"]), (&json!([]), &json!("simple")));
    let admin = parley.as_user("admin").get("/api/auth/me").await.is(200);
    assert_eq!(admin["roles"], json!(["admin"]));
}

#[tokio::test]
async fn without_a_valid_token_there_is_one_answer() {
    let parley = Parley::start().await;
    let client = parley.client();
    let mut messages = Vec::new();
    for authorization in [
        None,
        Some("Bearer nobody"),
        Some("Bearer "),
        Some("Bearer"),
        Some("dev-ada"),
        Some("Basic dev-ada"),
        Some("Bearer dev-ada dev-ada"),
    ] {
        let mut request = client.request("GET", "/api/auth/me");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let answer = Answer::to(request).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{authorization:?}");
        let mut body = answer.refused(401, "unauthenticated");
        body["trace_id"].take();
        messages.push(body);
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
}

#[tokio::test]
async fn the_first_credential_wins_and_is_not_rescued() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let stream = format!("/sse/stream?project_id={}", project.id);
    let me = "/api/auth/me".to_owned();
    let query = |token: &str| format!("{stream}&bearer_token={token}");
    // Path, header, cookie, status. Ada is in the project, grace is not.
    let cases = [
        (&me, Some("dev-ada"), None, 200),
        (&me, None, Some("dev-ada"), 200),
        (&me, Some("junk"), Some("dev-ada"), 401),
        (&me, Some("dev-ada"), Some("junk"), 200),
        (&format!("{me}?bearer_token=dev-ada"), None, None, 401),
        (&stream, Some("dev-ada"), None, 200),
        (&stream, None, Some("dev-ada"), 200),
        (&query("dev-ada"), None, None, 200),
        (&query("dev-ada"), None, Some("dev-grace"), 200),
        (&query("dev-grace"), Some("dev-ada"), None, 200),
        (&query("dev-ada"), Some("dev-grace"), None, 404),
        (&query("junk"), None, Some("dev-ada"), 401),
        (&query("dev-ada"), Some("junk"), Some("dev-ada"), 401),
    ];
    for (path, header, cookie, status) in cases {
        for method in ["GET", "HEAD"] {
            let mut request = parley.client().request(method, path);
            if let Some(token) = header {
                request = request.bearer_auth(token);
            }
            if let Some(token) = cookie {
                request = request.header("cookie", format!("a=b; __Secure-LATC={token}; c=d"));
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{method} {path} {header:?} {cookie:?}");
        }
    }
}

#[tokio::test]
async fn query_tokens_can_be_switched_off_and_the_cookie_renamed() {
    let flags = ["--allow-query-tokens", "false", "--auth-token-cookie-name", "token"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}&bearer_token=dev-ada", project.id);
    parley.client().get(&path).await.refused(401, "unauthenticated");
    Sse::open(parley.client().request("GET", &path).header("cookie", "token=dev-ada")).await;
}

#[tokio::test]
async fn a_session_belongs_to_its_first_user() {
    let mut parley = Parley::start().await;
    let path = "/api/auth/me";
    let spellings = |name: &str, session: &str| match name {
        "header" | "x-session-token" => (path.to_owned(), Some(session.to_owned())),
        query => (format!("{path}?{query}={session}"), None),
    };
    for (number, name) in
        ["header", "user_session_id", "session", "x-session-token"].into_iter().enumerate()
    {
        let ask = async |parley: &Parley, user: &str, session: &str| {
            let (path, header) = spellings(name, session);
            let mut request = parley.as_user(user).request("GET", &path);
            if let Some(session) = header {
                let name = if name == "header" { "User-Session-ID" } else { name };
                request = request.header(name, session);
            }
            Answer::to(request).await
        };
        let session = format!("tab-{number}");
        let answer = ask(&parley, "ada", &session).await;
        assert_eq!(answer.header("x-session-id"), session);
        assert_eq!(answer.is(200)["session_id"], session);
        ask(&parley, "ada", &session).await.is(200);
        ask(&parley, "grace", &session).await.refused(403, "forbidden");
        let junk = if name == "header" { "a b" } else { "a%20b" };
        ask(&parley, "ada", junk).await.refused(400, "invalid_request");
        ask(&parley, "ada", &"x".repeat(129)).await.refused(400, "invalid_request");
    }
    // Who has no token binds no session.
    let request = parley.client().request("GET", path).header("user-session-id", "free");
    Answer::to(request).await.refused(401, "unauthenticated");
    let request = parley.as_user("grace").request("GET", path).header("user-session-id", "free");
    Answer::to(request).await.is(200);
    // It stays theirs after a restart.
    assert!(parley.terminate().await.success());
    let parley = Parley::start_in(&parley.dir, &[]).await;
    parley.as_user("grace").get(&format!("{path}?session=tab-1")).await.refused(403, "forbidden");
}

#[tokio::test]
async fn a_session_is_minted_when_none_is_given() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let (first, second) = (ada.get("/api/auth/me").await, ada.get("/api/auth/me").await);
    assert_eq!(first.body["session_id"], first.header("x-session-id"));
    assert_ne!(first.body["session_id"], second.body["session_id"]);
    let session = text(&first.body["session_id"]);
    ada.get(&format!("/api/auth/me?session={session}")).await.is(200);
}

#[tokio::test]
async fn every_response_carries_its_trace_and_session() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let stream = format!("/sse/stream?project_id={}", project.id);
    for (method, path) in [
        ("GET", "/api/auth/me"),
        ("GET", "/nothing"),
        ("PUT", "/api/auth/me"),
        ("GET", "/health/live"),
        ("GET", "/openapi.json"),
        ("GET", stream.as_str()),
        ("HEAD", stream.as_str()),
    ] {
        let ask = async |trace: &str| {
            let request = parley.as_user("ada").request(method, path).header("x-trace-id", trace);
            let response = request.send().await.unwrap();
            assert!(response.headers().contains_key("x-session-id"), "{method} {path}");
            response.headers()["x-trace-id"].to_str().unwrap().to_owned()
        };
        assert_eq!(ask("kept-1._").await, "kept-1._", "{method} {path}");
        for junk in ["", "a b", "a/b", &"x".repeat(65)] {
            let minted = ask(junk).await;
            assert!(!minted.is_empty() && minted != junk, "{method} {path}: {minted:?}");
        }
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_in_the_one_shape() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    for base in [&parley.ingress, &parley.proc] {
        let at = |method: &str, path: &str| {
            let request =
                reqwest::Client::new().request(method.parse().unwrap(), format!("{base}{path}"));
            Answer::to(request.bearer_auth("dev-ada"))
        };
        for path in ["/nothing", "/metrics", "/v1/debug/x", "/v1/debug/connections", "/api", "//"] {
            at("GET", path).await.refused(404, "not_found");
        }
        at("POST", "/parley.v1.Chat/Import").await.refused(404, "not_found");
        at("DELETE", "/openapi.json").await.refused(405, "method_not_allowed");
        at("GET", "/health/live").await.is(200);
        assert_eq!(at("GET", "/health/ready").await.is(200)["status"], "ok");
        assert_eq!(at("GET", "/health").await.is(200)["status"], "ok");
        assert!(at("GET", "/openapi.json").await.is(200)["paths"].is_object());
    }
    ada.delete("/api/auth/me").await.refused(405, "method_not_allowed");
    ada.get("/api/chat/projects/junk").await.refused(400, "invalid_request");
}

#[tokio::test]
async fn demo_users_stay_on_loopback() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    for service in ["--ingress-listen", "--proc-listen"] {
        let said = Parley::refusal(&dir, &[service, "0.0.0.0:0"]).await;
        assert!(said.contains("AUTH_USERS_FILE"), "{said}");
    }
    let users = dir.path().join("users.json");
    std::fs::write(&users, r#"[{"user":"eve","token":"sixteen-characters"}]"#).unwrap();
    let flags = ["--ingress-listen", "0.0.0.0:0", "--auth-users-file", users.to_str().unwrap()];
    let parley = Parley::start_in(&dir, &flags).await;
    // What it printed is where it listens: any address of this machine.
    let url = parley.ingress.replace("0.0.0.0", "127.0.0.1");
    for (token, status) in [("sixteen-characters", 200), ("dev-ada", 401)] {
        let request = reqwest::Client::new().get(format!("{url}/api/auth/me")).bearer_auth(token);
        assert_eq!(Answer::to(request).await.status, status);
    }
}

#[tokio::test]
async fn a_data_folder_has_one_process() {
    let mut parley = Parley::start().await;
    let said = Parley::refusal(&parley.dir, &[]).await;
    assert!(said.contains("in use by another Parley"), "{said}");
    let ada = parley.as_user("ada");
    ada.get("/api/auth/me").await.is(200);
    parley.kill().await;
    Parley::start_in(&parley.dir, &[]).await;
}

#[tokio::test]
async fn no_token_reaches_the_log() {
    let parley = Parley::start_with(&["--log", "trace"]).await;
    let ada = parley.as_user("ada");
    let project = ada.project().await;
    ada.get("/api/integrations/jobs").await.is(200);
    for token in ["dev-ada", "dev-nobody"] {
        let path = format!("/sse/stream?project_id={}&bearer_token={token}", project.id);
        let request = parley.client().request("GET", &path).header("cookie", "__Secure-LATC=dev-x");
        request.send().await.unwrap();
    }
    let log = std::fs::read_to_string(parley.dir.path().join("stderr.log")).unwrap();
    assert!(log.contains("/sse/stream"), "requests are logged at this level");
    for token in ["dev-ada", "dev-nobody", "dev-x"] {
        assert!(!log.contains(token), "{token}");
    }
}

#[tokio::test]
async fn pages_of_configured_origins_read_every_answer() {
    let parley = Parley::start_with(&["--cors-origin", "http://a.example,http://b.example"]).await;
    let project = parley.as_user("ada").project().await;
    let stream = format!("/sse/stream?project_id={}", project.id);
    for path in ["/api/auth/me", &stream, "/nothing", "/api/integrations/jobs", "/health"] {
        for user in ["ada", "nobody"] {
            for (origin, allowed) in [("http://b.example", true), ("http://c.example", false)] {
                let request = parley.as_user(user).request("GET", path).header("origin", origin);
                let response = request.send().await.unwrap();
                let head = response.headers();
                let allows = head.get("access-control-allow-origin").map(HeaderValue::as_bytes);
                assert_eq!(allows, allowed.then_some(origin.as_bytes()), "{user} {path}");
                let exposed = head["access-control-expose-headers"].to_str().unwrap();
                for name in ["retry-after", "x-trace-id", "x-session-id", "x-sse-connection-id"] {
                    assert!(exposed.contains(name), "{name}");
                }
            }
        }
    }
    let preflight = parley.client().request("OPTIONS", "/api/chat/projects");
    let preflight = preflight
        .header("origin", "http://a.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,idempotency-key");
    let answer = Answer::to(preflight).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), "http://a.example");
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert!(answer.header("access-control-allow-headers").contains("idempotency-key"));
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let said = Parley::refusal(&dir, &["--cors-origin", "*"]).await;
    assert!(said.contains("CORS_ORIGIN"), "{said}");
}
