//! Bundles that accept and call back: who may, once, and for how long.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    bundle::{Call, LOOPBACK, Rogue, SECRET, Says, manifest, register, status},
    job::{JOBS, submit, until_state},
    project::Project,
    support::{Answer, Client, PATIENCE, Parley, column, text},
};

fn accepts(_: &Value) -> Says {
    Says::Ends(status("202 Accepted", ""))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A callback as a bundle sends it.
struct Callback<'a> {
    job: &'a str,
    id: &'a str,
    at: u64,
    secret: &'a str,
    body: String,
}

impl<'a> Callback<'a> {
    fn new(job: &'a str, id: &'a str, body: &Value) -> Self {
        Self { job, id, at: now(), secret: SECRET, body: body.to_string() }
    }

    async fn send(&self, client: &Client) -> Answer {
        let key = BASE64_STANDARD.decode(&self.secret["whsec_".len()..]).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        mac.update(format!("{}.{}.{}", self.id, self.at, self.body).as_bytes());
        let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
        let path = format!("/api/integrations/callbacks/{}", self.job);
        let request = client.request("POST", &path).header("webhook-id", self.id);
        let request = request.header("webhook-timestamp", self.at.to_string());
        Answer::to(request.header("webhook-signature", signature).body(self.body.clone())).await
    }
}

async fn start(timeout_seconds: u64) -> (Parley, Project, Rogue) {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let rogue = Rogue::start(accepts).await;
    let manifest = manifest(&["work"], timeout_seconds);
    register(&parley.as_user("admin"), "later", &rogue.url, &manifest).await.is(201);
    (parley, project, rogue)
}

async fn begin(project: &Project, rogue: &mut Rogue) -> (String, i64) {
    let id = text(&submit(project, "later.work", json!({})).await.is(202)["id"]);
    let Call { body, .. } = rogue.called().await;
    assert_eq!((&body["type"], &body["job"]), (&json!("run"), &json!(id)));
    (id, body["fence"].as_i64().expect("a fence"))
}

#[tokio::test]
async fn only_the_bundle_calls_back_and_each_message_counts_once() {
    let (parley, project, mut rogue) = start(60).await;
    // Nobody's: a bundle has no token.
    let nobody = parley.client();
    let (id, fence) = begin(&project, &mut rogue).await;
    let log = |text: &str| json!({"fence": fence, "log": text});
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let elsewhere = uuid::Uuid::now_v7().to_string();
    for forged in [
        Callback { secret: other, ..Callback::new(&id, "1", &log("x")) },
        Callback { at: now() - 400, ..Callback::new(&id, "1", &log("x")) },
        Callback { at: now() + 400, ..Callback::new(&id, "1", &log("x")) },
        Callback::new(&elsewhere, "1", &log("x")),
    ] {
        forged.send(&nobody).await.refused(401, "unauthenticated");
    }
    // A user's token, even an admin's, is no signature.
    let path = format!("/api/integrations/callbacks/{id}");
    for client in [&nobody, &project.client, &parley.as_user("admin")] {
        client.call("POST", &path, &log("x")).await.refused(401, "unauthenticated");
    }
    nobody
        .call("POST", "/api/integrations/callbacks/junk", &log("x"))
        .await
        .refused(400, "invalid_request");
    for garbage in [
        json!({}),
        json!({"fence": fence}),
        json!({"log": "x"}),
        json!([]),
        json!({"fence": fence, "nonsense": 1}),
    ] {
        Callback::new(&id, "g", &garbage).send(&nobody).await.refused(400, "invalid_request");
    }
    let large = json!({"fence": fence, "result": "x".repeat(70 << 10)});
    Callback::new(&id, "l", &large).send(&nobody).await.refused(413, "too_large");
    let stale = json!({"fence": fence - 1, "result": "stale"});
    Callback::new(&id, "s", &stale).send(&nobody).await.refused(409, "conflict");

    for _ in 0..3 {
        Callback::new(&id, "1", &log("once")).send(&nobody).await.is(204);
    }
    Callback::new(&id, "2", &json!({"fence": fence, "progress": {"done": 1, "total": 4}}))
        .send(&nobody)
        .await
        .is(204);
    Callback::new(&id, "3", &json!({"fence": fence, "result": {"a": null}}))
        .send(&nobody)
        .await
        .is(204);
    Callback::new(&id, "4", &json!({"fence": fence, "result": "late"}))
        .send(&nobody)
        .await
        .refused(409, "conflict");
    let job = until_state(&project.client, &id, "succeeded").await;
    assert_eq!((&job["result"], &job["attempt"]), (&json!({"a": null}), &json!(1)));
    assert_eq!(job["progress"]["done"], 1);
    let logs = project.client.get(&format!("{JOBS}/{id}/logs")).await.is(200);
    assert_eq!(column(&logs["logs"], "message"), ["once"]);
}

#[tokio::test]
async fn a_bundle_that_answers_after_its_time_is_told_so_and_changes_nothing() {
    let (parley, project, mut rogue) = start(1).await;
    let (id, fence) = begin(&project, &mut rogue).await;
    // Told that nobody waits, then called again for the next attempt; which of them first is not said.
    let (one, two) = (rogue.called().await.body, rogue.called().await.body);
    let (cancel, again) = if one["type"] == "cancel" { (one, two) } else { (two, one) };
    assert_eq!(cancel, json!({"type": "cancel", "job": id, "fence": fence}));
    assert_eq!((&again["type"], &again["attempt"]), (&json!("run"), &json!(2)));
    let late = json!({"fence": fence, "result": "late"});
    Callback::new(&id, "late", &late).send(&parley.client()).await.refused(409, "conflict");
    let next = json!({"fence": again["fence"], "result": "in time"});
    let told = Callback::new(&id, "next", &next).send(&parley.client()).await;
    if told.status == 204 {
        assert_eq!(until_state(&project.client, &id, "succeeded").await["result"], "in time");
    } else {
        // This machine was slow; then it was too late too, and the next attempt is on its way.
        told.refused(409, "conflict");
    }
}

#[tokio::test]
async fn an_accepted_job_is_waited_for_by_the_next_process_and_not_called_again() {
    let (mut parley, project, mut rogue) = start(600).await;
    let (id, fence) = begin(&project, &mut rogue).await;
    let log = json!({"fence": fence, "log": "before"});
    Callback::new(&id, "1", &log).send(&parley.client()).await.is(204);
    let logs = format!("{JOBS}/{id}/logs");
    let kept =
        async || project.client.get(&logs).await.is(200)["logs"].as_array().unwrap().len() == 1;
    crate::support::eventually("the log", kept).await;
    parley.kill().await;
    let parley = Parley::start_in(&parley.dir, &LOOPBACK).await;
    let client = parley.as_user("ada");
    until_state(&client, &id, "running").await;
    let result = json!({"fence": fence, "result": "after"});
    Callback::new(&id, "2", &result).send(&parley.client()).await.is(204);
    let job = until_state(&client, &id, "succeeded").await;
    assert_eq!((&job["result"], &job["attempt"]), (&json!("after"), &json!(1)));
    assert!(!rogue.is_called_within(PATIENCE / 15).await, "it was called again, or told to stop");
}
