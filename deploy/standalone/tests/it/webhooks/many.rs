//! Very many webhooks, each of which has its turn, and receivers that hang and hold up nobody's jobs.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    bundle::{LOOPBACK, Rogue, Says},
    job::run,
    support::{Parley, text},
    webhook::{receiver, subscribe},
};

const PROJECTS: usize = 24;
const WEBHOOKS_EACH: usize = 10;
/// Webhooks that are called before there is news again, and rounds after which each webhook has had one.
const PAGE: usize = 64;
const MAX_ROUNDS: usize = 3 * PROJECTS * WEBHOOKS_EACH / PAGE;

#[tokio::test]
async fn every_one_of_very_many_webhooks_has_its_turn() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let ada = parley.as_user("ada");
    let mut receiver = receiver().await;
    let (mut projects, mut ids) = (Vec::new(), HashSet::new());
    for _ in 0..PROJECTS {
        let project = ada.project().await;
        for _ in 0..WEBHOOKS_EACH {
            let made = subscribe(&project, &receiver.url, &["message.created"]).await.is(201);
            ids.insert(text(&made["id"]));
        }
        projects.push(project);
    }
    // All have news in every round, and a round is over when a page of them was called. A webhook that is never among them
    // starves; one that waits has the news of several rounds to deliver.
    let (began, mut rounds) = (Instant::now(), 0);
    while !ids.is_empty() && rounds < MAX_ROUNDS {
        rounds += 1;
        let sends = projects.iter().map(|project| project.send("news"));
        futures_util::future::join_all(sends).await;
        let mut called = HashSet::new();
        while called.len() < PAGE && !ids.is_empty() {
            let call = receiver.called().await;
            let id = call.header("webhook-id").split('_').next().unwrap_or_default().to_owned();
            ids.remove(&id);
            called.insert(id);
        }
    }
    let (left, time) = (ids.len(), began.elapsed());
    assert_eq!(left, 0, "webhooks have had nothing after {rounds} rounds and {time:?}");
    println!("every webhook had its first delivery after {time:?}");
}

#[tokio::test]
async fn receivers_that_hang_hold_up_no_job() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let mut hangs = Rogue::start(|_| Says::Hangs(String::new())).await;
    for user in ["ada", "grace", "admin"] {
        let project = parley.as_user(user).project().await;
        for _ in 0..2 {
            subscribe(&project, &hangs.url, &["message.created"]).await.is(201);
        }
        project.send("news").await;
    }
    for _ in 0..6 {
        hangs.called().await;
    }
    let project = parley.as_user("grace").project().await;
    let began = Instant::now();
    let job = run(&project, "demo.count", json!({"to": 1})).await;
    assert_eq!(job["state"], "succeeded");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it waited for receivers: {:?}",
        began.elapsed()
    );
}
