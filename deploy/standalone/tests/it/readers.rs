//! Programs that are not ours read our streams: other languages, other parsers, other inflaters.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use eventsource_stream::Eventsource;
use futures_util::StreamExt;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    sse::raw_until,
    support::{PATIENCE, Parley, text},
};

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers");
    assert!(folder.join("node_modules").is_dir(), "run scripts/setup: a parser is not installed");
    folder
}

/// Starts a program of the folder of readers.
pub(crate) fn start(program: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder()).kill_on_drop(true);
    command.env("PYTHONPATH", folder().join("python_modules"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("run scripts/setup: {program}: {error}"))
}

/// Sends an event, waits until the program has printed it, and so on; then the server stops, and the program is content.
async fn reads_at_once(program: &str, arguments: &[&str]) {
    let flags = ["--enable-compression", "true", "--keepalive-interval", "10m"];
    let mut parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let url = format!("{}/sse/stream?project_id={}", parley.ingress, project.id);
    let fill = |argument: &&str| if *argument == "URL" { url.clone() } else { (*argument).into() };
    let arguments: Vec<String> = arguments.iter().map(fill).collect();
    let mut child = start(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut read = Vec::new();
    let mut sees = async |needle: &str, patience| {
        let reading = async {
            while !String::from_utf8_lossy(&read).contains(needle) {
                let count = stdout.read_buf(&mut read).await.expect("a pipe");
                assert!(count > 0, "{program} ended: {}", String::from_utf8_lossy(&read));
            }
        };
        timeout(patience, reading).await.unwrap_or_else(|_| panic!("{program}: no {needle}"));
    };
    sees("\"hello\"", PATIENCE).await;
    for number in 0..10 {
        let text = format!("number {number} of ten");
        project.send(&text).await;
        // A reader that waited for more than the event would wait for ever.
        sees(&text, Duration::from_secs(10)).await;
    }
    parley.signal();
    sees("event: bye", PATIENCE).await;
    let status = timeout(PATIENCE, child.wait()).await.expect("it ends").expect("it is ours");
    assert!(status.success(), "{program}: {status}");
    assert!(parley.ended().await.success());
}

#[tokio::test]
async fn curl_reads_each_compressed_event_at_once() {
    let token = "authorization: Bearer dev-ada";
    let arguments = ["-sSN", "--compressed", "--noproxy", "*", "-H", token, "URL"];
    reads_at_once("curl", &arguments).await;
}

#[tokio::test]
async fn zlib_reads_each_compressed_event_at_once() {
    reads_at_once("python3", &["stream.py", "URL", "dev-ada"]).await;
}

#[tokio::test]
async fn fetch_reads_each_compressed_event_at_once() {
    reads_at_once("node", &["stream.js", "URL", "dev-ada"]).await;
}

/// Texts of every kind: any characters, many line ends, what streams are made of.
fn texts() -> Vec<String> {
    let part = prop_oneof![
        "\\PC{1,40}",
        "[\r\n\u{85}\u{2028}\u{2029}\u{feff} :]{1,6}",
        "(id|data|event|retry): ?"
    ];
    let texts = prop::collection::vec(part, 1..8).prop_map(|parts| format!("x{}", parts.concat()));
    let mut runner = TestRunner::default();
    (0..100).map(|_| texts.new_tree(&mut runner).expect("a text").current()).collect()
}

/// Returns what the parser in JavaScript makes of a stream that comes in pieces of at most this size.
async fn parsed(bytes: &[u8], largest: usize) -> (Vec<Value>, usize) {
    let mut child = start("node", &["parse.js", &largest.to_string()]);
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeding = async {
        stdin.write_all(bytes).await.expect("it reads");
        drop(stdin);
    };
    let (output, ()) = timeout(PATIENCE, async { tokio::join!(child.wait_with_output(), feeding) })
        .await
        .expect("it ends");
    let output = output.expect("it is ours");
    assert!(output.status.success(), "{}", output.status);
    let lines = String::from_utf8(output.stdout).expect("text");
    let all: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (retries, events): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|line| line["retry"].is_number());
    (events, retries.len())
}

#[tokio::test]
async fn two_parsers_agree_on_every_event_however_it_is_split() {
    let parley = Parley::start_with(&["--keepalive-interval", "50ms"]).await;
    let project = parley.as_user("ada").project().await;
    let since = project.cursor().await;
    for text in texts() {
        project.send(&text).await;
    }
    let path = format!("/sse/stream?project_id={}&since={since}", project.id);
    project.send("the end of it").await;
    let request = project.client.request("GET", &path);
    let bytes = raw_until(request, b"the end of it").await;
    let bytes = &bytes[..bytes.windows(2).rposition(|window| window == b"\n\n").unwrap() + 2];

    let whole = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(bytes.to_vec())]);
    let ours: Vec<_> = whole.eventsource().map(|event| event.unwrap()).collect().await;
    let sent = project.history().await;
    for largest in [1, 3, 64, 1 << 20] {
        let (theirs, retries) = parsed(bytes, largest).await;
        assert_eq!((theirs.len(), retries), (ours.len(), 1), "in pieces of {largest}");
        for (their, our) in theirs.iter().zip(&ours) {
            assert_eq!(their["data"], our.data);
            assert_eq!(their["event"].as_str().unwrap_or("message"), our.event);
            assert!(their["id"].is_null() || their["id"] == our.id);
        }
        let messages: Vec<Value> = theirs
            .iter()
            .filter(|event| event["id"].is_string())
            .map(|event| serde_json::from_str::<Value>(&text(&event["data"])).unwrap())
            .filter(|data| data["type"] == "message.created")
            .map(|data| data["message"].clone())
            .collect();
        assert!(messages.len() >= 100, "{}", messages.len());
        assert_eq!(messages, sent[..messages.len()], "in pieces of {largest}");
    }
}
