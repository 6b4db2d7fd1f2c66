//! A machine whose clock is set back: order, paging, read marks and jobs go on as if it had not been.

use serde_json::{Value, json};

use crate::{
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
