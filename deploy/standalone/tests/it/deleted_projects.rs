//! Deletion of a project: at once for everybody, and of all its data afterwards, whenever the process ends.

use serde_json::{Value, json};

use crate::{
    bundle::LOOPBACK,
    contents::Contents,
    job::run,
    project::Project,
    support::{Parley, eventually, text},
    webhook::{WEBHOOKS, subscribe},
};

/// Tables that have nothing of a project that was deleted.
const EMPTY: [&str; 14] = [
    "projects",
    "members",
    "people",
    "channels",
    "messages",
    "reactions",
    "reaction_counts",
    "read_marks",
    "presence",
    "webhooks",
    "webhook_deliveries",
    "schedules",
    "answers",
    "artifacts",
];

/// Gives a project something in every table.
async fn fill(ada: &Project) {
    let mut last = String::new();
    for number in 0..80 {
        last = text(&ada.send(&format!("printer {number} wants walnut oil")).await["id"]);
    }
    for emoji in ["👍", "🎉"] {
        ada.call("PUT", &format!("/messages/{last}/reactions/{emoji}"), &json!({})).await.is(200);
    }
    let mark = json!({"channel": "general", "message_id": last});
    assert!(ada.call("PUT", "/read", &mark).await.status < 300);
    // Nothing listens there, so the delivery waits to be tried again.
    subscribe(ada, "http://127.0.0.1:9/hook", &["*"]).await.is(201);
    let schedule = json!({"project_id": ada.id, "bundle": "demo", "operation": "count", "data": {"to": 1},
        "cron": "0 0 1 1 *"});
    ada.client.call("POST", "/api/integrations/schedules", &schedule).await.is(201);
    let question =
        [("query", "what does the printer want?"), ("project_id", &ada.id), ("stream_id", "a")];
    eventually("the answer has begun", async || {
        let request = ada.client.request("GET", "/stream/search").query(&question);
        request.send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

#[tokio::test]
async fn a_deleted_project_is_gone_at_once_and_leaves_nothing_even_after_a_kill() {
    let flags = [&LOOPBACK[..], &["--log", "info"]].concat();
    let mut parley = Parley::start_with(&flags).await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "viewer").await;
    fill(&ada).await;
    let export = run(&ada, "chat.export", json!({})).await;
    let artifact = text(&export["result"]["artifact"]["url"]);
    assert_eq!(ada.client.get(&artifact).await.status, 200);
    let (mut stream, _) = grace.stream("").await;

    ada.delete("").await.is(204);
    let rest = stream.rest().await;
    assert_eq!(rest.last().expect("a last word").data["reason"], "revoked", "{rest:?}");
    for project in [&ada, &grace] {
        for path in
            ["", "/members", "/channels", "/messages", "/presence", "/events", "/search?q=walnut"]
        {
            project.get(path).await.refused(404, "not_found");
        }
        let message = json!({"text": "late"});
        project.call("POST", "/messages", &message).await.refused(404, "not_found");
        let list = project.client.get("/api/chat/projects").await.is(200);
        assert_eq!(list["projects"], json!([]));
        let path = format!("/sse/stream?project_id={}", project.id);
        project.client.get(&path).await.refused(404, "not_found");
    }
    ada.delete("").await.refused(404, "not_found");
    let hooks = format!("{WEBHOOKS}?project_id={}", ada.id);
    ada.client.get(&hooks).await.refused(404, "not_found");

    // The data are deleted by whoever comes next.
    parley.kill().await;
    let mut parley = Parley::start_in(&parley.dir, &flags).await;
    eventually("both services have deleted the project's data", async || {
        let log = parley.log();
        ["deleted the chat of a project", "deleted the work of a project"]
            .iter()
            .all(|line| log.contains(line))
    })
    .await;
    assert!(parley.terminate().await.success());
    let contents = Contents::read(parley.dir.path()).await;
    for table in EMPTY {
        assert_eq!(contents.count(table), 0, "rows of {table} are left");
    }
    let left = contents.having("walnut");
    assert!(left.is_empty(), "the text of the project is still in {left:?}");
    let files = parley.dir.path().join("blobs").join("artifacts");
    let files = walk(&files);
    assert!(files.is_empty(), "files of the project's jobs are left: {files:?}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn another_project_keeps_everything() {
    let parley = Parley::start_with(&["--log", "info"]).await;
    let ada = parley.as_user("ada");
    let (gone, kept) = (ada.project().await, ada.project().await);
    let sent: Value = kept.send("walnut").await;
    gone.send("walnut").await;
    gone.delete("").await.is(204);
    eventually("the project's data are deleted", async || {
        parley.log().contains("deleted the chat of a project")
    })
    .await;
    assert_eq!(kept.history().await, [sent]);
    assert_eq!(kept.get("/members").await.is(200)["members"].as_array().map(Vec::len), Some(1));
}
