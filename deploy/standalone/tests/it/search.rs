//! Search in a project: what was said is found at once, as it is now, by who may read it now.

mod feed;
mod input;
mod questions;
mod table;

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    job::{run, submit},
    metrics::collect,
    project::Project,
    support::{Answer, Parley, column, eventually, text},
};

/// Searches, whatever the answer.
async fn ask(project: &Project, query: &[(&str, &str)]) -> Answer {
    Answer::to(project.client.request("GET", &project.path("/search")).query(query)).await
}

/// Searches and returns what is found.
async fn search(project: &Project, query: &str) -> Vec<Value> {
    let mut found = ask(project, &[("q", query)]).await.is(200);
    serde_json::from_value(found["messages"].take()).expect("a list")
}

/// Waits until a query finds exactly these texts, in any order.
async fn finds(project: &Project, query: &str, texts: &[&str]) {
    let mut texts = texts.to_vec();
    texts.sort_unstable();
    let is_so = async || {
        let mut found = column(&json!(search(project, query).await), "text");
        found.sort_unstable();
        found == texts
    };
    eventually(&format!("{query} finds {texts:?}"), is_so).await;
}

/// Returns one of the index's figures.
async fn figure(parley: &Parley, name: &str) -> u64 {
    let text = collect(parley, "proc").await;
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("parley_search_{name} ")));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Waits until so many messages can be found, and nothing is to be read.
async fn has_documents(parley: &Parley, count: u64) {
    let are_there = async || {
        (figure(parley, "documents").await, figure(parley, "lag_entries").await) == (count, 0)
    };
    eventually(&format!("{count} messages in the index"), are_there).await;
}

#[tokio::test]
async fn a_message_is_found_within_two_seconds_as_it_is_now() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let began = Instant::now();
    let sent = project.send("the printer in the hall is on fire").await;
    finds(&project, "printers", &["the printer in the hall is on fire"]).await;
    assert!(began.elapsed().as_secs_f64() < 2.0, "it took {:?}", began.elapsed());
    let mut hit = search(&project, "printer").await.remove(0);
    let more = hit.as_object_mut().expect("a message");
    assert_eq!(more.remove("snippet").as_ref(), Some(&sent["text"]));
    assert!(more.remove("score").and_then(|score| score.as_f64()).is_some_and(|score| score > 0.0));
    assert_eq!(more.remove("highlights"), Some(json!([{"start": 4, "end": 11}])));
    assert_eq!(hit, sent, "it is the message, as every other route shows it");

    let path = format!("/messages/{}", text(&sent["id"]));
    project.call("PATCH", &path, &json!({"text": "the scanner works"})).await.is(200);
    finds(&project, "scanner", &["the scanner works"]).await;
    finds(&project, "printer", &[]).await;
    project.delete(&path).await.is(200);
    // The index may still have it; who reads does not.
    assert_eq!(search(&project, "scanner").await, Vec::<Value>::new());
}

#[tokio::test]
async fn words_are_found_in_every_form_and_with_a_letter_wrong() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let said = [
        "run sudo apt-get install firefox",
        "edit /etc/fstab and mount it",
        "Ubuntu 10.04 is out",
        "the partitioning tool crashed",
        "apt is what I get",
    ];
    for text in said {
        project.send(text).await;
    }
    has_documents(&parley, 5).await;
    for (query, best) in [
        ("apt-get", 0),
        ("fstab", 1),
        ("/etc/fstab", 1),
        ("10.04", 2),
        ("partitions", 3),
        ("partitoning", 3),
        ("firefxo", 0),
        ("Düring fırefox INSTALLATION", 0),
        ("mounting", 1),
    ] {
        let found = search(&project, query).await;
        assert_eq!(
            found.first().map(|hit| text(&hit["text"])).as_deref(),
            Some(said[best]),
            "{query}"
        );
    }
    finds(&project, "\"apt-get install\"", &[said[0]]).await;
    finds(&project, "\"install apt-get\"", &[]).await;
    finds(&project, "zzzzzz", &[]).await;
}

#[tokio::test]
async fn a_channel_narrows_it_down_and_the_limit_cuts_it_off() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    project.call("POST", "/channels", &json!({"name": "other"})).await.is(201);
    for number in 0..30 {
        project.send(&format!("walnut {number}")).await;
    }
    let elsewhere = json!({"text": "walnut elsewhere", "channel": "other"});
    project.call("POST", "/messages", &elsewhere).await.is(201);
    has_documents(&parley, 31).await;
    let count = async |query: &[(&str, &str)]| {
        let found = ask(&project, &[&[("q", "walnut")], query].concat()).await.is(200);
        assert_eq!(found["next"], Value::Null);
        found["messages"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(count(&[]).await, 20);
    assert_eq!(count(&[("limit", "50")]).await, 31);
    assert_eq!(count(&[("limit", "1")]).await, 1);
    assert_eq!(count(&[("channel", "other")]).await, 1);
    assert_eq!(count(&[("channel", "none")]).await, 0);
}

#[tokio::test]
async fn only_who_is_a_member_now_finds_anything() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    project.send("a secret of ours").await;
    has_documents(&parley, 1).await;
    ask(&project.of("grace"), &[("q", "secret")]).await.refused(404, "not_found");
    let grace = project.with("grace", "viewer").await;
    finds(&grace, "secret", &["a secret of ours"]).await;
    project.delete("/members/grace").await.is(204);
    ask(&grace, &[("q", "secret")]).await.refused(404, "not_found");
    // Another project has nothing of it.
    let other = parley.as_user("grace").project().await;
    other.send("a secret of hers").await;
    finds(&other, "secret", &["a secret of hers"]).await;
    finds(&project, "secret", &["a secret of ours"]).await;
}

/// Identity and score of each hit, in order.
fn places(hits: &[Value]) -> Vec<(String, Value)> {
    hits.iter().map(|hit| (text(&hit["id"]), hit["score"].clone())).collect()
}

#[tokio::test]
async fn nothing_that_is_written_in_another_project_changes_a_search() {
    let mut parley = Parley::start().await;
    let mut project = parley.as_user("grace").project().await;
    let other = parley.as_user("ada").project().await;
    project.send("the codename quuxelbarn is a decoy").await;
    project.send("the codename is not zyzzogeton").await;
    finds(&project, "decoy", &["the codename quuxelbarn is a decoy"]).await;
    has_documents(&parley, 2).await;
    let questions = ["quuxelbart", "zyzzogeton", "codename", "the decoy", "codename decoy"];
    let mut before = Vec::new();
    for question in questions {
        before.push(places(&search(&project, question).await));
    }
    assert_eq!(before[0].len(), 1, "a word with its last letter changed finds the message");
    for round in 0..3 {
        let mut last = Value::Null;
        for word in ["quuxelbart", "quuxelbarm", "zyzzogeton", "codename", "decoy"] {
            last = other.send(&format!("{word} of round {round}")).await;
        }
        finds(
            &other,
            &format!("\"decoy of round {round}\""),
            &[&format!("decoy of round {round}")],
        )
        .await;
        if round == 1 {
            other.delete(&format!("/messages/{}", text(&last["id"]))).await.is(200);
            has_documents(&parley, 11).await;
        }
        if round == 2 {
            assert!(parley.terminate().await.success(), "a clean end");
            let restarted = Parley::start_in(&parley.dir, &[]).await;
            project = Project { client: restarted.as_user("grace"), id: project.id.clone() };
            parley = restarted;
            has_documents(&parley, 16).await;
            break;
        }
        for (question, before) in questions.iter().zip(&before) {
            assert_eq!(
                places(&search(&project, question).await),
                *before,
                "{question} in round {round}"
            );
        }
    }
    for (question, before) in questions.iter().zip(&before) {
        assert_eq!(
            places(&search(&project, question).await),
            *before,
            "{question} after a restart"
        );
    }
    other_project_is_deleted(&parley, &other.id).await;
    for (question, before) in questions.iter().zip(&before) {
        assert_eq!(
            places(&search(&project, question).await),
            *before,
            "{question} after a deletion"
        );
    }
}

/// Deletes ada's project and waits until the index has only the two messages of the first one.
async fn other_project_is_deleted(parley: &Parley, id: &str) {
    let other = Project { client: parley.as_user("ada"), id: id.to_owned() };
    other.delete("").await.is(204);
    has_documents(parley, 2).await;
}

#[tokio::test]
async fn an_owner_has_the_index_built_anew() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for number in 0..3 {
        project.send(&format!("walnut {number}")).await;
    }
    let gone = project.send("walnut gone").await;
    project.delete(&format!("/messages/{}", text(&gone["id"]))).await.is(200);
    has_documents(&parley, 3).await;
    let job = run(&project, "search.reindex", json!({})).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["result"]["messages"], 3);
    assert!(job["result"]["index_bytes"].as_u64() > Some(0));
    assert!(job["result"]["duration_ms"].is_u64());
    finds(&project, "walnut", &["walnut 0", "walnut 1", "walnut 2"]).await;
    project.send("walnut later").await;
    finds(&project, "later", &["walnut later"]).await;
    has_documents(&parley, 4).await;
    let member = project.with("grace", "member").await;
    submit(&member, "search.reindex", json!({})).await.refused(403, "forbidden");
}
