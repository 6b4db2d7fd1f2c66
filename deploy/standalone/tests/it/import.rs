//! A real export imported over HTTP: whole, once, in its place in time, through kills, and out again.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    archive::{Real, import, shown, upload},
    job::{JOBS, follow, run, submit, until_end, until_state},
    project::Project,
    support::{PATIENCE, Parley, text},
};

/// Reads the project's log and returns how many messages its imports told of; nothing else may tell of them.
async fn told(project: &Project, cursor: &str) -> u64 {
    let mut count = 0;
    for event in project.log(cursor).await {
        match event["type"].as_str().expect("a type") {
            "history.imported" => count += event["count"].as_u64().expect("a count"),
            kind => assert_eq!(kind, "channel.created"),
        }
    }
    count
}

/// Holds the whole history to what the archive holds, in the order of time.
async fn is_whole(project: &Project, real: &Real) -> Vec<Value> {
    let history = project.history().await;
    let said = real.said();
    assert_eq!(history.len(), said.len());
    let order: Vec<&Value> = history.iter().map(|message| &message["created_at"]).collect();
    assert!(order.is_sorted_by_key(|at| at.as_str()), "the history is in the order of time");
    // Channels that repeat others have messages of the very same time, so the order is each channel's own.
    for channel in real.channels() {
        let seen = history.iter().map(shown).filter(|shown| shown[0] == channel);
        let expected = said.iter().map(|(_, said)| said).filter(|said| said[0] == channel);
        for (seen, expected) in seen.zip(expected) {
            assert_eq!(seen, *expected);
        }
    }
    let (mut seen, mut expected): (Vec<_>, Vec<_>) =
        (history.iter().map(shown).collect(), said.into_iter().map(|(_, said)| said).collect());
    seen.sort_unstable();
    expected.sort_unstable();
    assert!(seen == expected, "something is missing or there twice");
    let ids: HashSet<&str> = history.iter().filter_map(|message| message["id"].as_str()).collect();
    assert_eq!(ids.len(), history.len());
    history
}

#[tokio::test]
async fn a_real_export_comes_in_whole_and_goes_out_whole() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let (mut stream, _) = project.stream("").await;
    let (mut jobs, _) = follow(&project.client).await;
    let real = Real::read();
    let said = real.said();
    assert_eq!((said.len(), real.users.len()), (4_106, 332));

    let job = import(&project, real.bytes.clone()).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let result = &job["result"];
    assert_eq!(
        result["messages"],
        json!({"total": 4106, "imported": 4106, "existing": 0, "updated": 0, "failed": 0, "skipped": {}})
    );
    assert_eq!(result["people"], json!({"total": 332, "written": 332, "existing": 0, "failed": 0}));
    assert_eq!(result["channels"], json!({"total": 4, "written": 4, "existing": 0, "failed": 0}));
    let history = is_whole(&project, &real).await;
    let per_channel = project.get("/messages?channel=ubuntu-2005&limit=200").await.is(200);
    assert!(
        per_channel["messages"].as_array().unwrap().iter().all(|m| m["channel"] == "ubuntu-2005")
    );

    // Streams hear of batches, each with its channels, and of no single message.
    assert_eq!(told(&project, &cursor).await, 4_106);
    let mut heard = 0;
    while heard < 4_106 {
        let event = stream.entry().await;
        if event.kind() == "history.imported" {
            heard += event.data["count"].as_u64().unwrap();
            assert!(!event.data["channels"].as_array().unwrap().is_empty());
        }
    }
    let events = until_end(&mut jobs, &text(&job["id"])).await;
    assert_eq!((events[0].kind(), events[1].kind()), ("job.queued", "job.started"));
    assert_eq!(events.last().unwrap().data["job"], job);

    // Once more is nothing new.
    let cursor = project.cursor().await;
    let again = import(&project, real.bytes.clone()).await;
    assert_eq!(
        again["result"]["messages"],
        json!({"total": 4106, "imported": 0, "existing": 4106, "updated": 0, "failed": 0, "skipped": {}})
    );
    assert_eq!(again["result"]["people"]["existing"], 332);
    assert_eq!(again["result"]["channels"]["existing"], 4);
    assert_eq!(project.cursor().await, cursor);
    assert_eq!(project.history().await, history);

    // The export has every message as the history has it.
    let exported = run(&project, "chat.export", json!({})).await;
    let artifact = &exported["result"]["artifact"];
    let request = project.client.request("GET", &text(&artifact["url"]));
    let lines = request.send().await.unwrap().text().await.unwrap();
    let records: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!((of("project"), of("member"), of("channel"), of("person")), (1, 1, 5, 333));
    let messages = records.into_iter().filter(|record| record["kind"] == "message");
    let messages: Vec<Value> = messages
        .map(|mut message| {
            message.as_object_mut().unwrap().remove("kind");
            message
        })
        .collect();
    assert_eq!(messages, history);
    assert_eq!(exported["result"]["messages"], 4106);
}

/// Asks for a job until it is between a tenth and nine tenths done.
async fn half_done(project: &Project, id: &str) {
    let path = format!("{JOBS}/{id}");
    let asking = async {
        loop {
            let job = project.client.get(&path).await.is(200);
            let fraction = job["progress"]["fraction"].as_f64().unwrap_or(0.0);
            assert!(fraction < 0.9, "the archive is too small to be caught in the middle: {job}");
            if fraction >= 0.1 {
                return;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("it gets on");
}

#[tokio::test]
async fn an_import_that_is_killed_in_the_middle_goes_on() {
    let mut parley = Parley::start().await;
    let mut project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let real = Real::read().repeated(4);
    let data = json!({"upload_id": upload(&project.client, real.bytes.clone()).await});
    let id = text(&submit(&project, "chat.import", data).await.is(202)["id"]);
    half_done(&project, &id).await;
    parley.kill().await;
    parley = Parley::start_in(&parley.dir, &[]).await;
    project = Project { client: parley.as_user("ada"), id: project.id };
    let job = until_state(&project.client, &id, "succeeded").await;
    let total = 4 * 4_106;
    assert_eq!(
        job["result"]["messages"],
        json!({"total": total, "imported": total, "existing": 0, "updated": 0, "failed": 0, "skipped": {}})
    );
    assert_eq!(job["result"]["people"]["written"], 332);
    assert_eq!(job["result"]["channels"]["written"], 16);
    assert_eq!(job["attempt"], 1);
    is_whole(&project, &real).await;
    assert_eq!(told(&project, &cursor).await, total);
}

#[tokio::test]
async fn an_import_that_is_stopped_in_the_middle_is_handed_back() {
    let mut parley = Parley::start().await;
    let mut project = parley.as_user("ada").project().await;
    let real = Real::read().repeated(2);
    let data = json!({"upload_id": upload(&project.client, real.bytes.clone()).await});
    let id = text(&submit(&project, "chat.import", data).await.is(202)["id"]);
    half_done(&project, &id).await;
    assert!(parley.terminate().await.success());
    parley = Parley::start_in(&parley.dir, &[]).await;
    project = Project { client: parley.as_user("ada"), id: project.id };
    let job = until_state(&project.client, &id, "succeeded").await;
    assert_eq!(job["result"]["messages"]["imported"], 2 * 4_106);
    is_whole(&project, &real).await;
}
