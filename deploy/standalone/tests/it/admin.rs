//! What admins see of jobs: the queue, who runs what, what was given up.

use serde_json::{Value, json};

use crate::{
    bundle::{LOOPBACK, Rogue, Says, manifest, register, status},
    job::{JOBS, submit, until_state},
    support::{Parley, column, text},
};

const ADMIN: &str = "/api/integrations/admin";

#[tokio::test]
async fn the_queue_and_the_workers_show_what_waits_and_what_runs() {
    let parley = Parley::start_with(&["--proc-workers", "1"]).await;
    let (admin, project) = (parley.as_user("admin"), parley.as_user("ada").project().await);
    let queue = async || admin.get(&format!("{ADMIN}/queue")).await.is(200);
    let empty = queue().await;
    assert_eq!((&empty["queued"], &empty["operations"]), (&json!(0), &json!([])));
    assert_eq!(empty["oldest_wait_seconds"], Value::Null);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let job = submit(&project, "demo.count", json!({"to": 300, "delay_ms": 1000})).await;
        ids.push(text(&job.is(202)["id"]));
    }
    until_state(&project.client, &ids[0], "running").await;
    let full = queue().await;
    for counts in [&full, &full["operations"][0]] {
        for (name, count) in [
            ("running", 1),
            ("queued", 2),
            ("due", 2),
            ("interrupted", 0),
            ("retrying", 0),
            ("snoozed", 0),
        ] {
            assert_eq!(counts[name], count, "{name}: {full}");
        }
        assert!(counts["oldest_wait_seconds"].as_f64().is_some_and(|wait| wait < 60.0), "{full}");
    }
    assert_eq!(full["parked"], 0);
    let operations = &full["operations"];
    assert_eq!(
        (&operations[0]["bundle"], &operations[0]["operation"]),
        (&json!("demo"), &json!("count"))
    );

    let workers = admin.get(&format!("{ADMIN}/workers")).await.is(200);
    let worker = &workers["workers"][0];
    assert_eq!(workers["workers"].as_array().unwrap().len(), 1);
    assert_eq!(column(&worker["jobs"], "id"), ids[..1]);
    assert_eq!(
        (&worker["jobs"][0]["owner"], &worker["jobs"][0]["operation"]),
        (&json!("ada"), &json!("count"))
    );
    assert!(text(&worker["started_at"]) < text(&worker["jobs"][0]["started_at"]));
    assert!(text(&worker["lease_until"]) > text(&worker["jobs"][0]["started_at"]));
    assert!(parley.log().contains(&text(&worker["id"])), "the log says which process it is");
}

#[tokio::test]
async fn what_was_given_up_is_listed_and_starts_over() {
    let flags = [&LOOPBACK[..], &["--log", "info", "--proc-retry-spread", "2s"]].concat();
    let parley = Parley::start_with(&flags).await;
    let (admin, project) = (parley.as_user("admin"), parley.as_user("ada").project().await);
    let broken = Rogue::start(|_| Says::Ends(status("500 Internal Server Error", ""))).await;
    register(&admin, "nobody", &broken.url, &manifest(&["home"], 5)).await.is(201);
    let id = text(&submit(&project, "nobody.home", json!({})).await.is(202)["id"]);
    // What fails for good was not given up: it would fail again.
    let hopeless = json!({"upload_id": uuid::Uuid::now_v7().to_string()});
    let hopeless = text(&submit(&project, "chat.import", hopeless).await.is(202)["id"]);
    until_state(&project.client, &hopeless, "failed").await;
    let failed = until_state(&project.client, &id, "failed").await;
    assert_eq!((&failed["attempt"], &failed["error"]["retryable"]), (&json!(3), &json!(true)));

    let parked = async |query: &str| {
        let list = admin.get(&format!("{ADMIN}/parked{query}")).await.is(200);
        column(&list["jobs"], "id")
    };
    let code = text(&failed["error"]["code"]);
    assert_eq!(parked("").await, [id.as_str()]);
    assert_eq!(parked(&format!("?bundle=nobody&operation=home&code={code}")).await, [id.as_str()]);
    for other in [
        "?bundle=chat".to_owned(),
        "?operation=away".to_owned(),
        format!("?code={}", &code[..code.len() - 1]),
        "?code=%25".to_owned(),
        "?code=%00%22".to_owned(),
        format!("?cursor={id}"),
    ] {
        assert!(parked(&other).await.is_empty(), "{other}");
    }
    for junk in ["bundle=%00", "limit=0", "cursor=x"] {
        admin.get(&format!("{ADMIN}/parked?{junk}")).await.refused(400, "invalid_request");
    }
    assert_eq!(admin.get(&format!("{ADMIN}/queue")).await.is(200)["parked"], 1);

    let retry = async |body: Value| {
        let path = format!("{ADMIN}/parked/retry");
        admin.call("POST", &path, &body).await
    };
    assert_eq!(retry(json!({"operation": "away"})).await.is(200)["retried"], 0);
    retry(json!({"limit": 201})).await.refused(422, "invalid_field");
    assert_eq!(retry(json!({"bundle": "nobody", "code": code})).await.is(200)["retried"], 1);
    assert!(parked("").await.is_empty());
    let again = project.client.get(&format!("{JOBS}/{id}")).await.is(200);
    assert_ne!(again["state"], "failed");
    assert_eq!(retry(json!({})).await.is(200)["retried"], 0);
}
