//! One service goes on while the other is away.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    archive::{Real, upload},
    job::{JOBS, follow, submit, until_state},
    relay::{Relay, Wire},
    support::{Client, PATIENCE, Parley, eventually, text},
};

/// An address that nobody listens at.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

/// Asks for something that needs the other service, which is away.
async fn is_refused_in_time(client: &Client, path: &str) {
    let asked = Instant::now();
    let refused = client.get(path).await;
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    let body = refused.refused(503, "unavailable");
    assert!(body["retry_after_ms"].is_u64());
}

#[tokio::test]
async fn chat_and_its_streams_go_on_while_proc_is_away() {
    let relay = Relay::start().await;
    let parley = Parley::start_with(&["--proc-grpc-url", &relay.url]).await;
    relay.leads_to(&parley.internal("proc"));
    let ada = parley.as_user("ada");
    let project = ada.project().await;
    let (jobs, _) = follow(&parley.as_user("grace")).await;
    for wire in [Wire::Cut, Wire::Frozen] {
        relay.set(wire);
        let (mut stream, _) = project.stream("").await;
        project.send("still here").await;
        let message = stream.expect("message.created").await;
        assert_eq!(message["message"]["text"], "still here");
        is_refused_in_time(&ada, "/api/jobs/stream").await;
        project.get("/messages").await.is(200);
    }
    relay.set(Wire::Whole);
    let (_stream, jobs_of_ada) = follow(&ada).await;
    assert_eq!(jobs_of_ada, json!([]));
    drop(jobs);
}

#[tokio::test]
async fn a_replica_that_is_gone_is_not_noticed_while_another_is_there() {
    let relay = Relay::start().await;
    let urls = format!("{},{},{}", nowhere(), relay.url, nowhere());
    let parley = Parley::start_with(&["--proc-grpc-url", &urls]).await;
    relay.leads_to(&parley.internal("proc"));
    for user in ["ada", "grace", "admin"] {
        follow(&parley.as_user(user)).await;
    }
}

#[tokio::test]
async fn an_import_waits_for_ingress_and_comes_in_whole() {
    let relay = Relay::start().await;
    let log = ["--ingress-grpc-url", &relay.url, "--log", "info,proc=debug"];
    let parley = Parley::start_with(&log).await;
    relay.leads_to(&parley.internal("ingress"));
    let project = parley.as_user("ada").project().await;
    let upload = upload(&project.client, Real::read().bytes).await;
    let data = json!({"upload_id": upload});
    // In the middle of a batch: nobody knows whether it was written.
    relay.cut_after(200_000);
    let id = text(&submit(&project, "chat.import", data.clone()).await.is(202)["id"]);
    timeout(PATIENCE, relay.is_cut()).await.expect("it sends that much");
    let waits = async || parley.log().contains("failures=3");
    eventually("the job tries again", waits).await;
    // While ingress is away, proc cannot tell whether the owner may still see the job.
    project.client.get(&format!("{JOBS}/{id}")).await.refused(503, "unavailable");
    let refused = submit(&project, "chat.import", data).await;
    refused.refused(503, "unavailable");

    relay.set(Wire::Whole);
    let job: Value = until_state(&project.client, &id, "succeeded").await;
    assert_eq!(job["attempt"], 1);
    let logs = project.client.get(&format!("{JOBS}/{id}/logs")).await.is(200);
    let says_why = logs.to_string().contains("chat does not answer, waiting for it");
    assert!(says_why, "the job says why it waited: {logs}");
    assert_eq!(
        job["result"]["messages"],
        json!({
            "total": 4106, "imported": 4106, "existing": 0, "updated": 0, "failed": 0, "skipped": {},
        })
    );
    assert_eq!(project.history().await.len(), 4_106);
}

#[tokio::test]
async fn a_job_that_waits_for_ingress_can_be_cancelled() {
    let relay = Relay::start().await;
    let parley = Parley::start_with(&["--ingress-grpc-url", &relay.url]).await;
    relay.leads_to(&parley.internal("ingress"));
    let project = parley.as_user("ada").project().await;
    let upload = upload(&project.client, Real::read().bytes).await;
    relay.cut_after(100_000);
    let data = json!({"upload_id": upload});
    let id = text(&submit(&project, "chat.import", data).await.is(202)["id"]);
    timeout(PATIENCE, relay.is_cut()).await.expect("it sends that much");
    let job = project.client.call("POST", &format!("{JOBS}/{id}/cancel"), &json!({})).await;
    let job = job.is(200);
    assert_eq!((&job["state"], &job["result"]), (&json!("cancelled"), &Value::Null));
}
