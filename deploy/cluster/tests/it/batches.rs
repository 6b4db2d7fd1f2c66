//! Many jobs at once, of which the bus says no more than that they are there.

use serde_json::{Value, json};

use tokio::time::timeout;

use crate::{
    support::{PATIENCE, read_until},
    whole::Whole,
};

const JOBS: usize = 100;

#[tokio::test]
async fn a_batch_is_told_of_whole_by_a_replica_that_only_hears_of_it() {
    let whole = Whole::start(|_| {}).await;
    let project = whole.project().await;
    let url = format!("{}/api/jobs/stream", whole.cluster.ingress_url(0));
    let mut stream = whole.http.get(url).bearer_auth("dev-ada").send().await.expect("an answer");
    read_until(&mut stream, "job.snapshot").await;
    let path = "/api/integrations/bundles/demo/operations/count/batch";
    let body = json!({"project_id": project, "data": vec![json!({"to": 0}); JOBS]});
    let made = whole.post(&whole.cluster.proc_url(1), path, body).await;
    assert_eq!(made.status(), 202);
    let made: Value = made.json().await.expect("JSON");
    let mut told = String::new();
    let reading = async {
        while told.matches("\"job.succeeded\"").count() < JOBS {
            let chunk = stream.chunk().await.expect("the stream is sound");
            told.push_str(&String::from_utf8_lossy(&chunk.expect("the stream goes on")));
        }
    };
    let in_time = timeout(PATIENCE, reading).await.is_ok();
    assert!(in_time, "only {} came", told.matches("\"job.succeeded\"").count());
    for job in made["jobs"].as_array().expect("a list") {
        for kind in ["queued", "started", "succeeded"] {
            let id = job["id"].as_str().expect("an id");
            let events = told
                .split("\n\n")
                .filter(|event| event.contains(&format!("\"job.{kind}\"")) && event.contains(id));
            assert_eq!(events.count(), 1, "{id} {kind}");
        }
    }
    whole.stop().await;
}
