//! Questions that are not answered, and what is said instead.

use serde_json::json;

use super::{MANY, about, asking, printers};
use crate::{
    sse::Sse,
    support::{Answer, Parley},
};

#[tokio::test]
async fn what_is_no_question_is_refused_and_nothing_begins() {
    let parley = Parley::start_with(&MANY).await;
    let project = printers(&parley).await;
    let ask = |pairs: &[(&str, &str)]| {
        let mut query = vec![("project_id", project.id.as_str()), ("stream_id", "bad")];
        query.extend(pairs);
        project.client.request("GET", "/stream/search").query(&query)
    };
    let long = "x".repeat(2_001);
    for (pairs, status, code, field) in [
        (&[][..], 422, "invalid_field", json!("query")),
        (&[("query", "")], 422, "invalid_field", json!("query")),
        (&[("query", " \n\t ")], 422, "invalid_field", json!("query")),
        (&[("query", "a\0b")], 422, "invalid_field", json!("query")),
        (&[("query", long.as_str())], 422, "invalid_field", json!("query")),
        (&[("query", "a"), ("max_tokens", "-1")], 400, "invalid_request", json!(null)),
        (&[("query", "a"), ("max_tokens", "0")], 422, "invalid_field", json!("max_tokens")),
        (&[("query", "a"), ("max_tokens", "4001")], 422, "invalid_field", json!("max_tokens")),
        (&[("query", "a"), ("temperature", "abc")], 400, "invalid_request", json!(null)),
        (&[("query", "a"), ("temperature", "NaN")], 422, "invalid_field", json!("temperature")),
        (&[("query", "a"), ("temperature", "2.1")], 422, "invalid_field", json!("temperature")),
        (&[("query", "a"), ("user_id", "grace")], 403, "forbidden", json!(null)),
    ] {
        let body = Answer::to(ask(pairs)).await.refused(status, code);
        assert_eq!(body["field"], field, "{pairs:?}");
        let head = project.client.request("HEAD", "/stream/search");
        let head = head.query(&[("project_id", &project.id)]).query(pairs);
        assert_eq!(head.send().await.expect("an answer").status(), status);
    }
    let missing = project.client.request("GET", "/stream/search").query(&[("query", "a")]);
    let body = Answer::to(missing).await.refused(422, "invalid_field");
    assert_eq!(body["field"], "project_id");
    let megabyte = about(&project, "bad", &"x".repeat(1 << 20)).send().await;
    assert!(megabyte.is_err() || megabyte.is_ok_and(|answer| answer.status().is_client_error()));
    project.client.get("/api/chat/answers/bad").await.refused(404, "not_found");
}

#[tokio::test]
async fn a_question_is_text_and_no_syntax() {
    let flags = [&MANY[..], &["--chunk-delay-ms", "0"]].concat();
    let parley = Parley::start_with(&flags).await;
    let project = printers(&parley).await;
    let many = "printer ".repeat(249);
    for (number, question) in [
        "field:\"",
        "*",
        "((((",
        "text:printer AND",
        "+-!(){}[]^\"~*?:\\/",
        "a\u{1}b\u{7f}\u{200f}",
        "😀",
        "\" \"",
        "NOT",
        &many,
        "printer OR DROP TABLE answers; --",
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = Sse::open(about(&project, &format!("q{number}"), question)).await;
        let end = stream.rest().await.pop().expect("an end");
        assert_eq!(
            (end.name.as_str(), &end.data["reason"]),
            ("complete", &json!("finished")),
            "{question}"
        );
    }
}

#[tokio::test]
async fn a_user_has_two_answers_at_once_and_so_many_a_minute() {
    let parley =
        Parley::start_with(&["--chunk-delay-ms", "400", "--answers-per-minute", "3"]).await;
    let project = printers(&parley).await;
    let grace = project.with("grace", "viewer").await;
    let first = Sse::open(asking(&project, "first")).await;
    // Another's do not count, and a name that is known is no further question.
    let _graces = Sse::open(asking(&grace, "graces")).await;
    let _second = Sse::open(asking(&project, "second")).await;
    drop(first);
    let _again = Sse::open(asking(&project, "first")).await;
    let refused = Answer::to(asking(&project, "third")).await;
    assert_eq!(
        (refused.header("retry-after"), refused.header("x-sse-connection-limit")),
        ("10", "2")
    );
    let body = refused.refused(429, "too_many_connections");
    assert_eq!((&body["scope"], &body["current_connections"]), (&json!("user"), &json!(2)));
    let head = project.client.request("HEAD", "/stream/search");
    let head = head.query(&[("query", "a"), ("project_id", &project.id)]).send().await;
    assert_eq!(head.expect("an answer").status(), 429);

    for name in ["first", "second"] {
        let cancel = format!("/api/chat/answers/{name}/cancel");
        project.client.call("POST", &cancel, &json!({})).await.is(200);
    }
    drop(Sse::open(asking(&project, "third")).await);
    let refused = Answer::to(asking(&project, "fourth")).await;
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let body = refused.refused(429, "rate_limited");
    assert!(body["retry_after_ms"].as_u64().is_some_and(|ms| ms <= 60_000), "{body}");
}

#[tokio::test]
async fn head_says_what_get_would_and_asks_nothing() {
    let parley = Parley::start_with(&["--answers-per-minute", "1"]).await;
    let project = printers(&parley).await;
    let query = [("query", "printer"), ("project_id", &project.id), ("stream_id", "head")];
    for _ in 0..3 {
        let head = project.client.request("HEAD", "/stream/search").query(&query).send().await;
        let head = head.expect("an answer");
        assert_eq!(
            (head.status().as_u16(), &head.headers()["x-stream-max-seconds"]),
            (200, &"60".parse().expect("text"))
        );
    }
    project.client.get("/api/chat/answers/head").await.refused(404, "not_found");
    let mut stream = Sse::open(project.client.request("GET", "/stream/search").query(&query)).await;
    stream.until("complete").await;
}

#[tokio::test]
async fn without_streams_there_is_search() {
    let parley = Parley::start_with(&["--enable-sse", "false"]).await;
    let project = printers(&parley).await;
    let body = Answer::to(asking(&project, "off")).await.refused(503, "sse_disabled");
    assert_eq!(body["fallback"], project.path("/search"));
    project.client.get("/api/chat/answers/off").await.refused(404, "not_found");
}
