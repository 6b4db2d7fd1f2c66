//! Frames of a stream: the order of their lines, their length, and the first frames.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::{
    job::JOBS,
    project::Project,
    raw::{Raw, Received},
    sse::{Sse, raw_until},
    support::{Answer, Client, Parley, column, eventually, text},
};

/// As many streams as a test opens one after the other.
const MANY: [[&str; 2]; 3] = [
    ["--max-connections-per-user", "50"],
    ["--sse-max-conn-per-ip", "50"],
    ["--sse-max-conn-per-session", "50"],
];
/// The longest frame in bytes.
const MAX_FRAME_BYTES: usize = 64_000;

/// Makes jobs that wait; one of them runs.
async fn queue(project: &Project, count: usize) {
    let batch = "/api/integrations/bundles/demo/operations/count/batch";
    let data = vec![json!({"to": 300, "delay_ms": 1_000}); count];
    let body = json!({"project_id": project.id, "data": data});
    project.client.call("POST", batch, &body).await.is(202);
}

/// Holds every frame to its length, and to its `id:` being the last line; returns how many had one.
#[track_caller]
fn checked(bytes: &[u8]) -> usize {
    let text = std::str::from_utf8(bytes).expect("text");
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let mut with_id = 0;
    for frame in whole.split("\n\n") {
        assert!(frame.len() + 2 <= MAX_FRAME_BYTES, "{} bytes: {:.200}", frame.len(), frame);
        let lines: Vec<&str> = frame.split('\n').collect();
        if let Some(at) = lines.iter().position(|line| line.starts_with("id: ")) {
            assert_eq!(at, lines.len() - 1, "the id is the last line of {frame:.200}");
            with_id += 1;
        }
    }
    with_id
}

/// Returns the longest texts that are taken, by what makes them long.
fn longest_texts() -> [String; 5] {
    [
        "x".repeat(32_000),
        "ß".repeat(28_671),
        "\"".repeat(28_671),
        format!("xxxxxx{}", "\u{2028}".repeat(9_556)),
        "😀".repeat(14_335),
    ]
}

#[tokio::test]
async fn no_frame_is_longer_than_readers_take_and_its_id_is_its_last_line() {
    let flags = [["--proc-workers", "1"], MANY[0], MANY[1], MANY[2]];
    let parley = Parley::start_with(flags.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let metadata = json!({"x": "y".repeat(4_088)});
    let mut sent = Vec::new();
    queue(&project, 300).await;
    let since = project.cursor().await;
    for long in longest_texts() {
        let new = json!({"text": long, "metadata": metadata});
        let message = project.call("POST", "/messages", &new).await.is(201);
        let path = format!("/messages/{}", text(&message["id"]));
        for number in 0..40 {
            let emoji = format!("kind-of-reaction-with-a-long-name-{number}-{}", "x".repeat(20));
            let reaction = format!("{path}/reactions/{emoji}");
            project.call("PUT", &reaction, &json!({})).await.is(200);
        }
        let edited = project.call("PATCH", &path, &json!({"text": long})).await.is(200);
        // The edit took the text of the first event of the message.
        let untouched = project.call("POST", "/messages", &new).await.is(201);
        sent.push((edited, untouched));
    }
    project.send("the end of it").await;
    let path = format!("/sse/stream?project_id={}&include=jobs&since={since}", project.id);
    let bytes = raw_until(project.client.request("GET", &path), b"the end of it").await;
    assert!(checked(&bytes) >= 10, "most have an id");
    // Each stream gets the whole text, whatever else its frame leaves out.
    let mut stream = project.client.open(&path).await;
    for (edited, untouched) in sent {
        let updated = stream.until("message.updated").await.data;
        assert_eq!(updated["message"]["text"], edited["text"]);
        assert_eq!(updated["message"]["id"], edited["id"]);
        let created = stream.until("message.created").await.data;
        assert_eq!(created["message"]["text"], untouched["text"]);
        assert_eq!(created["message"]["metadata"], metadata);
        assert_eq!(created["truncated"], Value::Null);
    }
}

/// Opens a stream, and reads it up to the first event with an id.
async fn beginning(request: reqwest::RequestBuilder) -> Vec<crate::sse::Event> {
    let mut stream = Sse::open(request).await;
    let mut events = Vec::new();
    loop {
        let event = stream.next().await.expect("it goes on");
        let is_last = !event.id.is_empty();
        events.push(event);
        if is_last {
            return events;
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_in_its_beginning_begins_anew() {
    let flags = [["--proc-workers", "1"], MANY[0], MANY[1], MANY[2]];
    let parley = Parley::start_with(flags.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    queue(&project, 200).await;
    let of_project = format!("/sse/stream?project_id={}", project.id);
    let with_jobs = format!("{of_project}&include=jobs");
    for (path, cursor, expected) in [
        (&*of_project, None, &["hello"][..]),
        (&of_project, Some("v1.0.0.0.0"), &["hello", "reset"]),
        (&with_jobs, None, &["hello", "job.snapshot", "job.snapshot"]),
        (&with_jobs, Some("junk"), &["hello", "reset", "job.snapshot"]),
        (&with_jobs, Some(&cursor), &["hello", "job.snapshot", "job.snapshot"]),
        ("/api/jobs/stream", None, &["hello", "job.snapshot", "job.snapshot"]),
        ("/api/jobs/stream", Some("junk"), &["hello", "reset", "job.snapshot"]),
    ] {
        let ask = |cursor: Option<&str>| {
            let request = project.client.request("GET", path);
            cursor.into_iter().fold(request, |request, id| request.header("last-event-id", id))
        };
        let events = beginning(ask(cursor)).await;
        let kinds: Vec<&str> = events.iter().map(crate::sse::Event::kind).collect();
        assert!(kinds.starts_with(expected), "{path} {cursor:?}: {kinds:?}");
        // Whatever was read of it before the last event, the client comes back with the cursor that it had.
        let (last, before) = events.split_last().expect("events");
        assert!(before.iter().all(|event| event.id.is_empty()), "{path}: {kinds:?}");
        let snapshots = events.iter().filter(|event| event.kind() == "job.snapshot");
        let parts: Vec<&Value> = snapshots.map(|event| &event.data["more"]).collect();
        if let Some((end, more)) = parts.split_last() {
            assert!(**end == json!(false) && more.iter().all(|more| **more == json!(true)));
            assert_eq!(kinds.iter().filter(|kind| **kind == "job.snapshot").count(), parts.len());
        }
        // With the last one it goes on, and is told nothing twice.
        parley.has_streams(0).await;
        let again = beginning(ask(Some(&last.id))).await;
        assert_eq!(again.len(), 1, "{path}: {again:?}");
        assert_eq!(again[0].data["resumed"], true);
        parley.has_streams(0).await;
    }
}

#[tokio::test]
async fn a_snapshot_leaves_no_job_out() {
    let queue_limit = ["--proc-queue-limit", "3000"];
    let flags = [["--proc-workers", "1"], queue_limit, MANY[0], MANY[1], MANY[2]];
    let parley = Parley::start_with(flags.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    for _ in 0..3 {
        queue(&project, 400).await;
    }
    let listed = async |client: &Client| {
        let (mut ids, mut more) = (HashSet::new(), String::new());
        loop {
            let page = client.get(&format!("{JOBS}?limit=200{more}")).await.is(200);
            ids.extend(column(&page["jobs"], "id"));
            match page["next"].as_str() {
                Some(next) => more = format!("&cursor={next}"),
                None => return ids,
            }
        }
    };
    let all = listed(&project.client).await;
    assert_eq!(all.len(), 1_200);
    for (user, path) in [("ada", "/api/jobs/stream"), ("admin", "/api/jobs/stream?scope=all")] {
        let events = beginning(parley.as_user(user).request("GET", path)).await;
        let mut told = Vec::new();
        for part in &events[1..] {
            told.extend(column(&part.data["jobs"], "id"));
        }
        assert_eq!(told.len(), all.len(), "{user}: each job once");
        assert_eq!(told.into_iter().collect::<HashSet<_>>(), all, "{user}");
        parley.has_streams(0).await;
    }
}

#[tokio::test]
async fn a_slow_reader_gets_a_snapshot_that_is_longer_than_it_may_be_behind() {
    let flags = [
        ["--proc-workers", "1"],
        ["--stream-max-lag-bytes", "20000"],
        ["--stream-max-lag-events", "8"],
        ["--stream-send-buffer-bytes", "4096"],
    ];
    let parley = Parley::start_with(flags.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    queue(&project, 900).await;
    let mut peer = Raw::connect_narrow(&parley.ingress).await;
    let head = "GET /sse/stream?include=jobs&project_id=";
    let rest = "HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\n\r\n";
    peer.send(format!("{head}{} {rest}", project.id)).await;
    parley.has_streams(1).await;
    // The peer does not read while more events come than it may be behind.
    for number in 0..40 {
        project.send(&format!("{number} {}", "x".repeat(2_000))).await;
    }
    let bytes = peer.bytes_until("\"39 xxx").await;
    let events = Received::of(&bytes).events;
    let parts: Vec<_> = events.iter().filter(|event| event.kind() == "job.snapshot").collect();
    let jobs: usize = parts.iter().map(|part| part.data["jobs"].as_array().unwrap().len()).sum();
    assert_eq!(jobs, 900);
    let texts = events.iter().filter(|event| event.kind() == "message.created");
    let numbers: Vec<String> = texts.map(|event| text(&event.data["message"]["text"])).collect();
    assert!(numbers.iter().enumerate().all(|(at, text)| text.starts_with(&format!("{at} "))));
    assert!(events.iter().all(|event| event.kind() != "bye"), "it is not cut");
}

#[tokio::test]
async fn a_stream_that_is_not_to_come_back_is_told_so_by_its_id_too() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    let (mut first, _) = project.stream("&stream_id=tab").await;
    let _second = project.stream("&stream_id=tab").await;
    let bye = first.until("bye").await;
    assert_eq!((&bye.data["reason"], &bye.data["reconnect"]), (&json!("replaced"), &json!(false)));
    let (mut closed, hello) = project.stream("").await;
    let connection = text(&hello["connectionId"]);
    let admin = parley.as_user("admin");
    let close = admin.delete(&format!("/api/debug/sse-connections/{connection}")).await;
    assert!(close.status < 300, "{close:?}");
    let closed = closed.until("bye").await;
    assert_eq!(closed.data["reason"], "closed_by_admin");
    let since = project.cursor().await;
    for id in [&bye.id, &closed.id] {
        for path in [&path, &format!("{path}&since={since}"), "/api/jobs/stream", "/stream/search"]
        {
            for method in ["GET", "HEAD"] {
                let request = project.client.request(method, path).header("last-event-id", id);
                assert_eq!(Answer::to(request).await.status, 204, "{method} {path}");
            }
        }
    }
    // The client of a user who signed out names a session that has ended.
    let (mut signed_out, _) = project.stream("&user_session_id=ended").await;
    let session = project.client.request("DELETE", "/api/auth/sessions/ended");
    Answer::to(session.header("user-session-id", "ended")).await.is(204);
    let bye = signed_out.until("bye").await;
    assert_eq!(bye.data["reason"], "revoked");
    let request = project.client.request("GET", &format!("{path}&user_session_id=ended"));
    assert_eq!(Answer::to(request.header("last-event-id", &bye.id)).await.status, 204);
    // A client that is opened by hand with its own cursor goes on.
    project.send("later").await;
    let (mut again, hello) = project.stream(&format!("&since={since}")).await;
    assert_eq!(hello["resumed"], true);
    assert_eq!(again.expect("message.created").await["message"]["text"], "later");
}

#[tokio::test]
async fn what_is_empty_is_not_given() {
    let parley = Parley::start_with(MANY.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let since = project.cursor().await;
    project.send("missed").await;
    let path = format!("/sse/stream?project_id={}", project.id);
    // An empty header does not hide the cursor beside it.
    for query in ["", "&last_event_id=", "&channels=", "&stream_id=", "&session=", "&include="] {
        let path = format!("{path}{query}&since={since}&ticket=");
        let request = project.client.request("GET", &path).header("last-event-id", "");
        let (mut stream, hello) = Sse::greeted(request).await;
        assert_eq!(hello["resumed"], true, "{query}");
        assert_eq!(stream.expect("message.created").await["message"]["text"], "missed");
        assert_eq!(hello["streamId"], hello["connectionId"], "{query}");
    }
    for query in ["", "&since=", "&last_event_id=", "&since=&last_event_id="] {
        let request = project.client.request("GET", &format!("{path}{query}"));
        let (mut stream, hello) = Sse::greeted(request.header("last-event-id", "")).await;
        assert_eq!(hello["resumed"], false, "{query}");
        project.send("live").await;
        stream.expect("message.created").await;
    }
    // A question is asked though its reader sends the header always.
    let ask = format!("/stream/search?project_id={}&query=missed&stream_id=", project.id);
    let request = project.client.request("GET", &ask).header("last-event-id", "");
    let mut answer = Sse::open(request).await;
    answer.until("complete").await;
    // Lists and polls, too.
    let page = project.get("/messages?limit=&before=&after=&channel=").await.is(200);
    assert_eq!(page["messages"].as_array().unwrap().len(), 5);
    let polled = project.get("/events?after=&wait=").await.is(200);
    assert_eq!((&polled["events"], &polled["reset"]), (&json!([]), &Value::Null));
    let jobs = project.client.get(&format!("{JOBS}?limit=&cursor=&state=&bundle=")).await.is(200);
    assert_eq!(jobs["jobs"], json!([]));
    // No credential is none, and not one that hides another.
    let ticket =
        project.client.call("POST", "/sse/ticket", &json!({"project_id": project.id})).await;
    let ticket = text(&ticket.is(200)["ticket"]);
    let by_ticket = format!("{path}&bearer_token=&ticket={ticket}");
    let request = parley.client().request("GET", &by_ticket).header("authorization", "");
    Sse::greeted(request).await;
    let nobody = parley.client().request("GET", &path).header("authorization", "");
    Answer::to(nobody).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_filter_of_channels_has_an_end() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let change =
        async |body: &Value| project.client.call("POST", "/sse/streams/tab/channels", body).await;
    let names = |range: std::ops::Range<usize>| -> Vec<String> {
        range.map(|number| format!("channel-{number}")).collect()
    };
    for (query, field) in [("", "remove"), ("&channels=general", "add")] {
        let (stream, _) = project.stream(&format!("&stream_id=tab{query}")).await;
        assert_eq!(change(&json!({field: names(0..199)})).await.status, 204);
        change(&json!({field: names(199..205)})).await.refused(409, "conflict");
        // A name that the filter has already does not count again, and a removed name makes room.
        assert_eq!(change(&json!({field: names(0..199)})).await.status, 204);
        let other = if field == "add" { "remove" } else { "add" };
        assert_eq!(change(&json!({field: names(199..204), other: names(0..9)})).await.status, 204);
        change(&json!({field: names(300..308)})).await.refused(409, "conflict");
        drop(stream);
        parley.has_streams(0).await;
        eventually("the slot is free", async || change(&json!({})).await.status == 404).await;
    }
    // Changes at once do not add up to more.
    let (_stream, _) = project.stream("&stream_id=tab").await;
    let changes = (0..8).map(|part| {
        let body = json!({"remove": names(part * 100..part * 100 + 100)});
        async move { change(&body).await.status }
    });
    let statuses = futures_util::future::join_all(changes).await;
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 2, "{statuses:?}");
}

#[tokio::test]
async fn readers_that_do_not_read_cost_little_whatever_they_missed() {
    let flags = [["--max-connections-per-user", "100"], ["--stream-send-buffer-bytes", "4096"]];
    let parley = Parley::start_with(flags.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let since = project.cursor().await;
    let long = "ß".repeat(28_000);
    let metadata = json!({"x": "y".repeat(4_088)});
    for _ in 0..100 {
        let text = json!({"text": long, "metadata": metadata});
        project.call("POST", "/messages", &text).await.is(201);
    }
    let before = parley.memory_kib();
    let mut peers = Vec::new();
    for _ in 0..40 {
        let mut peer = Raw::connect_narrow(&parley.ingress).await;
        let lines = format!("last-event-id: {since}\r\n");
        peer.send(crate::raw::stream_request(&project, "1.1", &lines)).await;
        peers.push(peer);
    }
    parley.has_streams(40).await;
    for peer in &mut peers {
        peer.until("\"message.created\"").await;
    }
    // What they are sent later waits in the log.
    for _ in 0..20 {
        project.send(&long).await;
    }
    let grown = parley.memory_kib().saturating_sub(before);
    assert!(grown < 80 << 10, "40 streams that do not read cost {grown} KiB");
    // One of them reads after all, and has missed nothing.
    let (mut stream, _) = project.stream(&format!("&since={since}")).await;
    for _ in 0..120 {
        stream.expect("message.created").await;
    }
}
