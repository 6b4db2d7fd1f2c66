//! Slots under attack: never more than there are, and all of them free when everybody has gone, however they went.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    project::Project,
    raw::{Raw, stream_request},
    support::{Answer, PATIENCE, Parley, eventually},
};

const SLOTS: usize = 5;
const CLIENTS: usize = 6;
const ROUNDS: usize = 30;

async fn ask(project: &Project) -> Answer {
    // The answer to `HEAD` is the one to an opening.
    let path = format!("/sse/stream?project_id={}", project.id);
    Answer::to(project.client.request("HEAD", &path)).await
}

/// Opens and leaves time and again, in every way there is; returns how often it was let in and how often not.
async fn come_and_go(base: String, project: Project, held: Arc<AtomicUsize>) -> (usize, usize) {
    let (mut opened, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let mut client = Raw::sending(&base, stream_request(&project, "1.1", "")).await;
        if round % 5 == 4 {
            // Gone before the answer.
            let _ = client.0.set_zero_linger();
            continue;
        }
        let answer = client.until("\r\n\r\n").await;
        if answer.starts_with("HTTP/1.1 429 ") {
            refused += 1;
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        opened += 1;
        // From here to there the server has a slot for it.
        assert!(held.fetch_add(1, Ordering::SeqCst) < SLOTS, "more are open than may be");
        let counted = project.streams().await.len();
        assert!((1..=SLOTS).contains(&counted), "{counted} are counted");
        held.fetch_sub(1, Ordering::SeqCst);
        if round % 2 == 0 {
            let _ = client.0.set_zero_linger();
        }
    }
    (opened, refused)
}

#[tokio::test]
async fn clients_that_fight_over_slots_never_have_more_and_leave_all_of_them_free() {
    let limit = SLOTS.to_string();
    let parley = Parley::start_with(&["--max-connections-per-user", &limit]).await;
    let project = parley.as_user("ada").project().await;
    let held = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(come_and_go(parley.ingress.clone(), project.clone(), held.clone()));
    }
    let outcomes = clients.join_all().await;
    let (opened, refused) = outcomes.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert!(opened > SLOTS && refused > 0, "there was no fight: {outcomes:?}");
    eventually("all slots are free", async || project.streams().await.is_empty()).await;
    parley.has_streams(0).await;
    let mut streams = Vec::new();
    for _ in 0..SLOTS {
        streams.push(project.stream("").await);
    }
    let answer = ask(&project).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("x-sse-connection-limit"), limit);
    assert_eq!(answer.header("x-sse-current-connections"), limit);
}

#[tokio::test]
async fn of_many_that_open_the_same_stream_at_once_one_stays() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for _ in 0..10 {
        let mut opening = JoinSet::new();
        for _ in 0..12 {
            let project = project.clone();
            opening.spawn(async move { project.stream("&stream_id=tab").await.0 });
        }
        let streams = opening.join_all().await;
        parley.has_streams(1).await;
        assert_eq!(project.streams().await.len(), 1);
        project.send("to who is left").await;
        let mut left = 0;
        for mut stream in streams {
            let event = stream.entry().await;
            match event.kind() {
                "message.created" => left += 1,
                _ => assert_eq!(event.data["reason"], "replaced", "{event:?}"),
            }
        }
        assert_eq!(left, 1);
        parley.has_streams(0).await;
    }
}

#[tokio::test]
async fn a_client_that_is_killed_frees_its_slot_at_once() {
    let parley = Parley::start_with(&["--max-connections-per-user", "1"]).await;
    let project = parley.as_user("ada").project().await;
    for is_stuck in [false, true] {
        let mut curl = Command::new("curl")
            .env_clear()
            .kill_on_drop(true)
            .args(["-sN", "--noproxy", "*", "-H", "Authorization: Bearer dev-ada"])
            .arg(format!("{}/sse/stream?project_id={}", parley.ingress, project.id))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl is there");
        let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        let greeted = async {
            while !lines.next_line().await.unwrap().expect("it goes on").contains("\"hello\"") {}
        };
        timeout(PATIENCE, greeted).await.expect("a greeting");
        assert_eq!((project.streams().await.len(), ask(&project).await.status), (1, 429));
        if is_stuck {
            // Nobody reads what it writes, so that it reads no more itself.
            for _ in 0..10 {
                project.send(&"x".repeat(32_000)).await;
            }
        }
        timeout(PATIENCE, curl.kill()).await.expect("it dies").unwrap();
        let killed = Instant::now();
        eventually("its slot is free", async || project.streams().await.is_empty()).await;
        // Far before any deadline.
        assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
        assert_eq!(ask(&project).await.status, 200);
    }
}
