//! Coming back to a stream: exactly what was missed, once and in order, or word that it cannot be.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    project::Project,
    sse::Sse,
    support::{Parley, eventually, text},
};

/// Opens the project's stream with a `Last-Event-ID`.
async fn with_header(project: &Project, id: &str, query: &str) -> Sse {
    let path = format!("/sse/stream?project_id={}{query}", project.id);
    Sse::open(project.client.request("GET", &path).header("last-event-id", id)).await
}

#[tokio::test]
async fn a_stream_goes_on_with_exactly_what_was_missed() {
    let mut parley = Parley::start().await;
    let mut project = parley.as_user("ada").project().await;
    let (mut stream, hello) = project.stream("").await;
    let mut ids = vec![text(&hello["cursor"])];
    for number in 1..=3 {
        project.send(&number.to_string()).await;
        ids.push(stream.entry().await.id);
    }
    drop(stream);
    for number in 4..=6 {
        project.send(&number.to_string()).await;
    }
    for restarted in [false, true] {
        if restarted {
            parley.kill().await;
            parley = Parley::start_in(&parley.dir, &[]).await;
            project = Project { client: parley.as_user("ada"), id: project.id };
        }
        for (seen, id) in ids.iter().enumerate() {
            let missed: Vec<String> = (seen + 1..=6).map(|number| number.to_string()).collect();
            let streams = [
                with_header(&project, id, "").await,
                with_header(&project, id, "&last_event_id=junk&since=junk").await,
                project
                    .client
                    .open(&format!(
                        "/sse/stream?projectId={}&last_event_id={id}&since=x",
                        project.id
                    ))
                    .await,
                project
                    .client
                    .open(&format!("/sse/stream?project_id={}&since={id}", project.id))
                    .await,
            ];
            for mut stream in streams {
                let hello = stream.expect("hello").await;
                assert_eq!((&hello["resumed"], &hello["cursor"]), (&json!(true), &json!(id)));
                assert_eq!(stream.texts_until("6").await, missed);
            }
        }
    }
    let (mut stream, _) = project.stream(&format!("&since={}", ids[3])).await;
    project.send("7").await;
    assert_eq!(stream.texts_until("7").await, ["4", "5", "6", "7"]);
}

#[tokio::test]
async fn a_cursor_that_cannot_be_continued_is_a_reset_and_then_live() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let other = parley.as_user("ada").project().await;
    for number in 0..3 {
        other.send(&format!("other {number}")).await;
    }
    let cursor = project.cursor().await;
    let [v1, key, epoch, seq, tag] = cursor.split('.').collect::<Vec<_>>()[..] else {
        panic!("{cursor}")
    };
    let long = format!("{cursor}{}", "0".repeat(128));
    let cases = [
        ("malformed", String::from("junk")),
        ("malformed", "v1.".into()),
        ("malformed", "v2.1.1.1.1".into()),
        ("malformed", cursor.to_uppercase()),
        ("malformed", long),
        ("malformed", format!("{v1}.{key}.{epoch}.{seq}")),
        ("malformed", format!("{v1}.{key}.{epoch}.-{seq}.{tag}")),
        ("unknown_epoch", other.cursor().await),
        ("unknown_epoch", format!("{v1}.{key}.1{epoch}.{seq}.{tag}")),
        ("unknown_epoch", format!("{v1}.{key}.{epoch}.{seq}.1")),
        ("ahead", format!("{v1}.{key}.{epoch}.zzz.{tag}")),
    ];
    for (number, (reason, cursor)) in cases.iter().enumerate() {
        let mut stream = with_header(&project, cursor, "").await;
        let hello = stream.expect("hello").await;
        assert_eq!(hello["resumed"], false, "{cursor}");
        let reset = stream.expect("reset").await;
        assert_eq!(
            (&reset["reason"], &reset["cursor"]),
            (&json!(reason), &hello["cursor"]),
            "{cursor}"
        );
        let text = format!("live {number}");
        project.send(&text).await;
        assert_eq!(stream.texts_until(&text).await, [text]);
    }
    // What is no text at all was meant as a cursor too.
    let path = format!("/sse/stream?project_id={}", project.id);
    let request = project.client.request("GET", &path).header("last-event-id", &b"\xff\xfe"[..]);
    assert_eq!(Sse::open(request).await.until("reset").await.data["reason"], "malformed");
}

#[tokio::test]
async fn what_retention_has_dropped_is_expired() {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let old = project.cursor().await;
    for number in 0..10 {
        project.send(&number.to_string()).await;
    }
    let new = project.cursor().await;
    assert!(parley.terminate().await.success());
    let parley = Parley::start_in(&parley.dir, &["--journal-max-entries", "3"]).await;
    let project = Project { client: parley.as_user("ada"), id: project.id };
    // Retention runs beside the start; until it has, the cursor can be continued.
    let reset = loop {
        let (mut stream, hello) = project.stream(&format!("&since={old}")).await;
        if hello["resumed"] == false {
            break stream.expect("reset").await;
        }
    };
    assert_eq!((&reset["reason"], &reset["cursor"]), (&json!("expired"), &json!(new)));
    let (_, hello) = project.stream(&format!("&since={new}")).await;
    assert_eq!(hello["resumed"], true);
    assert_eq!(project.history().await.len(), 10);
}

/// Follows a project until `last`; comes back anew after each `hold` events.
async fn follow(project: Project, mut cursor: String, hold: usize, last: String) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let mut stream = with_header(&project, &cursor, "").await;
        assert_eq!(stream.expect("hello").await["resumed"], true);
        for _ in 0..hold {
            let event = stream.until("message.created").await;
            texts.push(text(&event.data["message"]["text"]));
            cursor = event.id;
            if texts.last() == Some(&last) {
                return texts;
            }
        }
    }
}

#[tokio::test]
async fn every_follower_sees_all_messages_once_and_in_one_order() {
    let users = ["follower-one", "follower-two", "follower-three", "follower-four"];
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let file = dir.path().join("users.json");
    let listed = users.map(|user| json!({"user": user, "token": format!("dev-{user}")}));
    std::fs::write(&file, json!(listed).to_string()).unwrap();
    let flags = ["--auth-users-file", file.to_str().unwrap(), "--max-connections-per-user", "64"];
    let parley = Parley::start_in(&dir, &flags).await;
    let project = parley.as_user(users[0]).project().await;
    for user in &users[1..] {
        project.with(user, "member").await;
    }
    let cursor = project.cursor().await;
    let mut followers = JoinSet::new();
    for number in 0..20 {
        // Half of them hold their stream, the others come and go.
        let hold = if number < 10 { usize::MAX } else { number };
        let project = project.of(users[number % 4]);
        followers.spawn(follow(project, cursor.clone(), hold, "last".into()));
    }
    let mut writers = JoinSet::new();
    for writer in users {
        let project = project.of(writer);
        writers.spawn(async move {
            for number in 0..50 {
                project.send(&format!("{writer} {number}")).await;
            }
        });
    }
    writers.join_all().await;
    project.send("last").await;
    let followed = followers.join_all().await;
    let log = project.log(&cursor).await;
    let order: Vec<String> = log.iter().map(|event| text(&event["message"]["text"])).collect();
    assert_eq!(order.len(), 201);
    for texts in followed {
        assert_eq!(texts, order);
    }
}

#[tokio::test]
async fn a_long_past_is_replayed_whole() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let expected: Vec<String> = (0..450).map(|number| number.to_string()).collect();
    for text in &expected {
        project.send(text).await;
    }
    let (mut stream, _) = project.stream(&format!("&since={cursor}")).await;
    assert_eq!(stream.texts_until("449").await, expected);
}

#[tokio::test]
async fn a_reader_that_lags_is_cut_off_and_misses_nothing() {
    const WRITERS: usize = 8;

    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let (mut slow, _) = project.stream("").await;
    // Not read meanwhile: the long ones fill every buffer on the way, then come more than a reader may be behind.
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let project = project.clone();
        writers.spawn(async move {
            let long = "x".repeat(32_000);
            for _ in 0..400 / WRITERS {
                project.send(&long).await;
            }
            for _ in 0..1_600 / WRITERS {
                project.send("short").await;
            }
        });
    }
    // It has only so long to read its end.
    // The buffers on the way may have had room for that, and then it is gone already.
    let is_told = async || project.streams().await.iter().all(|stream| stream["closed"] == true);
    eventually("it is cut off", is_told).await;
    let mut read = slow.rest().await;
    writers.join_all().await;
    let bye = read.pop().unwrap();
    assert_eq!((bye.name.as_str(), &bye.data["reason"]), ("bye", &json!("slow_consumer")));
    assert_eq!(bye.data["reconnect"], true);
    let mut again = with_header(&project, &read.last().unwrap().id, "").await;
    assert_eq!(again.expect("hello").await["resumed"], true);
    let log = project.log(&cursor).await;
    assert_eq!(log.len(), 2_000);
    while read.len() < log.len() {
        read.push(again.entry().await);
    }
    assert!(read.iter().map(|event| &event.data).eq(&log));
}
