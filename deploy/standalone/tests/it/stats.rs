//! What admins are told of streams: figures that are exact, and who is connected.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use crate::{
    project::Project,
    slots::head,
    support::{PATIENCE, Parley, column, text},
};

const STATS: &str = "/api/jobs/stream/stats";

async fn stats(parley: &Parley) -> Value {
    parley.as_user("admin").get(STATS).await.is(200)
}

/// Waits until no stream is open and returns the figures.
async fn settled(parley: &Parley) -> Value {
    let asking = async {
        loop {
            let stats = stats(parley).await;
            if stats["activeConnections"] == 0 {
                return stats;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("all are closed")
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Opens a stream, holds it for some heartbeats, closes it and returns how long it had it.
async fn hold(project: Project, query: String, beats: usize, turns: Arc<Semaphore>) -> Duration {
    let turn = turns.acquire().await.expect("a turn");
    let path = format!("/sse/stream?project_id={}{query}", project.id);
    let mut stream = project.client.open(&path).await;
    let opened = Instant::now();
    stream.until("hello").await;
    drop(turn);
    for _ in 0..beats {
        stream.until("heartbeat").await;
    }
    opened.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_are_counted_and_timed_exactly() {
    const STREAMS: u32 = 1_000;
    const PROJECTS: u32 = 20;

    let flags = ["--max-connections-per-user", "100", "--max-connections-per-address", "4096"];
    let parley =
        Parley::start_with(&[&flags[..], &["--keepalive-interval", "500ms"]].concat()).await;
    let mut projects = Vec::new();
    for _ in 0..PROJECTS {
        let project = parley.as_user("ada").project().await;
        let cursor = project.cursor().await;
        projects.push((project, cursor));
    }
    let turns = Arc::new(Semaphore::new(8));
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let (project, cursor) = projects[(number % PROJECTS) as usize].clone();
        // Three of ten leave at once, the others after a second to three; every eighth comes back to where it was.
        let beats = [0, 0, 0, 3, 4, 5, 6, 7, 8, 9][(number / PROJECTS % 10) as usize];
        let query = if number % 8 == 0 { format!("&since={cursor}") } else { String::new() };
        streams.spawn(hold(project, query, beats, turns.clone()));
    }
    let held = streams.join_all().await;
    let stats = settled(&parley).await;
    let metrics = &stats["metrics"];
    assert_eq!(metrics["totalConnections"], STREAMS);
    assert_eq!(metrics["totalDisconnections"], STREAMS);
    assert_eq!(stats["reconnects"], STREAMS / 8);
    assert_eq!(stats["limits_rejected"], 0);
    let measured = (held.iter().sum::<Duration>() / STREAMS).as_secs_f64() * 1_000.0;
    let told = metrics["avgConnectionDurationMs"].as_f64().unwrap();
    let off = (told - measured).abs() / measured;
    eprintln!("measured {measured:.1} ms, told {told} ms: {:.2} % off", off * 100.0);
    assert!(off < 0.01, "measured {measured}, told {told}");
}

#[tokio::test]
async fn what_was_refused_and_what_only_asked_is_counted_for_what_it_was() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(project.stream("").await);
    }
    for _ in 0..7 {
        project.client.get(&path).await.is(429);
        head(&project.client, &path).await.is(429);
        parley.as_user("grace").get(&path).await.is(404);
    }
    drop(held);
    let stats = settled(&parley).await;
    assert_eq!(stats["limits_rejected"], 7);
    assert_eq!(
        (&stats["metrics"]["totalConnections"], &stats["reconnects"]),
        (&json!(5), &json!(0))
    );
    assert_eq!(stats["metrics"]["totalDisconnections"], 5);
}

#[tokio::test]
async fn every_event_that_a_stream_was_sent_is_counted_once() {
    const STREAMS: usize = 5;
    const MESSAGES: usize = 7;

    // Streams are spread over threads, which is nothing to the figures.
    let flags = ["--stream-threads", "3"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(project.stream("").await.0);
    }
    // Whatever is told of their arrival has been told before this.
    project.send("start").await;
    for stream in &mut streams {
        stream.texts_until("start").await;
    }
    let before = stats(&parley).await;
    for number in 0..MESSAGES {
        project.send(&number.to_string()).await;
    }
    for stream in &mut streams {
        assert_eq!(stream.texts_until(&(MESSAGES - 1).to_string()).await.len(), MESSAGES);
    }
    let stats = stats(&parley).await;
    let grew = |figure: &str| {
        let of = |stats: &Value| stats["metrics"][figure].as_u64().unwrap();
        of(&stats) - of(&before)
    };
    assert_eq!(grew("totalMessagesSent"), (STREAMS * MESSAGES) as u64);
    assert_eq!(grew("totalBroadcasts"), MESSAGES as u64);
    let sent = |stats: &Value| -> BTreeMap<String, u64> {
        let open = stats["connections"].as_array().unwrap().iter();
        open.map(|open| (text(&open["id"]), open["messagesSent"].as_u64().unwrap())).collect()
    };
    let (sent_before, sent) = (sent(&before), sent(&stats));
    assert_eq!(sent.len(), STREAMS);
    for (id, count) in sent {
        assert_eq!(count - sent_before[&id], MESSAGES as u64);
    }
}

#[tokio::test]
async fn the_figures_and_the_list_are_whole_and_for_admins_alone() {
    let parley = Parley::start_with(&["--trusted-proxies", "127.0.0.1"]).await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    let debug = format!("/api/debug/sse-connections/ada/{}", project.id);
    let empty = parley.as_user("admin").get(&debug).await.is(200);
    assert_eq!(empty, json!({"connections": [], "count": 0}));
    let mut held = Vec::new();
    for (session, address) in [("one", "127.0.0.8"), ("two", "127.0.0.8"), ("two", "::1")] {
        let request = project.client.request("GET", &path).header("user-session-id", session);
        let request = request.header("x-forwarded-for", address).header("user-agent", "a test");
        let mut stream = crate::sse::Sse::open(request).await;
        let id = text(&stream.expect("hello").await["connectionId"]);
        held.push((stream, id, address));
    }
    let stats = stats(&parley).await;
    let figures = ["activeConnections", "uniqueIps", "uniqueSessions", "metrics", "connections"];
    let ours = ["cluster", "limits_rejected", "reconnects"];
    assert_eq!(keys(&stats), figures.into_iter().chain(ours).collect());
    let metrics = [
        "totalConnections",
        "totalDisconnections",
        "totalBroadcasts",
        "totalMessagesSent",
        "avgConnectionDurationMs",
        "uptimeMs",
    ];
    assert_eq!(keys(&stats["metrics"]), metrics.into());
    assert!(stats["metrics"].as_object().unwrap().values().all(Value::is_u64), "{stats}");
    for (figure, value) in [("activeConnections", 3), ("uniqueIps", 2), ("uniqueSessions", 2)] {
        assert_eq!(stats[figure], value, "{figure}");
    }
    let cluster = &stats["cluster"];
    assert_eq!((&cluster["replicas"], &cluster["activeConnections"]), (&json!(1), &json!(3)));
    assert_eq!(cluster["perReplica"].as_array().map(Vec::len), Some(1));
    assert_eq!(cluster["perReplica"][0]["activeConnections"], 3);
    assert_eq!(cluster["metrics"]["totalConnections"], stats["metrics"]["totalConnections"]);

    let list = parley.as_user("admin").get(&debug).await.is(200);
    assert_eq!(list["count"], 3);
    let fields = [
        "id",
        "ip",
        "userAgent",
        "createdAt",
        "lastActivityAt",
        "messagesSent",
        "durationMs",
        "closed",
    ];
    for list in [&list["connections"], &stats["connections"]] {
        let ids: BTreeSet<String> = column(list, "id").into_iter().collect();
        assert_eq!(ids, held.iter().map(|(_, id, _)| id.clone()).collect());
        for connection in list.as_array().unwrap() {
            assert_eq!(keys(connection), fields.into());
            let (_, _, address) = held.iter().find(|(_, id, _)| connection["id"] == **id).unwrap();
            assert_eq!(
                (&connection["ip"], &connection["closed"]),
                (&json!(address), &json!(false))
            );
            assert_eq!(connection["userAgent"], "a test");
            let millis = |field: &str| connection[field].as_i64().unwrap();
            assert!(millis("lastActivityAt") >= millis("createdAt") && millis("durationMs") >= 0);
        }
    }
    for path in [STATS, &debug] {
        parley.as_user("ada").get(path).await.refused(403, "forbidden");
        parley.client().get(path).await.refused(401, "unauthenticated");
    }
    // What is for operators is on no public port.
    parley.as_user("admin").get(&debug.replace("/api", "/v1")).await.refused(404, "not_found");
}
