//! Search, with an index in each of two replicas of proc.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{support::PATIENCE, whole::Whole};

/// Calls that go round both replicas.
const ROUNDS: usize = 6;

/// Returns how many messages a word finds, `None` if nobody answers.
async fn found(whole: &Whole, project: &str, word: &str) -> Option<usize> {
    let base = whole.cluster.base_url();
    let url = format!("{base}/api/chat/projects/{project}/search?q={word}");
    let answer = whole.http.get(url).bearer_auth("dev-ada").send().await.expect("an answer");
    let answer: Value = answer.json().await.expect("JSON");
    Some(answer["messages"].as_array()?.len())
}

/// Waits until each replica finds so many.
async fn finds(whole: &Whole, project: &str, word: &str, count: usize) {
    let all_do = async {
        let mut in_a_row = 0;
        while in_a_row < ROUNDS {
            let is_so = found(whole, project, word).await == Some(count);
            in_a_row = if is_so { in_a_row + 1 } else { 0 };
        }
    };
    timeout(PATIENCE, all_do).await.unwrap_or_else(|_| panic!("not {count} of {word}"));
}

#[tokio::test]
async fn every_proc_finds_everything_whatever_is_away() {
    let whole = Whole::start(|_| {}).await;
    let base = whole.cluster.base_url();
    let project = whole.project().await;
    whole.send(&base, &project, "walnut one").await;
    finds(&whole, &project, "walnut", 1).await;

    whole.cluster.nats().kill().await.expect("it runs");
    let sent = Instant::now();
    whole.send(&base, &project, "walnut two").await;
    finds(&whole, &project, "walnut", 2).await;
    assert!(sent.elapsed() < Duration::from_secs(4), "{:?}", sent.elapsed());
    whole.cluster.nats().start().await.expect("it does");

    whole.cluster.proc(0).kill().await.expect("it runs");
    whole.send(&base, &project, "walnut three").await;
    finds(&whole, &project, "walnut", 3).await;
    whole.cluster.proc(0).start().await.expect("it does");

    // A wish is fulfilled by both, whichever runs the job.
    let path = "/api/integrations/bundles/search/operations/reindex";
    let body = json!({"project_id": project, "data": {}});
    let url = format!("{base}{path}");
    let request = whole.http.post(url).bearer_auth("dev-ada").header("prefer", "wait=25");
    let job: Value =
        request.json(&body).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(
        (&job["state"], &job["result"]["messages"]),
        (&json!("succeeded"), &json!(3)),
        "{job}"
    );
    let built = async || {
        let logs = [0, 1].map(|number| whole.cluster.proc(number).log_file().to_owned());
        logs.iter().all(|log| {
            std::fs::read_to_string(log).expect("a log").contains("built the index of a project")
        })
    };
    timeout(PATIENCE, async { while !built().await {} }).await.expect("both build it");
    finds(&whole, &project, "walnut", 3).await;
    whole.stop().await;
}
