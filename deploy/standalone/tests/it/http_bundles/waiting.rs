//! Waits for a bundle: they hold no worker, count as no attempt, and end at once when they are cancelled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use shared::time::Timestamp;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::callbacks::Callback;
use crate::{
    bundle::{LOOPBACK, Rogue, Says, lines, manifest, register, status},
    job::{JOBS, follow, run, submit, until_state},
    project::Project,
    support::{Client, Parley, eventually, text},
};

/// Starts with a manifest of one operation and a bundle that answers as told.
async fn start(
    flags: &[&str],
    timeout_seconds: u64,
    answer: impl Fn(&Value) -> Says + Send + Sync + 'static,
) -> (Parley, Project, Rogue) {
    let parley = Parley::start_with(&[&LOOPBACK[..], flags].concat()).await;
    let project = parley.as_user("ada").project().await;
    let rogue = Rogue::start(answer).await;
    let manifest = manifest(&["work", "later", "busy"], timeout_seconds);
    register(&parley.as_user("admin"), "b", &rogue.url, &manifest).await.is(201);
    (parley, project, rogue)
}

/// Registers a bundle where nothing listens.
async fn register_away(parley: &Parley, timeout_seconds: u64) -> String {
    let url = Rogue::start(|_| Says::Hangs(String::new())).await.url.clone();
    let manifest = manifest(&["work"], timeout_seconds);
    register(&parley.as_user("admin"), "away", &url, &manifest).await.is(201);
    url
}

async fn show(client: &Client, id: &str) -> Value {
    client.get(&format!("{JOBS}/{id}")).await.is(200)
}

/// Waits until the job is put back for this reason and returns it.
async fn until_put_back(client: &Client, id: &str, code: &str) -> Value {
    let mut job = Value::Null;
    let is_put_back = async || {
        job = show(client, id).await;
        job["state"] == "queued" && job["error"]["code"] == code
    };
    eventually(&format!("{code} of a queued job"), is_put_back).await;
    job
}

fn busy(seconds: u64) -> Says {
    Says::Ends(status("503 Service Unavailable", &format!("retry-after: {seconds}\r\n")))
}

fn accepts() -> Says {
    Says::Ends(status("202 Accepted", ""))
}

#[tokio::test]
async fn jobs_that_wait_for_a_bundle_hold_no_worker_and_are_cancelled_at_once() {
    let answer = |call: &Value| match call["operation"].as_str() {
        Some("later") => accepts(),
        _ => busy(60),
    };
    let (parley, project, mut rogue) = start(&["--proc-workers", "1"], 600, answer).await;
    register_away(&parley, 600).await;
    let ada = &project.client;
    let mut jobs = Vec::new();
    for operation in ["b.later", "b.busy", "away.work"] {
        for _ in 0..2 {
            let job = submit(&project, operation, json!({})).await.is(202);
            jobs.push((operation, text(&job["id"])));
        }
    }
    for (operation, id) in &jobs {
        let job = match *operation {
            "b.later" => until_state(ada, id, "running").await,
            "b.busy" => until_put_back(ada, id, "bundle_busy").await,
            _ => until_put_back(ada, id, "bundle_unreachable").await,
        };
        if *operation != "b.later" {
            assert_eq!(job["attempt"], 0, "{job}");
            assert_eq!(job["error"]["retryable"], true, "{job}");
            assert!(text(&job["run_after"]) > text(&job["created_at"]), "{job}");
        }
    }
    // Jobs of another owner and of the same owner run meanwhile.
    let grace = parley.as_user("grace").project().await;
    for other in [&grace, &project] {
        let begun = Instant::now();
        assert_eq!(run(other, "demo.count", json!({"to": 1})).await["state"], "succeeded");
        assert!(begun.elapsed() < Duration::from_secs(10), "it waited: {:?}", begun.elapsed());
    }
    let queue = parley.as_user("admin").get("/api/integrations/admin/queue").await.is(200);
    assert_eq!((&queue["running"], &queue["accepted"]), (&json!(2), &json!(2)), "{queue}");
    assert_eq!(queue["snoozed"], 4, "{queue}");
    for (operation, id) in &jobs {
        let begun = Instant::now();
        let cancelled = ada.call("POST", &format!("{JOBS}/{id}/cancel"), &json!({})).await.is(200);
        assert_eq!(cancelled["state"], "cancelled", "{operation}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{operation}");
    }
    // The bundle is told of those that it has accepted.
    let mut told = Vec::new();
    while told.len() < 2 {
        let call = rogue.called().await.body;
        if call["type"] == "cancel" {
            told.push(text(&call["job"]));
        }
    }
    told.sort();
    assert_eq!(told, [jobs[0].1.clone(), jobs[1].1.clone()]);
}

#[tokio::test]
async fn jobs_that_were_put_back_fill_the_queue_of_their_owner_alone() {
    let (parley, project, _rogue) = start(&["--proc-queue-limit", "4"], 600, |_| busy(60)).await;
    for _ in 0..4 {
        let job = submit(&project, "b.busy", json!({})).await.is(202);
        until_put_back(&project.client, &text(&job["id"]), "bundle_busy").await;
    }
    let grace = parley.as_user("grace").project().await;
    for _ in 0..3 {
        assert_eq!(run(&grace, "demo.count", json!({"to": 1})).await["state"], "succeeded");
    }
    submit(&project, "b.busy", json!({})).await.refused(503, "backpressure");
}

/// Returns whether the only worker calls the bundle for a second job while the first job, which was accepted, waits.
async fn worker_is_free_while_a_job_waits(flags: &[&str], within: Duration) -> bool {
    let flags = [&["--proc-workers", "1"], flags].concat();
    let (_parley, project, mut rogue) = start(&flags, 600, |_| accepts()).await;
    submit(&project, "b.later", json!({})).await.is(202);
    rogue.called().await;
    submit(&project, "b.later", json!({})).await.is(202);
    timeout(within, rogue.called()).await.is_ok()
}

#[tokio::test]
async fn a_worker_that_is_held_while_a_job_waits_is_noticed() {
    assert!(worker_is_free_while_a_job_waits(&[], Duration::from_secs(30)).await);
    let sabotage = ["--sabotage", "wait-holds-worker"];
    assert!(!worker_is_free_while_a_job_waits(&sabotage, Duration::from_secs(4)).await);
}

#[tokio::test]
async fn a_bundle_is_called_when_it_asked_for_and_never_sooner() {
    let asked = AtomicUsize::new(0);
    let answer = move |_: &Value| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Says::Ends(status("429 Too Many Requests", "retry-after: 4\r\n")),
        1 => busy(0),
        _ => Says::Ends(lines("{\"result\":1}\n")),
    };
    // Less than it asks for.
    let (_parley, project, mut rogue) = start(&[], 1, answer).await;
    let id = text(&submit(&project, "b.work", json!({})).await.is(202)["id"]);
    let mut calls = Vec::new();
    for _ in 0..3 {
        let call = rogue.called().await.body;
        assert_eq!((&call["job"], &call["attempt"]), (&json!(id), &json!(1)));
        calls.push(Instant::now());
    }
    let pauses = [calls[1] - calls[0], calls[2] - calls[1]];
    // When a call is heard of is known to the millisecond, whatever the load.
    let slack = Duration::from_millis(100);
    assert!(pauses[0] + slack >= Duration::from_secs(4), "called after {pauses:?}");
    assert!(pauses[1] + slack >= Duration::from_secs(1), "called after {pauses:?}");
    let job = until_state(&project.client, &id, "succeeded").await;
    assert_eq!((&job["attempt"], &job["error"]), (&json!(1), &Value::Null), "{job}");
}

#[tokio::test]
async fn a_bundle_that_asks_for_more_than_a_day_fails_its_job_at_once() {
    let answer = |call: &Value| match call["operation"].as_str() {
        Some("busy") => busy(86_400),
        _ => busy(86_401),
    };
    let (parley, project, _rogue) = start(&[], 60, answer).await;
    let id = text(&submit(&project, "b.work", json!({})).await.is(202)["id"]);
    let job = until_state(&project.client, &id, "failed").await;
    assert_eq!((&job["error"]["code"], &job["attempt"]), (&json!("bundle_busy"), &json!(0)));
    let message = text(&job["error"]["message"]);
    assert!(message.contains("86401 seconds") && message.contains("24 hours"), "{message}");
    // Operators find it among those that were given up.
    let parked = parley.as_user("admin").get("/api/integrations/admin/parked").await.is(200);
    assert_eq!(parked["jobs"][0]["id"], job["id"], "{parked}");
    let id = text(&submit(&project, "b.busy", json!({})).await.is(202)["id"]);
    let waits = until_put_back(&project.client, &id, "bundle_busy").await;
    assert!(text(&waits["run_after"])[..10] > text(&waits["created_at"])[..10], "{waits}");
}

#[tokio::test]
async fn a_bundle_that_is_away_for_a_while_uses_up_no_attempt() {
    let (parley, project, _rogue) = start(&[], 60, |_| accepts()).await;
    let url = register_away(&parley, 1).await;
    let ada = &project.client;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(text(&submit(&project, "away.work", json!({})).await.is(202)["id"]));
    }
    // More often than there are attempts.
    let mut times: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let tried = async || {
        for id in &jobs {
            let job = show(ada, id).await;
            assert_eq!(job["finished_at"], Value::Null, "{job}");
            if job["error"]["code"] == "bundle_unreachable" && job["state"] == "queued" {
                times.entry(id).or_default().insert(text(&job["run_after"]));
            }
        }
        times.len() == jobs.len() && times.values().all(|times| times.len() > 4)
    };
    eventually("a fifth try of each", tried).await;
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let _back = Rogue::start_at(&address, |_| Says::Ends(lines("{\"result\":1}\n"))).await;
    for id in jobs {
        let job = until_state(ada, &id, "succeeded").await;
        assert_eq!((&job["attempt"], &job["error"]), (&json!(1), &Value::Null), "{job}");
    }
}

#[tokio::test]
async fn a_connection_that_is_not_made_is_no_time_of_the_bundle() {
    let (parley, project, _rogue) = start(&[], 60, |_| accepts()).await;
    // A listener whose queue is full: nothing more is answered there.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut full = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
    {
        full.push(stream);
    }
    let url = format!("http://{address}/");
    register(&parley.as_user("admin"), "full", &url, &manifest(&["work"], 1)).await.is(201);
    let id = text(&submit(&project, "full.work", json!({})).await.is(202)["id"]);
    let job = until_put_back(&project.client, &id, "bundle_unreachable").await;
    assert_eq!(job["attempt"], 0, "{job}");
}

#[tokio::test]
async fn a_broken_bundle_is_called_three_times_over_the_time_of_its_retries() {
    let answer = |_: &Value| Says::Ends(status("500 Internal Server Error", ""));
    let (parley, project, _rogue) = start(&[], 60, answer).await;
    let (mut stream, _) = follow(&project.client).await;
    submit(&project, "b.work", json!({})).await.is(202);
    let mut waits = Vec::new();
    for attempt in 1..=2 {
        let event = stream.until("job.retrying").await.data;
        let job = &event["job"];
        waits.push(time(&job["run_after"]).since(time(&event["at"])));
        let expected = (&json!(attempt), &json!("bundle_unavailable"));
        assert_eq!((&job["attempt"], &job["error"]["code"]), expected);
    }
    let all: Duration = waits.iter().sum();
    assert!(all >= Duration::from_mins(2), "all attempts are over within {waits:?}");
    drop(parley);

    let (_parley, project, mut rogue) = start(&["--proc-retry-spread", "2s"], 60, answer).await;
    let id = text(&submit(&project, "b.work", json!({})).await.is(202)["id"]);
    rogue.called().await;
    let begun = Instant::now();
    for _ in 0..2 {
        rogue.called().await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(1_900), "over in {:?}", begun.elapsed());
    let job = until_state(&project.client, &id, "failed").await;
    assert_eq!((&job["attempt"], &job["error"]["code"]), (&json!(3), &json!("bundle_unavailable")));
}

#[tokio::test]
async fn a_job_that_is_put_back_again_and_again_tells_its_owner_once() {
    const POLLS: usize = 4;
    let calls = AtomicUsize::new(0);
    let answer = move |_: &Value| match calls.fetch_add(1, Ordering::Relaxed) {
        0..POLLS => busy(1),
        _ => Says::Ends(lines("{\"progress\":{\"done\":1}}\n{\"result\":1}\n")),
    };
    let (_parley, project, mut rogue) = start(&[], 60, answer).await;
    let (mut stream, _) = follow(&project.client).await;
    let id = text(&submit(&project, "b.work", json!({})).await.is(202)["id"]);
    let mut told = Vec::new();
    loop {
        let event = stream.entry().await;
        if event.data["job"]["id"] != json!(id) || event.kind() == "job.progress" {
            continue;
        }
        if event.kind() == "job.retrying" {
            assert_eq!(event.data["job"]["error"]["code"], "bundle_busy", "{event:?}");
        }
        told.push(event.kind().to_owned());
        if event.kind() == "job.succeeded" {
            break;
        }
    }
    let expected = ["job.queued", "job.started", "job.retrying", "job.started", "job.succeeded"];
    assert_eq!(told, expected);
    for _ in 0..=POLLS {
        rogue.called().await;
    }
}

fn time(value: &Value) -> Timestamp {
    serde_json::from_value(value.clone()).expect("a time")
}

#[tokio::test]
async fn callbacks_change_an_accepted_job_without_a_worker() {
    let (parley, project, mut rogue) = start(&["--proc-workers", "1"], 600, |_| accepts()).await;
    let nobody = parley.client();
    let (mut stream, _) = follow(&project.client).await;
    let id = text(&submit(&project, "b.later", json!({})).await.is(202)["id"]);
    let fence = rogue.called().await.body["fence"].clone();
    // Its only worker counts meanwhile.
    let long = submit(&project, "demo.count", json!({"to": 1_000, "delay_ms": 100})).await.is(202);
    until_state(&project.client, &text(&long["id"]), "running").await;
    for done in 1..=3 {
        let progress = json!({"fence": fence, "progress": {"done": done, "total": 3}});
        Callback::new(&id, &format!("p{done}"), &progress).send(&nobody).await.is(204);
        let job = show(&project.client, &id).await;
        assert_eq!((&job["state"], &job["progress"]["done"]), (&json!("running"), &json!(done)));
    }
    // The last of them is told too.
    loop {
        let event = stream.until("job.progress").await;
        if event.data["job"]["id"] == json!(id) && event.data["job"]["progress"]["done"] == 3 {
            break;
        }
    }
    let log = json!({"fence": fence, "log": {"level": "warn", "message": "slow"}});
    Callback::new(&id, "log", &log).send(&nobody).await.is(204);
    let error = json!({"fence": fence, "error": {"code": "quota", "message": "no more"}});
    Callback::new(&id, "end", &error).send(&nobody).await.is(204);
    let job = show(&project.client, &id).await;
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("quota")));
    // The same again is no other one.
    Callback::new(&id, "end", &error).send(&nobody).await.refused(409, "conflict");
    let logs = project.client.get(&format!("{JOBS}/{id}/logs")).await.is(200);
    assert_eq!(logs["logs"][0]["message"], "slow", "{logs}");
}

#[tokio::test]
async fn an_accepted_job_is_called_again_after_its_time_and_not_before() {
    let (_parley, project, mut rogue) =
        start(&["--proc-retry-spread", "1s"], 3, |_| accepts()).await;
    let id = text(&submit(&project, "b.later", json!({})).await.is(202)["id"]);
    rogue.called().await;
    let accepted = Instant::now();
    let next = loop {
        let call = rogue.called().await.body;
        if call["type"] == "run" {
            break call;
        }
    };
    let waited = accepted.elapsed();
    assert_eq!((&next["job"], &next["attempt"]), (&json!(id), &json!(2)));
    assert!(waited >= Duration::from_secs(3), "called again after {waited:?}");
    let job = show(&project.client, &id).await;
    assert_eq!(job["error"]["code"], "timeout", "{job}");
}

#[tokio::test]
async fn a_flood_of_lines_takes_none_of_the_bundles_time() {
    let flood: Vec<String> = (0..3_000)
        .map(|n| format!("{{\"progress\":{{\"done\":{n}}}}}\n{{\"log\":\"line {n}\"}}\n"))
        .collect();
    let answer = Arc::new(lines(&(flood.concat() + "{\"result\":1}\n")));
    let (_parley, project, mut rogue) =
        start(&[], 1, move |_| Says::Ends(answer.to_string())).await;
    let job = run(&project, "b.work", json!({})).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    rogue.called().await;
    assert!(!rogue.is_called_within(Duration::from_millis(500)).await, "it was called again");
}
