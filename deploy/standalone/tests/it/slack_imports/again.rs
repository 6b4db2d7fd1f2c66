//! What a later archive changes of an earlier one, and archives that are not as Slack writes them.

use serde_json::{Value, json};

use super::{DAY, channels, export, imported, said, succeeded, texts, users};
use crate::{
    archive::{import, pack},
    project::Project,
    support::{Parley, text},
};

fn edited(at: &str) -> Value {
    json!({"edited": {"user": "U1", "ts": format!("16000001{at}")}})
}

/// Returns the messages that are not deleted.
async fn left(project: &Project) -> Vec<Value> {
    let mut history = project.history().await;
    history.retain(|message| message["deleted_at"].is_null());
    history
}

fn with_lists(lists: &[(&str, Value)], files: &[(&str, Value)]) -> Vec<u8> {
    let files: Vec<(&str, String)> =
        lists.iter().chain(files).map(|(name, json)| (*name, json.to_string())).collect();
    pack(&files)
}

#[tokio::test]
async fn an_entry_of_a_list_that_cannot_be_used_is_named_and_costs_no_other() {
    let parley = Parley::start().await;
    let broken = |good: &str| format!(r#"[{{"name":"no id"}}, {{"id": }}, "text", {good}]"#);
    let day = json!([said("01.000100", "U1", "hello", json!({}))]).to_string();
    let inner = |list: String| list.trim_matches(['[', ']']).to_owned();
    let bytes = pack(&[
        ("users.json", broken(&inner(users()))),
        ("org_users.json", r#"[null, {"id": "U9", "name": "zoe"}]"#.into()),
        ("channels.json", broken(&inner(channels()))),
        ("groups.json", r#"[{"name": "board"}, {"id": "G1", "name": "staff"}]"#.into()),
        ("dms.json", "[{}]".into()),
        (DAY, day.clone()),
        ("board/2020-09-13.json", day),
    ]);
    let (project, result) = imported(&parley, bytes).await;
    assert_eq!(texts(&project).await, ["hello"]);
    assert_eq!(result["people"], json!({"total": 7, "written": 3, "existing": 0, "failed": 4}));
    assert_eq!(result["channels"], json!({"total": 5, "written": 1, "existing": 1, "failed": 3}));
    let entries = result["left_out"]["entries"].as_array().expect("a list");
    let named: Vec<String> = entries
        .iter()
        .map(|entry| format!("{} {}", text(&entry["file"]), entry["entry"]))
        .collect();
    let wanted = [
        "users.json 1",
        "users.json 2",
        "users.json 3",
        "org_users.json 1",
        "channels.json 1",
        "channels.json 2",
        "channels.json 3",
        "groups.json 1",
        "dms.json 1",
    ];
    assert_eq!(named, wanted);
    assert_eq!(
        entries[0],
        json!({"file": "users.json", "entry": 1, "name": "no id", "reason": "it has no id"})
    );
    assert_eq!(result["left_out"]["more"]["entries"], 0);
    let warnings = result["warnings"].to_string();
    assert!(warnings.contains("9 entries of lists were left out"), "{warnings}");
    // A private conversation without an id is private.
    let private = &result["private_left_out"]["private_channel"];
    assert_eq!(private, &json!({"conversations": 2, "messages": 1}), "{result}");

    // A list that is none names its file and line.
    let job = import(
        &project,
        pack(&[("users.json", "[\n{\"id\": \"U1\"}\n".into()), ("channels.json", channels())]),
    )
    .await;
    let message = text(&job["error"]["message"]);
    assert_eq!(message, "users.json is not a complete JSON array: the array never ends, at line 3");
}

#[tokio::test]
async fn the_newer_of_two_versions_wins_whatever_the_order() {
    let parley = Parley::start().await;
    let old = said("01.000100", "U1", "as it was", json!({}));
    let new = said("01.000100", "U1", "as it is", edited("00.000000"));
    let newest = said("01.000100", "U1", "as it is now", edited("50.000000"));
    let copy = "general/2020-09-13 (1).json";
    for (one, other, shown) in [
        (json!([old]), json!([new]), "as it is"),
        (json!([new]), json!([old]), "as it is"),
        (json!([newest]), json!([new]), "as it is now"),
        (json!([new, old, newest]), json!([]), "as it is now"),
        (
            json!([old]),
            json!([said("01.000100", "U1", "without a time", json!({}))]),
            "without a time",
        ),
    ] {
        let bytes = export(&[(copy, one.clone()), (DAY, other.clone())]);
        let (project, result) = imported(&parley, bytes.clone()).await;
        assert_eq!(texts(&project).await, [shown], "{one} {other}");
        let records = one.as_array().map_or(0, Vec::len) + other.as_array().map_or(0, Vec::len);
        let skipped = &result["messages"]["skipped"];
        assert_eq!(skipped, &json!({"duplicate_version": records - 1}), "{one} {other}");
        let again = succeeded(&project, bytes).await;
        assert_eq!(
            (&again["messages"]["existing"], &again["messages"]["updated"]),
            (&json!(1), &json!(0))
        );
    }
}

#[tokio::test]
async fn a_members_new_name_arrives_and_an_older_one_does_not_come_back() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    project.send("mine").await;
    let archive = |name: &str, updated: Value| {
        let mut user = json!({"id": "U1", "name": "anna", "profile": {"display_name": name}});
        if !updated.is_null() {
            user["updated"] = updated;
        }
        let day = json!([said("01.000100", "U1", "hello", json!({}))]);
        // Ids of an archive are never those of a login.
        let ada = json!({"id": "ada", "name": "not ada"});
        with_lists(
            &[
                ("users.json", json!([user, ada])),
                ("channels.json", json!([{"id": "C1", "name": "general"}])),
            ],
            &[(DAY, day)],
        )
    };
    let shown = async || {
        let history = project.history().await;
        let names = history.iter().map(|message| text(&message["author_name"]));
        names.collect::<Vec<_>>()
    };
    for (name, updated, wanted, count) in [
        ("Anna Bell", Value::Null, "Anna Bell", 0),
        ("Anna Cole", Value::Null, "Anna Cole", 1),
        ("Anna Dunn", json!(1_600_000_500), "Anna Dunn", 1),
        ("Anna Bell", json!(1_600_000_100), "Anna Dunn", 0),
        ("Anna Bell", Value::Null, "Anna Dunn", 0),
        ("", json!(1_600_000_900), "anna", 1),
    ] {
        let result = succeeded(&project, archive(name, updated)).await;
        assert_eq!(shown().await, [wanted, "Ada"], "{name}");
        let people = &result["people"];
        assert_eq!(people["updated"].as_u64().unwrap_or(0), count, "{name}: {people}");
        let sum = ["written", "existing", "updated", "failed"]
            .map(|key| people[key].as_u64().unwrap_or(0));
        assert_eq!(people["total"], sum.iter().sum::<u64>(), "{name}: {people}");
    }
}

#[tokio::test]
async fn a_message_that_was_deleted_in_slack_is_deleted_here() {
    let parley = Parley::start().await;
    let day = json!([
        said("01.000100", "U1", "a root", json!({"thread_ts": "1600000001.000100"})),
        said(
            "02.000100",
            "U2",
            "a reply",
            json!({"thread_ts": "1600000001.000100", "parent_user_id": "U1"})
        ),
        said("03.000100", "U1", &"long ".repeat(30_000), json!({})),
        said("04.000100", "U1", "missing later", json!({})),
        said("05.000100", "U1", "of an event", json!({})),
        said("06.000100", "U1", "one", json!({})),
        said("06.000100", "U2", "two", json!({})),
    ]);
    let (project, _) = imported(&parley, export(&[(DAY, day)])).await;
    let before = project.history().await;
    let cursor = project.cursor().await;
    let tombstone = |at: &str, user: &str| {
        said(at, user, "This message was deleted.", json!({"subtype": "tombstone", "hidden": true}))
    };
    let later = json!([
        tombstone("01.000100", "USLACKBOT"),
        said("02.000100", "U2", "a reply", json!({"thread_ts": "1600000001.000100", "parent_user_id": "USLACKBOT"})),
        tombstone("03.000100", "U1"),
        {"type": "message", "subtype": "message_deleted", "ts": "1600000009.000100", "deleted_ts": "1600000005.000100",
         "previous_message": {"type": "message", "user": "U1", "text": "of an event", "ts": "1600000005.000100"}},
        tombstone("06.000100", "U2"),
        tombstone("07.000100", "USLACKBOT"),
    ]);
    let bytes = export(&[(DAY, later)]);
    let counts = succeeded(&project, bytes.clone()).await["messages"].clone();
    assert_eq!(
        counts,
        json!({"total": 6, "imported": 0, "existing": 1, "updated": 4, "failed": 0, "skipped": {"tombstone": 1}})
    );
    let shown: Vec<String> =
        left(&project).await.iter().map(|message| text(&message["text"])).collect();
    assert_eq!(
        shown,
        ["a reply", "missing later", "one"],
        "a message that is merely missing stays"
    );
    let history = project.history().await;
    assert_eq!(history.len(), before.len());
    assert!(history.iter().all(|message| message["deleted_at"].is_null() || message["text"] == ""));
    assert_eq!(
        (&history[0]["id"], &history[0]["author"]),
        (&before[0]["id"], &before[0]["author"])
    );
    assert_eq!(history[1]["reply_to"], before[0]["id"]);
    let told = project.log(&cursor).await;
    let told = told.iter().filter(|event| event["type"] == "message.deleted").count();
    assert_eq!(told, before.len() - 3, "streams hear of each");

    let counts = succeeded(&project, bytes).await["messages"].clone();
    assert_eq!((&counts["updated"], &counts["existing"]), (&json!(0), &json!(5)), "{counts}");
    // An older archive does not bring it back.
    let older = export(&[(DAY, json!([said("01.000100", "U1", "a root", json!({}))]))]);
    succeeded(&project, older).await;
    assert_eq!(project.history().await, history);
}

#[tokio::test]
async fn records_of_one_time_in_two_batches_are_known_like_those_of_one() {
    let parley = Parley::start().await;
    let between = |from: u64| {
        (0..600)
            .map(move |number| said(&format!("5{from}.{number:06}"), "U1", "between", json!({})))
    };
    for (one, other) in [("U1", "U1"), ("U1", "U2")] {
        let first = said("01.000100", one, "first", json!({}));
        let second = said("01.000100", other, "second", json!({}));
        let reply = said(
            "02.000100",
            "U3",
            "reply",
            json!({"thread_ts": "1600000001.000100", "parent_user_id": other}),
        );
        // The earlier archive has only the second one.
        let (project, _) = imported(&parley, export(&[(DAY, json!([second]))])).await;
        let before = project.history().await;
        let mut day = vec![reply];
        day.extend(between(0));
        day.push(first);
        day.extend(between(1));
        day.push(second.clone());
        let bytes = export(&[(DAY, json!(day))]);
        let counts = succeeded(&project, bytes.clone()).await["messages"].clone();
        let wanted = (&json!(1_202), &json!(1), &json!(0));
        assert_eq!(
            (&counts["imported"], &counts["existing"], &counts["updated"]),
            wanted,
            "{one} {other}"
        );
        let history = project.history().await;
        assert_eq!(history[0], before[0], "{one} {other}: the message of before is as it was");
        let shown: Vec<&Value> = history.iter().take(3).map(|message| &message["text"]).collect();
        assert_eq!(shown, ["second", "first", "reply"], "{one} {other}");
        if one != other {
            assert_eq!(history[2]["reply_to"], history[0]["id"], "the reply hangs on its root");
        }
        let counts = succeeded(&project, bytes).await["messages"].clone();
        assert_eq!(
            (&counts["existing"], &counts["updated"]),
            (&json!(1_203), &json!(0)),
            "{counts}"
        );
        assert_eq!(project.history().await, history);
    }
}

#[tokio::test]
async fn a_reply_finds_its_root_of_a_time_whose_messages_are_in_other_batches() {
    let parley = Parley::start().await;
    let mut day = vec![
        said("01.000100", "U1", "first", json!({})),
        said(
            "02.000100",
            "U3",
            "reply",
            json!({"thread_ts": "1600000001.000100", "parent_user_id": "U2"}),
        ),
    ];
    day.extend((0..600).map(|number| said(&format!("50.{number:06}"), "U1", "between", json!({}))));
    day.push(said("01.000100", "U2", "second", json!({})));
    let (project, result) = imported(&parley, export(&[(DAY, json!(day))])).await;
    assert_eq!(result["messages"]["imported"], 603, "{result}");
    let history = project.history().await;
    assert_eq!(history.len(), 603);
    let find =
        |shown: &str| history.iter().find(|message| message["text"] == shown).expect("it is here");
    assert_eq!(find("reply")["reply_to"], find("second")["id"]);
}

#[tokio::test]
async fn the_place_of_a_missing_root_shows_no_invented_author() {
    let parley = Parley::start().await;
    let reply = |at: &str, thread: &str, more: Value| {
        let mut reply = said(at, "U2", "reply", more);
        reply["thread_ts"] = format!("16000000{thread}").into();
        reply
    };
    let day = json!([
        reply("02.000100", "01.000100", json!({})),
        reply("04.000100", "03.000100", json!({"parent_user_id": "USLACKBOT"})),
        reply("06.000100", "05.000100", json!({"parent_user_id": "U1"})),
    ]);
    let (project, result) = imported(&parley, export(&[(DAY, day)])).await;
    let history = project.history().await;
    let roots: Vec<_> = history.iter().filter(|message| message["text"] == "").collect();
    let authors: Vec<_> =
        roots.iter().map(|root| (text(&root["author"]), text(&root["author_name"]))).collect();
    let unknown = || ("slack:unknown".to_owned(), "Unknown author".to_owned());
    assert_eq!(authors, [unknown(), unknown(), ("slack:U1".to_owned(), "Anna Bell".to_owned())]);
    assert_eq!(result["people"]["total"], 2, "nobody is counted as a member");
}

#[tokio::test]
async fn made_public_names_only_channels_that_an_earlier_import_made() {
    let parley = Parley::start().await;
    let day = json!([said("01.000100", "U1", "hello", json!({}))]);
    let lists = |channels: Value, groups: Value| {
        let users: Value = serde_json::from_str(&users()).expect("JSON");
        [("users.json", users), ("channels.json", channels), ("groups.json", groups)]
    };
    // One conversation in both lists, one name for two, and one that becomes a channel's name here.
    let groups = json!([{"id": "C1", "name": "both"}, {"id": "G2", "name": "same"}, {"id": "G3", "name": "Room 1"}]);
    let channels = json!([{"id": "C1", "name": "both"}, {"id": "C2", "name": "same"}, {"id": "C3", "name": "room-1"}]);
    let lists = lists(channels, groups);
    let bytes = with_lists(&lists, &[("both/2020-09-13.json", day.clone())]);
    let (project, result) = imported(&parley, bytes.clone()).await;
    assert_eq!(result["made_public"], json!([]), "a fresh project: {result}");
    let names = project.get("/channels").await.is(200)["channels"].clone();
    let has_both =
        names.as_array().expect("a list").iter().any(|channel| channel["name"] == "both");
    assert!(!has_both, "a conversation that a list calls private is no channel: {names}");
    assert_eq!(succeeded(&project, bytes).await["made_public"], json!([]), "again");
}

#[tokio::test]
async fn one_entry_of_extreme_ratio_is_refused_before_anything_is_unpacked() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    // Text that hardly packs makes the ratio of the whole archive an ordinary one.
    let mut state = 7_u64;
    let mut noise = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{state:016x}")
    };
    let long: String = (0..40_000).map(|_| noise()).collect();
    let bomb = format!("[{}]", " ".repeat(8 << 20));
    for name in ["general/2020-09-14.json", "notes.txt"] {
        let bytes = pack(&[
            ("users.json", users()),
            ("channels.json", channels()),
            (DAY, json!([said("01.000100", "U1", &long, json!({}))]).to_string()),
            (name, bomb.clone()),
        ]);
        assert!(bomb.len() < 40 * bytes.len(), "the ratio of the archive is an ordinary one");
        let job = import(&project, bytes).await;
        assert_eq!(
            (&job["state"], &job["error"]["code"]),
            (&json!("failed"), &json!("invalid_archive"))
        );
        let message = text(&job["error"]["message"]);
        assert!(message.contains(name) && message.contains("200 times"), "{message}");
        assert!(project.history().await.is_empty());
    }
}
