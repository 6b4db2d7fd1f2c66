//! Limits besides the user's: of an address, of a session, of the whole process.

use reqwest::RequestBuilder;
use serde_json::json;

use crate::{
    slots::{has_room, head},
    sse::Sse,
    support::{Answer, Client, Parley},
};

const JOBS: &str = "/api/jobs/stream";

fn in_session(client: &Client, method: &str, session: &str) -> RequestBuilder {
    client.request(method, JOBS).header("user-session-id", session)
}

/// Holds the refusal of a jobs stream to every word of it.
#[track_caller]
fn is_full(answer: Answer, scope: &str, per: &str, limit: u64) {
    for (name, value) in [
        ("retry-after", "10".to_owned()),
        ("x-sse-connection-limit", limit.to_string()),
        ("x-sse-current-connections", limit.to_string()),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let trace = answer.header("x-trace-id").to_owned();
    let expected = json!({
        "error": "too_many_connections",
        "message": format!("SSE connection limit exceeded. Maximum {limit} connections allowed per {per}."),
        "current_connections": limit,
        "max_connections": limit,
        "retry_after_ms": 10_000,
        "recommendation": "Close other chat windows or switch this tab to follower mode",
        "scope": scope,
        "trace_id": trace,
    });
    assert_eq!(answer.refused(429, "too_many_connections"), expected);
}

#[tokio::test]
async fn a_session_has_one_jobs_stream_and_an_address_two() {
    let parley = Parley::start_with(&["--trusted-proxies", "127.0.0.1"]).await;
    let ada = parley.as_user("ada");
    let first = Sse::open(in_session(&ada, "GET", "one")).await;
    // The same session, by each of its names.
    is_full(Answer::to(in_session(&ada, "GET", "one")).await, "session", "session", 1);
    for query in ["session=one", "user_session_id=one"] {
        is_full(ada.get(&format!("{JOBS}?{query}")).await, "session", "session", 1);
    }
    let by_token = ada.request("GET", "/sse/jobs").header("x-session-token", "one");
    is_full(Answer::to(by_token).await, "session", "session", 1);
    assert_eq!(Answer::to(in_session(&ada, "HEAD", "one")).await.status, 429);
    assert_eq!(Answer::to(in_session(&ada, "HEAD", "two")).await.status, 200);
    let second = Sse::open(in_session(&ada, "GET", "two")).await;
    is_full(Answer::to(in_session(&ada, "GET", "three")).await, "ip", "IP", 2);
    // Whoever it is, and in no session of their own.
    is_full(parley.as_user("grace").get(JOBS).await, "ip", "IP", 2);
    let of_head = head(&parley.as_user("grace"), JOBS).await;
    assert_eq!((of_head.status, of_head.header("x-sse-connection-limit")), (429, "2"));
    // Somewhere else there is room, and a project's streams are not counted by address.
    let elsewhere = in_session(&ada, "GET", "three").header("x-forwarded-for", "127.0.0.8");
    let elsewhere = Sse::open(elsewhere).await;
    let same_session = in_session(&ada, "GET", "three").header("x-forwarded-for", "127.0.0.9");
    is_full(Answer::to(same_session).await, "session", "session", 1);
    let project = ada.project().await;
    for _ in 0..3 {
        project.stream("").await;
    }
    drop(second);
    has_room(&parley.as_user("grace"), JOBS).await;
    let _third = Sse::open(in_session(&ada, "GET", "two")).await;
    is_full(parley.as_user("grace").get(JOBS).await, "ip", "IP", 2);
    drop((first, elsewhere));
}

#[tokio::test]
async fn a_jobs_stream_is_taken_over_by_its_name() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let named = || in_session(&ada, "GET", "one").query(&[("stream_id", "tab")]);
    let mut stream = Sse::open(named()).await;
    for _ in 0..3 {
        let successor = Sse::open(named()).await;
        let rest = std::mem::replace(&mut stream, successor).rest().await;
        assert_eq!(rest.last().unwrap().data["reason"], "replaced", "{rest:?}");
        is_full(Answer::to(in_session(&ada, "GET", "one")).await, "session", "session", 1);
    }
    // It has one place of the address, not four.
    let _second = Sse::open(in_session(&ada, "GET", "two")).await;
    is_full(Answer::to(in_session(&ada, "GET", "three")).await, "ip", "IP", 2);
}

#[tokio::test]
async fn a_process_that_is_full_says_that_another_may_have_room() {
    let parley = Parley::start_with(&["--max-connections", "2"]).await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    let (first, _) = project.stream("").await;
    let _jobs = project.client.open(JOBS).await;
    // A stranger of the project too: nothing is looked up for a stream that there is no room for.
    for (user, path) in [("ada", path.as_str()), ("grace", &path), ("ada", JOBS)] {
        let answer = parley.as_user(user).get(path).await;
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        let body = answer.refused(503, "backpressure");
        let ms = body["retry_after_ms"].as_u64().unwrap();
        assert!((1..=3).contains(&seconds) && ms.div_ceil(1000) == seconds, "{body}");
        let of_head = head(&parley.as_user(user), path).await;
        assert_eq!(of_head.status, 503);
        assert!(of_head.header("retry-after").parse::<u64>().unwrap() > 0);
    }
    // Everything else is served.
    project.send("hello").await;
    drop(first);
    has_room(&project.client, &path).await;
    let _again = project.stream("").await;
    project.client.get(&path).await.refused(503, "backpressure");
}
