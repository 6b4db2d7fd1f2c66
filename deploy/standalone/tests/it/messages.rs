//! Messages: sending, changing, answering, sending again, and the history as a whole.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    project::Project,
    support::{Answer, Parley, column, text},
};

#[tokio::test]
async fn a_message_is_kept_as_it_was_sent() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let first = project.send("first").await;
    let odd = "  <b>&amp;</b> \r\n\t\u{2028}\u{feff}\u{202e} e\u{301} 👩‍👩‍👧 \u{10ffff} '; --  ";
    let metadata = json!({"b": [1, {"c": null}], "a": 1e3});
    let new = json!({"text": odd, "reply_to": first["id"], "metadata": metadata});
    let sent = project.call("POST", "/messages", &new).await;
    let location = sent.header("location").to_owned();
    let sent = sent.is(201);
    assert_eq!(sent["text"], odd);
    assert_eq!((&sent["reply_to"], &sent["metadata"]), (&first["id"], &metadata));
    assert_eq!((&sent["author"], &sent["channel"]), (&json!("ada"), &json!("general")));
    assert_eq!((&sent["project_id"], &sent["reactions"]), (&json!(project.id), &json!([])));
    assert_eq!((&sent["updated_at"], &sent["deleted_at"]), (&Value::Null, &Value::Null));
    assert_eq!(project.client.get(&location).await.is(200), sent);
    assert_eq!(project.history().await, [first, sent]);
}

#[tokio::test]
async fn a_text_has_bounds() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    // As many characters as there may be, and as many bytes of JSON, in which some characters are longer.
    let (quoted, lines) = ("\"".repeat(28_671), format!("xxxxxx{}", "\u{2028}".repeat(9_556)));
    for longest in ["x".repeat(32_000), "ß".repeat(28_671), quoted, lines] {
        let sent = project.send(&longest).await;
        assert_eq!(sent["text"], *longest);
        let path = format!("/messages/{}", text(&sent["id"]));
        for too_long in [format!("{longest}x"), format!("{longest}ß"), "😀".repeat(14_400)] {
            let body = json!({"text": too_long});
            let refused = project.call("POST", "/messages", &body).await;
            assert_eq!(refused.refused(413, "too_large")["field"], "text");
            let refused = project.call("PATCH", &path, &body).await;
            assert_eq!(refused.refused(413, "too_large")["field"], "text");
        }
    }
    let metadata = |bytes: usize| json!({"text": "x", "metadata": {"x": "y".repeat(bytes - 8)}});
    project.call("POST", "/messages", &metadata(4096)).await.is(201);
    let count = project.history().await.len();
    for (body, field) in [
        (json!({"text": ""}), "text"),
        (json!({"text": " \n\u{3000}"}), "text"),
        (json!({"text": "a\u{0}b"}), "text"),
        (json!({"text": null}), "text"),
        (json!({}), "text"),
        (json!({"text": "x", "metadata": []}), "metadata"),
        (json!({"text": "x", "metadata": {"a": "\u{0}"}}), "metadata"),
        (json!({"text": "x", "metadata": {"\u{0}": 1}}), "metadata"),
        (metadata(4097), "metadata"),
        (json!({"text": "x", "reply_to": "junk"}), "reply_to"),
        (json!({"text": "x", "channel": ""}), "channel"),
        (json!({"text": "x", "client_message_id": ""}), "client_message_id"),
        (json!({"text": "x", "client_message_id": "a b"}), "client_message_id"),
        (json!({"text": "x", "client_message_id": "x".repeat(129)}), "client_message_id"),
        (json!({"text": "x", "id": "y"}), "id"),
    ] {
        let refused = project.call("POST", "/messages", &body).await;
        assert_eq!(refused.refused(422, "invalid_field")["field"], field);
    }
    assert_eq!(project.history().await.len(), count);
}

#[tokio::test]
async fn an_edit_a_deletion_and_reactions_are_seen_by_all() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "member").await;
    let id = text(&ada.send("helo").await["id"]);
    let path = format!("/messages/{id}");
    let (mut stream, _) = grace.stream("").await;

    let edited = ada.call("PATCH", &path, &json!({"text": "hello"})).await.is(200);
    assert_eq!(edited["text"], "hello");
    assert!(edited["updated_at"].is_string());
    assert_eq!(stream.expect("message.updated").await["message"], edited);

    let reaction = format!("{path}/reactions/👍");
    ada.call("PUT", &reaction, &json!({})).await.is(200);
    grace.call("PUT", &reaction, &json!({})).await.is(200);
    // Once more changes nothing and tells nobody.
    grace.call("PUT", &reaction, &json!({})).await.is(200);
    for same in ["+1", ":+1:", "thumbsup", "👍\u{fe0f}"] {
        grace.call("PUT", &format!("{path}/reactions/{same}"), &json!({})).await.is(200);
    }
    let reacted = grace.call("PUT", &format!("{path}/reactions/👍🏽"), &json!({})).await.is(200);
    // The caller is the first of the users.
    let expected = |users: [&str; 2]| json!([{"emoji": "👍", "users": users, "count": 2}, {"emoji": "👍🏽", "users": ["grace"], "count": 1}]);
    assert_eq!(reacted["reactions"], expected(["grace", "ada"]));
    assert_eq!(ada.get(&path).await.is(200)["reactions"], expected(["ada", "grace"]));
    for user in ["ada", "grace"] {
        let told = stream.expect("reaction.added").await;
        assert_eq!((&told["actor"], &told["reaction"]["message_id"]), (&json!(user), &json!(id)));
    }
    assert_eq!(stream.expect("reaction.added").await["reaction"]["emoji"], "👍🏽");
    grace.delete(&format!("{path}/reactions/thumbsup")).await.is(200);
    grace.delete(&reaction).await.is(200);
    assert_eq!(stream.expect("reaction.removed").await["reaction"]["emoji"], "👍");

    let deleted = ada.delete(&path).await.is(200);
    assert_eq!((&deleted["text"], &deleted["reactions"]), (&json!(""), &json!([])));
    assert!(deleted["deleted_at"].is_string());
    assert_eq!(ada.delete(&path).await.is(200), deleted);
    assert_eq!(stream.expect("message.deleted").await["message"], deleted);
    ada.call("PATCH", &path, &json!({"text": "x"})).await.refused(409, "conflict");
    ada.call("PUT", &reaction, &json!({})).await.refused(409, "conflict");
    // A tombstone keeps its place and can be answered.
    let answer = json!({"text": "gone?", "reply_to": id});
    let answer = ada.call("POST", "/messages", &answer).await.is(201);
    assert_eq!(ada.history().await, [deleted, answer.clone()]);
    assert_eq!(stream.expect("message.created").await["message"], answer);
}

#[tokio::test]
async fn a_message_has_at_most_fifty_kinds_of_reaction() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    let path = format!("/messages/{}", text(&ada.send("react").await["id"]));
    for kind in 0..50 {
        ada.call("PUT", &format!("{path}/reactions/kind{kind}"), &json!({})).await.is(200);
    }
    let refused = ada.call("PUT", &format!("{path}/reactions/one-more"), &json!({})).await;
    refused.refused(409, "conflict");
    // A kind that is there takes further users, and one that goes makes room.
    let grace = ada.with("grace", "member").await;
    grace.call("PUT", &format!("{path}/reactions/kind49"), &json!({})).await.is(200);
    ada.delete(&format!("{path}/reactions/kind0")).await.is(200);
    let message = ada.call("PUT", &format!("{path}/reactions/one-more"), &json!({})).await.is(200);
    assert_eq!(message["reactions"].as_array().expect("a list").len(), 50, "{message}");
}

#[tokio::test]
async fn the_same_key_and_body_is_the_same_message() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "member").await;
    let keyed = |text: &str, key: &str| json!({"text": text, "client_message_id": key});
    let first = ada.call("POST", "/messages", &keyed("one", "k1")).await.is(201);
    assert_eq!(ada.call("POST", "/messages", &keyed("one", "k1")).await.is(200), first);
    ada.call("POST", "/messages", &keyed("two", "k1")).await.refused(409, "idempotency_conflict");
    let channel = json!({"text": "one", "client_message_id": "k1", "metadata": {}});
    ada.call("POST", "/messages", &channel).await.refused(409, "idempotency_conflict");
    // The header is the same key as the field.
    let by_header = async |project: &Project, text: &str, key: &str| {
        let request = project.client.request("POST", &project.path("/messages"));
        Answer::to(request.header("idempotency-key", key).json(&json!({"text": text}))).await
    };
    assert_eq!(by_header(&ada, "one", "k1").await.is(200), first);
    let second = by_header(&ada, "two", "k2").await.is(201);
    assert_eq!(ada.call("POST", "/messages", &keyed("two", "k2")).await.is(200), second);
    by_header(&ada, "two", "a b").await.refused(400, "invalid_request");
    // Two keys that differ are no key.
    let by_both = |headers: &[&str], body: Value| {
        let mut request = ada.client.request("POST", &ada.path("/messages"));
        for key in headers {
            request = request.header("idempotency-key", *key);
        }
        Answer::to(request.json(&body))
    };
    let refusal = by_both(&["k4"], keyed("four", "k3")).await.refused(422, "invalid_field");
    assert_eq!(refusal["field"], "client_message_id");
    by_both(&["k3", "k4"], json!({"text": "four"})).await.refused(400, "invalid_request");
    assert_eq!(by_both(&["k1", "k1"], keyed("one", "k1")).await.is(200), first);
    // Keys are each user's own, and each project's.
    let theirs = by_header(&grace, "one", "k1").await.is(201);
    assert_ne!(theirs["id"], first["id"]);
    by_header(&ada.client.project().await, "one", "k1").await.is(201);
    // What was edited since is given as it is now.
    let path = format!("/messages/{}", text(&first["id"]));
    let edited = ada.call("PATCH", &path, &json!({"text": "changed"})).await.is(200);
    assert_eq!(by_header(&ada, "one", "k1").await.is(200), edited);
    assert_eq!(ada.history().await.len(), 3);
}

#[tokio::test]
async fn fifty_concurrent_duplicates_are_one_message() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let mut sends = JoinSet::new();
    for _ in 0..50 {
        let project = project.clone();
        sends.spawn(async move {
            let body = json!({"text": "once", "client_message_id": "k"});
            let answer = project.call("POST", "/messages", &body).await;
            (answer.status, text(&answer.body["id"]))
        });
    }
    let (statuses, ids): (Vec<_>, HashSet<_>) = sends.join_all().await.into_iter().unzip();
    assert_eq!(ids.len(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 49);
    assert_eq!(project.history().await.len(), 1);
    assert_eq!(project.log(&cursor).await.len(), 1);
}

/// Reads all pages in one direction, oldest first.
async fn pages(project: &Project, filter: &str, direction: &str, start: &str) -> Vec<String> {
    let (mut all, mut anchor) = (Vec::new(), start.to_owned());
    loop {
        let page = project.get(&format!("/messages?limit=64{filter}{anchor}")).await.is(200);
        // Whichever way the pages go, each is newest first.
        let mut texts = column(&page["messages"], "text");
        texts.reverse();
        let at = if direction == "before" { 0 } else { all.len() };
        all.splice(at..at, texts);
        match page["next"].as_str() {
            Some(next) => anchor = format!("&{direction}={next}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn pages_give_every_message_once_and_in_order_both_ways() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    project.call("POST", "/channels", &json!({"name": "other"})).await.is(201);
    let (mut all, mut other, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..450 {
        let (text_sent, is_other) = (number.to_string(), number % 3 == 0);
        let channel = if is_other { "other" } else { "general" };
        let new = json!({"text": text_sent, "channel": channel});
        ids.push(text(&project.call("POST", "/messages", &new).await.is(201)["id"]));
        if is_other {
            other.push(text_sent.clone());
        }
        all.push(text_sent);
    }
    assert_eq!(pages(&project, "", "before", "").await, all);
    assert_eq!(pages(&project, "&channel=other", "before", "").await, other);
    let after = format!("&after={}", ids[0]);
    assert_eq!(pages(&project, "", "after", &after).await, all[1..]);
    assert_eq!(pages(&project, "&channel=other", "after", &after).await, other[1..]);
    // The anchor may be of another channel, deleted, or the last one.
    project.delete(&format!("/messages/{}", ids[1])).await.is(200);
    let after = format!("&after={}", ids[1]);
    assert_eq!(pages(&project, "&channel=other", "after", &after).await, other[1..]);
    let last = project.get(&format!("/messages?after={}", ids[449])).await.is(200);
    assert_eq!((&last["messages"], &last["next"]), (&json!([]), &Value::Null));
    let default = project.get("/messages").await.is(200);
    assert_eq!(default["messages"].as_array().unwrap().len(), 50);
    for query in ["limit=0", "limit=201", "limit=x", "before=junk", "channel=A%20B"] {
        project.get(&format!("/messages?{query}")).await.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn history_and_the_stream_from_its_cursor_have_no_hole() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let mut senders = JoinSet::new();
    for sender in 0..4 {
        let project = project.clone();
        senders.spawn(async move {
            for number in 0..50 {
                project.send(&format!("{sender}-{number}")).await;
            }
        });
    }
    // Snapshots are taken while messages come in.
    for _ in 0..5 {
        let page = project.get("/messages?limit=200").await.is(200);
        let snapshot = column(&page["messages"], "text");
        let (mut stream, hello) =
            project.stream(&format!("&since={}", text(&page["cursor"]))).await;
        assert_eq!(hello["resumed"], true);
        let mut seen: Vec<String> = snapshot.into_iter().rev().collect();
        while seen.len() < 200 {
            let event = stream.until("message.created").await;
            seen.push(text(&event.data["message"]["text"]));
        }
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 200, "one was told twice");
        for sender in 0..4 {
            let order = seen.iter().filter_map(|text| text.strip_prefix(&format!("{sender}-")));
            let order: Vec<usize> = order.map(|number| number.parse().unwrap()).collect();
            assert_eq!(order, (0..50).collect::<Vec<_>>());
        }
    }
    senders.join_all().await;
}
