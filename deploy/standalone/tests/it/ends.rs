//! How streams end: each with its reason, whether to come back and when, and then truly.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use shared::time::Timestamp;
use tokio::time::timeout;

use crate::{
    job::{follow, submit, until_end},
    project::Project,
    raw::Raw,
    sse::Event,
    support::{PATIENCE, Parley, text},
};

/// Holds a stream's last event to be a `bye` with this reason, whole; what follows it must be the end.
#[track_caller]
fn says_bye(rest: &[Event], reason: &str, reconnect: bool) {
    let bye = rest.last().expect("a last word");
    assert_eq!(bye.name, "bye", "{rest:?}");
    let retry = bye.data["retry_after_ms"].as_u64().expect("when to come back");
    assert!((1_000..=30_000).contains(&retry), "{bye:?}");
    let whole = json!({"reason": reason, "reconnect": reconnect, "retry_after_ms": retry});
    assert_eq!(bye.data, whole);
}

async fn close(parley: &Parley, connection: &Value) -> u16 {
    let path = format!("/api/debug/sse-connections/{}", text(connection));
    parley.as_user("admin").delete(&path).await.status
}

#[tokio::test]
async fn a_jobs_stream_without_an_event_is_idle_and_heartbeats_are_none() {
    let flags = ["--sse-idle-timeout", "1500", "--keepalive-interval", "100ms"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let (mut quiet, _) = project.stream("&include=jobs").await;
    let opened = Instant::now();
    let (mut jobs, _) = follow(&project.client).await;
    // Each event is a new beginning: the job outlasts the timeout.
    let data = json!({"to": 25, "delay_ms": 100});
    let id = text(&submit(&project, "demo.count", data).await.is(202)["id"]);
    until_end(&mut jobs, &id).await;
    let told = Instant::now();
    assert!(opened.elapsed() > Duration::from_millis(2_500));
    let mut beats = 0;
    let bye = loop {
        let event = jobs.next().await.expect("a last word");
        if event.name != "heartbeat" {
            break event;
        }
        beats += 1;
    };
    says_bye(&[bye], "idle_timeout", true);
    assert!(beats > 0 && told.elapsed() > Duration::from_millis(1_400), "{:?}", told.elapsed());
    assert!(jobs.next().await.is_none());
    // A project's stream may be as quiet as it likes.
    quiet.until("job.succeeded").await;
    for _ in 0..20 {
        quiet.until("heartbeat").await;
    }
    project.send("still here").await;
    quiet.until("message.created").await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let file = dir.path().join("users.json");
    let expires_at = Timestamp::now().after(Duration::from_secs(4));
    let user = |name: &str, expires_at: Option<Timestamp>| {
        let expires_at = expires_at.map(|at| at.to_string());
        json!({"user": name, "token": format!("dev-{name}"), "expires_at": expires_at})
    };
    let users = json!([user("soon-expired", Some(expires_at)), user("never-expired", None)]);
    std::fs::write(&file, users.to_string()).unwrap();
    let flags = ["--auth-users-file", file.to_str().unwrap(), "--sse-max-conn-per-ip", "9"];
    let parley = Parley::start_in(&dir, &flags).await;
    let stays = parley.as_user("never-expired").project().await;
    let ends = stays.with("soon-expired", "member").await;
    let (mut other, _) = stays.stream("").await;
    let (mut stream, _) = ends.stream("").await;
    let (mut jobs, _) = follow(&ends.client).await;
    stays.send("before").await;
    stream.until("message.created").await;
    for stream in [&mut stream, &mut jobs] {
        says_bye(&stream.rest().await, "token_expired", true);
        let late = Timestamp::now().since(expires_at);
        assert!(Timestamp::now() >= expires_at && late < Duration::from_secs(3), "{late:?}");
    }
    let path = format!("/sse/stream?project_id={}", ends.id);
    ends.client.get(&path).await.refused(401, "unauthenticated");
    stays.send("after").await;
    assert_eq!(other.texts_until("after").await, ["before", "after"]);
}

#[tokio::test]
async fn whoever_is_removed_hears_nothing_more_on_any_kind_of_stream() {
    let parley = Parley::start_with(&["--enable-compression", "true"]).await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "member").await;
    let plain = grace.stream("").await.0;
    let jobs = grace.stream("&include=jobs").await.0;
    let empty = grace.stream("&channels=nowhere").await.0;
    let one = grace.stream("&channels=general&stream_id=one").await.0;
    let cursor = ada.cursor().await;
    for round in 0..20 {
        ada.send(&format!("before {round}")).await;
    }
    let removed = Instant::now();
    let (removal, sent) = tokio::join!(ada.delete("/members/grace"), ada.send("with it"));
    assert_eq!(removal.status, 204);
    for round in 0..20 {
        ada.send(&format!("after {round}")).await;
    }
    // One was sent at the same time: the log says whether it was before the removal.
    let log = ada.log(&cursor).await;
    let place = |is: &dyn Fn(&Value) -> bool| log.iter().position(is).unwrap();
    let removal = place(&|event| event["type"] == "member.removed");
    let with_it = place(&|event| event["message"]["id"] == sent["id"]) < removal;
    for (mut stream, carries) in [(plain, true), (jobs, true), (empty, false), (one, true)] {
        let rest = stream.rest().await;
        says_bye(&rest, "revoked", false);
        let messages = rest.iter().filter(|event| event.kind() == "message.created").count();
        assert_eq!(messages, if carries { 20 + usize::from(with_it) } else { 0 });
        assert!(rest.iter().all(|event| event.kind() != "member.removed"));
    }
    assert!(removed.elapsed() < Duration::from_secs(5), "{:?}", removed.elapsed());
}

#[tokio::test]
async fn an_old_stream_comes_back_and_misses_nothing() {
    let parley = Parley::start_with(&["--stream-max-age", "1s"]).await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let follower = project.clone();
    let following = async {
        let (mut cursor, mut texts, mut ends) = (cursor, Vec::new(), 0);
        while texts.last().is_none_or(|text| text != "last") {
            let (mut stream, hello) = follower.stream(&format!("&since={cursor}")).await;
            let opened = Instant::now();
            assert_eq!(hello["resumed"], true);
            let rest = stream.rest().await;
            says_bye(&rest, "max_age", true);
            // Each a little earlier than the age, so that they do not all come back together.
            assert!(opened.elapsed() > Duration::from_millis(700), "{:?}", opened.elapsed());
            ends += 1;
            for event in &rest[..rest.len() - 1] {
                texts.push(text(&event.data["message"]["text"]));
                cursor.clone_from(&event.id);
            }
        }
        (texts, ends)
    };
    let sending = async {
        let began = Instant::now();
        let mut sent = Vec::new();
        while began.elapsed() < Duration::from_millis(2_500) {
            sent.push(format!("{}", sent.len()));
            project.send(sent.last().unwrap()).await;
        }
        sent.push("last".into());
        project.send("last").await;
        sent
    };
    let ((texts, ends), sent) = tokio::join!(following, sending);
    assert!(ends >= 2);
    assert_eq!(texts, sent);
}

#[tokio::test]
async fn an_admin_closes_one_stream_and_no_other() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (mut stream, hello) = project.stream("").await;
    let (mut stays, _) = project.stream("").await;
    let mut jobs = project.client.open("/api/jobs/stream").await;
    let of_jobs = jobs.expect("hello").await;
    let path = format!("/api/debug/sse-connections/{}", text(&hello["connectionId"]));
    project.client.delete(&path).await.refused(403, "forbidden");
    parley.client().delete(&path).await.refused(401, "unauthenticated");
    let unknown = json!(uuid::Uuid::now_v7());
    assert_eq!(close(&parley, &unknown).await, 404);
    for (stream, hello) in [(&mut stream, &hello), (&mut jobs, &of_jobs)] {
        assert_eq!(close(&parley, &hello["connectionId"]).await, 204);
        says_bye(&stream.rest().await, "closed_by_admin", false);
        let gone = async { while close(&parley, &hello["connectionId"]).await != 404 {} };
        timeout(PATIENCE, gone).await.expect("it is no connection any more");
    }
    project.send("still here").await;
    stays.until("message.created").await;
}

#[tokio::test]
async fn a_stop_is_told_to_every_kind_of_stream() {
    let mut parley = Parley::start_with(&["--drain-spread", "200ms"]).await;
    let project = parley.as_user("ada").project().await;
    let mut streams = vec![
        project.stream("").await.0,
        project.stream("&include=jobs&channels=general").await.0,
        follow(&project.client).await.0,
    ];
    parley.signal();
    for stream in &mut streams {
        let rest = stream.rest().await;
        says_bye(&rest, "server_shutdown", true);
        let [.., shutdown, bye] = &rest[..] else { panic!("{rest:?}") };
        assert_eq!(shutdown.name, "server_shutdown");
        let retry = &bye.data["retry_after_ms"];
        assert_eq!(shutdown.data, json!({"reason": "draining", "retry_after_ms": retry}));
    }
    assert!(parley.ended().await.success());
}

/// A stream as bytes.
async fn raw(parley: &Parley, project: &Project, version: &str) -> (Raw, String) {
    let request = format!(
        "GET /sse/stream?project_id={} HTTP/{version}\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\n\r\n",
        project.id
    );
    let mut raw = Raw::sending(&parley.ingress, &request).await;
    let begun = raw.until("}\n\n").await;
    (raw, begun)
}

#[tokio::test]
async fn after_the_last_word_the_body_ends_and_then_the_connection() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for version in ["1.1", "1.0"] {
        let (mut raw, begun) = raw(&parley, &project, version).await;
        let head = begun.split("\r\n\r\n").next().unwrap().to_lowercase();
        assert_eq!(head.contains("transfer-encoding: chunked"), version == "1.1", "{head}");
        let id = head.lines().find_map(|line| line.strip_prefix("x-sse-connection-id: ")).unwrap();
        assert_eq!(close(&parley, &json!(id)).await, 204);
        let rest = timeout(PATIENCE, raw.rest()).await.expect("the end of the connection");
        let last = if version == "1.1" { "\n\n\r\n0\r\n\r\n" } else { "\n\n" };
        assert!(rest.ends_with(last) && rest.contains("event: bye\n"), "{rest:?}");
    }
}
