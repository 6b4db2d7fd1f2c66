//! Answers: streamed as they are written, continued where a line broke, ended for a reason.

mod limits;
mod model;

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    metrics::collect,
    project::Project,
    sse::{Event, Sse},
    support::{Parley, column, eventually, text},
};

/// What tests that are not about the limits of questions start with.
const MANY: [&str; 4] = ["--answers-per-minute", "1000", "--answers-per-user", "100"];

/// A project in which something was said that can be asked about, and is found.
async fn printers(parley: &Parley) -> Project {
    let project = parley.as_user("ada").project().await;
    for number in 0..6 {
        project.send(&format!("printer {number} wants paper, toner and a firm word")).await;
    }
    eventually("all are found", async || {
        let found = project.get("/search?q=printer").await.is(200);
        found["messages"].as_array().is_some_and(|found| found.len() == 6)
    })
    .await;
    project
}

/// Asks about a project, under a name of the caller's.
fn asking(project: &Project, name: &str) -> RequestBuilder {
    about(project, name, "what does the printer want?")
}

fn about(project: &Project, name: &str, question: &str) -> RequestBuilder {
    let query = [("query", question), ("project_id", &project.id), ("stream_id", name)];
    project.client.request("GET", "/stream/search").query(&query)
}

/// Returns the text that these events bring, which are to be whole and in order from the chunk `first` on.
fn text_of(events: &[Event], first: u64) -> String {
    let chunks = events.iter().filter(|event| event.name == "content_chunk");
    let checked = (first..).zip(chunks).map(|(index, chunk)| {
        assert_eq!(chunk.data["index"], index);
        text(&chunk.data["text"])
    });
    checked.collect()
}

#[tokio::test]
async fn an_answer_quotes_what_was_said_and_says_by_whom() {
    let parley = Parley::start_with(&["--chunk-delay-ms", "0"]).await;
    let project = printers(&parley).await;
    let (mut stream, hello) = Sse::greeted(asking(&project, "first")).await;
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-heartbeat-interval", "5"),
        ("x-silence-threshold", "15"),
        ("x-stream-max-seconds", "60"),
    ] {
        assert_eq!(stream.head[name], value, "{name}");
    }
    assert_eq!((&hello["streamId"], &hello["resumed"]), (&json!("first"), &json!(false)));
    let events = stream.rest().await;
    let trace = stream.head["x-trace-id"].to_str().expect("text");
    for event in &events {
        assert_eq!(
            (&event.data["trace_id"], &event.data["stream_id"]),
            (&json!(trace), &json!("first"))
        );
    }
    let written = text_of(&events, 0);
    assert!(written.contains("] Ada in #general, "), "{written}");
    let complete = &events.last().expect("an end");
    assert_eq!(
        (complete.name.as_str(), &complete.data["reason"]),
        ("complete", &json!("finished"))
    );
    assert_eq!(complete.data["total_chunks"], events.len() - 1);
    let sources = complete.data["sources"].as_array().expect("a list");
    assert_eq!(sources.len(), 5);
    for source in sources {
        let message =
            project.get(&format!("/messages/{}", text(&source["message_id"]))).await.is(200);
        assert!(written.contains(&text(&message["text"])), "{written}");
        for field in ["channel", "author", "created_at"] {
            assert_eq!(source[field], message[field]);
        }
        assert!(source["snippet"].is_string() && source["score"].as_f64().is_some_and(|s| s > 0.0));
    }

    let whole = project.client.get("/api/chat/answers/first").await.is(200);
    assert_eq!((&whole["text"], &whole["state"]), (&json!(written), &json!("finished")));
    assert_eq!(whole["sources"], complete.data["sources"]);
    assert_eq!(whole["total_tokens"], complete.data["total_tokens"]);

    let figures = collect(&parley, "proc").await;
    for (name, value) in [
        ("answers_started", &json!(1)),
        ("answers_finished", &json!(1)),
        ("answer_chunks", &complete.data["total_chunks"]),
        ("answer_tokens", &complete.data["total_tokens"]),
    ] {
        let line = format!("parley_{name}_total {value}");
        assert!(figures.lines().any(|said| said == line), "{line} is not in {figures}");
    }
}

#[tokio::test]
async fn where_nothing_was_said_the_answer_says_so() {
    let parley = Parley::start().await;
    let project = printers(&parley).await;
    let mut stream = Sse::open(about(&project, "none", "xylophones?")).await;
    let events = stream.rest().await;
    assert!(text_of(&events[1..], 0).starts_with("Nothing was found"), "{events:?}");
    assert_eq!(events.last().expect("an end").data["sources"], json!([]));
}

#[tokio::test]
async fn heartbeats_keep_their_time_whatever_else_is_said() {
    let flags = ["--heartbeat-interval", "500ms", "--chunk-delay-ms", "150"];
    let parley = Parley::start_with(&flags).await;
    let project = printers(&parley).await;
    let mut stream = Sse::open(asking(&project, "slow")).await;
    let (mut beats, mut chunks) = (Vec::new(), 0);
    while let Some(event) = stream.next().await {
        match event.name.as_str() {
            "heartbeat" => {
                assert_eq!(event.data["total_chunks"], chunks);
                beats.push(event.data);
            }
            "content_chunk" => chunks += 1,
            _ => {}
        }
    }
    assert!(beats.len() >= 4, "{beats:?}");
    for (number, beat) in (1..).zip(&beats) {
        assert_eq!(
            (&beat["heartbeat_count"], &beat["stream_id"]),
            (&json!(number), &json!("slow"))
        );
        let seconds = |field: &str| beat[field].as_f64().expect("seconds");
        let late = seconds("uptime_seconds") - 0.5 * f64::from(number);
        assert!((-0.01..0.3).contains(&late), "{beat}");
        let sum = seconds("uptime_seconds") + seconds("remaining_seconds");
        assert!((sum - seconds("max_duration")).abs() < 0.001, "{beat}");
        assert!(beat["timestamp"].is_string() && beat["total_tokens"].as_u64() > Some(0), "{beat}");
    }
}

#[tokio::test]
async fn an_answer_ends_where_it_is_when_its_time_is_over() {
    let flags = ["--stream-max-seconds", "6", "--chunk-delay-ms", "700"];
    let parley = Parley::start_with(&flags).await;
    let project = printers(&parley).await;
    let began = std::time::Instant::now();
    let mut stream = Sse::open(asking(&project, "long")).await;
    assert_eq!(stream.head["x-stream-max-seconds"], "6");
    let events = stream.rest().await;
    let took = began.elapsed().as_secs_f64();
    assert!((5.5..6.5).contains(&took), "{took}");
    let end = &events.last().expect("an end").data;
    assert_eq!(
        (&end["reason"], &end["total_chunks"]),
        (&json!("duration_cap"), &json!(events.len() - 2))
    );
    let whole = project.client.get("/api/chat/answers/long").await.is(200);
    assert_eq!(whole["text"], text_of(&events, 0));
}

#[tokio::test]
async fn who_comes_back_gets_the_rest_and_in_the_end_nothing() {
    let parley = Parley::start_with(&["--chunk-delay-ms", "20"]).await;
    let project = printers(&parley).await;
    let mut stream = Sse::open(asking(&project, "broken")).await;
    let mut events = vec![stream.until("hello").await];
    for _ in 0..7 {
        events.push(stream.until("content_chunk").await);
    }
    drop(stream);
    let last = events.last().expect("events").id.clone();
    // Nothing but the cursor is needed.
    let back = |cursor: &str| {
        project.client.request("GET", "/stream/search").header("last-event-id", cursor)
    };
    let (mut stream, hello) = Sse::greeted(back(&last)).await;
    assert_eq!((&hello["streamId"], &hello["resumed"]), (&json!("broken"), &json!(true)));
    assert_eq!(hello["cursor"], last);
    events.extend(stream.rest().await);
    let whole = project.client.get("/api/chat/answers/broken").await.is(200);
    assert_eq!(text_of(&events, 0), text(&whole["text"]));
    for method in ["GET", "HEAD"] {
        let end = &events.last().expect("an end").id;
        let request = project.client.request(method, "/stream/search").header("last-event-id", end);
        assert_eq!(request.send().await.expect("an answer").status(), 204);
    }
    // From anywhere in it, and by its name from the beginning.
    let before_last = &events[events.len() - 2].id;
    let (mut stream, _) = Sse::greeted(back(before_last)).await;
    stream.expect("complete").await;
    assert!(stream.next().await.is_none());
    let mut stream = Sse::open(asking(&project, "broken")).await;
    assert_eq!(text_of(&stream.rest().await, 0), text(&whole["text"]));
}

#[tokio::test]
async fn what_is_no_cursor_of_ones_own_answer_is_told_so_once() {
    let parley = Parley::start_with(&["--chunk-delay-ms", "0"]).await;
    let project = printers(&parley).await;
    let mut stream = Sse::open(asking(&project, "mine")).await;
    let mine = stream.until("content_chunk").await.id;
    let grace = project.with("grace", "member").await;
    let logs = project.cursor().await;
    let changed = format!("{mine}z");
    for (client, cursor, reason) in [
        (&grace.client, mine.as_str(), "unknown_epoch"),
        (&project.client, "junk", "malformed"),
        (&project.client, logs.as_str(), "unknown_epoch"),
        (&project.client, changed.as_str(), "unknown_epoch"),
    ] {
        let back = || {
            about(&Project { client: client.clone(), id: project.id.clone() }, "new", "printer?")
        };
        let mut stream = Sse::open(back().header("last-event-id", cursor)).await;
        let told = stream.rest().await;
        let [hello, reset, error] = &told[..] else { panic!("{told:?}") };
        assert_eq!((hello.kind(), reset.kind(), error.kind()), ("hello", "reset", "error"));
        assert_eq!(
            (&reset.data["reason"], &error.data["code"]),
            (&json!(reason), &json!("unknown_answer"))
        );
        // As an EventSource does that reads on.
        let again = back().header("last-event-id", &error.id).send().await.expect("an answer");
        assert_eq!(again.status(), 204);
        client.get("/api/chat/answers/new").await.refused(404, "not_found");
    }
    grace.client.get("/api/chat/answers/mine").await.refused(404, "not_found");
    let cancel = "/api/chat/answers/mine/cancel";
    grace.client.call("POST", cancel, &Value::Null).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_cancelled_answer_ends_at_once_and_says_so() {
    let parley = Parley::start_with(&["--chunk-delay-ms", "300"]).await;
    let project = printers(&parley).await;
    let mut stream = Sse::open(asking(&project, "enough")).await;
    let mut events = vec![stream.until("content_chunk").await];
    let cancel = "/api/chat/answers/enough/cancel";
    let cancelled = project.client.call("POST", cancel, &Value::Null).await.is(200);
    events.extend(stream.rest().await);
    assert_eq!(
        (&cancelled["state"], &cancelled["text"]),
        (&json!("cancelled"), &json!(text_of(&events, 0)))
    );
    let end = events.last().expect("an end");
    assert_eq!((end.name.as_str(), &end.data["reason"]), ("complete", &json!("cancelled")));
    assert_eq!(project.client.call("POST", cancel, &Value::Null).await.is(200), cancelled);
}

#[tokio::test]
async fn closing_the_line_does_not_end_an_answer_and_a_name_is_one_question() {
    let parley = Parley::start_with(&["--chunk-delay-ms", "30"]).await;
    let project = printers(&parley).await;
    let mut stream = Sse::open(asking(&project, "kept")).await;
    stream.until("content_chunk").await;
    drop(stream);
    let other = about(&project, "kept", "another question");
    crate::support::Answer::to(other).await.refused(409, "idempotency_conflict");
    eventually("the answer is written", async || {
        project.client.get("/api/chat/answers/kept").await.is(200)["state"] == "finished"
    })
    .await;
}

#[tokio::test]
async fn who_is_removed_hears_and_reads_no_more_of_it() {
    let flags = ["--chunk-delay-ms", "200", "--heartbeat-interval", "100ms"];
    let parley = Parley::start_with(&flags).await;
    let project = printers(&parley).await;
    let grace = project.with("grace", "viewer").await;
    let mut stream = Sse::open(asking(&grace, "removed")).await;
    let chunk = stream.until("content_chunk").await;
    // What is said meanwhile is not for this stream.
    project.send("not a printer").await;
    project.delete("/members/grace").await.is(204);
    let rest = stream.rest().await;
    let bye = rest.last().expect("an end");
    assert_eq!((bye.name.as_str(), &bye.data["reason"]), ("bye", &json!("revoked")));
    assert!(
        rest.iter().all(|event| ["content_chunk", "bye"].contains(&event.name.as_str())),
        "{rest:?}"
    );
    let back = grace.client.request("GET", "/stream/search").header("last-event-id", chunk.id);
    crate::support::Answer::to(back).await.refused(404, "not_found");
    grace.client.get("/api/chat/answers/removed").await.refused(404, "not_found");
}

#[tokio::test]
async fn an_answer_goes_on_after_a_power_cut() {
    let flags = ["--chunk-delay-ms", "300"];
    let mut parley = Parley::start_with(&flags).await;
    let project = printers(&parley).await;
    let mut stream = Sse::open(asking(&project, "cut")).await;
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(stream.until("content_chunk").await);
    }
    parley.kill().await;
    drop(stream);
    let dir = parley.dir.clone();
    drop(parley);
    let parley = Parley::start_in(&dir, &flags).await;
    let client = parley.as_user("ada");
    let last = events.last().expect("chunks").id.clone();
    let back = client.request("GET", "/stream/search").header("last-event-id", &last);
    let began = std::time::Instant::now();
    let mut stream = Sse::open(back).await;
    events.push(stream.until("content_chunk").await);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    events.extend(stream.rest().await);
    let whole = client.get("/api/chat/answers/cut").await.is(200);
    assert_eq!((text_of(&events, 0), &whole["state"]), (text(&whole["text"]), &json!("finished")));
    assert_eq!(column(&whole["sources"], "author"), ["ada"; 5]);
}
