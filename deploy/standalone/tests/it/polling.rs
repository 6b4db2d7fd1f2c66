//! The long-poll fallback: the same log for who cannot hold a stream.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use crate::support::{Parley, text};

/// Long enough to say that something does not happen.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_poll_waits_for_the_next_event() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let path = format!("/events?after={cursor}&wait=20");
    let mut poll = std::pin::pin!(project.get(&path));
    assert!(timeout(A_WHILE, &mut poll).await.is_err(), "nothing has happened");
    let sent = project.send("awaited").await;
    let page = timeout(Duration::from_secs(10), poll).await.expect("it wakes").is(200);
    assert_eq!(page["events"][0]["message"], sent);
    assert_eq!(page["reset"], json!(null));
    let after = text(&page["cursor"]);
    assert_eq!(project.cursor().await, after);

    let begun = Instant::now();
    let page = project.get(&format!("/events?after={after}&wait=0.3")).await.is(200);
    assert!(begun.elapsed() >= A_WHILE);
    assert_eq!((&page["events"], &page["cursor"]), (&json!([]), &json!(after)));
    // Without a cursor it says where the log ends, and does not wait.
    let page = project.get("/events?wait=25").await.is(200);
    assert_eq!((&page["events"], &page["cursor"]), (&json!([]), &json!(after)));
    for wait in ["-1", "25.1", "x", "NaN", "inf"] {
        project.get(&format!("/events?wait={wait}")).await.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_poll_has_the_streams_events_in_the_streams_order() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let (mut stream, _) = project.stream("").await;
    for number in 0..210 {
        let id = text(&project.send(&number.to_string()).await["id"]);
        if number % 50 == 0 {
            project.call("PUT", &format!("/messages/{id}/reactions/x"), &json!({})).await.is(200);
            project.delete(&format!("/messages/{id}")).await.is(200);
        }
    }
    let polled = project.log(&cursor).await;
    assert_eq!(polled.len(), 220);
    for event in polled {
        let told = stream.entry().await.data;
        if event["message"]["redacted"] == true {
            // The stream had it before its message was deleted.
            assert_eq!(event["message"]["text"], "");
            assert_eq!((&told["type"], &told["trace_id"]), (&event["type"], &event["trace_id"]));
        } else {
            assert_eq!(told, event);
        }
    }
    // Each cursor is good for both.
    let page = project.get(&format!("/events?after={cursor}")).await.is(200);
    let (mut stream, _) = project.stream(&format!("&since={}", text(&page["cursor"]))).await;
    let after = page["events"].as_array().unwrap().len();
    let next = stream.entry().await;
    assert_eq!(next.data, project.log(&cursor).await[after]);
    assert_eq!(project.log(&next.id).await.len(), 220 - after - 1);
}

#[tokio::test]
async fn a_poll_is_reset_like_a_stream() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let foreign = parley.as_user("ada").project().await.cursor().await;
    let cursor = project.cursor().await;
    let mut parts: Vec<&str> = cursor.split('.').collect();
    parts[3] = "zzz";
    let ahead = parts.join(".");
    for (after, reason) in
        [("junk", "malformed"), (foreign.as_str(), "unknown_epoch"), (&ahead, "ahead")]
    {
        let begun = Instant::now();
        let page = project.get(&format!("/events?after={after}&wait=25")).await.is(200);
        assert_eq!((&page["reset"], &page["cursor"]), (&json!(reason), &json!(cursor)), "{after}");
        assert_eq!(page["events"], json!([]));
        assert!(begun.elapsed() < Duration::from_secs(20), "a reset does not wait");
    }
}

#[tokio::test]
async fn a_poll_of_who_is_removed_meanwhile_finds_nothing() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "viewer").await;
    let path = format!("/events?after={}&wait=20", grace.cursor().await);
    let mut poll = std::pin::pin!(grace.get(&path));
    assert!(timeout(A_WHILE, &mut poll).await.is_err(), "nothing has happened");
    assert_eq!(ada.delete("/members/grace").await.status, 204);
    let answer = timeout(Duration::from_secs(10), poll).await.expect("it wakes");
    answer.refused(404, "not_found");
}
