//! A disk that hangs under SQLite: the threads of the database stand still, and every caller is answered all the same. A disk
//! that is full: writes are refused, reads go on, and readiness tells.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Client, Parley, eventually};

/// How soon a request is answered.
const ANSWER: Duration = Duration::from_secs(8);
/// How soon readiness tells, and how soon everything goes on again.
const NOTICE: Duration = Duration::from_secs(10);

/// Builds the library that holds syncs up.
fn build(folder: &Path) -> String {
    let library = folder.join("hung_disk.so").to_str().expect("text").to_owned();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/hung_disk.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o", &library, source, "-ldl"]).status();
    assert!(built.expect("a C compiler is installed").success());
    library
}

async fn ready_is(client: &Client, expected: u16) {
    let began = Instant::now();
    let is_so = async || client.get("/health/ready").await.status == expected;
    eventually(&format!("ready is {expected}"), is_so).await;
    assert!(began.elapsed() < NOTICE, "ready was {expected} after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_hung_disk_is_told_of_in_time_and_all_goes_on_afterwards() {
    let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
    let (library, hung) = (build(dir.path()), dir.path().join("hung"));
    let hung_name = hung.to_str().expect("text");
    let parley =
        Parley::start_with_env(&dir, &[("LD_PRELOAD", &library), ("HUNG_DISK", hung_name)]).await;
    let ada = parley.as_user("ada");
    let project = ada.project().await;
    let path = format!("/api/chat/projects/{}/messages", project.id);
    let mut stream = ada.open(&format!("/sse/stream?project_id={}", project.id)).await;

    fs::write(&hung, "").expect("the folder is ours");
    let send = |number: usize| {
        let body =
            json!({"text": format!("text {number}"), "client_message_id": format!("key-{number}")});
        let (ada, path) = (ada.clone(), path.clone());
        async move {
            let began = Instant::now();
            let answer = ada.call("POST", &path, &body).await;
            (answer.status, began.elapsed())
        }
    };
    let (answers, ()) = tokio::join!(join_all((0..30).map(send)), ready_is(&ada, 503));
    for (status, took) in answers {
        assert_eq!(status, 503);
        assert!(took < ANSWER, "answered after {took:?}");
    }
    // Now that it is known, nobody waits.
    let (status, took) = send(30).await;
    assert!(status == 503 && took < Duration::from_secs(1), "{status} after {took:?}");
    assert_eq!(ada.get("/health/live").await.status, 200);

    fs::remove_file(&hung).expect("it is there");
    ready_is(&ada, 200).await;
    for number in 0..=30 {
        let is_taken = async || matches!(send(number).await.0, 200 | 201);
        eventually(&format!("text {number} is taken"), is_taken).await;
    }
    let page = ada.get(&format!("{path}?limit=100")).await.is(200);
    let page = page["messages"].as_array().expect("a list").clone();
    project.send("the last one").await;
    let told = stream.texts_until("the last one").await;
    for number in 0..=30 {
        let text = json!(format!("text {number}"));
        let kept = page.iter().filter(|message| message["text"] == text).count();
        let told = told.iter().filter(|told| json!(told) == text).count();
        assert_eq!((kept, told), (1, 1), "{text} is kept and delivered once");
    }
}

#[tokio::test]
async fn a_full_disk_is_told_of_in_time_and_reads_go_on() {
    let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
    let (library, full) = (build(dir.path()), dir.path().join("full"));
    let full_name = full.to_str().expect("text");
    let env = [("LD_PRELOAD", &*library), ("FULL_DISK", full_name), ("RATE_LIMIT_SENDS", "off")];
    let parley = Parley::start_with_env(&dir, &env).await;
    let ada = parley.as_user("ada");
    let project = ada.project().await;
    project.send("before").await;
    let path = format!("/api/chat/projects/{}/messages", project.id);

    for round in 0..2 {
        fs::write(&full, "").expect("the folder is ours");
        ready_is(&ada, 503).await;
        for _ in 0..5 {
            let began = Instant::now();
            let refused = ada.call("POST", &path, &json!({"text": "refused"})).await.is(503);
            assert_eq!(refused["error"], "unavailable");
            assert!(began.elapsed() < ANSWER, "answered after {:?}", began.elapsed());
            ada.get(&path).await.is(200);
        }
        assert_eq!(ada.get("/health/ready").await.status, 503);
        assert_eq!(ada.get("/health/live").await.status, 200);

        fs::remove_file(&full).expect("it is there");
        ready_is(&ada, 200).await;
        project.send(&format!("after {round}")).await;
    }
    let page = ada.get(&path).await.is(200);
    let texts = page["messages"].as_array().expect("a list").iter();
    let texts: Vec<_> = texts.map(|message| message["text"].clone()).collect();
    assert_eq!(texts, ["after 1", "after 0", "before"], "what was refused is not there");
}
