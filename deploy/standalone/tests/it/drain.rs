//! The end of the process: told to those who listen, in order, and in time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    raw::Raw,
    support::{PATIENCE, Parley},
};

#[tokio::test]
async fn streams_are_told_and_the_process_ends_well() {
    // The poll comes while requests are still taken.
    let flags = ["--drain-delay", "1s", "--drain-spread", "300ms"];
    let mut parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(project.stream("").await);
    }
    let poll_path = format!("/events?after={}&wait=25", project.cursor().await);
    let poll = project.get(&poll_path);
    let end = async {
        parley.signal();
        let mut returns = Vec::new();
        for (stream, _) in &mut streams {
            let rest = stream.rest().await;
            let [shutdown, bye] = &rest[..] else { panic!("{rest:?}") };
            assert_eq!((shutdown.name.as_str(), bye.name.as_str()), ("server_shutdown", "bye"));
            assert_eq!(shutdown.data["reason"], "draining");
            assert_eq!(
                (&bye.data["reason"], &bye.data["reconnect"]),
                (&json!("server_shutdown"), &json!(true))
            );
            returns.push(shutdown.data["retry_after_ms"].as_u64().unwrap());
        }
        returns.dedup();
        assert!(returns.len() > 1, "all come back at once: {returns:?}");
        parley.ended().await
    };
    let (polled, status) = tokio::join!(poll, end);
    assert!(status.success(), "{status}");
    // A running request finishes, with what there is.
    assert_eq!(polled.is(200)["events"], json!([]));
}

/// Returns what an event says of when to come back: its `retry:`, and its data.
fn retry_of(frame: &str) -> (Option<u64>, Value) {
    let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
    let data = field("data: ").and_then(|data| serde_json::from_str(data).ok());
    (field("retry: ").and_then(|ms| ms.parse().ok()), data.unwrap_or_default())
}

#[tokio::test]
async fn who_is_told_of_the_end_comes_back_after_it() {
    const SPREAD: Duration = Duration::from_secs(2);
    let mut parley = Parley::start_with(&["--drain-spread", "2s"]).await;
    let project = parley.as_user("ada").project().await;
    let mut peers = Vec::new();
    for _ in 0..5 {
        let request = crate::raw::stream_request(&project, "1.0", "");
        let mut peer = Raw::sending(&parley.ingress, request).await;
        peer.until("\"hello\"").await;
        peers.push(peer);
    }
    parley.signal();
    let signalled = Instant::now();
    let told = peers.into_iter().map(|mut peer| async move {
        let rest = peer.until("server_shutdown").await;
        (rest + &peer.rest().await, signalled.elapsed())
    });
    let told = futures_util::future::join_all(told).await;
    assert!(parley.ended().await.success());
    let mut at_once = 0;
    for (text, at) in told {
        let frames: Vec<&str> = text.split("\n\n").collect();
        let going = frames.iter().find(|frame| frame.contains("event: server_shutdown"));
        let (retry, data) = retry_of(going.expect("it is told"));
        let after = data["retry_after_ms"].as_u64().expect("a time");
        assert_eq!(retry, Some(after), "{text}");
        let bye = frames.iter().find(|frame| frame.contains("event: bye")).expect("a bye");
        let (retry, data) = retry_of(bye);
        assert_eq!((retry, &data["retry_after_ms"]), (Some(after), &json!(after)), "{text}");
        // No other process serves: the client comes back when this process has closed every stream.
        let back = at + Duration::from_millis(after);
        assert!(back > SPREAD, "told after {at:?} to come back in {after} ms");
        assert!(after < 10_000, "{after}");
        // Before that each was told, in case its connection breaks off.
        let beat = frames.iter().find(|frame| frame.contains("event: heartbeat"));
        let retry = beat.and_then(|beat| retry_of(beat).0);
        at_once += usize::from(retry.is_some_and(|retry| u128::from(retry) > SPREAD.as_millis()));
    }
    assert_eq!(at_once, 5, "all were told at once");
}

#[tokio::test]
async fn a_stopping_process_serves_on_while_balancers_learn_of_it() {
    let flags = ["--drain-delay", "1500ms", "--drain-spread", "0s"];
    let mut parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    parley.signal();
    let draining = async {
        loop {
            let answer = project.client.get("/health/ready").await;
            if answer.status == 503 {
                break answer.body;
            }
        }
    };
    let body = timeout(PATIENCE, draining).await.expect("it is not ready any more");
    assert_eq!(body["status"], "draining");
    let health = project.client.get("/health").await;
    assert_eq!(health.status, 503);
    project.client.get("/health/live").await.is(200);
    project.send("still served").await;
    assert!(parley.ended().await.success());
}

#[tokio::test]
async fn a_reader_that_is_stuck_does_not_hold_the_process() {
    let flags = ["--drain-timeout", "1s", "--drain-spread", "0s"];
    let mut parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    // Opened and never read; what is sent to it fills every buffer on the way.
    let path = format!("/sse/stream?project_id={}", project.id);
    let stuck = project.client.request("GET", &path).send().await.unwrap();
    let long = "x".repeat(32_000);
    for _ in 0..300 {
        project.send(&long).await;
    }
    parley.signal();
    let status = timeout(Duration::from_secs(10), parley.ended()).await.expect("it ends in time");
    assert!(status.success(), "{status}");
    drop(stuck);
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let mut parley = Parley::start_with(&["--drain-delay", "15s"]).await;
    let project = parley.as_user("ada").project().await;
    parley.signal();
    let draining = async { while project.client.get("/health").await.status != 503 {} };
    timeout(PATIENCE, draining).await.expect("it is stopping");
    parley.signal();
    let status = timeout(Duration::from_secs(10), parley.ended()).await.expect("it ends at once");
    assert_eq!(status.code(), Some(130));
}

#[tokio::test]
async fn new_requests_are_refused_while_streams_are_still_open() {
    let mut parley = Parley::start_with(&["--drain-spread", "5s"]).await;
    let project = parley.as_user("ada").project().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(project.stream("").await.0);
    }
    parley.signal();
    let refused = async {
        loop {
            let answer = project.client.get("/api/auth/me").await;
            if answer.status != 200 {
                break answer;
            }
        }
    };
    let refused = timeout(PATIENCE, refused).await.expect("it refuses");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    let body = refused.refused(503, "draining");
    assert_eq!(body["status"], "draining");
    assert!(body["retry_after_ms"].is_u64());
    project.client.get("/api/integrations/jobs").await.refused(503, "draining");
    project.client.get("/health/live").await.is(200);
    assert_eq!(project.client.get("/health/ready").await.status, 503);
    for stream in &mut streams {
        assert_eq!(stream.rest().await.last().unwrap().name, "bye");
    }
    assert!(parley.ended().await.success());
}
