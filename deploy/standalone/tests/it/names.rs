//! Ids that no login can have, and names that show what they are.

use std::{fs, sync::Arc};

use serde_json::json;

use crate::support::{Answer, Parley};

#[tokio::test]
async fn a_users_file_with_an_id_of_imported_or_derived_users_stops_the_start() {
    let dir = Arc::new(tempfile::tempdir().expect("a folder"));
    let file = dir.path().join("users.json");
    let path = file.to_str().expect("a path");
    for user in ["slack:U1", "Slack:U1", "oidc:ada", "deleted:ada"] {
        let users = json!([{"user": user, "token": "a token of sixteen or more"}]);
        fs::write(&file, users.to_string()).expect("a file");
        let refusal = Parley::refusal(&dir, &["--auth-users-file", path]).await;
        assert!(refusal.contains(user) && refusal.contains("kept for imported"), "{refusal}");
    }
    let token = "a-token-of-sixteen-or-more";
    let users = json!([{"user": "f:4711:ada", "name": "\u{202e}Ada\u{200b}", "token": token}]);
    fs::write(&file, users.to_string()).expect("a file");
    let parley = Parley::start_in(&dir, &["--auth-users-file", path]).await;
    let request = parley.client().request("GET", "/api/auth/me").bearer_auth(token);
    let me = Answer::to(request).await.is(200);
    assert_eq!((&me["user"], &me["name"]), (&json!("f:4711:ada"), &json!("Ada")));
}

#[tokio::test]
async fn names_of_projects_and_topics_lose_what_turns_the_text_around_them() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let name = json!({"name": "\u{2066}Plans\u{2069} \u{5d0}\u{5d1}\u{202e}"});
    let project = ada.call("POST", "/api/chat/projects", &name).await.is(201);
    assert_eq!(project["name"], "Plans \u{5d0}\u{5d1}");
    let path = format!("/api/chat/projects/{}", project["id"].as_str().expect("an id"));
    let renamed = ada.call("PATCH", &path, &json!({"name": "\u{200f}Plans"})).await.is(200);
    assert_eq!(renamed["name"], "Plans");
    for nothing in ["\u{202e}", "\u{200b}\u{feff}", "\u{3164}"] {
        let body = json!({"name": nothing});
        ada.call("POST", "/api/chat/projects", &body).await.refused(422, "invalid_field");
    }
    for nothing in ["\u{200d}", "\u{fe0f}"] {
        let body = json!({"name": nothing});
        ada.call("POST", "/api/chat/projects", &body).await.refused(422, "invalid_field");
    }
    let channels = format!("{path}/channels");
    for looks_like_another in ["gen\u{200b}eral", "\u{202e}lareneg", "general\u{e0041}", "\u{200d}"]
    {
        let body = json!({"name": looks_like_another});
        let refusal = ada.call("POST", &channels, &body).await.refused(422, "invalid_field");
        assert_eq!(refusal["field"], "name", "{refusal}");
    }
    let body = json!({"name": "de\u{301}sign", "topic": "Plans\u{202e}\nand more"});
    let channel = ada.call("POST", &channels, &body).await.is(201);
    assert_eq!(channel["topic"], "Plans\nand more");
}

#[tokio::test]
async fn a_reaction_has_no_invisible_characters_and_can_be_any_real_emoji() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let sent = project.send("react to this").await;
    let path = |emoji: &str| {
        let encode = |byte: u8| format!("%{byte:02X}");
        let emoji: String = emoji.bytes().map(encode).collect();
        format!("/messages/{}/reactions/{emoji}", sent["id"].as_str().expect("an id"))
    };
    for hidden in ["\u{202e}👍", "👍\u{200b}", "\u{200d}", "👍\u{200d}", "\u{2066}a\u{2069}"]
    {
        let refusal = project.call("PUT", &path(hidden), &json!({})).await;
        let refusal = refusal.refused(422, "invalid_field");
        assert_eq!(refusal["field"], "emoji", "{hidden:?}");
    }
    let flag = "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";
    let real =
        ["👨\u{200d}👩\u{200d}👧", "❤\u{fe0f}\u{200d}🔥", "1\u{fe0f}\u{20e3}", "👍🏽", flag, "+1"];
    for emoji in real {
        project.call("PUT", &path(emoji), &json!({})).await.is(200);
    }
    let history = project.history().await;
    assert_eq!(history[0]["reactions"].as_array().map(Vec::len), Some(real.len()), "{history:?}");
}
