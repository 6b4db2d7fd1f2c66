//! Event streams: how they open, what they carry, and when they end.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::{
    sse::{Sse, raw_until},
    support::{Answer, Parley, text},
};

/// Everything that is a line's end to some reader of streams, and what forged lines would be made of.
const HOSTILE: &str = "a\rb\nc\r\nd\u{2028}e\u{2029}f\u{85}g\u{b}h\u{c}i\u{feff}\n\ndata: {\"type\":\"forged\"}\nid: 1\n\r\n: x\n\nend";

/// Returns the headers that are the same for every request.
fn stable(mut head: HeaderMap) -> HeaderMap {
    for changing in ["date", "x-sse-connection-id", "transfer-encoding"] {
        head.remove(changing);
    }
    head
}

#[tokio::test]
async fn a_stream_opens_by_every_name_with_the_headers_of_the_contract() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for path in ["/sse/stream", "/api/persistent-chat/stream"] {
        for name in ["project_id", "projectId"] {
            let path = format!("{path}?{name}={}", project.id);
            let ask = |method| {
                let request = parley.as_user("ada").request(method, &path);
                request.header("x-trace-id", "t").header("user-session-id", "s")
            };
            let mut stream = Sse::open(ask("GET")).await;
            let hello = stream.next().await.unwrap();
            let head = stream.head;
            for (name, value) in [
                ("content-type", "text/event-stream; charset=utf-8"),
                ("cache-control", "no-store, no-transform"),
                ("x-accel-buffering", "no"),
                ("x-heartbeat-interval", "15"),
                ("x-silence-threshold", "45"),
                ("x-trace-id", "t"),
                ("x-session-id", "s"),
            ] {
                assert_eq!(head[name], value, "{name}");
            }
            assert_eq!((hello.kind(), hello.name.as_str()), ("hello", "message"));
            assert_eq!(hello.data["connectionId"], head["x-sse-connection-id"].to_str().unwrap());
            assert_eq!(
                (&hello.data["sessionId"], &hello.data["user"]),
                (&json!("s"), &json!("ada"))
            );
            assert_eq!(hello.data["heartbeat_seconds"], 15);
            assert_eq!(hello.data["silence_seconds"], 45);
            assert_eq!(
                (&hello.data["resumed"], &hello.data["cursor"]),
                (&json!(false), &json!(hello.id))
            );
            assert!(hello.id.len() <= 128 && hello.id.starts_with("v1."), "{}", hello.id);

            let of_head = ask("HEAD").send().await.unwrap();
            assert_eq!(of_head.status(), 200);
            assert_eq!(stable(of_head.headers().clone()), stable(head));
            assert_eq!(of_head.bytes().await.unwrap(), "");
        }
    }
}

#[tokio::test]
async fn head_is_refused_like_get_and_is_nobodys_presence() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (valid, nowhere) = (project.id.as_str(), uuid::Uuid::now_v7().to_string());
    for (user, id, status) in [
        (Some("grace"), valid, 404),
        (None, valid, 401),
        (Some("ada"), &nowhere, 404),
        (Some("ada"), "junk", 400),
        (Some("ada"), "", 400),
    ] {
        let client = user.map_or(parley.client(), |user| parley.as_user(user));
        let path = format!("/sse/stream?project_id={id}");
        let answer = client.get(&path).await;
        assert_eq!(answer.status, status, "{path}");
        answer.is_well_formed_refusal();
        let head = Answer::to(client.request("HEAD", &path)).await;
        assert_eq!(head.status, status, "{path}");
        assert_eq!(head.header("content-type"), answer.header("content-type"));
    }
    parley.as_user("ada").get("/sse/stream").await.refused(400, "invalid_request");
    let path = format!("/sse/stream?project_id={valid}");
    Answer::to(parley.as_user("ada").request("HEAD", &path)).await.is(200);
    assert_eq!(project.get("/presence").await.is(200)["presence"], json!([]));
}

#[tokio::test]
async fn what_happens_is_told_to_every_member_at_once() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "viewer").await;
    let (mut first, _) = ada.stream("").await;
    let (mut second, _) = grace.stream("").await;
    let request = ada.client.request("POST", &ada.path("/messages")).header("x-trace-id", "cause");
    let sent = Answer::to(request.json(&json!({"text": "hello"}))).await.is(201);
    let channel = ada.call("POST", "/channels", &json!({"name": "new"})).await.is(201);
    let renamed = ada.call("PATCH", "", &json!({"name": "New"})).await.is(200);
    for stream in [&mut first, &mut second] {
        let event = stream.expect("message.created").await;
        assert_eq!(event["message"], sent);
        assert_eq!((&event["actor"], &event["trace_id"]), (&json!("ada"), &json!("cause")));
        assert_eq!(event["project_id"], ada.id);
        assert!(event["at"].is_string());
        assert_eq!(stream.expect("channel.created").await["channel"], channel);
        // A role is each member's own, so it is not told.
        let event = stream.expect("project.updated").await;
        assert_eq!(event["project"]["name"], renamed["name"]);
        assert_eq!(event["project"]["role"], Value::Null);
    }
}

#[tokio::test]
async fn no_text_breaks_out_of_its_event() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let (mut stream, _) = project.stream("").await;
    let new = json!({"text": HOSTILE, "metadata": {"k\r\n\ndata: x\u{2028}": HOSTILE}});
    let sent = project.call("POST", "/messages", &new).await.is(201);
    assert_eq!(stream.expect("message.created").await["message"], sent);
    assert_eq!(sent["text"], HOSTILE);
    // The same from the log, in bytes: whoever splits lines at anything sees whole fields.
    project.send("marker").await;
    let path = format!("/sse/stream?project_id={}&since={cursor}", project.id);
    let bytes = raw_until(project.client.request("GET", &path), b"\"marker\"").await;
    let stream = String::from_utf8(bytes).unwrap();
    let frame = stream.split("\n\n").nth(1).unwrap();
    let lines: Vec<&str> = frame.split(['\r', '\n', '\u{85}', '\u{2028}', '\u{2029}']).collect();
    let [data, id] = lines[..] else { panic!("{lines:?}") };
    assert!(id.starts_with("id: v1."), "{id}");
    let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data["message"], sent);
}

#[tokio::test]
async fn the_first_bytes_are_when_to_come_back_and_the_greeting() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    let bytes = raw_until(project.client.request("GET", &path), b"\n\n").await;
    let frame = String::from_utf8(bytes).unwrap();
    let [retry, data, id] = frame.trim_end().split('\n').collect::<Vec<_>>()[..] else {
        panic!("{frame:?}")
    };
    assert!(retry.strip_prefix("retry: ").unwrap().parse::<u64>().unwrap() > 0);
    let hello: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(hello["type"], "hello");
    assert_eq!(format!("id: {}", text(&hello["cursor"])), id);
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let parley = Parley::start_with(&["--keepalive-interval", "300ms"]).await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    // One frame for proxies and page script both.
    let needle = b": keepalive\nevent: heartbeat\ndata: {\"timestamp\":\"";
    raw_until(project.client.request("GET", &path), needle).await;
    let (mut stream, hello) = project.stream("").await;
    for _ in 0..3 {
        let beat = stream.next().await.unwrap();
        assert_eq!(beat.name, "heartbeat");
        // It does not move the reader in the log.
        assert_eq!(hello["cursor"], *beat.id);
        assert_eq!(beat.data.as_object().unwrap().len(), 1);
    }
    project.send("still here").await;
    assert_eq!(stream.expect("message.created").await["message"]["text"], "still here");
}

#[tokio::test]
async fn removal_ends_the_members_streams_and_nothing_comes_after() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "member").await;
    let (mut stays, _) = ada.stream("").await;
    let mut ends = Vec::new();
    for _ in 0..2 {
        ends.push(grace.stream("").await);
    }
    ada.send("before").await;
    assert_eq!(ada.delete("/members/grace").await.status, 204);
    ada.send("after").await;
    for (stream, hello) in &mut ends {
        let kinds: Vec<(String, Value)> = stream
            .rest()
            .await
            .into_iter()
            .map(|event| (event.kind().to_owned(), event.data))
            .collect();
        let [(first, _), (last, bye)] = &kinds[..] else { panic!("{kinds:?}") };
        assert_eq!((first.as_str(), last.as_str()), ("message.created", "bye"));
        assert_eq!((&bye["reason"], &bye["reconnect"]), (&json!("revoked"), &json!(false)));
        let again = format!("/sse/stream?project_id={}&since={}", grace.id, text(&hello["cursor"]));
        grace.client.get(&again).await.refused(404, "not_found");
    }
    stays.expect("message.created").await;
    assert_eq!(stays.expect("member.removed").await["member"]["user"], "grace");
    stays.expect("message.created").await;
    // The end of the project is everybody's removal.
    assert_eq!(ada.delete("").await.status, 204);
    let rest = stays.rest().await;
    assert_eq!(rest.last().unwrap().data["reason"], "revoked", "{rest:?}");
}

#[tokio::test]
async fn who_was_removed_and_is_back_goes_on_where_they_were() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "member").await;
    let cursor = grace.cursor().await;
    assert_eq!(ada.delete("/members/grace").await.status, 204);
    ada.send("between").await;
    ada.with("grace", "member").await;
    let (mut stream, _) = grace.stream(&format!("&since={cursor}")).await;
    ada.send("live").await;
    assert_eq!(stream.texts_until("live").await, ["between", "live"]);
}

#[tokio::test]
async fn without_streams_the_fallback_is_named_and_works() {
    let parley = Parley::start_with(&["--enable-sse", "false"]).await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    project.send("hello").await;
    for path in ["/sse/stream", "/api/persistent-chat/stream"] {
        let answer = project.client.get(&format!("{path}?project_id={}", project.id)).await;
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
        let body = answer.refused(503, "sse_disabled");
        assert!(body["retry_after_ms"].is_u64());
        let fallback = format!("{}?after={cursor}", text(&body["fallback"]));
        let page = project.client.get(&fallback).await.is(200);
        assert_eq!(page["events"][0]["message"]["text"], "hello");
    }
    let answer = project.client.get("/api/jobs/stream").await;
    let body = answer.refused(503, "sse_disabled");
    project.client.get(&text(&body["fallback"])).await.is(200);
}
