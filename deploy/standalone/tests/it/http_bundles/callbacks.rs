//! Bundles that accept and call back: who may, once, and for how long.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    bundle::{ADMIN, Call, LOOPBACK, Rogue, SECRET, Says, manifest, register, status},
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

/// Returns the signature of a message.
fn signature(secret: &str, id: &str, at: &str, body: &str) -> String {
    let key = BASE64_STANDARD.decode(&secret["whsec_".len()..]).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// A callback as a bundle sends it.
pub(super) struct Callback<'a> {
    job: &'a str,
    id: &'a str,
    at: u64,
    secret: &'a str,
    body: String,
}

impl<'a> Callback<'a> {
    pub(super) fn new(job: &'a str, id: &'a str, body: &Value) -> Self {
        Self { job, id, at: now(), secret: SECRET, body: body.to_string() }
    }

    pub(super) async fn send(&self, client: &Client) -> Answer {
        let signature = signature(self.secret, self.id, &self.at.to_string(), &self.body);
        let path = format!("/api/integrations/callbacks/{}", self.job);
        let request = client.request("POST", &path).header("webhook-id", self.id);
        let request = request.header("webhook-timestamp", self.at.to_string());
        Answer::to(request.header("webhook-signature", signature).body(self.body.clone())).await
    }
}

async fn start(timeout_seconds: u64) -> (Parley, Project, Rogue) {
    let parley =
        Parley::start_with(&[&LOOPBACK[..], &["--proc-retry-spread", "1s"]].concat()).await;
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

/// Another secret than the one that bundles are registered with.
const NEXT_SECRET: &str = "whsec_bmV4dC1uZXh0LW5leHQtbmV4dC1uZXh0LW5leHQ=";

/// Registers the bundle again with a secret.
async fn put_secret(parley: &Parley, rogue: &Rogue, secret: &str) -> Answer {
    let mut body = manifest(&["work"], 600);
    (body["url"], body["secret"]) = (json!(rogue.url), json!(secret));
    parley.as_user("admin").call("PUT", &format!("{ADMIN}/later"), &body).await
}

/// Returns which of the secrets a call is signed with.
fn signed_with<'a>(call: &Call, secrets: &[&'a str]) -> Vec<&'a str> {
    let (id, at) = (call.header("webhook-id"), call.header("webhook-timestamp"));
    let given: Vec<&str> = call.header("webhook-signature").split(' ').collect();
    let signs = |secret: &&&str| given.contains(&&*signature(secret, id, at, &call.text));
    secrets.iter().filter(signs).copied().collect()
}

#[tokio::test]
async fn a_replaced_secret_is_good_for_calls_that_are_out() {
    let (parley, project, mut rogue) = start(600).await;
    let nobody = parley.client();
    let (id, fence) = begin(&project, &mut rogue).await;
    put_secret(&parley, &rogue, SECRET).await.is(200);
    assert_eq!(put_secret(&parley, &rogue, SECRET).await.is(200)["old_secret_until"], Value::Null);
    // Twice, as an admin's script would after a lost answer: the second is no rotation.
    for _ in 0..2 {
        let put = put_secret(&parley, &rogue, NEXT_SECRET).await.is(200);
        assert!(put["old_secret_until"].is_string(), "{put}");
    }
    for (number, secret) in [SECRET, NEXT_SECRET].into_iter().enumerate() {
        let (number, log) = (number.to_string(), json!({"fence": fence, "log": "x"}));
        let callback = Callback { secret, ..Callback::new(&id, &number, &log) };
        callback.send(&nobody).await.is(204);
    }
    let result = json!({"fence": fence, "result": 1});
    Callback::new(&id, "result", &result).send(&nobody).await.is(204);
    until_state(&project.client, &id, "succeeded").await;
    submit(&project, "later.work", json!({})).await.is(202);
    let call = rogue.called().await;
    let secrets = [SECRET, NEXT_SECRET];
    assert_eq!(signed_with(&call, &secrets), secrets, "{}", call.head);
    let id = text(&call.body["job"]);
    project.client.call("POST", &format!("{JOBS}/{id}/cancel"), &json!({})).await.is(200);
    let cancel = rogue.called().await;
    assert_eq!(cancel.body["type"], "cancel");
    assert_eq!(signed_with(&cancel, &secrets), secrets, "{}", cancel.head);
}

#[tokio::test]
async fn each_replaced_secret_of_a_bundle_is_good_for_its_day_and_a_fourth_waits() {
    let (parley, project, mut rogue) = start(600).await;
    let nobody = parley.client();
    let (id, fence) = begin(&project, &mut rogue).await;
    let secrets = ["E", "I", "M", "Q"].map(|letter| format!("whsec_{}=", letter.repeat(43)));
    let [a, b, c, d] = &secrets;
    for secret in [a, b, c] {
        put_secret(&parley, &rogue, secret).await.is(200);
    }
    let refused = put_secret(&parley, &rogue, d).await.refused(409, "conflict");
    assert!(text(&refused["message"]).contains("three times"), "{refused}");
    // A secret that comes back ends no other one.
    put_secret(&parley, &rogue, a).await.is(200);
    for (number, secret) in [SECRET, a, b, c].into_iter().enumerate() {
        let (number, log) = (number.to_string(), json!({"fence": fence, "log": "x"}));
        let callback = Callback { secret, ..Callback::new(&id, &number, &log) };
        callback.send(&nobody).await.is(204);
    }
    let log = json!({"fence": fence, "log": "x"});
    let refused = Callback { secret: d, ..Callback::new(&id, "refused", &log) };
    refused.send(&nobody).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn jobs_of_a_deleted_bundle_end_at_once_and_its_callbacks_are_late() {
    let (parley, project, mut rogue) = start(86_400).await;
    let (nobody, admin) = (parley.client(), parley.as_user("admin"));
    let mut one_at_once = manifest(&["work"], 86_400);
    one_at_once["operations"][0]["concurrency"] = json!(1);
    register(&admin, "later", &rogue.url, &one_at_once).await.is(200);
    let (accepted, fence) = begin(&project, &mut rogue).await;
    let log = json!({"fence": fence, "log": "accepted"});
    Callback::new(&accepted, "1", &log).send(&nobody).await.is(204);
    let queued = text(&submit(&project, "later.work", json!({})).await.is(202)["id"]);
    admin.delete(&format!("{ADMIN}/later")).await.is(204);
    for id in [&accepted, &queued] {
        let job = until_state(&project.client, id, "failed").await;
        assert_eq!(job["error"]["code"], "unknown_operation", "{job}");
    }
    let late = json!({"fence": fence, "result": "late"});
    Callback::new(&accepted, "2", &late).send(&nobody).await.refused(409, "conflict");
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let forged = Callback { secret: other, ..Callback::new(&accepted, "3", &late) };
    forged.send(&nobody).await.refused(401, "unauthenticated");
    let told = rogue.called().await.body;
    assert_eq!(told, json!({"type": "cancel", "job": accepted, "fence": fence}));
    // Registered anew it takes a secret, like any new one, and works.
    let mut without = one_at_once.clone();
    without["url"] = json!(rogue.url);
    let refused = admin.call("PUT", &format!("{ADMIN}/later"), &without).await;
    assert_eq!(refused.refused(422, "invalid_field")["field"], "secret");
    assert_eq!(admin.get(ADMIN).await.is(200)["bundles"], json!([]));
    register(&admin, "later", &rogue.url, &one_at_once).await.is(201);
    begin(&project, &mut rogue).await;
}

#[tokio::test]
async fn a_cancel_reaches_a_bundle_that_was_away_for_longer_than_a_moment() {
    let away = Duration::from_secs(6);
    let cancelled_at = Arc::new(OnceLock::<Instant>::new());
    let since = cancelled_at.clone();
    let mut rogue = Rogue::start(move |call| match since.get() {
        _ if call["type"] == "run" => accepts(call),
        Some(since) if since.elapsed() > away => Says::Ends(status("204 No Content", "")),
        _ => Says::Ends(status("503 Service Unavailable", "")),
    })
    .await;
    let mut parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let manifest = manifest(&["work"], 600);
    register(&parley.as_user("admin"), "later", &rogue.url, &manifest).await.is(201);
    let (id, fence) = begin(&project, &mut rogue).await;
    let running = Callback::new(&id, "1", &json!({"fence": fence, "log": "at work"}));
    running.send(&parley.client()).await.is(204);
    cancelled_at.set(Instant::now()).expect("once");
    project.client.call("POST", &format!("{JOBS}/{id}/cancel"), &json!({})).await.is(200);
    let cancel = json!({"type": "cancel", "job": id, "fence": fence});
    assert_eq!(rogue.called().await.body, cancel);
    // The next process knows of it too.
    parley.kill().await;
    let parley = Parley::start_in(&parley.dir, &LOOPBACK).await;
    let mut tries = 1;
    while cancelled_at.get().is_some_and(|since| since.elapsed() <= away) {
        assert_eq!(rogue.called().await.body, cancel);
        tries += 1;
    }
    assert!(tries < 8, "a bundle that is away is called {tries} times");
    assert!(!rogue.is_called_within(Duration::from_secs(2)).await, "it is told after it has heard");
    drop(parley);
}

#[tokio::test]
async fn a_callback_of_an_older_call_changes_nothing() {
    let (parley, project, mut rogue) = start(600).await;
    let nobody = parley.client();
    let (id, first) = begin(&project, &mut rogue).await;
    Callback::new(&id, "1", &json!({"fence": first, "log": "first"})).send(&nobody).await.is(204);
    project.client.call("POST", &format!("{JOBS}/{id}/cancel"), &json!({})).await.is(200);
    project.client.call("POST", &format!("{JOBS}/{id}/retry"), &json!({})).await.is(202);
    let second = loop {
        let body = rogue.called().await.body;
        if body["type"] == "run" {
            break body["fence"].as_i64().expect("a fence");
        }
    };
    assert_ne!(first, second, "two calls have one name");
    for (number, line) in ["log", "progress", "result", "error"].into_iter().enumerate() {
        let said = match line {
            "progress" => json!({"done": 9}),
            "error" => json!({"code": "old", "message": "old"}),
            _ => json!("old"),
        };
        let (number, old) = (format!("old-{number}"), json!({"fence": first, line: said}));
        Callback::new(&id, &number, &old).send(&nobody).await.refused(409, "conflict");
    }
    let result = json!({"fence": second, "result": "new"});
    Callback::new(&id, "2", &result).send(&nobody).await.is(204);
    let job = until_state(&project.client, &id, "succeeded").await;
    assert_eq!((&job["result"], &job["progress"]["done"]), (&json!("new"), &json!(0)), "{job}");
    let logs = project.client.get(&format!("{JOBS}/{id}/logs")).await.is(200);
    assert!(!column(&logs["logs"], "message").contains(&"old".to_owned()), "{logs}");
}
