//! Exports made for the purpose: every kind of record, and archives that mean harm.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    archive::{import, pack},
    project::Project,
    support::{Parley, text},
};

const USERS: &str = r#"[{"id":"U1","name":"anna","profile":{"display_name":"Anna Bell"}},{"id":"U2","name":"bob"}]"#;
const CHANNELS: &str = r#"[{"id":"C1","name":"general"},{"id":"C2","name":"random","topic":{"value":"All &amp; else"}}]"#;
const DAY: &str = "general/2020-09-13.json";
/// Longest time of a send while another project imports. The promise is 1 s on a machine of its own; the tests share theirs.
const LONGEST_SEND: Duration = Duration::from_secs(3);

fn export(files: &[(&str, String)]) -> Vec<u8> {
    let indexes = [("users.json", USERS.to_owned()), ("channels.json", CHANNELS.to_owned())];
    pack(&[&indexes, files].concat())
}

#[tokio::test]
async fn every_kind_of_record_is_kept_or_counted() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let said = |at: &str, user: &str, text: &str| json!({"type": "message", "user": user, "ts": format!("16000000{at}"), "text": text});
    let with = |mut message: Value, more: Value| {
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        message
    };
    let parent = "1600000001.000100";
    let reactions = json!([{"name": "+1", "users": ["U2", "U1"], "count": 2}, {"name": "tada", "users": ["U1"]}]);
    let markup = "<@U1> see <#C2|random>, <https://x.org/?a=1&amp;b=2|the page> or <https://y.org>";
    let day = json!([
        with(said("01.000100", "U1", "Is 1 &lt; 2 &amp;&amp; 3 &gt; 2?"), json!({"thread_ts": parent, "reactions": reactions})),
        with(said("02.000000", "U2", markup), json!({"thread_ts": parent, "parent_user_id": "U1"})),
        with(said("03.000000", "U2", "corrected"), json!({"edited": {"user": "U2", "ts": "1600000100.000000"}})),
        with(said("04.000000", "U1", "waves"), json!({"subtype": "me_message"})),
        {"type": "message", "subtype": "bot_message", "bot_id": "B1", "username": "Builder", "ts": "1600000005.000000", "text": "built"},
        with(said("06.000000", "U1", "with a file"), json!({"files": [{"id": "F1"}]})),
        said("07.000000", "U9", "who am I?"),
        with(said("08.000000", "U2", "<@U2> has joined the channel"), json!({"subtype": "channel_join"})),
        with(said("09.000000", "U1", "<@U1> has joined the channel"), json!({"subtype": "channel_join"})),
        with(said("10.000000", "U1", "<@U1> has left the channel"), json!({"subtype": "channel_leave"})),
        with(said("11.000000", "U1", ""), json!({"files": [{"id": "F2"}]})),
        with(said("12.000000", "U1", "no time"), json!({"ts": "yesterday"})),
        with(said("13.000000", "U1", ""), json!({"text": ["no", "text"]})),
        said("14.000000", "U1", "the last"),
    ]);
    let other = json!([said("01.000100", "U2", "at the same time elsewhere")]);
    let bytes = export(&[(DAY, day.to_string()), ("random/2020-09-13.json", other.to_string())]);
    let job = import(&project, bytes.clone()).await;
    let skipped = json!({"channel_join": 2, "channel_leave": 1, "file_without_text": 1});
    assert_eq!(
        job["result"]["messages"],
        json!({"total": 15, "imported": 9, "existing": 0, "updated": 0, "failed": 2, "skipped": skipped})
    );
    assert_eq!(
        job["result"]["people"],
        json!({"total": 2, "written": 2, "existing": 0, "failed": 0})
    );
    // Every project begins with a channel of this name.
    assert_eq!(
        job["result"]["channels"],
        json!({"total": 2, "written": 1, "existing": 1, "failed": 0})
    );
    assert_eq!(project.get("/channels/random").await.is(200)["topic"], "All & else");
    let logs = format!("/api/integrations/jobs/{}/logs", text(&job["id"]));
    let logs = project.client.get(&logs).await.is(200)["logs"].clone();
    assert_eq!(logs.as_array().unwrap().len(), 2, "{logs}");
    assert!(!logs.to_string().contains("no time"), "a log holds nothing of what was said: {logs}");

    let history = project.history().await;
    let texts: Vec<&str> = history.iter().filter_map(|message| message["text"].as_str()).collect();
    assert_eq!(
        texts[2..],
        [
            "@Anna Bell see #random, the page (https://x.org/?a=1&b=2) or https://y.org",
            "corrected",
            "waves",
            "built",
            "with a file",
            "who am I?",
            "the last",
        ]
    );
    let find = |text: &str| history.iter().find(|message| message["text"] == text).unwrap();
    let parent = find("Is 1 < 2 && 3 > 2?");
    assert_eq!(
        (&parent["author"], &parent["author_name"]),
        (&json!("slack:U1"), &json!("Anna Bell"))
    );
    assert_eq!(
        (&parent["created_at"], &parent["reply_to"]),
        (&json!("2020-09-13T12:26:41.000Z"), &Value::Null)
    );
    let reactions = parent["reactions"].as_array().unwrap();
    assert_eq!(reactions[0], json!({"emoji": "+1", "users": ["slack:U2", "slack:U1"], "count": 2}));
    assert_eq!(reactions[1], json!({"emoji": "tada", "users": ["slack:U1"], "count": 1}));
    assert_eq!(find(texts[2])["reply_to"], parent["id"]);
    assert_eq!(find("corrected")["updated_at"], "2020-09-13T12:28:20.000Z");
    assert_eq!(find("waves")["metadata"]["slack"]["subtype"], "me_message");
    let built = find("built");
    assert_eq!(
        (&built["author_name"], &built["metadata"]["slack"]["bot"]),
        (&json!("Builder"), &json!(true))
    );
    assert_eq!(find("who am I?")["author"], "slack:U9");
    assert_eq!(find("at the same time elsewhere")["channel"], "random");

    // What was said here comes after; nobody edits another system's words; once more is nothing new.
    project.send("now").await;
    let path = format!("/messages/{}", text(&parent["id"]));
    project.call("PATCH", &path, &json!({"text": "x"})).await.refused(403, "forbidden");
    let again = import(&project, bytes.clone()).await;
    let counts = &again["result"]["messages"];
    assert_eq!((&counts["imported"], &counts["existing"]), (&json!(0), &json!(9)));
    assert_eq!(counts["updated"], 0, "{counts}");
    let all = project.history().await;
    assert_eq!((all[..9].to_vec(), all.len()), (history, 10));
    // The same export in another project is other messages.
    let elsewhere = parley.as_user("ada").project().await;
    assert_eq!(import(&elsewhere, bytes).await["result"]["messages"]["imported"], 9);
}

/// Overwrites bytes in the directory record of a file.
fn patched(mut archive: Vec<u8>, name: &str, offset: usize, bytes: &[u8]) -> Vec<u8> {
    const NAME: usize = 46;
    let is_record = |window: &[u8]| {
        window.starts_with(b"PK\x01\x02") && window[NAME..].starts_with(name.as_bytes())
    };
    let at = archive.windows(NAME + name.len()).position(is_record).expect("the file's record");
    archive[at + offset..at + offset + bytes.len()].copy_from_slice(bytes);
    archive
}

fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let message = r#"[{"type":"message","user":"U1","text":"must not appear","ts":"1.000001"}]"#;
    let sample = || export(&[(DAY, message.into())]);
    let at_name =
        |name: &str| patched(export(&[("yyyyyy", String::new())]), "yyyyyy", 46, name.as_bytes());
    let instead = |users: &str, channels: &str| {
        let files = [("users.json", users), ("channels.json", channels), (DAY, message)];
        pack(&files.map(|(name, content)| (name, content.to_owned())))
    };
    let whole = sample();
    let later = [(DAY, message.to_owned()), ("random/2020-09-14.json", message.to_owned())];
    vec![
        ("truncated", whole[..whole.len() - 30].to_vec()),
        ("truncated to a byte", whole[..1].to_vec()),
        ("no archive", b"these are not the files you are looking for".to_vec()),
        ("encrypted", patched(sample(), DAY, 8, &[1, 0])),
        ("unknown method", patched(sample(), DAY, 10, &[99, 0])),
        ("out of its folder", at_name("../../")),
        ("absolute name", at_name("/etc/x")),
        ("symbolic link", patched(sample(), DAY, 40, &0o120_777_u16.to_le_bytes())),
        ("bomb", export(&[(DAY, "0".repeat(20 << 20))])),
        (
            "bomb that lies",
            patched(export(&[(DAY, "0".repeat(20 << 20))]), DAY, 24, &[100, 0, 0, 0]),
        ),
        ("overlapping entries", overlapping()),
        ("more than it can hold", patched(sample(), DAY, 24, &[0, 0, 0x0f, 0])),
        ("lying size", patched(sample(), DAY, 24, &[7, 0, 0, 0])),
        ("wrong checksum", patched(sample(), DAY, 16, &[1, 2, 3, 4])),
        (
            "damaged at its end",
            patched(export(&later), "random/2020-09-14.json", 16, &[1, 2, 3, 4]),
        ),
        ("users that are no list", instead("{}", CHANNELS)),
        ("users cut off", instead(r#"[{"id":"U1"}"#, CHANNELS)),
        ("channels that are no list", instead(USERS, "7")),
        ("no users", pack(&[("channels.json", CHANNELS.into())])),
        ("no channels", pack(&[("users.json", USERS.into())])),
    ]
}

/// An archive whose entries all have the packed bytes of one: each unpacks them again.
fn overlapping() -> Vec<u8> {
    let name = |number: usize| format!("general/2020-01-{number:02}.json");
    let days: Vec<String> = (1..=9).map(name).collect();
    let day = || r#"[{"type":"message","user":"U1","text":"x","ts":"1.0"}]"#.to_owned();
    let files: Vec<(&str, String)> = days.iter().map(|name| (name.as_str(), day())).collect();
    let bytes = export(&files);
    let offset = {
        let first = days[0].as_bytes();
        let is_record =
            |window: &[u8]| window.starts_with(b"PK\x01\x02") && window[46..].starts_with(first);
        let at = bytes.windows(46 + first.len()).position(is_record).expect("the first record");
        bytes[at + 42..at + 46].to_vec()
    };
    days[1..].iter().fold(bytes, |bytes, day| patched(bytes, day, 42, &offset))
}

#[tokio::test]
async fn a_hostile_archive_is_refused_and_leaves_nothing() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    project.send("before").await;
    let state = async |project: &Project| {
        let mut state = vec![json!(project.cursor().await)];
        for path in ["/messages", "/channels", "/members"] {
            state.push(project.get(path).await.is(200));
        }
        state
    };
    let before = state(&project).await;
    for (name, bytes) in hostile() {
        let job = import(&project, bytes).await;
        assert_eq!(
            (&job["state"], &job["result"]),
            (&json!("failed"), &Value::Null),
            "{name}: {job}"
        );
        assert_eq!(job["error"]["code"], "invalid_archive", "{name}: {job}");
        assert_eq!(job["error"]["retryable"], false, "{name}");
        assert_eq!(state(&project).await, before, "{name}");
    }
}

#[tokio::test]
async fn an_import_of_60_000_reactions_keeps_no_other_project_waiting() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    let grace = parley.as_user("grace").project().await;
    let kinds: Vec<Value> =
        (0..60_000).map(|n| json!({"name": format!("kind-{n}"), "users": ["U1"]})).collect();
    let users: Vec<String> = (0..60_000).map(|n| format!("U{n}")).collect();
    let crowd = json!([{"name": "+1", "users": users, "count": 60_000}]);
    let day = json!([
        {"type": "message", "user": "U1", "ts": "1600000001.000000", "text": "kinds", "reactions": kinds},
        {"type": "message", "user": "U1", "ts": "1600000002.000000", "text": "users", "reactions": crowd},
    ]);
    let imported = import(&ada, export(&[(DAY, day.to_string())]));
    tokio::pin!(imported);
    let (mut longest, mut sends) = (Duration::ZERO, 0);
    let job = loop {
        let began = Instant::now();
        tokio::select! {
            job = &mut imported => break job,
            _ = grace.send("meanwhile") => longest = longest.max(began.elapsed()),
        }
        sends += 1;
    };
    assert_eq!(job["result"]["messages"]["imported"], 2, "{job}");
    println!("{sends} sends during the import; the longest took {longest:?}");
    assert!(longest < LONGEST_SEND, "a send of another project took {longest:?}");
    let history = ada.history().await;
    let reactions = |message: &Value| message["reactions"].as_array().map_or(0, Vec::len);
    assert_eq!(history.iter().map(reactions).collect::<Vec<_>>(), [50, 1]);
    let crowd = &history[1]["reactions"][0];
    assert_eq!(crowd["count"], 60_000, "{crowd}");
    assert_eq!(crowd["users"].as_array().map(Vec::len), Some(100));
}
