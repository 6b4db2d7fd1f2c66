//! Imports into PostgreSQL, by services that run apart: the same messages and counts as with the embedded database.

use std::io::{Cursor, Write};

use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::whole::Whole;

fn pack(files: &[(&str, Value)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, json) in files {
        writer.start_file(*name, SimpleFileOptions::default()).expect("a file in the archive");
        writer.write_all(json.to_string().as_bytes()).expect("room in memory");
    }
    writer.finish().expect("a whole archive").into_inner()
}

fn export(channel: &str, day: &[Value]) -> Vec<u8> {
    pack(&[
        ("users.json", json!([{"id": "U1", "name": "anna"}])),
        ("channels.json", json!([{"id": "C1", "name": channel}])),
        ("groups.json", json!([{"id": "G1", "name": "board"}])),
        (&format!("{channel}/2020-09-13.json"), Value::from(day)),
    ])
}

/// Imports an archive and returns the job's result.
async fn import(whole: &Whole, project: &str, archive: Vec<u8>) -> Value {
    let proc = whole.cluster.proc_url(0);
    let request = whole.http.post(format!("{proc}/api/integrations/uploads"));
    let upload = request.bearer_auth("dev-ada").body(archive).send().await.expect("an answer");
    let upload: Value = upload.json().await.expect("JSON");
    let body = json!({"project_id": project, "data": {"upload_id": upload["upload_id"]}});
    let path = "/api/integrations/bundles/chat/operations/import";
    let request = whole.http.post(format!("{proc}{path}")).bearer_auth("dev-ada");
    let job = request.header("prefer", "wait=25").json(&body).send().await.expect("an answer");
    let job: Value = job.json().await.expect("JSON");
    assert_eq!(job["state"], "succeeded", "{job}");
    job["result"].clone()
}

async fn history(whole: &Whole, project: &str) -> Vec<Value> {
    let base = whole.cluster.ingress_url(0);
    let path = format!("{base}/api/chat/projects/{project}/messages?limit=200");
    let page = whole.http.get(path).bearer_auth("dev-ada").send().await.expect("an answer");
    let page: Value = page.json().await.expect("JSON");
    let messages = page["messages"].as_array().expect("a list");
    messages.iter().rev().cloned().collect()
}

#[tokio::test]
async fn an_import_into_postgresql_is_repeated_changed_and_mended() {
    let whole = Whole::start(|options| (options.ingress, options.proc) = (1, 1)).await;
    let project = whole.project().await;
    let said = |at: &str, text: &str| json!({"type": "message", "user": "U1", "ts": format!("16000000{at}"), "text": text});
    let with = |mut message: Value, key: &str, value: Value| {
        message[key] = value;
        message
    };
    let root = "1600000001.000100";
    let reaction = |users: &[&str]| json!([{"name": "+1", "users": users, "count": 5}]);
    let bot = with(
        with(said("05.000100", "from a bot"), "bot_id", "B1".into()),
        "username",
        "carol".into(),
    );
    let first = [
        with(said("02.000100", "reply"), "thread_ts", root.into()),
        with(said("03.000100", "before"), "reactions", reaction(&["U1"])),
        said("04.000100", &"語".repeat(40_000)),
        bot.clone(),
        with(with(bot, "ts", "1600000006.000100".into()), "username", "dave".into()),
    ];
    let result = import(&whole, &project, export("alpha", &first)).await;
    assert_eq!(
        result["messages"],
        json!({"total": 5, "imported": 5, "existing": 0, "updated": 0, "failed": 0, "skipped": {}})
    );
    let messages = history(&whole, &project).await;
    assert!(
        !messages[0]["deleted_at"].is_null(),
        "a tombstone keeps the root's place: {messages:?}"
    );
    assert_eq!(messages[1]["reply_to"], messages[0]["id"]);
    assert_eq!(messages[2]["reactions"][0]["count"], 5);
    let names: Vec<&Value> = messages[5..].iter().map(|message| &message["author_name"]).collect();
    assert_eq!(names, ["carol", "dave"]);

    let again = import(&whole, &project, export("alpha", &first)).await;
    assert_eq!(again["messages"]["existing"], 5, "{again}");
    assert_eq!(history(&whole, &project).await, messages);

    // The channel has another name there, and two messages are other ones; the root is there now.
    let edited = with(
        said("03.000100", "after"),
        "edited",
        json!({"user": "U1", "ts": "1600000100.000000"}),
    );
    let second = [
        said("01.000100", "root"),
        with(edited, "reactions", reaction(&["U1", "U2"])),
        said("04.000100", &"語".repeat(40_000)),
    ];
    let result = import(&whole, &project, export("beta", &second)).await;
    assert_eq!(
        result["messages"],
        json!({"total": 3, "imported": 1, "existing": 1, "updated": 1, "failed": 0, "skipped": {}})
    );
    let messages = history(&whole, &project).await;
    assert_eq!((&messages[0]["text"], &messages[0]["deleted_at"]), (&json!("root"), &Value::Null));
    assert_eq!((&messages[2]["text"], &messages[2]["channel"]), (&json!("after"), &json!("alpha")));
    assert_eq!(messages[2]["reactions"][0]["users"].as_array().map(Vec::len), Some(2));
    whole.stop().await;
}
