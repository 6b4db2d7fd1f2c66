//! Logs of jobs whose bundles write much or little.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use crate::{
    bundle::{LOOPBACK, Rogue, Says, lines, manifest, register},
    job::{JOBS, run, submit, until_end},
    support::{Client, Parley, eventually, text},
};

/// Reads a job's whole log.
async fn log(client: &Client, id: &str) -> Vec<Value> {
    let (mut log, mut cursor) = (Vec::new(), 0);
    loop {
        let path = format!("{JOBS}/{id}/logs?limit=200&cursor={cursor}");
        let mut page = client.get(&path).await.is(200);
        log.append(page["logs"].as_array_mut().expect("lines"));
        match page["next"].as_i64() {
            Some(next) => cursor = next,
            None => return log,
        }
    }
}

#[tokio::test]
async fn a_flood_of_log_lines_costs_a_job_no_second_call_and_leaves_a_mark() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut said = String::new();
    for number in 1..=25_000 {
        let _ = writeln!(said, "{{\"log\":\"line {number}\"}}");
    }
    let answer = lines(&(said + "{\"result\":\"done\"}\n"));
    let mut rogue = Rogue::start(move |_| Says::Ends(answer.clone())).await;
    register(&parley.as_user("admin"), "rogue", &rogue.url, &manifest(&["work"], 10)).await.is(201);
    let job = run(&project, "rogue.work", json!({})).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
    rogue.called().await;
    assert!(!rogue.is_called_within(Duration::from_millis(1)).await, "it was called twice");
    let log = log(&project.client, &text(&job["id"])).await;
    let (mark, kept) = log.split_last().expect("lines");
    assert_eq!(kept.len(), 10_000, "the log keeps as many as it says");
    for (number, line) in (1..).zip(kept) {
        assert_eq!(line["message"], format!("line {number}"), "the order is another");
        assert_eq!(line["line"], number);
    }
    assert_eq!(
        (&mark["level"], &mark["message"]),
        (&json!("warn"), &json!("15000 lines were dropped: a log keeps 10000"))
    );
}

#[tokio::test]
async fn lines_are_in_the_log_before_later_progress_and_before_the_end_are_seen() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let rogue = Rogue::start(|call| match call["operation"].as_str() {
        Some("slow") => Says::Hangs(lines(
            "{\"log\":\"before\"}\n{\"progress\":{\"done\":1}}\n{\"log\":\"after\"}\n",
        )),
        _ => Says::Ends(lines("{\"log\":\"last\"}\n{\"result\":1}\n")),
    })
    .await;
    let manifest = manifest(&["slow", "quick"], 600);
    register(&parley.as_user("admin"), "rogue", &rogue.url, &manifest).await.is(201);
    let messages = async |id: &str| {
        let log = log(&project.client, id).await;
        log.iter().map(|line| text(&line["message"])).collect::<Vec<_>>()
    };
    for round in 0..5 {
        let (mut stream, _) = crate::job::follow(&project.client).await;
        let id = text(&submit(&project, "rogue.quick", json!({})).await.is(202)["id"]);
        until_end(&mut stream, &id).await;
        assert_eq!(messages(&id).await, ["last"], "round {round}: the end came first");
    }
    let id = text(&submit(&project, "rogue.slow", json!({})).await.is(202)["id"]);
    let path = format!("{JOBS}/{id}");
    let progress = async || project.client.get(&path).await.is(200)["progress"]["done"] == 1;
    eventually("the job's progress is shown", progress).await;
    assert_eq!(messages(&id).await[0], "before", "progress came first");
    // A line alone is written soon, with nothing behind it.
    eventually("the line is written", async || messages(&id).await == ["before", "after"]).await;
}
