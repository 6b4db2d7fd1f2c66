//! Owners who skip an event, and who have events delivered again from a time on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use shared::time::Timestamp;

use super::trimmed;
use crate::{
    bundle::{LOOPBACK, Rogue, Says, status},
    project::Project,
    support::{Answer, Parley, column, eventually, text},
    webhook::{Subscription, numbered, receiver, takes},
};

/// Start of replays of everything.
fn an_hour_ago() -> String {
    Timestamp::now().before(Duration::from_hours(1)).to_string()
}

/// Receiver that answers messages with `poison` by this status, and takes all others.
async fn poisoned(refusal: &'static str) -> Rogue {
    Rogue::start(move |call| match call["data"]["message"]["text"].as_str() {
        Some("poison") => Says::Ends(status(refusal, "")),
        _ => takes(),
    })
    .await
}

async fn skip(of: &Subscription, seq: &Value) -> Answer {
    let path = of.path(&format!("/deliveries/{seq}/skip"));
    of.project.client.call("POST", &path, &json!({})).await
}

async fn replay(of: &Subscription, from: &str) -> Answer {
    of.project.client.call("POST", &of.path("/replay"), &json!({"from": from})).await
}

/// Waits for the message of this text, whatever comes before.
async fn until_message(receiver: &mut Rogue, last: &str) {
    while receiver.called().await.body["data"]["message"]["text"] != last {}
}

#[tokio::test]
async fn an_event_that_is_never_taken_is_skipped_by_an_owner_and_the_next_ones_come() {
    for (refusal, state) in [("500 Internal Server Error", "active"), ("410 Gone", "disabled")] {
        let parley = Parley::start_with(&LOOPBACK).await;
        let project = parley.as_user("ada").project().await;
        let mut receiver = poisoned(refusal).await;
        let subscription = Subscription::make(&project, &receiver.url, &["message.created"]).await;
        for text in ["one", "poison", "two"] {
            project.send(text).await;
        }
        until_message(&mut receiver, "poison").await;
        let is_noted = async || subscription.deliveries().await.len() == 2;
        eventually("the attempt is noted", is_noted).await;
        assert_eq!(subscription.show().await["state"], state);
        let deliveries = subscription.deliveries().await;
        let (delivered, poison) = (&deliveries[0]["seq"], &deliveries[1]["seq"]);
        skip(&subscription, &json!(123_456)).await.refused(404, "not_found");
        skip(&subscription, delivered).await.refused(409, "conflict");
        let skipped = skip(&subscription, poison).await.is(200);
        assert_eq!((&skipped["status"], &skipped["seq"]), (&json!("skipped"), poison));
        skip(&subscription, poison).await.refused(409, "conflict");
        let shown = subscription.show().await;
        assert_eq!((&shown["failures"], &shown["state"]), (&json!(0), &json!(state)));
        if state == "disabled" {
            subscription.change(&json!({"active": true})).await;
        }
        until_message(&mut receiver, "two").await;
        let statuses = async || column(&json!(subscription.deliveries().await), "status");
        let expected = ["delivered", "skipped", "delivered"];
        eventually("all is noted", async || statuses().await == expected).await;
    }
}

#[tokio::test]
async fn deliveries_since_a_time_are_made_again_in_order_under_the_same_ids() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver = receiver().await;
    let subscription = Subscription::make(&project, &receiver.url, &["message.created"]).await;
    let mut calls = Vec::new();
    for text in ["one", "two", "three", "four"] {
        project.send(text).await;
        calls.push(receiver.called().await);
        let count = calls.len();
        eventually("it is noted", async || subscription.deliveries().await.len() == count).await;
    }
    let deliveries = subscription.deliveries().await;
    // Delivered again just now, the first is not one of those that were delivered since.
    subscription.redeliver(&deliveries[0]["seq"]).await.is(202);
    receiver.called().await;
    let is_noted = async || subscription.deliveries().await[0]["attempts"] == 2;
    eventually("the second delivery is noted", is_noted).await;
    let at = text(&deliveries[2]["at"]);
    let replayed = replay(&subscription, &at).await.is(200);
    assert_eq!(replayed, json!({"deliveries": 2, "seq": deliveries[2]["seq"]}));
    for call in &calls[2..] {
        let again = receiver.called().await;
        assert_eq!(again.header("webhook-id"), call.header("webhook-id"), "{}", again.text);
        assert_eq!(again.text, call.text);
    }
    project.send("five").await;
    assert_eq!(receiver.called().await.body["data"]["message"]["text"], "five");
    for bad in ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "yesterday"] {
        let refused = replay(&subscription, bad).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], "from", "{bad}");
    }
}

#[tokio::test]
async fn a_replay_never_passes_an_event_that_still_waits() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver = poisoned("500 Internal Server Error").await;
    let subscription = Subscription::make(&project, &receiver.url, &["message.created"]).await;
    project.send("one").await;
    project.send("poison").await;
    until_message(&mut receiver, "poison").await;
    eventually("it is noted", async || subscription.deliveries().await.len() == 2).await;
    let at = text(&subscription.deliveries().await[1]["at"]);
    let replayed = replay(&subscription, &at).await.is(200);
    assert_eq!(replayed["deliveries"], 0, "only the event that waits anyway");
    let (one, poison) = {
        let mut deliveries = subscription.deliveries().await;
        let poison = deliveries.pop().expect("two");
        (deliveries.pop().expect("two"), poison)
    };
    let replayed = replay(&subscription, &text(&one["at"])).await.is(200);
    assert_eq!(replayed["seq"], one["seq"]);
    until_message(&mut receiver, "poison").await;
    skip(&subscription, &poison["seq"]).await.is(200);
    project.send("two").await;
    until_message(&mut receiver, "two").await;
}

/// Receiver that takes everything while the switch is on, and nothing while it is off.
async fn switched() -> (Rogue, Arc<AtomicBool>) {
    let is_on = Arc::new(AtomicBool::new(true));
    let on = is_on.clone();
    let receiver = Rogue::start(move |_| {
        if on.load(Ordering::SeqCst) { takes() } else { Says::Ends(status("500 Error", "")) }
    });
    (receiver.await, is_on)
}

#[tokio::test]
async fn a_replay_from_before_the_kept_log_begins_at_its_first_event_and_passes_none() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let old = project.cursor().await;
    let (mut receiver, is_on) = switched().await;
    let subscription = Subscription::make(&project, &receiver.url, &["message.created"]).await;
    for text in numbered(20) {
        project.send(&text).await;
    }
    let count = async |of: &Subscription| of.deliveries().await.len();
    eventually("all are noted", async || count(&subscription).await == 20).await;
    is_on.store(false, Ordering::SeqCst);
    for text in ["waits 1", "waits 2", "waits 3"] {
        project.send(text).await;
    }
    eventually("a failure is noted", async || count(&subscription).await == 21).await;
    let (_parley, project) = trimmed(parley, &project, "10", &old).await;
    let subscription = subscription.of(&project);
    let kept = subscription.deliveries().await;
    let replayed = replay(&subscription, &an_hour_ago()).await.is(200);
    // Seven of the ten entries that are kept were delivered.
    assert_eq!(replayed, json!({"deliveries": 7, "seq": kept[13]["seq"]}));
    is_on.store(true, Ordering::SeqCst);
    until_message(&mut receiver, "waits 3").await;
    eventually("all are noted", async || count(&subscription).await == 23).await;
    let log = subscription.deliveries().await;
    let attempts = |range: std::ops::Range<usize>| {
        log[range].iter().map(|delivery| delivery["attempts"].as_i64()).collect::<Vec<_>>()
    };
    assert!(attempts(0..13).iter().all(|attempts| *attempts == Some(1)), "{log:?}");
    assert!(attempts(13..20).iter().all(|attempts| *attempts >= Some(2)), "{log:?}");
    assert!(log.iter().all(|delivery| delivery["status"] == "delivered"), "{log:?}");
    assert!(log.iter().all(|delivery| delivery["type"] == "message.created"), "{log:?}");
}

/// Both types of events that the project's message `one` has with its reaction.
const MESSAGES_AND_REACTIONS: [&str; 2] = ["message.created", "reaction.added"];

/// Sends a message and adds a reaction to it.
async fn send_with_reaction(project: &Project, text: &str) {
    let message = project.send(text).await;
    let path = format!("/messages/{}/reactions/x", message["id"].as_str().expect("an id"));
    project.call("PUT", &path, &json!({})).await.is(200);
}

/// Waits until the delivery of this number, oldest first, waits to be tried again.
async fn until_pending(of: &Subscription, number: usize) -> Value {
    let is_pending = async || {
        let deliveries = of.deliveries().await;
        deliveries.get(number).is_some_and(|delivery| delivery["status"] == "pending")
    };
    eventually("the delivery waits", is_pending).await;
    of.deliveries().await.remove(number)
}

#[tokio::test]
async fn an_event_behind_a_delivery_that_is_not_wanted_any_more_can_be_skipped() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let (mut receiver, is_on) = switched().await;
    let subscription = Subscription::make(&project, &receiver.url, &MESSAGES_AND_REACTIONS).await;
    send_with_reaction(&project, "one").await;
    project.send("two").await;
    let are_noted = async || subscription.deliveries().await.len() == 3;
    eventually("three are noted", are_noted).await;
    subscription.change(&json!({"events": ["message.created"]})).await;
    is_on.store(false, Ordering::SeqCst);
    let first = subscription.deliveries().await.remove(0);
    let replayed = replay(&subscription, &an_hour_ago()).await.is(200);
    assert_eq!(replayed, json!({"deliveries": 2, "seq": first["seq"]}), "only wanted events");
    for number in [0, 2] {
        let pending = until_pending(&subscription, number).await;
        if number == 0 {
            let last = subscription.deliveries().await.remove(2);
            skip(&subscription, &last["seq"]).await.refused(409, "conflict");
        }
        let skipped = skip(&subscription, &pending["seq"]).await.is(200);
        assert_eq!(skipped["status"], "skipped", "number {number}");
    }
    is_on.store(true, Ordering::SeqCst);
    project.send("three").await;
    until_message(&mut receiver, "three").await;
    let statuses = async || column(&json!(subscription.deliveries().await), "status");
    let expected = ["skipped", "delivered", "skipped", "delivered"];
    eventually("all is noted", async || statuses().await == expected).await;
}

#[tokio::test]
async fn a_delivery_that_waits_is_skipped_once_its_type_is_not_wanted_any_more() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver = Rogue::start(|call| match call["type"].as_str() {
        Some("reaction.added") => Says::Ends(status("500 Error", "")),
        _ => takes(),
    })
    .await;
    let subscription = Subscription::make(&project, &receiver.url, &MESSAGES_AND_REACTIONS).await;
    send_with_reaction(&project, "one").await;
    let reaction = until_pending(&subscription, 1).await;
    assert_eq!(reaction["type"], "reaction.added");
    subscription.redeliver(&reaction["seq"]).await.refused(409, "conflict");
    subscription.change(&json!({"events": ["message.created"]})).await;
    assert_eq!(subscription.deliveries().await[1]["status"], "skipped");
    project.send("two").await;
    until_message(&mut receiver, "two").await;
    let statuses = async || column(&json!(subscription.deliveries().await), "status");
    let expected = ["delivered", "skipped", "delivered"];
    eventually("all is noted", async || statuses().await == expected).await;
    subscription.redeliver(&reaction["seq"]).await.is(202);
    let again = receiver.called().await;
    assert_eq!(again.header("webhook-id"), text(&reaction["message_id"]), "{}", again.text);
}
