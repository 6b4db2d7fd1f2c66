//! Exports of real workspaces with more than plain messages: other spellings, private conversations, apps, threads in any order,
//! long lists and long texts, and files of other systems.

mod again;

use std::{
    io::{Cursor, Write},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::timeout;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    archive::{import, pack, upload},
    fixture,
    job::{JOBS, run, submit},
    project::Project,
    support::{Parley, text},
};

/// Longest time of an import of 100,000 members by a debug build beside other tests.
const LONGEST_IMPORT: Duration = Duration::from_mins(5);
const DAY: &str = "general/2020-09-13.json";

fn users() -> String {
    json!([
        {"id": "U1", "name": "anna", "profile": {"display_name": "Anna Bell"}},
        {"id": "U2", "name": "bob", "profile": {"display_name": "", "real_name": "Bob R"}},
    ])
    .to_string()
}

fn channels() -> String {
    json!([{"id": "C1", "name": "general"}, {"id": "C2", "name": "random"}]).to_string()
}

fn export(files: &[(&str, Value)]) -> Vec<u8> {
    let files: Vec<(&str, String)> =
        files.iter().map(|(name, json)| (*name, json.to_string())).collect();
    pack(&[&[("users.json", users()), ("channels.json", channels())], &files[..]].concat())
}

/// A message of a time in 2020, with more fields.
#[expect(clippy::needless_pass_by_value, reason = "callers make the fields in place")]
fn said(at: &str, user: &str, text: &str, more: Value) -> Value {
    let mut message =
        json!({"type": "message", "user": user, "ts": format!("16000000{at}"), "text": text});
    message
        .as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    message
}

/// Imports into a new project of a new server; checks that the counts add up.
async fn imported(parley: &Parley, bytes: Vec<u8>) -> (Project, Value) {
    let project = parley.as_user("ada").project().await;
    let result = succeeded(&project, bytes).await;
    (project, result)
}

async fn succeeded(project: &Project, bytes: Vec<u8>) -> Value {
    let job = import(project, bytes).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let counts = &job["result"]["messages"];
    let number = |key: &str| counts[key].as_u64().unwrap_or_else(|| panic!("{key}: {job}"));
    let skipped: u64 =
        counts["skipped"].as_object().expect("kinds").values().filter_map(Value::as_u64).sum();
    let sum =
        number("imported") + number("existing") + number("updated") + number("failed") + skipped;
    assert_eq!(number("total"), sum, "the counts add up: {counts}");
    job["result"].clone()
}

async fn texts(project: &Project) -> Vec<String> {
    project.history().await.iter().map(|message| text(&message["text"])).collect()
}

fn named<'a>(result: &'a Value, list: &str) -> Vec<&'a str> {
    let entries = result["left_out"][list].as_array().expect("a list").iter();
    entries.map(|entry| entry["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn folders_are_found_by_any_spelling_and_what_is_left_out_is_named() {
    let parley = Parley::start().await;
    let one = |at: &str, text: &str| json!([said(at, "U1", text, json!({}))]).to_string();
    let channels = json!([
        {"id": "C1", "name": "general"},
        // Composed here, decomposed as macOS names the folder.
        {"id": "C2", "name": "\u{fc}ber-uns"},
        {"id": "C3", "name": "ｆｕｌｌ", "name_normalized": "full"},
        {"id": "C4", "name": "by-id"},
    ]);
    let bytes = pack(&[
        ("users.json", users()),
        ("channels.json", channels.to_string()),
        ("general/2020-09-13.json", one("01.000100", "a day")),
        ("general/all.json", one("02.000100", "one file of a channel")),
        ("u\u{308}ber-uns/2020-09-13.json", one("03.000100", "decomposed")),
        ("full/2020-09-13.json", one("04.000100", "half width")),
        ("C4/2020-09-13.json", one("05.000100", "named by the id")),
        ("unknown/2020-09-13.json", one("06.000100", "nobody's")),
        ("general/notes.txt", String::new()),
        ("integration_logs.json", "[]".into()),
    ]);
    let (project, result) = imported(&parley, bytes).await;
    let wanted = ["a day", "one file of a channel", "decomposed", "half width", "named by the id"];
    assert_eq!(texts(&project).await, wanted);
    assert_eq!(result["messages"]["imported"], 5, "{result}");
    let names = ["unknown/2020-09-13.json", "general/notes.txt", "integration_logs.json"];
    assert_eq!(named(&result, "files"), names);
    assert_eq!(
        (&result["files_ignored"], &result["left_out"]["more"]["files"]),
        (&json!(3), &json!(0))
    );
    assert!(result["left_out"]["files"][0]["reason"].is_string(), "{result}");
    assert!(!result["warnings"].as_array().expect("a list").is_empty(), "{result}");

    // The list is bounded; the others are counted.
    let many: Vec<String> =
        (0..300).map(|number| format!("gone-{number}/2020-01-01.json")).collect();
    let many: Vec<(&str, Value)> = many.iter().map(|name| (name.as_str(), json!([]))).collect();
    let (_, result) = imported(&parley, export(&many)).await;
    let listed = named(&result, "files").len();
    assert!((1..=100).contains(&listed), "{listed} files are listed");
    assert_eq!(result["left_out"]["more"]["files"], 300 - listed);
    let warnings = result["warnings"].to_string();
    assert!(warnings.contains("no messages"), "an import of nothing says so: {warnings}");
}

#[tokio::test]
async fn private_conversations_stay_private_and_are_named_with_their_counts() {
    let parley = Parley::start().await;
    let secret = |at: &str| said(at, "U1", "must stay private", json!({}));
    let bytes = pack(&[
        ("users.json", users()),
        ("channels.json", json!([{"id": "C1", "name": "general"}, {"id": "C9", "name": "marked", "is_private": true}]).to_string()),
        ("groups.json", json!([{"id": "G1", "name": "board"}]).to_string()),
        ("dms.json", json!([{"id": "D1", "members": ["U1", "U2"]}]).to_string()),
        ("mpims.json", json!([{"id": "G2", "name": "mpdm-anna--bob-1"}]).to_string()),
        (DAY, json!([said("01.000100", "U1", "public", json!({}))]).to_string()),
        ("board/2020-09-13.json", json!([secret("02.000100"), secret("03.000100")]).to_string()),
        ("marked/2020-09-13.json", json!([secret("04.000100")]).to_string()),
        ("D1/2020-09-13.json", json!([secret("05.000100")]).to_string()),
        ("D1/2020-09-14.json", json!([secret("06.000100")]).to_string()),
        ("mpdm-anna--bob-1/2020-09-13.json", json!([secret("07.000100")]).to_string()),
    ]);
    let (project, result) = imported(&parley, bytes.clone()).await;
    assert_eq!(texts(&project).await, ["public"]);
    let names = |list: &Value| -> Vec<String> {
        list.as_array().expect("a list").iter().map(|channel| text(&channel["name"])).collect()
    };
    let here = project.get("/channels").await.is(200);
    assert_eq!(names(&here["channels"]), ["general"], "no private channel is made");
    assert_eq!(result["messages"]["total"], 1, "{result}");
    assert_eq!(named(&result, "conversations"), ["marked", "board", "D1", "mpdm-anna--bob-1"]);
    let board = &result["left_out"]["conversations"][1];
    assert_eq!(
        (&board["kind"], &board["files"], &board["messages"]),
        (&json!("private_channel"), &json!(1), &json!(2))
    );
    assert_eq!(
        result["private_left_out"],
        json!({
            "private_channel": {"conversations": 2, "messages": 3},
            "direct_messages": {"conversations": 1, "messages": 2},
            "group_direct_messages": {"conversations": 1, "messages": 1},
        })
    );
    assert_eq!((&result["files_ignored"], &result["made_public"]), (&json!(0), &json!([])));
    assert!(!result.to_string().contains("must stay private"), "nothing that was said is told");

    // An import of before made a channel of one that is private by now.
    let before = pack(&[
        ("users.json", users()),
        ("channels.json", json!([{"id": "G1", "name": "board"}]).to_string()),
        ("board/2020-09-13.json", json!([secret("02.000100")]).to_string()),
    ]);
    succeeded(&project, before).await;
    let result = succeeded(&project, bytes).await;
    assert_eq!(result["made_public"], json!(["board"]), "{result}");
}

#[tokio::test]
async fn all_the_text_of_a_message_comes_in_wherever_slack_keeps_it() {
    let parley = Parley::start().await;
    let rich = json!([{"type": "rich_text", "elements": [
        {"type": "rich_text_section", "elements": [{"type": "text", "text": "only in blocks "}, {"type": "user", "user_id": "U2"}]},
        {"type": "rich_text_list", "style": "bullet", "elements": [
            {"type": "rich_text_section", "elements": [{"type": "text", "text": "a point"}]}]},
    ]}]);
    let section =
        json!([{"type": "section", "text": {"type": "mrkdwn", "text": "*Deploy* of `api` done"}}]);
    let day = json!([
        {"type": "message", "ts": "1600000001.000100", "text": "", "subtype": "bot_message", "bot_id": "B1", "username": "ci",
         "attachments": [{"fallback": "build 7 failed", "title": "build 7", "text": "failed at step lint"}]},
        said("02.000100", "U1", "", json!({"blocks": rich})),
        {"type": "message", "ts": "1600000003.000100", "text": "", "bot_id": "B2", "bot_profile": {"name": "deployer"},
         "subtype": "bot_message", "blocks": section},
        said("04.000100", "U1", "", json!({"attachments": [{"is_share": true, "text": "a forwarded message", "author_name": "Bob R"}]})),
        {"type": "message", "ts": "1600000005.000100", "text": "see:", "bot_id": "B1", "username": "ci", "subtype": "bot_message",
         "attachments": [{"text": "the real content is here"}]},
        said("06.000100", "U2", "reply to the failed build", json!({"thread_ts": "1600000001.000100"})),
        said("07.000100", "U1", "", json!({"files": [{"id": "F1", "title": "report.pdf"}]})),
        said("08.000100", "U1", "<!group> see <http://example.com|example.com>", json!({})),
    ]);
    let (project, result) = imported(&parley, export(&[(DAY, day)])).await;
    assert_eq!(result["messages"]["imported"], 8, "{result}");
    assert_eq!(
        texts(&project).await,
        [
            "build 7\nfailed at step lint",
            "only in blocks @Bob R\n• a point",
            "*Deploy* of `api` done",
            "Bob R\na forwarded message",
            "see:\nthe real content is here",
            "reply to the failed build",
            "report.pdf",
            "@group see example.com",
        ]
    );
    let history = project.history().await;
    assert_eq!(history[5]["reply_to"], history[0]["id"]);
}

#[tokio::test]
async fn replies_find_their_root_in_any_order_and_a_skipped_root_is_a_tombstone() {
    let parley = Parley::start().await;
    let root = "1600000001.000100";
    let reply = |at: &str, thread: &str| {
        said(at, "U2", "reply", json!({"thread_ts": thread, "parent_user_id": "U1"}))
    };
    // Newest first, with more replies than a batch has messages.
    let mut day: Vec<Value> =
        (0..1_200).rev().map(|number| reply(&format!("02.{number:06}"), root)).collect();
    day.push(said("01.000100", "U1", "parent", json!({"thread_ts": root})));
    // Roots that are skipped, or that the archive does not have.
    for (at, more) in [
        ("10.000100", json!({"subtype": "tombstone", "thread_ts": "1600000010.000100"})),
        ("20.000100", json!({"subtype": "huddle_thread", "thread_ts": "1600000020.000100"})),
        (
            "30.000100",
            json!({"text": "", "files": [{"id": "F1"}], "thread_ts": "1600000030.000100"}),
        ),
    ] {
        day.push(said(at, "U1", "", more));
        day.push(reply(&at.replace(".0001", ".0002"), &format!("16000000{at}")));
    }
    day.push(reply("40.000200", "1600000040.000100"));
    let (project, result) = imported(&parley, export(&[(DAY, json!(day))])).await;
    let counts = &result["messages"];
    assert_eq!((&counts["imported"], &counts["total"]), (&json!(1_205), &json!(1_208)), "{counts}");
    let history = project.history().await;
    let ids: Vec<&Value> = history.iter().map(|message| &message["id"]).collect();
    let replies: Vec<&Value> =
        history.iter().filter(|message| message["text"] == "reply").collect();
    assert_eq!(replies.len(), 1_204);
    assert!(replies.iter().all(|reply| ids.contains(&&reply["reply_to"])), "every root is here");
    let parent = history.iter().find(|message| message["text"] == "parent").expect("the parent");
    assert_eq!(replies.iter().filter(|reply| reply["reply_to"] == parent["id"]).count(), 1_200);
    let tombstones: Vec<&Value> =
        history.iter().filter(|message| !message["deleted_at"].is_null()).collect();
    assert_eq!(tombstones.len(), 4, "{tombstones:?}");
    assert!(
        tombstones.iter().all(|message| message["author"] == "slack:U1" && message["text"] == "")
    );

    // A later archive has what was missing.
    let found = json!([said("40.000100", "U1", "found again", json!({}))]);
    let result = succeeded(&project, export(&[("general/2020-09-14.json", found)])).await;
    assert_eq!(result["messages"]["imported"], 1, "{result}");
    let history = project.history().await;
    let found =
        history.iter().find(|message| message["text"] == "found again").expect("it is here");
    assert_eq!(found["deleted_at"], Value::Null);
    assert_eq!(history.last().expect("the last")["reply_to"], found["id"]);
}

#[tokio::test]
async fn records_of_one_time_are_counted_for_what_became_of_them() {
    let parley = Parley::start().await;
    let day = json!([
        said("01.000100", "U1", "first", json!({})),
        said("01.000100", "U2", "second, other text", json!({})),
        said("02.000100", "U1", "exact duplicate", json!({})),
        said("02.000100", "U1", "exact duplicate", json!({})),
    ]);
    let bytes = export(&[(DAY, day)]);
    let (project, result) = imported(&parley, bytes.clone()).await;
    assert_eq!(
        result["messages"],
        json!({"total": 4, "imported": 3, "existing": 0, "updated": 0, "failed": 0, "skipped": {"duplicate": 1}})
    );
    let history = texts(&project).await;
    assert_eq!(history, ["first", "second, other text", "exact duplicate"]);
    let again = succeeded(&project, bytes).await;
    assert_eq!(
        (&again["messages"]["existing"], &again["messages"]["updated"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(texts(&project).await, history);
}

#[tokio::test]
async fn records_of_one_time_are_known_by_author_and_text_in_a_later_archive() {
    let parley = Parley::start().await;
    let one = said("01.000100", "U1", "one", json!({}));
    let two = said(
        "01.000100",
        "U2",
        "two",
        json!({"reactions": [{"name": "eyes", "users": ["U1"], "count": 1}]}),
    );
    let (project, _) = imported(&parley, export(&[(DAY, json!([one, two]))])).await;
    let before = project.history().await;

    // One of them, the other order, and both in a batch of their own.
    for day in [json!([two]), json!([one]), json!([two, one]), json!([one, two])] {
        let result = succeeded(&project, export(&[(DAY, day.clone())])).await;
        let counts = &result["messages"];
        let changed = (&counts["updated"], &counts["imported"]);
        assert_eq!(changed, (&json!(0), &json!(0)), "{day}: {counts}");
        assert_eq!(project.history().await, before, "{day}");
    }

    // An edit changes its own message, and a record by a third author is a further one.
    let edited = said(
        "01.000100",
        "U2",
        "two, edited",
        json!({"edited": {"user": "U2", "ts": "1600000009.000100"}}),
    );
    let third = said("01.000100", "U3", "three", json!({}));
    let result = succeeded(&project, export(&[(DAY, json!([third, edited]))])).await;
    let counts = &result["messages"];
    assert_eq!((&counts["updated"], &counts["imported"]), (&json!(1), &json!(1)), "{counts}");
    let after = project.history().await;
    assert_eq!(texts(&project).await, ["one", "two, edited", "three"]);
    let authors: Vec<&Value> = after.iter().map(|message| &message["author"]).collect();
    assert_eq!(authors, ["slack:U1", "slack:U2", "slack:U3"]);
    assert_eq!((&after[0]["id"], &after[1]["id"]), (&before[0]["id"], &before[1]["id"]));
}

#[tokio::test]
async fn a_deleted_message_stays_deleted_when_records_of_its_time_come_in_another_order() {
    let parley = Parley::start().await;
    let one = said("01.000100", "U1", "one", json!({}));
    let two = said("01.000100", "U2", "two", json!({}));
    let (project, _) = imported(&parley, export(&[(DAY, json!([one, two]))])).await;
    let first = text(&project.history().await[0]["id"]);
    project.delete(&format!("/messages/{first}")).await.is(200);
    let before = project.history().await;
    let reply = said(
        "02.000100",
        "U1",
        "reply",
        json!({"thread_ts": "1600000001.000100", "parent_user_id": "U2"}),
    );
    let result = succeeded(&project, export(&[(DAY, json!([two, one, reply]))])).await;
    let counts = &result["messages"];
    assert_eq!((&counts["existing"], &counts["imported"]), (&json!(2), &json!(1)), "{counts}");
    let after = project.history().await;
    assert_eq!(after[..2], before[..], "both are as they were");
    assert_eq!(after[2]["reply_to"], before[1]["id"], "the reply hangs on the other one");
}

#[tokio::test]
async fn parts_of_a_text_that_became_short_go_even_behind_one_that_was_deleted() {
    let parley = Parley::start().await;
    let long = said("01.000100", "U1", &"a word ".repeat(40_000), json!({}));
    let (project, _) = imported(&parley, export(&[(DAY, json!([long]))])).await;
    let parts = project.history().await;
    assert!(parts.len() > 3, "the text is cut: {}", parts.len());
    project.delete(&format!("/messages/{}", text(&parts[1]["id"]))).await.is(200);
    let short = said(
        "01.000100",
        "U1",
        "short",
        json!({"edited": {"user": "U1", "ts": "1600000009.000100"}}),
    );
    succeeded(&project, export(&[(DAY, json!([short]))])).await;
    let after = texts(&project).await;
    assert!(after[0] == "short" && after[1..].iter().all(String::is_empty), "no part is left");
}

#[tokio::test]
async fn a_channel_that_was_renamed_is_the_same_and_another_of_its_name_is_not() {
    let parley = Parley::start().await;
    let archive = |channels: Value, files: &[(&str, Value)]| {
        let files: Vec<(&str, String)> =
            files.iter().map(|(name, day)| (*name, day.to_string())).collect();
        pack(
            &[&[("users.json", users()), ("channels.json", channels.to_string())], &files[..]]
                .concat(),
        )
    };
    let day = json!([said("01.000100", "U1", "hello", json!({}))]);
    let before =
        archive(json!([{"id": "C1", "name": "alpha"}]), &[("alpha/2020-09-13.json", day.clone())]);
    let (project, _) = imported(&parley, before).await;
    let after = archive(
        json!([{"id": "C5", "name": "alpha"}, {"id": "C1", "name": "beta"}]),
        &[
            ("alpha/2020-09-13.json", json!([said("01.000100", "U2", "elsewhere", json!({}))])),
            ("beta/2020-09-13.json", day),
        ],
    );
    let result = succeeded(&project, after.clone()).await;
    assert_eq!(
        (&result["messages"]["imported"], &result["messages"]["existing"]),
        (&json!(1), &json!(1)),
        "{result}"
    );
    let history = project.history().await;
    let mut places: Vec<String> = history
        .iter()
        .map(|message| format!("{}: {}", text(&message["channel"]), text(&message["text"])))
        .collect();
    places.sort();
    assert_eq!(places, ["alpha-2: elsewhere", "alpha: hello"]);
    let result = succeeded(&project, after).await;
    assert_eq!(result["messages"]["existing"], 2, "{result}");
}

#[tokio::test]
async fn a_later_export_changes_what_was_edited_there_and_nothing_that_was_deleted_here() {
    let parley = Parley::start().await;
    let message = |at: &str, text: &str, more: Value| said(at, "U1", text, more);
    let first = json!([
        message("01.000100", "as it was", json!({})),
        message("02.000100", "to be deleted", json!({})),
        message(
            "03.000100",
            "a reaction to come",
            json!({"reactions": [{"name": "+1", "users": ["U1"], "count": 1}]})
        ),
        message("04.000100", &"long ".repeat(20_000), json!({})),
        message("05.000100", "the same", json!({})),
    ]);
    let (project, _) = imported(&parley, export(&[(DAY, first.clone())])).await;
    let history = project.history().await;
    project.delete(&format!("/messages/{}", text(&history[1]["id"]))).await.is(200);
    let cursor = project.cursor().await;
    let edited = json!({"edited": {"user": "U1", "ts": "1600000100.000000"}});
    let second = json!([
        message("01.000100", "as it is", edited.clone()),
        message("02.000100", "to be deleted", edited.clone()),
        message(
            "03.000100",
            "a reaction to come",
            json!({"reactions": [{"name": "+1", "users": ["U1", "U2"], "count": 2}]})
        ),
        message("04.000100", "short now", edited),
        message("05.000100", "the same", json!({})),
    ]);
    let counts = succeeded(&project, export(&[(DAY, second.clone())])).await["messages"].clone();
    assert_eq!(
        (&counts["imported"], &counts["updated"], &counts["existing"]),
        (&json!(0), &json!(3), &json!(2)),
        "{counts}"
    );
    let history = project.history().await;
    let left: Vec<&Value> =
        history.iter().filter(|message| message["deleted_at"].is_null()).collect();
    let shown: Vec<&str> = left.iter().filter_map(|message| message["text"].as_str()).collect();
    assert_eq!(shown, ["as it is", "a reaction to come", "short now", "the same"]);
    assert_eq!(left[0]["updated_at"], "2020-09-13T12:28:20.000Z");
    assert_eq!(left[1]["reactions"][0]["count"], 2);
    let told = project.log(&cursor).await;
    let told = told.iter().filter(|event| event["type"] == "history.imported");
    assert_eq!(
        told.map(|event| event["count"].as_u64().unwrap_or(0)).sum::<u64>(),
        3,
        "streams hear of it"
    );

    // An older export takes nothing back.
    let counts = succeeded(&project, export(&[(DAY, first)])).await["messages"].clone();
    assert_eq!((&counts["updated"], &counts["existing"]), (&json!(0), &json!(5)), "{counts}");
    assert_eq!(project.history().await, history);
}

#[tokio::test]
async fn every_message_shows_the_name_that_slack_showed() {
    let parley = Parley::start().await;
    let bot = |at: &str, text: &str, more: Value| {
        let mut message = said(at, "", text, more);
        message.as_object_mut().expect("an object").remove("user");
        message["subtype"] = "bot_message".into();
        message
    };
    let guest = json!({"user_profile": {"display_name": "Gast", "real_name": "G. Ast"}});
    let day = json!([
        bot("01.000100", "hi from alice", json!({"bot_id": "B1", "username": "alice (irc)"})),
        bot("02.000100", "hi from bob", json!({"bot_id": "B1", "username": "bob (irc)"})),
        bot("03.000100", "no bot id", json!({"username": "carol (irc)"})),
        bot("04.000100", "nothing at all", json!({"icons": {"emoji": ":x:"}})),
        bot(
            "05.000100",
            "app only",
            json!({"app_id": "A1", "bot_profile": {"id": "B9", "name": "Poller"}})
        ),
        said("06.000100", "U1", "hello <@W7>", json!({})),
        said("07.000100", "W7", "a guest", guest),
    ]);
    let bytes = export(&[(DAY, day)]);
    let (project, result) = imported(&parley, bytes.clone()).await;
    assert_eq!(result["messages"]["imported"], 7, "{result}");
    let history = project.history().await;
    let names: Vec<&str> =
        history.iter().filter_map(|message| message["author_name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "alice (irc)",
            "bob (irc)",
            "carol (irc)",
            "Unknown author",
            "Poller",
            "Anna Bell",
            "Gast"
        ]
    );
    assert_eq!(history[5]["text"], "hello @Gast");
    let again = succeeded(&project, bytes).await;
    assert_eq!(
        (&again["messages"]["existing"], &again["messages"]["updated"]),
        (&json!(7), &json!(0))
    );
    assert_eq!(project.history().await, history);
}

#[tokio::test]
async fn reactions_keep_long_names_in_any_script_and_those_left_out_are_counted() {
    let parley = Parley::start().await;
    let long = "a".repeat(70);
    let kanji = "語".repeat(25);
    let longest = format!("{}::skin-tone-3", "b".repeat(100));
    let names = ["+1", "clap::skin-tone-3", &long, "リハテスト", &kanji, &longest];
    let mut reactions: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "users": ["U1"], "count": 1})).collect();
    reactions.push(json!({"name": "big", "users": ["U1"], "count": 40}));
    reactions.push(json!({"name": "c".repeat(101), "users": ["U1"], "count": 1}));
    reactions.push(json!({"name": "nobody", "users": [], "count": 0}));
    let day = json!([said("01.000100", "U1", "hello", json!({"reactions": reactions}))]);
    let (project, result) = imported(&parley, export(&[(DAY, day)])).await;
    let history = project.history().await;
    let kinds: Vec<(&str, u64)> = history[0]["reactions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|kind| {
            (kind["emoji"].as_str().unwrap_or_default(), kind["count"].as_u64().unwrap_or(0))
        })
        .collect();
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    assert!(kinds.contains(&(&kanji, 1)) && kinds.contains(&(&longest, 1)), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&("big", 40)), "Slack counted more users than it named");
    assert_eq!(
        result["reactions_left_out"],
        json!({"name_not_allowed": 1, "without_name_or_users": 1})
    );
}

#[tokio::test]
async fn a_long_text_is_several_messages_and_one_record() {
    let parley = Parley::start().await;
    let japanese = "語".repeat(40_000);
    let day = json!([
        said("01.000100", "U1", "before", json!({})),
        said(
            "01.000101",
            "U1",
            &japanese,
            json!({"reactions": [{"name": "+1", "users": ["U2"], "count": 1}]})
        ),
        said("01.000102", "U2", "after", json!({"thread_ts": "1600000001.000101"})),
    ]);
    let bytes = export(&[(DAY, day)]);
    let (project, result) = imported(&parley, bytes.clone()).await;
    assert_eq!(
        result["messages"],
        json!({"total": 3, "imported": 3, "existing": 0, "updated": 0, "failed": 0, "skipped": {}})
    );
    let history = project.history().await;
    let shown: Vec<String> = history.iter().map(|message| text(&message["text"])).collect();
    assert_eq!(shown.concat(), format!("before{japanese}after"), "the parts are in their order");
    assert_eq!(history.last().expect("the last")["reply_to"], history[1]["id"]);
    let reacted = history
        .iter()
        .filter(|message| !message["reactions"].as_array().expect("a list").is_empty());
    assert_eq!(reacted.count(), 1, "the first part has the reactions");
    let again = succeeded(&project, bytes).await;
    assert_eq!(
        (&again["messages"]["existing"], &again["messages"]["total"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(project.history().await, history);
}

#[tokio::test]
async fn lists_that_are_null_named_otherwise_or_nested_are_read() {
    let parley = Parley::start().await;
    let day = |text: &str| json!([said("01.000100", "U1", text, json!({}))]).to_string();
    let (project, _) = imported(
        &parley,
        pack(&[
            ("users.json", users()),
            ("channels.json", "null".into()),
            ("dms.json", json!([{"id": "D1"}]).to_string()),
        ]),
    )
    .await;
    assert!(project.history().await.is_empty());
    let (project, _) = imported(
        &parley,
        pack(&[("org_users.json", users()), ("channels.json", channels()), (DAY, day("grid"))]),
    )
    .await;
    assert_eq!(project.history().await[0]["author_name"], "Anna Bell");
    let (_, result) = imported(
        &parley,
        pack(&[
            ("users.json", users()),
            ("groups.json", json!([{"id": "G1", "name": "board"}]).to_string()),
            ("board/2020-09-13.json", day("no")),
        ]),
    )
    .await;
    assert_eq!(result["private_left_out"]["private_channel"]["messages"], 1, "{result}");

    // Workspaces of a Grid: each has an export of its own, or folders that the lists of the whole name.
    let list = |id: &str| json!([{"id": id, "name": "general"}]).to_string();
    let nested = pack(&[
        ("org_users.json", users()),
        ("channels.json", "[]".into()),
        ("teams/one/channels.json", list("C1")),
        ("teams/one/general/2020-09-13.json", day("of one")),
        ("teams/two/channels.json", list("C2")),
        ("teams/two/general/2020-09-13.json", day("of two")),
    ]);
    let both =
        json!([{"id": "C1", "name": "general"}, {"id": "C2", "name": "general"}]).to_string();
    let shared = pack(&[
        ("org_users.json", users()),
        ("channels.json", both),
        ("teams/one/general/2020-09-13.json", day("of one")),
        ("teams/two/general/2020-09-13.json", day("of two")),
    ]);
    for bytes in [nested, shared] {
        let (project, result) = imported(&parley, bytes).await;
        assert_eq!(
            (&result["messages"]["imported"], &result["files_ignored"]),
            (&json!(2), &json!(0)),
            "{result}"
        );
        let history = project.history().await;
        let mut places: Vec<String> = history
            .iter()
            .map(|message| format!("{} {}", text(&message["channel"]), text(&message["text"])))
            .collect();
        places.sort();
        assert_eq!(places, ["general of one", "general-2 of two"]);
    }
}

/// Packs a list of members as large as a large workspace has it.
fn members(count: usize) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    // Packing this much would take a debug build longer than the import.
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    writer.start_file("users.json", stored).expect("a file");
    let padding = "x".repeat(1_000);
    for number in 0..count {
        let start = if number == 0 { "[" } else { "," };
        let profile = format!(r#"{{"display_name":"Member {number}","status_text":"{padding}"}}"#);
        write!(writer, r#"{start}{{"id":"U{number}","name":"m{number}","profile":{profile}}}"#)
            .expect("memory");
    }
    writer.write_all(b"]").expect("memory");
    writer.start_file("channels.json", stored).expect("a file");
    writer.write_all(channels().as_bytes()).expect("memory");
    writer.finish().expect("an archive").into_inner()
}

#[tokio::test]
async fn a_list_of_100_000_members_takes_little_memory() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let upload = upload(&project.client, members(100_000)).await;
    let job = submit(&project, "chat.import", json!({"upload_id": upload})).await.is(202);
    let path = format!("{JOBS}/{}", text(&job["id"]));
    let ended = async {
        loop {
            let job = project.client.get(&path).await.is(200);
            if !["queued", "running"].contains(&job["state"].as_str().expect("a state")) {
                break job;
            }
        }
    };
    let job = timeout(LONGEST_IMPORT, ended).await.expect("the import ends");
    assert_eq!(
        job["result"]["people"],
        json!({"total": 100_000, "written": 100_000, "existing": 0, "failed": 0}),
        "{job}"
    );
    let peak = parley.peak_memory_kib() >> 10;
    println!("the process had {peak} MiB at most");
    assert!(peak < 300, "the process had {peak} MiB");
}

#[tokio::test]
async fn an_export_of_another_system_is_named_with_what_to_do() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let zipped = |name: &str, content: &str| pack(&[(name, content.to_owned())]);
    let discord =
        r#"{"guild":{"id":"1","name":"G"},"channel":{"id":"2","name":"c"},"messages":[]}"#;
    let telegram = r#"{"name":"Chat","type":"personal_chat","id":1,"messages":[]}"#;
    let mattermost = "{\"type\":\"version\",\"version\":1}\n{\"type\":\"team\",\"team\":{}}\n";
    let matrix = r#"{"room_name":"R","room_creator":"@a:b","exported_by":"@a:b","messages":[]}"#;
    let whatsapp = "[31.12.20, 10:15:30] Anna: hi\n[31.12.20, 10:16:00] Bob: ho\n";
    for (system, bytes) in [
        ("Discord", discord.as_bytes().to_vec()),
        ("Discord", zipped("G - c [2].json", discord)),
        ("Discord", zipped("messages/index.json", "{}")),
        ("Telegram", telegram.as_bytes().to_vec()),
        ("Telegram", zipped("ChatExport_2024-01-01/result.json", telegram)),
        ("WhatsApp", whatsapp.as_bytes().to_vec()),
        ("WhatsApp", zipped("_chat.txt", whatsapp)),
        ("WhatsApp", zipped("WhatsApp Chat with Anna.txt", whatsapp)),
        ("Mattermost", mattermost.as_bytes().to_vec()),
        ("Mattermost", zipped("import.jsonl", mattermost)),
        ("Matrix", matrix.as_bytes().to_vec()),
        ("Matrix", zipped("matrix - R - Chat Export/export.json", matrix)),
        ("NDJSON", b"{\"kind\":\"project\",\"id\":\"x\"}\n".to_vec()),
        ("tar or gzip", vec![0x1f, 0x8b, 8, 0, 0, 0]),
    ] {
        let job = import(&project, bytes).await;
        let message = text(&job["error"]["message"]);
        assert_eq!(
            (&job["state"], &job["error"]["code"]),
            (&json!("failed"), &json!("invalid_archive")),
            "{job}"
        );
        assert!(message.contains(system), "{system}: {message}");
        assert!(message.contains("upload"), "{system}: the message says what to do: {message}");
    }
    assert!(project.history().await.is_empty());
}

#[tokio::test]
async fn an_import_of_version_0_1_0_imported_again_is_nothing_new() {
    let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
    let id = fixture::restore_sqlite(&dir);
    let parley = Parley::start_in(&dir, &fixture::KEEP_ALL).await;
    let client = parley.as_user("ada");
    let project = Project { client: client.clone(), id };
    // Jobs that the fixture left running would have the import wait for them.
    let jobs = client.get(&format!("{JOBS}?limit=200")).await.is(200);
    for job in jobs["jobs"].as_array().expect("a list") {
        if ["queued", "interrupted", "running"].contains(&job["state"].as_str().expect("a state")) {
            let path = format!("{JOBS}/{}/cancel", text(&job["id"]));
            client.call("POST", &path, &json!({})).await.is(200);
        }
    }
    let before = project.get("/messages?channel=archive&limit=200").await.is(200);
    let bytes =
        std::fs::read(fixture::file("small-slack-export.zip")).expect("the fixture's archive");
    let result = succeeded(&project, bytes).await;
    let counts = &result["messages"];
    assert_eq!((&counts["imported"], &counts["failed"]), (&json!(0), &json!(0)), "{counts}");
    assert_eq!(counts["total"].as_u64(), Some(3), "{counts}");
    let after = project.get("/messages?channel=archive&limit=200").await.is(200);
    assert_eq!(
        after["messages"].as_array().map(Vec::len),
        before["messages"].as_array().map(Vec::len)
    );
    let job = run(&project, "chat.export", json!({})).await;
    assert_eq!(job["state"], "succeeded", "{job}");
}
