//! Many jobs in one request.

use serde_json::{Value, json};

use crate::{
    job::{JOBS, follow},
    project::Project,
    support::{Answer, Parley, column, text},
};

const COUNT: &str = "/api/integrations/bundles/demo/operations/count/batch";

async fn batch(project: &Project, data: Value, key: &str) -> Answer {
    let request = project.client.request("POST", COUNT).header("idempotency-key", key);
    Answer::to(request.json(&json!({"project_id": project.id, "data": data}))).await
}

#[tokio::test]
async fn a_batch_is_jobs_in_the_order_of_its_inputs_and_each_is_told_of() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (mut stream, _) = follow(&project.client).await;
    let data: Value = (0..100).map(|to| json!({"to": to % 3})).collect();
    let made = batch(&project, data.clone(), "k").await.is(202);
    let ids = column(&made["jobs"], "id");
    assert_eq!(ids.len(), 100);
    let mut results = vec![Value::Null; ids.len()];
    while results.contains(&Value::Null) {
        let ended = stream.until("job.succeeded").await.data;
        let id = text(&ended["job"]["id"]);
        let number = ids.iter().position(|one| *one == id).expect("it is one of them");
        results[number] = ended["job"]["result"]["counted"].clone();
    }
    assert!(results.iter().enumerate().all(|(number, counted)| *counted == json!(number % 3)));
    // The same once more is the same jobs, though they have ended, and nothing else is.
    let again = batch(&project, data, "k").await.is(202);
    assert_eq!(column(&again["jobs"], "id"), ids);
    assert!(column(&again["jobs"], "state").iter().all(|state| state == "succeeded"));
    for other in [json!([{"to": 0}]), json!([{"to": 1}, {"to": 1}])] {
        batch(&project, other, "k").await.refused(409, "idempotency_conflict");
    }
    assert_eq!(
        project.client.get(&format!("{JOBS}?limit=200")).await.is(200)["jobs"]
            .as_array()
            .unwrap()
            .len(),
        100
    );
}

#[tokio::test]
async fn a_batch_with_a_fault_makes_no_job() {
    let parley = Parley::start_with(&["--proc-queue-limit", "5"]).await;
    let project = parley.as_user("ada").project().await;
    let one = json!({"to": 0});
    for (data, field) in [
        (json!([one, {"to": -1}, one]), "data.1.to"),
        (json!([one, {"to": 1, "more": 1}]), "data.1.more"),
        (json!([one, null]), "data.1"),
        (json!([]), "data"),
        (Value::Array(vec![one.clone(); 1_001]), "data"),
    ] {
        let refused = batch(&project, data, "k").await.refused(422, "invalid_field");
        assert_eq!(refused["field"], field);
    }
    let path = |operation: &str| COUNT.replace("demo/operations/count", operation);
    let body = json!({"project_id": project.id, "data": [one]});
    for operation in ["demo/operations/none", "none/operations/count"] {
        let refused = project.client.call("POST", &path(operation), &body).await;
        refused.refused(404, "not_found");
    }
    for body in [json!({"project_id": project.id}), json!([]), json!({"data": [one]})] {
        let refused = project.client.call("POST", COUNT, &body).await;
        assert!([400, 422].contains(&refused.status), "{}", refused.status);
        refused.is_well_formed_refusal();
    }
    batch(&project.of("admin"), json!([one]), "k").await.refused(404, "not_found");
    batch(&project, Value::Array(vec![one; 6]), "k").await.refused(503, "backpressure");
    assert_eq!(project.client.get(JOBS).await.is(200)["jobs"], json!([]));
}

#[tokio::test]
async fn each_job_of_a_batch_counts_as_a_submission() {
    let parley = Parley::start_with(&["--rate-limit-submits", "5/0.01"]).await;
    let project = parley.as_user("ada").project().await;
    let some = |number| Value::Array(vec![json!({"to": 0}); number]);
    let refused = batch(&project, some(6), "a").await.refused(422, "invalid_field");
    assert_eq!(refused["field"], "data");
    // The refused request was one too.
    batch(&project, some(4), "b").await.is(202);
    let refused = batch(&project, some(1), "c").await.refused(429, "rate_limited");
    assert!(refused["retry_after_ms"].as_u64().unwrap() > 1_000);
    assert_eq!(project.client.get(JOBS).await.is(200)["jobs"].as_array().unwrap().len(), 4);
}
