//! Search in a project: what was said is found at once, as it is now, by who may read it now.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    project::Project,
    support::{Answer, Parley, column, eventually, text},
};

/// Searches, whatever the answer.
async fn ask(project: &Project, query: &[(&str, &str)]) -> Answer {
    Answer::to(project.client.request("GET", &project.path("/search")).query(query)).await
}

/// Searches and returns what is found.
async fn search(project: &Project, query: &str) -> Value {
    ask(project, &[("q", query)]).await.is(200)
}

async fn found(project: &Project, query: &str) -> Vec<String> {
    column(&search(project, query).await["messages"], "text")
}

/// Waits until a query finds exactly these texts, in any order.
async fn finds(project: &Project, query: &str, texts: &[&str]) {
    let mut texts = texts.to_vec();
    texts.sort_unstable();
    let is_so = async || {
        let mut found = found(project, query).await;
        found.sort_unstable();
        found == texts
    };
    eventually(&format!("{query} finds {texts:?}"), is_so).await;
}

#[tokio::test]
async fn a_message_is_found_within_two_seconds_as_it_is_now() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let began = Instant::now();
    let sent = project.send("the printer in the hall is on fire").await;
    finds(&project, "printers", &["the printer in the hall is on fire"]).await;
    assert!(began.elapsed().as_secs_f64() < 2.0, "it took {:?}", began.elapsed());
    let hit = search(&project, "printer").await["messages"][0].clone();
    assert_eq!(hit["id"], sent["id"]);
    assert_eq!(hit["snippet"], sent["text"]);
    assert!(hit["score"].as_f64().is_some_and(|score| score > 0.0));

    let path = format!("/messages/{}", text(&sent["id"]));
    project.call("PATCH", &path, &json!({"text": "the scanner works"})).await.is(200);
    finds(&project, "scanner", &["the scanner works"]).await;
    finds(&project, "printer", &[]).await;
    project.delete(&path).await.is(200);
    finds(&project, "scanner", &[]).await;
}
