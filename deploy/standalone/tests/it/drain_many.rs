//! The end of the process with many streams open, some of them stuck: each is told, none holds the others, all in time.

use std::time::Duration;

use reqwest::Version;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    raw::{Raw, stream_request},
    sse::{Event, Sse},
    support::Parley,
};

const STREAMS: usize = 300;
const STUCK: usize = 20;
const SPREAD: Duration = Duration::from_secs(2);
const BUCKET: Duration = Duration::from_millis(100);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn many_streams_are_told_and_closed_evenly_and_stuck_ones_hold_nobody() {
    let flags = [
        ["--max-connections-per-user", "1000"],
        ["--stream-send-buffer-bytes", "4096"],
        ["--drain-spread", "2s"],
        ["--drain-timeout", "20s"],
    ];
    let mut parley = Parley::start_with(flags.as_flattened()).await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        // Every third one is of the old kind, whose end is the end of its connection.
        let is_old = number % 3 == 0;
        let version = if is_old { Version::HTTP_10 } else { Version::HTTP_11 };
        let request = project.client.request("GET", &path).version(version);
        let (stream, _) = Sse::greeted(request).await;
        assert_eq!(stream.head.contains_key("transfer-encoding"), !is_old);
        streams.push(stream);
    }
    let mut stuck = Vec::new();
    for number in 0..STUCK {
        let mut peer = Raw::connect_narrow(&parley.ingress).await;
        let version = if number % 3 == 0 { "1.0" } else { "1.1" };
        peer.send(stream_request(&project, version, "")).await;
        stuck.push(peer);
    }
    parley.has_streams((STREAMS + STUCK) as u64).await;
    // More than fits on the way to who does not read, and less than anybody may be behind.
    for _ in 0..2 {
        project.send(&"x".repeat(32_000)).await;
    }
    let mut closing = JoinSet::new();
    for mut stream in streams {
        for _ in 0..2 {
            stream.expect("message.created").await;
        }
        // A connection that breaks off, or a last chunk that does not come, is an error and no end.
        closing.spawn(async move { (stream.rest().await, Instant::now()) });
    }
    parley.signal();
    let signalled = Instant::now();
    let closed = closing.join_all().await;
    let status = parley.ended().await;
    assert!(status.success(), "{status}");
    assert!(signalled.elapsed() < DRAIN_TIMEOUT, "{:?}", signalled.elapsed());
    assert!(!parley.log().contains("not everything ended in time"));

    let mut buckets = vec![0_usize; 1];
    for (events, at) in closed {
        was_told(&events);
        let bucket = (at - signalled).as_millis() / BUCKET.as_millis();
        let bucket = usize::try_from(bucket).expect("a small number");
        buckets.resize(buckets.len().max(bucket + 1), 0);
        buckets[bucket] += 1;
    }
    let mean = STREAMS * BUCKET.as_millis() as usize / SPREAD.as_millis() as usize;
    assert!(buckets.iter().all(|&count| count <= 3 * mean), "{buckets:?}");
}

/// Holds what a stream got to the two words of farewell.
#[track_caller]
fn was_told(events: &[Event]) {
    let [going, bye] = events else { panic!("{events:?}") };
    assert_eq!((going.kind(), bye.kind()), ("server_shutdown", "bye"));
    assert_eq!(going.data["reason"], "draining");
    assert_eq!(bye.data["reason"], "server_shutdown");
    assert_eq!(bye.data["reconnect"], true);
}
