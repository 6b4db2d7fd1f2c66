//! Projects, members, channels, and who is there.

use serde_json::{Value, json};

use crate::{
    project::Project,
    support::{Parley, column, text},
};

#[tokio::test]
async fn a_project_is_made_listed_renamed_and_ended() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let made = ada.call("POST", "/api/chat/projects", &json!({"name": " Höhle "})).await;
    let location = made.header("location").to_owned();
    let made = made.is(201);
    assert_eq!((&made["name"], &made["role"]), (&json!("Höhle"), &json!("owner")));
    assert_eq!(ada.get(&location).await.is(200), made);
    assert_eq!(uuid::Uuid::parse_str(&text(&made["id"])).unwrap().get_version_num(), 7);
    assert_eq!(text(&made["created_at"]).len(), "2005-02-08T09:56:00.000Z".len());

    let renamed = ada.call("PATCH", &location, &json!({"name": "New"})).await.is(200);
    assert_eq!((&renamed["name"], &renamed["id"]), (&json!("New"), &made["id"]));
    assert_eq!(ada.delete(&location).await.status, 204);
    ada.get(&location).await.refused(404, "not_found");
    ada.delete(&location).await.refused(404, "not_found");
}

#[tokio::test]
async fn projects_page_newest_first_and_are_only_ones_own() {
    let parley = Parley::start().await;
    let (ada, grace) = (parley.as_user("ada"), parley.as_user("grace"));
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, ada.project().await.id);
        grace.project().await;
    }
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        let page = ada.get(&format!("/api/chat/projects?limit=2{before}")).await.is(200);
        seen.extend(column(&page["projects"], "id"));
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn roles_decide_who_may_do_what() {
    let parley = Parley::start().await;
    let owner = parley.as_user("ada").project().await;
    let message = text(&owner.send("first").await["id"]);
    let own = |id: &str| format!("/messages/{id}");
    let reaction = format!("/messages/{message}/reactions/👍");
    let viewer = owner.with("grace", "viewer").await;
    assert_eq!(viewer.get("").await.is(200)["role"], "viewer");
    assert_eq!(viewer.history().await.len(), 1);
    let member = json!({"role": "member"});
    for (method, path, body) in [
        ("POST", "/messages", json!({"text": "x"})),
        ("PATCH", &own(&message), json!({"text": "x"})),
        ("DELETE", &own(&message), json!({})),
        ("PUT", &reaction, json!({})),
        ("DELETE", &reaction, json!({})),
        ("POST", "/channels", json!({"name": "x"})),
        ("PATCH", "/channels/general", json!({"topic": "x"})),
        ("POST", "/typing", json!({"channel": "general"})),
        ("PUT", "/members/admin", member.clone()),
        ("PUT", "/members/grace", member.clone()),
        ("DELETE", "/members/ada", json!({})),
        ("PATCH", "", json!({"name": "x"})),
        ("DELETE", "", json!({})),
    ] {
        viewer.call(method, path, &body).await.refused(403, "forbidden");
    }
    let member_of = owner.with("grace", "member").await;
    let theirs = text(&member_of.send("theirs").await["id"]);
    member_of.call("PUT", &reaction, &json!({})).await.is(200);
    member_of.call("POST", "/channels", &json!({"name": "made"})).await.is(201);
    for (method, path, body) in [
        ("PATCH", &own(&message), json!({"text": "x"})),
        ("DELETE", &own(&message), json!({})),
        ("PUT", &"/members/admin".into(), member),
        ("PATCH", &String::new(), json!({"name": "x"})),
    ] {
        member_of.call(method, path, &body).await.refused(403, "forbidden");
    }
    // An owner takes back what others said, and does not put words into their mouths.
    owner.call("PATCH", &own(&theirs), &json!({"text": "x"})).await.refused(403, "forbidden");
    owner.delete(&own(&theirs)).await.is(200);
    assert_eq!(owner.get(&own(&message)).await.is(200)["text"], "first");
}

#[tokio::test]
async fn for_a_stranger_the_project_does_not_exist() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let message = text(&project.send("secret").await["id"]);
    let stranger = project.of("grace");
    let nowhere = Project { id: uuid::Uuid::now_v7().to_string(), ..stranger.clone() };
    let own = format!("/messages/{message}");
    let reaction = format!("/messages/{message}/reactions/x");
    let routes = [
        ("GET", "", json!({})),
        ("PATCH", "", json!({"name": "x"})),
        ("DELETE", "", json!({})),
        ("GET", "/members", json!({})),
        ("GET", "/members/ada", json!({})),
        ("PUT", "/members/grace", json!({"role": "owner"})),
        ("DELETE", "/members/grace", json!({})),
        ("GET", "/channels", json!({})),
        ("POST", "/channels", json!({"name": "x"})),
        ("GET", "/channels/general", json!({})),
        ("PATCH", "/channels/general", json!({})),
        ("GET", "/messages", json!({})),
        ("POST", "/messages", json!({"text": "x"})),
        ("GET", &own, json!({})),
        ("PATCH", &own, json!({"text": "x"})),
        ("DELETE", &own, json!({})),
        ("PUT", &reaction, json!({})),
        ("DELETE", &reaction, json!({})),
        ("POST", "/typing", json!({"channel": "general"})),
        ("GET", "/presence", json!({})),
        ("PUT", "/presence", json!({"state": "away"})),
        ("GET", "/read", json!({})),
        ("PUT", "/read", json!({"channel": "general", "message_id": message})),
        ("GET", "/events", json!({})),
    ];
    for (method, path, body) in &routes {
        let seen = stranger.call(method, path, body).await.refused(404, "not_found");
        let absent = nowhere.call(method, path, body).await.refused(404, "not_found");
        assert_eq!(seen["message"], absent["message"], "{method} {path}");
    }
    let path = format!("/sse/stream?project_id={}", project.id);
    stranger.client.get(&path).await.refused(404, "not_found");
    // A message of another project is not found through one's own either.
    let other = stranger.client.project().await;
    other.get(&own).await.refused(404, "not_found");
    other.call("PATCH", &own, &json!({"text": "x"})).await.refused(404, "not_found");
    other.get(&format!("/messages?before={message}")).await.refused(404, "not_found");
    let reply = json!({"text": "x", "reply_to": message});
    let body = other.call("POST", "/messages", &reply).await.refused(422, "invalid_field");
    assert_eq!(body["field"], "reply_to");
    assert_eq!(project.history().await.len(), 1);
}

#[tokio::test]
async fn members_are_known_users_and_one_owner_stays() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let owner = json!({"role": "owner"});
    let body = project.call("PUT", "/members/nobody", &owner).await.refused(422, "invalid_field");
    assert_eq!(body["field"], "user");
    project.delete("/members/grace").await.refused(404, "not_found");
    project.delete("/members/ada").await.refused(409, "conflict");
    let viewer = json!({"role": "viewer"});
    project.call("PUT", "/members/ada", &viewer).await.refused(409, "conflict");

    let grace = project.with("grace", "viewer").await;
    let members = grace.get("/members").await.is(200);
    assert_eq!(column(&members["members"], "user"), ["ada", "grace"]);
    assert_eq!(column(&members["members"], "role"), ["owner", "viewer"]);
    assert_eq!(grace.get("/members/grace").await.is(200)["name"], "Grace");
    let page = grace.get("/members?limit=1").await.is(200);
    let next = format!("/members?limit=1&after={}", text(&page["next"]));
    assert_eq!(column(&grace.get(&next).await.is(200)["members"], "user"), ["grace"]);

    // Everybody may leave, the last owner aside.
    assert_eq!(grace.delete("/members/grace").await.status, 204);
    grace.get("").await.refused(404, "not_found");
    project.with("grace", "owner").await;
    assert_eq!(project.delete("/members/ada").await.status, 204);
    project.get("").await.refused(404, "not_found");
    assert_eq!(grace.get("").await.is(200)["role"], "owner");
}

#[tokio::test]
async fn channels_are_made_once_and_found_by_name() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let new = json!({"name": "größe", "topic": "How big?"});
    let made = project.call("POST", "/channels", &new).await.is(201);
    assert_eq!((&made["name"], &made["topic"]), (&new["name"], &new["topic"]));
    project.call("POST", "/channels", &new).await.refused(409, "conflict");
    assert_eq!(project.get("/channels/größe").await.is(200), made);
    project.get("/channels/none").await.refused(404, "not_found");
    let other = project.call("POST", "/channels", &json!({"name": "a-b_c.1"})).await;
    assert_eq!(other.header("location"), project.path("/channels/a-b_c.1"));
    let changed = project.call("PATCH", "/channels/größe", &json!({"topic": null})).await.is(200);
    assert_eq!((&changed["topic"], &changed["id"]), (&Value::Null, &made["id"]));
    let channels = project.get("/channels").await.is(200);
    assert_eq!(column(&channels["channels"], "name"), ["a-b_c.1", "general", "größe"]);
    for name in ["", "Upper", "two words", "a/b", "#a", "@a", "a\u{1f}", &"x".repeat(81)] {
        let refused = project.call("POST", "/channels", &json!({"name": name})).await;
        assert_eq!(refused.refused(422, "invalid_field")["field"], "name", "{name:?}");
    }
    let elsewhere = json!({"text": "x", "channel": "none"});
    let refused = project.call("POST", "/messages", &elsewhere).await;
    assert_eq!(refused.refused(422, "invalid_field")["field"], "channel");
}

#[tokio::test]
async fn typing_is_told_at_once_and_nowhere_recorded() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let typing = json!({"channel": "general"});
    // Several times, as a stream has to hear from its greeting on and is handed over just after it.
    for _ in 0..100 {
        let (mut stream, hello) = project.stream("").await;
        assert_eq!(project.call("POST", "/typing", &typing).await.status, 204);
        let event = stream.until("user.typing").await;
        let said = (&event.data["actor"], &event.data["channel"]);
        assert_eq!(said, (&json!("ada"), &json!("general")));
        // It has no id of its own: a client that comes back is not told again.
        assert_eq!(hello["cursor"], *event.id);
    }
    assert_eq!(project.log(&cursor).await.len(), 0);
    let nowhere = json!({"channel": "none"});
    project.call("POST", "/typing", &nowhere).await.refused(422, "invalid_field");
}

#[tokio::test]
async fn an_open_stream_is_presence_and_leaving_has_a_grace() {
    let parley = Parley::start_with(&["--presence-grace", "200ms"]).await;
    let ada = parley.as_user("ada").project().await;
    let grace = ada.with("grace", "viewer").await;
    let (mut watching, _) = ada.stream("").await;
    let mut state = async |state: &str| loop {
        let event = watching.until("user.presence").await;
        let presence = &event.data["presence"];
        if presence["user"] == "grace" {
            assert_eq!(presence["state"], state);
            break;
        }
    };
    let (first, _) = grace.stream("").await;
    state("online").await;
    let present = async || column(&ada.get("/presence").await.is(200)["presence"], "user");
    assert_eq!(present().await, ["ada", "grace"]);
    grace.call("PUT", "/presence", &json!({"state": "away"})).await.is(200);
    state("away").await;
    // A second stream keeps the user here when the first one closes.
    let (second, _) = grace.stream("").await;
    drop(first);
    assert_eq!(present().await, ["ada", "grace"]);
    drop(second);
    state("offline").await;
    assert_eq!(present().await, ["ada"]);
}

#[tokio::test]
async fn read_marks_only_move_forward() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (older, newer) = (project.send("1").await, project.send("2").await);
    let cursor = project.cursor().await;
    let read = async |id: &Value| {
        let mark = json!({"channel": "general", "message_id": id});
        project.call("PUT", "/read", &mark).await.is(200)
    };
    let mark = read(&newer["id"]).await;
    assert_eq!((&mark["user"], &mark["message_id"]), (&json!("ada"), &newer["id"]));
    assert_eq!(read(&older["id"]).await["message_id"], newer["id"]);
    assert_eq!(read(&newer["id"]).await, mark);
    assert_eq!(project.get("/read").await.is(200)["reads"], json!([mark]));
    let told = project.log(&cursor).await;
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["type"], &told[0]["read"]), (&json!("read.updated"), &mark));
    let nowhere = json!({"channel": "general", "message_id": uuid::Uuid::now_v7()});
    project.call("PUT", "/read", &nowhere).await.refused(422, "invalid_field");
    let grace = project.with("grace", "viewer").await;
    assert_eq!(grace.get("/read").await.is(200)["reads"], json!([]));
}
