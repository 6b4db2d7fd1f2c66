//! Receivers that are away, and a Parley that dies: nothing is missing, and everything is in order.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::interval;

use crate::{
    bundle::{LOOPBACK, Rogue},
    project::Project,
    support::{Parley, eventually},
    webhook::{Received, Subscription, numbered, receiver, takes},
};

/// Seconds for which the receiver is away; without it, for two failures.
const OUTAGE: &str = "PARLEY_TEST_OUTAGE_SECONDS";

const CREATED: [&str; 1] = ["message.created"];

async fn send(project: &Project, texts: &[String]) {
    for text in texts {
        project.send(text).await;
    }
}

#[tokio::test]
async fn all_that_happens_while_a_receiver_is_away_arrives_when_it_is_back() {
    #[expect(clippy::disallowed_methods, reason = "how long a test lasts is no setting")]
    let outage = std::env::var(OUTAGE).ok().map(|text| text.parse().expect("seconds"));
    let outage = outage.map(Duration::from_secs);
    let parley = Parley::start_with(&[&LOOPBACK[..], &["--proc-workers", "4"]].concat()).await;
    let project = parley.as_user("ada").project().await;
    let (mut away, mut steady) = (receiver().await, receiver().await);
    let address = away.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let of_away = Subscription::make(&project, &away.url, &CREATED).await;
    let of_steady = Subscription::make(&project, &steady.url, &CREATED).await;
    let (mut from_away, mut from_steady) = (Received::default(), Received::default());

    send(&project, &numbered(20)).await;
    from_away.until(&of_away, &mut away, "number 20").await;
    // Away: connections are refused while messages go on.
    drop(away);
    let gone = Instant::now();
    let mut sent = 20;
    let mut texts = numbered(100_000).split_off(sent).into_iter();
    // A hundred messages a second, whoever is away.
    let mut pace = interval(Duration::from_millis(200));
    loop {
        pace.tick().await;
        for text in texts.by_ref().take(20) {
            project.send(&text).await;
            sent += 1;
        }
        let is_over = match outage {
            Some(outage) => gone.elapsed() >= outage,
            None => sent >= 200 && of_away.show().await["failures"].as_i64() >= Some(2),
        };
        if is_over {
            break;
        }
    }
    let shown = of_away.show().await;
    assert_eq!(shown["state"], "active");
    assert!(
        shown["failures"].as_i64() >= Some(1) && shown["next_attempt_at"].is_string(),
        "{shown}"
    );
    let pending = of_away.deliveries().await.pop().expect("one");
    assert_eq!((&pending["status"], &pending["error"]), (&json!("pending"), &json!("unreachable")));
    of_away.redeliver(&pending["seq"]).await.refused(409, "conflict");
    let away_for = gone.elapsed();
    let mut back = Rogue::start_at(&address, |_| takes()).await;
    let returned = Instant::now();
    send(&project, &texts.by_ref().take(20).collect::<Vec<_>>()).await;
    sent += 20;
    let last = format!("number {sent}");
    from_away.until(&of_away, &mut back, &last).await;
    let caught_up = returned.elapsed();
    from_steady.until(&of_steady, &mut steady, &last).await;
    for received in [&from_away, &from_steady] {
        assert!(received.texts == numbered(sent), "something is missing, doubled or out of order");
    }
    assert_eq!(of_away.show().await["failures"], 0);
    println!(
        "away for {away_for:?}, {sent} messages sent: {} received in order and once each by webhook-id, every signature \
         verified by standardwebhooks, {} deliveries repeated, the first after {} attempts; all there {caught_up:?} after \
         the receiver was back; the other webhook had {} in order",
        from_away.texts.len(),
        from_away.again,
        1 + pending["attempts"].as_i64().unwrap(),
        from_steady.texts.len(),
    );
}

#[tokio::test]
async fn a_kill_in_the_middle_loses_nothing_and_keeps_the_order() {
    let mut parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver = receiver().await;
    let subscription = Subscription::make(&project, &receiver.url, &CREATED).await;
    let mut received = Received::default();
    send(&project, &numbered(100)).await;
    received.until(&subscription, &mut receiver, "number 30").await;
    parley.kill().await;
    let parley = Parley::start_in(&parley.dir, &LOOPBACK).await;
    let project = Project { client: parley.as_user("ada"), id: project.id };
    let subscription = subscription.of(&project);
    project.send("the last").await;
    received.until(&subscription, &mut receiver, "the last").await;
    let mut expected = numbered(100);
    expected.push("the last".into());
    assert_eq!(received.texts, expected);
    // At most what was under way is told twice.
    assert!(received.again <= 1, "{}", received.again);
    let settled = async || subscription.deliveries().await.len() == 101;
    eventually("the log of deliveries", settled).await;
}
