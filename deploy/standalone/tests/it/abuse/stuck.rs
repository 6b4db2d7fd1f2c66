//! Peers that read nothing, or a byte now and then: they are cut, nobody else notices, and whoever comes back has it all.

use std::{iter, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    io::AsyncReadExt,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    project::Project,
    raw::{Raw, Received, stream_request},
    sse::Sse,
    support::{PATIENCE, Parley, eventually, text},
};

const STUCK: usize = 200;
const READERS: u32 = 50;
/// How long a stream that was told its end may take to read that.
const END_GRACE: Duration = Duration::from_secs(3);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(7);

/// The system holds little for who does not read.
const NARROW: [&str; 2] = ["--stream-send-buffer-bytes", "4096"];
/// Nothing but its own deadline makes a stream be looked at.
const QUIET: [&str; 2] = ["--keepalive-interval", "60s"];
const SIPPING: [[&str; 2]; 3] = [["--stream-max-lag-bytes", "32768"], NARROW, QUIET];

/// Opens streams that are never read, with little room on the way.
async fn stuck(parley: &Parley, project: &Project, count: usize) -> Vec<Raw> {
    let mut stuck = Vec::new();
    for number in 0..count {
        let mut peer = Raw::connect_narrow(&parley.ingress).await;
        // Every third one is of the old kind.
        let version = if number % 3 == 0 { "1.0" } else { "1.1" };
        peer.send(stream_request(project, version, "")).await;
        stuck.push(peer);
    }
    stuck
}

/// Reads messages until the last one, telling of each, and returns the ids of all, and the stream.
async fn read(mut stream: Sse, told: Arc<Semaphore>) -> (Vec<String>, Sse) {
    let mut ids = Vec::new();
    loop {
        let event = stream.entry().await;
        assert_eq!(event.kind(), "message.created");
        ids.push(text(&event.data["message"]["id"]));
        told.add_permits(1);
        if event.data["message"]["text"] == "last" {
            return (ids, stream);
        }
    }
}

#[tokio::test]
async fn peers_that_never_read_are_cut_and_readers_beside_them_get_every_event() {
    let flags = [
        ["--max-connections-per-user", "1000"],
        ["--stream-max-lag-bytes", "100000"],
        ["--stream-max-lag-events", "64"],
        QUIET,
        NARROW,
    ];
    let parley = Parley::start_with(flags.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let _stuck = stuck(&parley, &project, STUCK).await;
    let (mut readers, read_by) = (JoinSet::new(), Arc::new(Semaphore::new(0)));
    for _ in 0..READERS {
        readers.spawn(read(project.stream("").await.0, read_by.clone()));
    }
    parley.has_streams(STUCK as u64 + u64::from(READERS)).await;
    let before = parley.peak_memory_kib();
    let big = "x".repeat(32_000);
    let texts = iter::repeat_n(&*big, 20).chain(iter::repeat_n("small", 200)).chain(["last"]);
    for text in texts {
        project.send(text).await;
        // Readers are not slow, however busy the machine is.
        let by_all = timeout(PATIENCE, read_by.acquire_many(READERS));
        by_all.await.expect("every reader gets it").unwrap().forget();
    }
    let sent = Instant::now();
    let read = readers.join_all().await;
    parley.has_streams(READERS.into()).await;
    assert!(sent.elapsed() < END_GRACE + SLACK, "{:?}", sent.elapsed());
    let grown_kib = parley.peak_memory_kib() - before;
    // They may lag by 20 MB together, the index grows meanwhile, and all that was sent would be 130 MB for them.
    assert!(grown_kib < 48 << 10, "{STUCK} peers that do not read cost {grown_kib} KiB");
    let log = project.log(&cursor).await;
    let order: Vec<String> = log.iter().map(|event| text(&event["message"]["id"])).collect();
    assert_eq!(order.len(), 221);
    project.send("after").await;
    for (ids, mut stream) in read {
        assert_eq!(ids, order);
        assert_eq!(stream.expect("message.created").await["message"]["text"], "after");
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut_at_the_write_timeout_however_little_waits() {
    let flags = [["--write-timeout", "1s"], ["--max-connections-per-user", "100"], NARROW];
    let parley = Parley::start_with(flags.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let (mut reader, _) = project.stream("").await;
    let peers = stuck(&parley, &project, 20).await;
    parley.has_streams(21).await;
    // Far below what a stream may be behind.
    project.send(&"x".repeat(32_000)).await;
    let sent = Instant::now();
    parley.has_streams(1).await;
    assert!(sent.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", sent.elapsed());
    reader.expect("message.created").await;
    for mut peer in peers {
        let heard = peer.rest().await;
        assert!(heard.contains("\"hello\"") && !heard.contains("bye"), "{heard}");
    }
}

#[tokio::test]
async fn a_removed_member_that_does_not_read_is_hung_up_on_too() {
    let parley = Parley::start_with([QUIET, NARROW].as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "member").await;
    let (mut reader, _) = grace.stream("").await;
    let mut peer = Raw::connect_narrow(&parley.ingress).await;
    let request = stream_request(&project, "1.1", "").replace("dev-ada", "dev-grace");
    peer.send(request).await;
    parley.has_streams(2).await;
    project.send(&"x".repeat(32_000)).await;
    assert_eq!(project.delete("/members/grace").await.status, 204);
    let removed = Instant::now();
    project.send("secret").await;
    parley.has_streams(0).await;
    assert!(removed.elapsed() < END_GRACE + SLACK, "{:?}", removed.elapsed());
    assert_eq!(reader.rest().await.last().unwrap().data["reason"], "revoked");
    assert!(!peer.rest().await.contains("secret"), "nothing comes after the removal");
}

/// A peer that has taken a byte of its stream now and then, until it was cut.
struct Sipper {
    peer: Raw,
    bytes: Vec<u8>,
}

impl Sipper {
    /// Sips while messages are sent, until the server has had enough of it.
    async fn of(parley: &Parley, project: &Project) -> Self {
        let mut peer = Raw::connect_narrow(&parley.ingress).await;
        peer.send(stream_request(project, "1.1", "")).await;
        let mut sipper = Self { peer, bytes: Vec::new() };
        // It has a cursor at least.
        while !sipper.bytes.ends_with(b"\n\n\r\n") {
            sipper.sip().await;
        }
        let (message, mut sent) = ("x".repeat(2_000), 0);
        while project.streams().await.iter().any(|stream| stream["closed"] == false) {
            project.send(&message).await;
            sipper.sip().await;
            sent += 1;
            assert!(sent < 1_000, "it is never cut");
        }
        sipper
    }

    async fn sip(&mut self) {
        let byte = timeout(PATIENCE, self.peer.0.read_u8()).await.expect("a byte in time");
        self.bytes.push(byte.expect("the stream goes on"));
    }

    /// Reads all there is.
    async fn rest(mut self) -> Received {
        self.bytes.extend(self.peer.rest_bytes().await);
        Received::of(&self.bytes)
    }
}

/// Comes back with the last id that was seen and holds both parts to the log.
async fn misses_nothing(project: &Project, cursor: &str, received: Received) {
    let mut seen: Vec<_> = received
        .events
        .iter()
        .filter(|event| event.kind() == "message.created")
        .map(|event| event.data.clone())
        .collect();
    let id = &received.events.last().expect("a greeting").id;
    let log = project.log(cursor).await;
    assert!(seen.len() < log.len(), "it was cut before it had everything");
    let path = format!("/sse/stream?project_id={}", project.id);
    let request = project.client.request("GET", &path).header("last-event-id", id);
    let mut again = Sse::open(request).await;
    assert_eq!(again.expect("hello").await["resumed"], true);
    while seen.len() < log.len() {
        seen.push(again.entry().await.data);
    }
    assert!(seen == log, "every message comes once and in order");
}

#[tokio::test]
async fn a_peer_that_sips_is_told_that_it_is_slow_and_misses_nothing() {
    let parley = Parley::start_with(SIPPING.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let mut received = Sipper::of(&parley, &project).await.rest().await;
    assert!(received.ended, "{:?}", received.events.last());
    let bye = received.events.pop().unwrap();
    assert_eq!((bye.kind(), &bye.data["reason"]), ("bye", &json!("slow_consumer")));
    assert_eq!(bye.data["reconnect"], true);
    misses_nothing(&project, &cursor, received).await;
}

#[tokio::test]
async fn a_peer_that_does_not_even_read_its_end_is_hung_up_on_and_misses_nothing() {
    let parley = Parley::start_with(SIPPING.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let mut sipper = Sipper::of(&parley, &project).await;
    let told = Instant::now();
    eventually("the end of the stream", async || {
        sipper.sip().await;
        project.streams().await.is_empty()
    })
    .await;
    assert!(told.elapsed() < END_GRACE + SLACK, "{:?}", told.elapsed());
    let received = sipper.rest().await;
    assert!(!received.ended, "{:?}", received.events.last());
    misses_nothing(&project, &cursor, received).await;
}
