//! Deleted is deleted: the text of a deleted message, and the earlier text of an edited one, is in no answer and no row.

use serde_json::{Value, json};

use crate::{
    bundle::LOOPBACK,
    contents::Contents,
    job::run,
    project::Project,
    sse::Sse,
    support::{Parley, eventually, text},
    webhook::{Subscription, receiver},
};

const DELETED: &str = "hunter2-deleted";
const EDITED: &str = "hunter2-edited";

/// Returns the cursor before the first entry of a project's topic, made from any of its cursors.
fn beginning(cursor: &str) -> String {
    let mut parts: Vec<&str> = cursor.split('.').collect();
    let length = parts.len();
    parts[length - 2..].fill("0");
    parts.join(".")
}

#[track_caller]
fn has_none(what: &str, answer: &str) {
    for secret in [DELETED, EDITED] {
        assert!(!answer.contains(secret), "{what} has {secret}: {answer}");
    }
}

/// Sends what is deleted and edited afterwards. Returns the cursor from before.
async fn leak(ada: &Project) -> String {
    let cursor = ada.cursor().await;
    let metadata = json!({"secret": DELETED});
    let sent = json!({"text": DELETED, "metadata": metadata, "client_message_id": "key"});
    let deleted = ada.call("POST", "/messages", &sent).await.is(201);
    let edited = ada.send(EDITED).await;
    let thumb = format!("/messages/{}/reactions/👍", text(&deleted["id"]));
    ada.call("PUT", &thumb, &json!({})).await.is(200);
    for secret in [EDITED, "the second version, hunter2-edited too", "the last version"] {
        let path = format!("/messages/{}", text(&edited["id"]));
        ada.call("PATCH", &path, &json!({"text": secret})).await.is(200);
    }
    let path = format!("/messages/{}", text(&deleted["id"]));
    ada.call("PATCH", &path, &json!({"text": "hunter2-deleted once more"})).await.is(200);
    ada.delete(&path).await.is(200);
    cursor
}

/// Holds the events of a replay to be those of [`leak`], redacted.
fn check(events: &[Value]) {
    let of = |kind: &str| -> Vec<&Value> {
        let events = events.iter().filter(|event| event["type"] == kind);
        events.map(|event| &event["message"]).collect()
    };
    for message in of("message.created") {
        assert_eq!((&message["text"], &message["redacted"]), (&json!(""), &json!(true)));
        assert_eq!(message["metadata"], Value::Null);
    }
    let deleted = |messages: Vec<&Value>| -> Vec<bool> {
        messages.iter().map(|message| message["deleted_at"].is_string()).collect()
    };
    assert_eq!(deleted(of("message.created")), [true, false]);
    let updated: Vec<&str> =
        of("message.updated").iter().filter_map(|message| message["text"].as_str()).collect();
    assert_eq!(updated, ["", "", "the last version", ""]);
    assert_eq!(of("message.deleted").len(), 1);
}

#[tokio::test]
async fn the_text_of_a_deleted_or_edited_message_is_nowhere() {
    let mut parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    // A stream keeps the recent frames of the topic in memory.
    let (mut open, _) = ada.stream("").await;
    let cursor = leak(&ada).await;
    open.until("message.deleted").await;

    // By the frames in memory: a stream that joins just behind them.
    let (mut stream, hello) = ada.stream(&format!("&since={cursor}")).await;
    assert_eq!(hello["resumed"], true);
    replayed(&mut stream).await;
    // A member who was added afterwards, from the very beginning of the topic.
    let grace = ada.with("grace", "viewer").await;
    for from in [&cursor, &beginning(&cursor)] {
        let (mut stream, _) = grace.stream(&format!("&since={from}")).await;
        replayed(&mut stream).await;
        let log = grace.log(from).await;
        has_none("the long poll", &json!(log).to_string());
        check(&log);
    }
    has_none("the history", &json!(grace.history().await).to_string());
    eventually("the search finds neither", async || {
        let found = grace.get("/search?q=hunter2").await.is(200);
        found["messages"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
    let export = run(&grace, "chat.export", json!({})).await;
    let artifact = text(&export["result"]["artifact"]["url"]);
    let file = grace.client.request("GET", &artifact).send().await.expect("it answers");
    has_none("the export", &file.text().await.expect("text"));

    assert!(parley.terminate().await.success());
    let contents = Contents::read(parley.dir.path()).await;
    for secret in [DELETED, EDITED] {
        let left = contents.having(secret);
        assert!(left.is_empty(), "{secret} is in {left:?}");
    }
    assert!(!contents.having("the last version").is_empty(), "what was not deleted is there");
}

#[tokio::test]
async fn erased_text_leaves_the_databases_files_while_the_process_runs() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    leak(&ada).await;
    let files = ["parley.db", "parley.db-wal"].map(|name| parley.dir.path().join(name));
    let has = |text: &str| {
        let holds = |file: &std::path::PathBuf| {
            let bytes = std::fs::read(file).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        };
        files.iter().any(holds)
    };
    assert!(has("the last version"), "the files are read as they are");
    let began = std::time::Instant::now();
    eventually("the text is gone", async || !has(DELETED) && !has(EDITED)).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    // Also what is sent and deleted right afterwards, while others send.
    let sent = ada.send("hunter3-deleted").await;
    ada.delete(&format!("/messages/{}", text(&sent["id"]))).await.is(200);
    let gone = async || {
        ada.send("business as usual").await;
        !has("hunter3-deleted")
    };
    eventually("the text is gone under load", gone).await;
    assert!(has("the last version") && has("business as usual"), "all else is there");
}

/// Reads what a stream replays, up to the deletion.
async fn replayed(stream: &mut Sse) {
    let mut events = Vec::new();
    loop {
        let event = stream.entry().await;
        has_none("the stream", &event.data.to_string());
        events.push(event.data.clone());
        if event.kind() == "message.deleted" {
            break;
        }
    }
    check(&events);
}

#[tokio::test]
async fn a_webhook_has_a_deleted_message_delivered_again_without_its_text() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let ada = parley.as_user("ada").project().await;
    let mut receiver = receiver().await;
    let subscription = Subscription::make(&ada, &receiver.url, &["message.created"]).await;
    let sent = ada.send(DELETED).await;
    let first = receiver.called().await;
    assert_eq!(subscription.verified(&first).1["message"]["text"], DELETED);
    eventually("the delivery is written down", async || {
        subscription.deliveries().await.first().is_some_and(|first| first["status"] == "delivered")
    })
    .await;
    ada.delete(&format!("/messages/{}", text(&sent["id"]))).await.is(200);
    let delivery = subscription.deliveries().await.remove(0);
    subscription.redeliver(&delivery["seq"]).await.is(202);
    let again = receiver.called().await;
    assert_eq!(again.header("webhook-id"), first.header("webhook-id"));
    let (_, event) = subscription.verified(&again);
    has_none("the call", &event.to_string());
    assert_eq!(
        (&event["message"]["text"], &event["message"]["redacted"]),
        (&json!(""), &json!(true))
    );
}

#[tokio::test]
async fn an_answer_that_rests_on_a_deleted_message_is_emptied() {
    let mut parley = Parley::start_with(&["--chunk-delay-ms", "0"]).await;
    let ada = parley.as_user("ada").project().await;
    let sent = ada.send(&format!("the printer wants {DELETED} toner")).await;
    eventually("the message is found", async || {
        let found = ada.get("/search?q=printer").await.is(200);
        found["messages"].as_array().is_some_and(|found| found.len() == 1)
    })
    .await;
    let query =
        [("query", "what does the printer want?"), ("project_id", &ada.id), ("stream_id", "a")];
    let asking = || ada.client.request("GET", "/stream/search").query(&query);
    let (mut stream, _) = Sse::greeted(asking()).await;
    let events = stream.rest().await;
    let said = events.iter().any(|event| event.data.to_string().contains(DELETED));
    assert!(said, "the answer quotes the message: {events:?}");

    ada.delete(&format!("/messages/{}", text(&sent["id"]))).await.is(200);
    let answer = async || ada.client.get("/api/chat/answers/a").await.is(200);
    eventually("the answer is emptied", async || answer().await["state"] == "redacted").await;
    let answer = answer().await;
    has_none("the answer", &answer.to_string());
    assert_eq!((&answer["text"], &answer["sources"][0]["snippet"]), (&json!(""), &json!("")));
    assert!(parley.terminate().await.success());
    let left = Contents::read(parley.dir.path()).await;
    let left = left.having(DELETED);
    assert!(left.is_empty(), "{DELETED} is in {left:?}");
}

#[tokio::test]
async fn the_check_notices_when_nothing_is_redacted() {
    let parley = Parley::start_with(&["--sabotage", "no-redaction"]).await;
    let ada = parley.as_user("ada").project().await;
    let cursor = leak(&ada).await;
    let log = json!(ada.log(&cursor).await).to_string();
    for secret in [DELETED, EDITED] {
        assert!(
            log.contains(secret),
            "{secret} was redacted in spite of the deliberate bug: {log}"
        );
    }
}
