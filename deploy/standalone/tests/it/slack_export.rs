//! Exports in the shape of Slack's: out, into another project, and out again the same.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Read},
};

use serde_json::{Value, json};
use zip::ZipArchive;

use crate::{
    archive::{Real, import},
    job::{run, submit},
    project::Project,
    readers,
    support::{Parley, text},
};

/// Exports a project and returns the archive.
async fn export(project: &Project) -> Vec<u8> {
    let job = run(project, "chat.export", json!({"format": "slack"})).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let artifact = &job["result"]["artifact"];
    assert_eq!(artifact["name"], "export.zip");
    let request = project.client.request("GET", &text(&artifact["url"]));
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/zip");
    let bytes = response.bytes().await.expect("the whole archive").to_vec();
    assert_eq!(artifact["bytes"], bytes.len());
    bytes
}

/// Returns the files of an archive by name.
fn unpacked(bytes: &[u8]) -> BTreeMap<String, Value> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).expect("a sound archive");
    let mut files = BTreeMap::new();
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).expect("a sound entry");
        let mut content = String::new();
        file.read_to_string(&mut content).expect("text");
        let name = file.name().expect("a name").into_owned();
        files.insert(name, serde_json::from_str(&content).expect("JSON"));
    }
    files
}

/// Returns the files of an archive without the times of channels, of which every project has made one itself.
fn timeless(bytes: &[u8]) -> BTreeMap<String, Value> {
    let mut files = unpacked(bytes);
    for channel in files.get_mut("channels.json").and_then(Value::as_array_mut).expect("channels") {
        channel["created"].take();
        channel["parley"]["created_ms"].take();
    }
    files
}

/// Imports an archive into a new project, all of it.
async fn imported(of: &Project, archive: Vec<u8>) -> Project {
    let project = of.client.project().await;
    let job = import(&project, archive).await;
    let counts = &job["result"]["messages"];
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!((&counts["failed"], &counts["skipped"]), (&json!(0), &json!({})), "{job}");
    assert_eq!(counts["imported"], counts["total"]);
    assert_eq!(job["result"]["files_ignored"], 0);
    project
}

/// Returns the history with every id, of messages and of people, in the words of what it stands for.
async fn told(project: &Project) -> BTreeMap<String, Vec<Value>> {
    let history = project.history().await;
    let mut places = HashMap::new();
    let mut count = HashMap::<String, usize>::new();
    for message in &history {
        let channel = text(&message["channel"]);
        let number = count.entry(channel.clone()).or_default();
        places.insert(text(&message["id"]), format!("{channel} {number}"));
        *number += 1;
    }
    let names = |user: &Value| {
        let of = |message: &&Value| message["author"] == *user;
        let named = history.iter().find(of).map(|message| text(&message["author_name"]));
        named.unwrap_or_else(|| text(user))
    };
    let mut told = BTreeMap::<String, Vec<Value>>::new();
    for message in &history {
        let mut shown = message.clone();
        shown["id"] = places[&text(&message["id"])].clone().into();
        shown["project_id"].take();
        shown["author"].take();
        if let Some(parent) = message["reply_to"].as_str() {
            shown["reply_to"] = places[parent].clone().into();
        }
        for reaction in shown["reactions"].as_array_mut().expect("a list") {
            let users = reaction["users"].as_array_mut().expect("a list");
            for user in users.iter_mut() {
                *user = names(user).into();
            }
            // The caller comes first, and is another user in the import.
            users.sort_by_key(ToString::to_string);
        }
        told.entry(text(&message["channel"])).or_default().push(shown);
    }
    told
}

async fn topics(project: &Project) -> Vec<(String, Value)> {
    let channels = project.get("/channels").await.is(200);
    let channels = channels["channels"].as_array().expect("a list").clone();
    let topic = |channel: Value| (text(&channel["name"]), channel["topic"].clone());
    channels.into_iter().map(topic).collect()
}

#[tokio::test]
async fn a_real_history_goes_out_and_in_and_out_the_same() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let real = Real::read();
    import(&project, real.bytes.clone()).await;
    let archive = export(&project).await;
    let files = unpacked(&archive);
    assert_eq!(files["users.json"].as_array().map(Vec::len), Some(332));
    let days = unpacked(&real.bytes);
    for (name, day) in days.iter().filter(|(name, _)| name.contains('/')) {
        assert_eq!(files[name], *day, "{name}");
    }

    let copy = imported(&project, archive.clone()).await;
    assert_eq!(told(&copy).await, told(&project).await);
    assert_eq!(timeless(&export(&copy).await), timeless(&archive));

    // Nobody's words come twice when an archive comes back to where it is from.
    let again = import(&project, archive).await;
    assert_eq!(again["result"]["messages"]["existing"], 4_106);
}

/// Says something in each way that there is.
async fn talk(ada: &Project, grace: &Project) {
    for (name, topic) in [
        ("..", Value::Null),
        ("a\\b:*", json!("<!here> & <@U1>")),
        ("über", json!("")),
        ("users.json", Value::Null),
        ("con", Value::Null),
    ] {
        ada.call("POST", "/channels", &json!({"name": name, "topic": topic})).await.is(201);
    }
    ada.call("PATCH", "/channels/general", &json!({"topic": "All & else"})).await.is(200);
    let say = async |who: &Project, body: Value| who.call("POST", "/messages", &body).await.is(201);
    let first = say(ada, json!({"text": "Is 1 < 2 && 3 > 2? <@U1> &amp;"})).await;
    let metadata = json!({"z": 1.5, "a": ["<&>"], "slack": {"subtype": "channel_join"}});
    let second =
        say(grace, json!({"text": " yes\n", "reply_to": first["id"], "metadata": metadata})).await;
    let third = say(ada, json!({"text": "so", "reply_to": second["id"]})).await;
    say(grace, json!({"channel": "..", "text": "over here", "reply_to": third["id"]})).await;
    say(ada, json!({"channel": "a\\b:*", "text": "&".repeat(32_000)})).await;
    say(ada, json!({"channel": "über", "text": "\u{1}\u{7f} 👍🏽", "metadata": {}})).await;
    say(grace, json!({"channel": "users.json", "text": "[]"})).await;
    let gone = say(ada, json!({"channel": "con", "text": "unsaid", "metadata": {"a": 1}})).await;
    say(grace, json!({"channel": "con", "text": "what?", "reply_to": gone["id"]})).await;
    ada.delete(&format!("/messages/{}", text(&gone["id"]))).await.is(200);
    let path = format!("/messages/{}", text(&first["id"]));
    ada.call("PATCH", &path, &json!({"text": "Was 1 < 2?"})).await.is(200);
    for (who, emoji) in [(grace, "tada"), (ada, "%F0%9F%91%8D"), (ada, "tada"), (grace, "+1")] {
        who.call("PUT", &format!("{path}/reactions/{emoji}"), &json!({})).await.is(200);
    }
}

#[tokio::test]
async fn all_that_can_be_said_goes_out_and_in_and_out_the_same() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "member").await;
    talk(&project, &grace).await;
    let archive = export(&project).await;
    assert_eq!(export(&project).await, archive, "the same project makes the same bytes");
    let names: Vec<String> = unpacked(&archive).into_keys().collect();
    for name in names.iter().filter(|name| name.contains('/')) {
        let (folder, _) = name.split_once('/').expect("a folder");
        let safe = |c: char| c.is_alphanumeric() || c == '-';
        assert!(folder.chars().all(safe), "{name}");
    }

    let copy = imported(&project, archive).await;
    assert_eq!(told(&copy).await, told(&project).await);
    assert_eq!(topics(&copy).await, topics(&project).await);
    let again = export(&copy).await;
    let third = imported(&project, again.clone()).await;
    assert_eq!(told(&third).await, told(&copy).await);
    assert_eq!(timeless(&export(&third).await), timeless(&again));

    // What ada said there is not ada's here, and where both are together they stay apart.
    let authors = |history: &[Value]| -> Vec<String> {
        history.iter().map(|message| text(&message["author"])).collect()
    };
    let history = copy.history().await;
    assert!(authors(&history).iter().all(|author| author.starts_with("slack:")), "{history:?}");
    let path = format!("/messages/{}", text(&history[0]["id"]));
    copy.call("PATCH", &path, &json!({"text": "x"})).await.refused(403, "forbidden");
    copy.send("now it is me").await;
    let users = unpacked(&export(&copy).await)["users.json"].clone();
    let of_ada = |user: &&Value| user["name"] == history[0]["author_name"];
    assert_eq!(users.as_array().expect("a list").iter().filter(of_ada).count(), 2, "{users}");
}

/// Reads an archive with a reader of Slack exports that is not ours.
async fn read_elsewhere(archive: &[u8]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let (zip, found) = (folder.path().join("export.zip"), folder.path().join("found.json"));
    std::fs::write(&zip, archive).expect("room on the disk");
    let arguments =
        ["slack_archive.py", zip.to_str().expect("text"), found.to_str().expect("text")];
    let mut reader = readers::start("python3", &arguments);
    let status = reader.wait().await.expect("it ends");
    assert!(status.success(), "the reader ended with {status}");
    let found = std::fs::read(found).expect("what it found");
    serde_json::from_slice(&found).expect("JSON")
}

#[tokio::test]
async fn a_public_reader_finds_every_message_and_thread() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    import(&project, Real::read().bytes).await;
    // Answers of both kinds: to what was imported, and to what was said here.
    let history = project.history().await;
    let grace = project.with("grace", "member").await;
    let mut threads = BTreeMap::<String, Vec<String>>::new();
    for (number, root) in history.iter().step_by(400).enumerate() {
        let replies = threads.entry(text(&root["text"])).or_default();
        for (who, count) in [(&project, 0), (&grace, number % 3)] {
            for further in 0..=count {
                let reply = format!("reply {number} of {further} & {}", replies.len());
                let body =
                    json!({"channel": root["channel"], "text": reply, "reply_to": root["id"]});
                who.call("POST", "/messages", &body).await.is(201);
                replies.push(reply.replace('&', "&amp;"));
            }
        }
    }
    let archive = export(&project).await;
    let found = read_elsewhere(&archive).await;
    let channels = found.as_object().expect("channels");
    let messages: u64 = channels.values().filter_map(|found| found["messages"].as_u64()).sum();
    let replies: usize = threads.values().map(Vec::len).sum();
    assert_eq!(messages, 4_106 + replies as u64, "messages");
    let read = channels.values().flat_map(|found| found["threads"].as_array().expect("a list"));
    let read: BTreeMap<String, Vec<String>> = read
        .map(|thread| {
            let plain = text(&thread["text"])
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&amp;", "&");
            (plain, serde_json::from_value(thread["replies"].clone()).expect("texts"))
        })
        .collect();
    assert_eq!(read, threads);
    let names = found["ubuntu-2004"]["names"].to_string();
    assert!(!names.contains("null"), "every author has a name: {names}");

    // The first message of a thread tells of the others as Slack does.
    let files = unpacked(&archive);
    let all = files.iter().filter(|(name, _)| name.contains('/'));
    let all: Vec<&Value> = all.flat_map(|(_, day)| day.as_array().expect("a list")).collect();
    let root = all.iter().find(|message| message["reply_count"] == 4).expect("a thread of four");
    let (ts, replies) = (&root["thread_ts"], root["replies"].as_array().expect("a list"));
    assert_eq!((ts, replies.len()), (&root["ts"], 4));
    assert_eq!(root["latest_reply"], replies[3]["ts"]);
    assert_eq!(root["reply_users"], json!(["~ada", "~grace"]));
    let answers = all.iter().filter(|message| message["thread_ts"] == *ts && message["ts"] != *ts);
    let answers: Vec<Value> =
        answers.map(|message| json!({"user": message["user"], "ts": message["ts"]})).collect();
    assert_eq!(&answers, replies);
}

#[tokio::test]
async fn an_archive_that_claims_a_login_gives_it_nothing() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let user = |id: &str| json!({"id": id, "name": "Ada", "profile": {"display_name": "Ada"}});
    let said = |id: &str, at: u8| json!({"type": "message", "user": id, "text": "me", "ts": format!("160000000{at}.000000")});
    let ids = ["ada", "~ada", "slack:ada", "parley:ada"];
    let day: Vec<Value> = ids.iter().zip(0..).map(|(id, at)| said(id, at)).collect();
    let hostile = crate::archive::pack(&[
        ("users.json", Value::from_iter(ids.map(user)).to_string()),
        ("channels.json", r#"[{"id":"C1","name":"x","created":9223372036854775,"parley":{"name":"..","created_ms":-1}}]"#.into()),
        ("x/2020-09-13.json", json!(day).to_string()),
    ]);
    import(&project, hostile).await;
    project.send("really").await;
    let authors: Vec<String> =
        project.history().await.iter().map(|message| text(&message["author"])).collect();
    assert!(authors[..4].iter().all(|author| author.starts_with("slack:")), "{authors:?}");
    assert_eq!(authors[4], "ada");
    let users = unpacked(&export(&project).await)["users.json"].clone();
    let ids: Vec<String> =
        users.as_array().expect("a list").iter().map(|u| text(&u["id"])).collect();
    assert_eq!(ids.iter().filter(|id| id.starts_with('~')).count(), 1, "{ids:?}");
}

#[tokio::test]
async fn times_that_nobody_can_show_are_refused() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let said = |ts: &str, more: Value| {
        let mut message = json!({"type": "message", "user": "U1", "text": "x", "ts": ts});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    let day = json!([
        said("9223372036854.775807", json!({})),
        said("1.000000", json!({"edited": {"ts": "9223372036854.775807"}})),
        said(
            "2.000000",
            json!({"parley": {"deleted_ts": "9223372036854.775807"}, "subtype": "tombstone"})
        ),
        said("3.000000", json!({"parley": 7})),
        said("4.000000", json!({"parley": {"metadata": [1]}})),
        said("5.000000", json!({"parley": {"reply_to": {"channel": "nowhere", "ts": "1.0"}}})),
    ]);
    let archive = crate::archive::pack(&[
        ("users.json", "[]".into()),
        ("channels.json", r#"[{"id":"C1","name":"x","created":9223372036854775}]"#.into()),
        ("x/2020-09-13.json", day.to_string()),
    ]);
    let job = import(&project, archive).await;
    let counts = &job["result"]["messages"];
    assert_eq!((&counts["imported"], &counts["failed"]), (&json!(1), &json!(5)), "{job}");
    assert_eq!(project.history().await.len(), 1);
    project.get("/channels").await.is(200);
}

#[tokio::test]
async fn an_export_is_in_a_format_that_there_is() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for format in [json!("pdf"), json!(7), json!(null)] {
        submit(&project, "chat.export", json!({"format": format}))
            .await
            .refused(422, "invalid_field");
    }
}
