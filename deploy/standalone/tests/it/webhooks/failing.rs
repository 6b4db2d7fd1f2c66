//! Receivers that do what they should not, and what becomes of their webhooks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    bundle::{LOOPBACK, Rogue, Says, status},
    project::Project,
    support::{Parley, eventually, text},
    webhook::{Subscription, receiver, takes},
};

/// What receivers do, and the error that the log of deliveries has for it.
const DEEDS: [(&str, &str); 8] = [
    ("hangs", "timeout"),
    ("hangs_in_the_head", "timeout"),
    ("redirects", "redirected"),
    ("refuses", "not_accepted"),
    ("breaks", "not_accepted"),
    ("no_http", "connection_lost"),
    ("hangs_up", "connection_lost"),
    ("floods_the_head", "connection_lost"),
];

fn deed(deed: &str, inward: &str) -> Says {
    match deed {
        "hangs" => Says::Hangs(String::new()),
        "hangs_in_the_head" => Says::Hangs("HTTP/1.1 200 OK\r\nx: ".into()),
        "redirects" => {
            Says::Ends(status("307 Temporary Redirect", &format!("location: {inward}\r\n")))
        }
        "refuses" => Says::Ends(status("404 Not Found", "")),
        "breaks" => Says::Ends(status("500 Internal Server Error", "")),
        "no_http" => Says::Ends("220 mail.example.org ESMTP\r\n".into()),
        "hangs_up" => Says::Ends(String::new()),
        "floods_the_head" => Says::Floods(
            "HTTP/1.1 200 OK\r\n".into(),
            b"x-x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
        ),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn whatever_a_receiver_does_it_is_tried_again_by_name_and_nothing_else_waits() {
    let parley = Parley::start_with(&[&LOOPBACK[..], &["--proc-workers", "32"]].concat()).await;
    let project = parley.as_user("ada").project().await;
    let (mut inward, mut good) = (receiver().await, receiver().await);
    let of_good = Subscription::make(&project, &good.url, &["*"]).await;
    let mut bad = Vec::new();
    for (name, error) in DEEDS {
        let url = inward.url.clone();
        let rogue = Rogue::start(move |_| deed(name, &url)).await;
        bad.push((Subscription::make(&project, &rogue.url, &["*"]).await, name, error, rogue));
    }
    let before = parley.peak_memory_kib();
    project.send("hello").await;
    assert_eq!(of_good.verified(&good.called().await).1["message"]["text"], "hello");
    for (subscription, name, error, _) in &bad {
        let failed = async || subscription.show().await["failures"].as_i64() >= Some(1);
        eventually(name, failed).await;
        let delivery = subscription.deliveries().await.pop().expect("one");
        assert_eq!(
            (&delivery["status"], &delivery["error"]),
            (&json!("pending"), &json!(error)),
            "{name}"
        );
        assert_eq!(subscription.show().await["state"], "active");
    }
    let grown = parley.peak_memory_kib() - before;
    assert!(grown < 64 << 10, "{grown} KiB");
    assert!(!inward.is_called_within(Duration::from_millis(1)).await, "it followed a redirect");
}

#[tokio::test]
async fn an_answer_without_end_is_as_good_as_its_status() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver =
        Rogue::start(|_| Says::Floods("HTTP/1.1 200 OK\r\n\r\n".into(), &[b'x'; 4096])).await;
    let subscription = Subscription::make(&project, &receiver.url, &["*"]).await;
    for text in ["one", "two"] {
        project.send(text).await;
        let call = receiver.called().await;
        assert_eq!(subscription.verified(&call).1["message"]["text"], text);
        call.hung_up.await.unwrap();
    }
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_until_it_is_switched_on_again() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let is_gone = Arc::new(Mutex::new(true));
    let gone = is_gone.clone();
    let mut receiver = Rogue::start(move |_| {
        if *gone.lock().unwrap() { Says::Ends(status("410 Gone", "")) } else { takes() }
    })
    .await;
    let subscription = Subscription::make(&project, &receiver.url, &["message.created"]).await;
    for text in ["one", "two", "three"] {
        project.send(text).await;
    }
    let first = receiver.called().await;
    let disabled = async || subscription.show().await["state"] == "disabled";
    eventually("disabled", disabled).await;
    assert_eq!(subscription.show().await["reason"], "gone");
    let failed = subscription.deliveries().await;
    assert_eq!(
        (failed.len(), &failed[0]["status"], &failed[0]["http_status"]),
        (1, &json!("failed"), &json!(410))
    );
    assert!(!receiver.is_called_within(Duration::from_secs(2)).await, "it was called again");
    // What was missed is still there, and comes in order, the first by the name that it had.
    *is_gone.lock().unwrap() = false;
    let active = subscription.change(&json!({"active": true})).await;
    assert_eq!((&active["state"], &active["reason"]), (&json!("active"), &json!(null)));
    for (number, expected) in ["one", "two", "three"].into_iter().enumerate() {
        let call = receiver.called().await;
        assert_eq!(subscription.verified(&call).1["message"]["text"], expected);
        if number == 0 {
            assert_eq!(call.header("webhook-id"), first.header("webhook-id"));
        }
    }
    // A pause keeps what happens meanwhile, too.
    subscription.change(&json!({"active": false})).await;
    project.send("four").await;
    assert!(!receiver.is_called_within(Duration::from_secs(2)).await, "it was called in a pause");
    subscription.change(&json!({"active": true})).await;
    assert_eq!(subscription.verified(&receiver.called().await).1["message"]["text"], "four");
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_has_it_unless_its_owner_is_impatient() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let asked = AtomicUsize::new(0);
    let mut receiver = Rogue::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Says::Ends(status("429 Too Many Requests", "retry-after: 3\r\n")),
        1 => Says::Ends(status("503 Service Unavailable", "retry-after: 3600\r\n")),
        _ => takes(),
    })
    .await;
    let subscription = Subscription::make(&project, &receiver.url, &["*"]).await;
    project.send("hello").await;
    let first = receiver.called().await;
    let begun = Instant::now();
    let second = receiver.called().await;
    assert!(begun.elapsed() >= Duration::from_millis(2_500), "{:?}", begun.elapsed());
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.text, second.text);
    let waits = async || subscription.show().await["failures"] == 2;
    eventually("an hour", waits).await;
    // Whoever has mended it need not wait.
    let there = format!("{}there", receiver.url);
    assert_eq!(text(&subscription.change(&json!({"url": there})).await["url"]), there);
    let third = receiver.called().await;
    assert!(third.head.starts_with("POST /there "), "{}", third.head);
    subscription.verified(&third);
}

/// Starts Parley again as one whose webhooks have been failing for so long.
async fn restart(mut parley: Parley, failing_for: Duration) -> Parley {
    parley.terminate().await;
    let script = "import sqlite3, sys, time; db = sqlite3.connect(sys.argv[1]); \
                  since = int((time.time() - float(sys.argv[2])) * 1000); \
                  db.execute('UPDATE webhooks SET failing_since = ?, next_at = 0', [since]); db.commit()";
    let mut python = tokio::process::Command::new("python3");
    python.arg("-c").arg(script).arg(parley.dir.path().join("parley.db"));
    python.arg(failing_for.as_secs().to_string());
    assert!(python.status().await.expect("python3 starts").success());
    Parley::start_in(&parley.dir, &LOOPBACK).await
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_for_three_days_is_given_up_and_still_misses_nothing() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let is_back = Arc::new(Mutex::new(false));
    let back = is_back.clone();
    let mut receiver = Rogue::start(move |_| {
        if *back.lock().unwrap() { takes() } else { Says::Ends(status("500 Error", "")) }
    })
    .await;
    let subscription = Subscription::make(&project, &receiver.url, &["message.created"]).await;
    for text in ["one", "two"] {
        project.send(text).await;
    }
    let failures = async |of: &Subscription| of.show().await["failures"].as_i64().unwrap();
    eventually("a failure", async || failures(&subscription).await > 0).await;
    // Almost three days are not enough.
    let parley = restart(parley, Duration::from_hours(71)).await;
    let project = Project { client: parley.as_user("ada"), id: project.id };
    let subscription = subscription.of(&project);
    let before = failures(&subscription).await;
    eventually("another failure", async || failures(&subscription).await > before).await;
    assert_eq!(subscription.show().await["state"], "active");
    let parley = restart(parley, Duration::from_hours(72)).await;
    let project = Project { client: parley.as_user("ada"), id: project.id };
    let subscription = subscription.of(&project);
    eventually("the end", async || subscription.show().await["state"] == "disabled").await;
    assert_eq!(subscription.show().await["reason"], "failing");
    let log = subscription.deliveries().await;
    assert_eq!((log.len(), &log[0]["status"]), (1, &json!("failed")));
    while receiver.is_called_within(Duration::from_millis(1)).await {}
    *is_back.lock().unwrap() = true;
    subscription.change(&json!({"active": true})).await;
    for text in ["one", "two"] {
        assert_eq!(subscription.verified(&receiver.called().await).1["message"]["text"], text);
    }
}
