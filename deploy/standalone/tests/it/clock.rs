//! A machine whose clock is set back: order, paging, read marks and jobs go on as if it had not been.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    fixture::restore_sqlite,
    job::run,
    project::Project,
    support::{Parley, column, text},
};

/// An hour back, by `libfaketime`.
const HOUR_BACK: [(&str, &str); 4] = [
    ("LD_PRELOAD", "libfaketimeMT.so.1"),
    ("LD_LIBRARY_PATH", "/usr/lib/x86_64-linux-gnu/faketime:/usr/lib/aarch64-linux-gnu/faketime"),
    ("FAKETIME", "-3600"),
    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
];

#[tokio::test]
async fn messages_that_are_sent_at_once_have_ascending_times() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let numbers: Vec<String> = (0..64).map(|number| number.to_string()).collect();
    join_all(numbers.iter().map(|number| project.send(number))).await;
    let history = project.history().await;
    assert_eq!(history.len(), numbers.len(), "messages of history");
    let times: Vec<String> = history.iter().map(|message| text(&message["created_at"])).collect();
    assert!(times.is_sorted_by(|earlier, later| earlier < later), "not ascending: {times:?}");
}

#[tokio::test]
async fn a_message_after_an_upgrade_is_later_than_those_before_whatever_the_clock_says() {
    let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
    let id = restore_sqlite(&dir);
    let env = [HOUR_BACK[0], HOUR_BACK[1], ("FAKETIME", "@2020-01-01 00:00:00"), HOUR_BACK[3]];
    let parley = Parley::start_with_env(&dir, &env).await;
    let project = Project { client: parley.as_user("ada"), id };
    let last = project.get("/messages?limit=1").await.is(200)["messages"][0].clone();
    let sent = project.send("after the upgrade").await;
    assert!(text(&sent["created_at"]) > text(&last["created_at"]), "{sent} after {last}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_changes_neither_order_nor_paging_nor_jobs() {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let first = project.send("first").await;
    let second = project.send("second").await;
    parley.kill().await;
    let parley = Parley::start_with_env(&parley.dir, &HOUR_BACK).await;
    let project = Project { client: parley.as_user("ada"), ..project };
    let third = project.send("third").await;
    assert!(text(&third["created_at"]) > text(&second["created_at"]), "{third} after {second}");
    assert_eq!(project.history().await, [first, second.clone(), third.clone()]);
    let after = project.get(&format!("/messages?after={}", text(&second["id"]))).await.is(200);
    assert_eq!(column(&after["messages"], "id"), [text(&third["id"])]);
    let read = |message: &Value| json!({"channel": "general", "message_id": message["id"]});
    project.call("PUT", "/read", &read(&second)).await.is(200);
    let mark = project.call("PUT", "/read", &read(&third)).await.is(200);
    assert_eq!(mark["message_id"], third["id"], "the read mark did not move");

    let job = run(&project, "demo.count", json!({"to": 1})).await;
    assert_eq!(job["state"], "succeeded", "{job}");
}
