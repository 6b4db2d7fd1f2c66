//! Whose webhooks they are, what they may see, and what is said when something is not there any more.

use std::time::Duration;

use serde_json::json;

use super::trimmed;
use crate::{
    bundle::LOOPBACK,
    project::Project,
    support::{Parley, eventually, text},
    webhook::{Subscription, receiver},
};

#[tokio::test]
async fn who_is_no_owner_any_more_gets_no_more() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let graces = project.with("grace", "owner").await;
    let mut receiver = receiver().await;
    let subscription = Subscription::make(&graces, &receiver.url, &["message.created"]).await;
    project.send("before").await;
    assert_eq!(subscription.verified(&receiver.called().await).1["message"]["text"], "before");
    project.with("grace", "member").await;
    project.send("after").await;
    let by_ada = subscription.of(&project);
    let disabled = async || by_ada.show().await["reason"] == "not_owner";
    eventually("disabled", disabled).await;
    assert_eq!(by_ada.show().await["state"], "disabled");
    assert!(!receiver.is_called_within(Duration::from_millis(1)).await, "it was told");
    let path = by_ada.path("");
    graces.client.get(&path).await.refused(403, "forbidden");
    graces.client.call("PATCH", &path, &json!({"active": true})).await.refused(403, "forbidden");
    // Another owner takes it over, as theirs.
    assert_eq!(by_ada.change(&json!({"active": true})).await["owner"], "ada");
    assert_eq!(by_ada.verified(&receiver.called().await).1["message"]["text"], "after");
    project.delete("/members/grace").await.is(204);
    graces.client.get(&path).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_co_owner_who_changes_what_goes_where_is_the_owner_and_loses_it_with_the_role() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let (mut adas, mut graces) = (receiver().await, receiver().await);
    for change in ["url", "events", "rotate"] {
        let of_grace = project.with("grace", "owner").await;
        let by_ada = Subscription::make(&project, &adas.url, &["message.created"]).await;
        let path = by_ada.path("");
        let call = async |method: &str, path: &str, body| {
            of_grace.client.call(method, path, &body).await.is(200)
        };
        let changed = match change {
            "url" => call("PATCH", &path, json!({"url": graces.url})).await,
            "events" => call("PATCH", &path, json!({"events": ["*"]})).await,
            _ => call("POST", &by_ada.path("/rotate"), json!({})).await,
        };
        assert_eq!(changed["owner"], "grace", "{change}");
        project.delete("/members/grace").await.is(204);
        project.send("confidential").await;
        let disabled = async || by_ada.show().await["reason"] == "not_owner";
        eventually("disabled", disabled).await;
        for receiver in [&mut adas, &mut graces] {
            let is_called = receiver.is_called_within(Duration::from_millis(1)).await;
            assert!(!is_called, "{change}: it was told after the removal");
        }
        // A pause alone takes nothing over.
        let again = by_ada.change(&json!({"active": true})).await;
        assert_eq!(again["owner"], "ada");
        project.client.delete(&path).await.is(204);
    }
}

#[tokio::test]
async fn a_pause_leaves_the_owner_as_it_is() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let of_grace = project.with("grace", "owner").await;
    let by_ada = Subscription::make(&project, "http://127.0.0.1:9/", &["*"]).await;
    let paused = json!({"active": false});
    let paused = of_grace.client.call("PATCH", &by_ada.path(""), &paused).await.is(200);
    assert_eq!((&paused["owner"], &paused["state"]), (&json!("ada"), &json!("paused")));
}

#[tokio::test]
async fn a_log_that_does_not_go_on_is_told_as_a_reset_and_never_a_silent_hole() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver = receiver().await;
    let subscription = Subscription::make(&project, &receiver.url, &["message.created"]).await;
    project.send("first").await;
    receiver.called().await;
    let delivered = async || subscription.deliveries().await.len() == 1;
    eventually("the log of deliveries", delivered).await;
    let first = subscription.deliveries().await.remove(0);
    let old = project.cursor().await;
    subscription.change(&json!({"active": false})).await;
    for number in 0..10 {
        project.send(&format!("missed {number}")).await;
    }
    let (_parley, project) = trimmed(parley, &project, "3", &old).await;
    let subscription = subscription.of(&project);
    let old = subscription.redeliver(&first["seq"]).await.is(202);
    let old = crate::job::until_state(&project.client, &text(&old["id"]), "failed").await;
    assert_eq!(old["error"]["code"], "expired");
    subscription.change(&json!({"active": true})).await;
    let call = receiver.called().await;
    let (kind, event) = subscription.verified(&call);
    assert_eq!((kind.as_str(), &event["reason"]), ("reset", &json!("expired")));
    assert_eq!(event["project_id"], json!(project.id));
    project.send("next").await;
    // Every event that the log still has comes behind the reset.
    for text in ["missed 7", "missed 8", "missed 9", "next"] {
        let call = receiver.called().await;
        assert_eq!(subscription.verified(&call).1["message"]["text"], text, "{}", call.text);
    }
    let logged = async || subscription.deliveries().await.len() == 6;
    eventually("the log of deliveries", logged).await;
    let log = subscription.deliveries().await;
    assert_eq!((&log[1]["type"], &log[1]["status"]), (&json!("reset"), &json!("delivered")));
    subscription.redeliver(&log[1]["seq"]).await.refused(409, "conflict");
    // The first event that is kept can be delivered again, though the entry before it is gone.
    assert_eq!(log[2]["type"], "message.created");
    subscription.redeliver(&log[2]["seq"]).await.is(202);
    assert_eq!(subscription.verified(&receiver.called().await).1["message"]["text"], "missed 7");
}

#[tokio::test]
async fn each_secret_that_was_replaced_is_good_for_a_day_however_often_it_is_replaced() {
    let mut parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver = receiver().await;
    let mut newest = Subscription::make(&project, &receiver.url, &["message.created"]).await;
    let mut good = Vec::new();
    for rotations in 1..=3 {
        good.push(newest.rotate().await);
        let text = format!("rotated {rotations}");
        project.send(&text).await;
        let call = receiver.called().await;
        assert_eq!(call.header("webhook-signature").split(' ').count(), rotations + 1);
        for secret in good.iter().chain([&newest]) {
            assert_eq!(secret.verified(&call).1["message"]["text"], json!(text));
        }
    }
    // A fourth one would end a secret before its time.
    let refused = project.client.call("POST", &newest.path("/rotate"), &json!({})).await;
    let refused = refused.refused(409, "conflict");
    assert!(text(&refused["message"]).contains("three times"), "{refused}");
    project.send("refused").await;
    let call = receiver.called().await;
    for secret in good.iter().chain([&newest]) {
        secret.verified(&call);
    }
    // A day after the second rotation its secret makes room.
    parley.terminate().await;
    crate::secrets::sql(parley.dir.path(), "UPDATE webhooks SET old_until_2 = 1");
    let parley = Parley::start_in(&parley.dir, &LOOPBACK).await;
    let project = Project { client: parley.as_user("ada"), id: project.id };
    let mut newest = newest.of(&project);
    good.remove(1);
    good.push(newest.rotate().await);
    project.send("a day later").await;
    let call = receiver.called().await;
    assert_eq!(call.header("webhook-signature").split(' ').count(), 4);
    for secret in good.iter().chain([&newest]) {
        assert_eq!(secret.verified(&call).1["message"]["text"], "a day later");
    }
}
