//! Which channels a stream carries: said at its opening, changed while it is open.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    project::Project,
    sse::Sse,
    support::{Answer, Parley, text},
};

async fn say(project: &Project, channel: &str, text: &str) {
    project.call("POST", "/messages", &json!({"channel": channel, "text": text})).await.is(201);
}

async fn make(project: &Project, names: &[&str]) {
    for name in names {
        project.call("POST", "/channels", &json!({"name": name})).await.is(201);
    }
}

/// Says something in every channel, ends with what every stream carries, and returns the channels that were heard.
async fn heard(project: &Project, stream: &mut Sse, channels: &[&str]) -> Vec<String> {
    for channel in channels {
        say(project, channel, "x").await;
    }
    let marker = uuid::Uuid::now_v7().to_string();
    project.call("PATCH", "", &json!({"name": marker})).await.is(200);
    let mut heard = Vec::new();
    loop {
        let event = stream.entry().await;
        match event.kind() {
            "message.created" => heard.push(text(&event.data["message"]["channel"])),
            "project.updated" if event.data["project"]["name"] == marker => return heard,
            _ => {}
        }
    }
}

async fn change(project: &Project, stream: &str, body: Value) -> Answer {
    project.client.call("POST", &format!("/sse/streams/{stream}/channels"), &body).await
}

#[tokio::test]
async fn a_stream_carries_the_channels_that_it_names_and_what_is_about_none() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    make(&project, &["a", "b", "größe"]).await;
    let all = ["general", "a", "b", "größe"];
    for (query, expected) in [
        ("", &all[..]),
        ("&channels=a", &["a"]),
        ("&channels=a,b", &["a", "b"]),
        ("&channels=b,nowhere,b,", &["b"]),
        ("&channels=nowhere", &[]),
        ("&channels=", &all),
        ("&channels=gr%C3%B6%C3%9Fe", &["größe"]),
    ] {
        let (mut stream, _) = project.stream(query).await;
        assert_eq!(heard(&project, &mut stream, &all).await, expected, "{query}");
    }
    for wrong in ["a%20b", "A", "a%2Fb", "%00", &vec!["c"; 81].concat()] {
        let path = format!("/sse/stream?project_id={}&channels={wrong}", project.id);
        project.client.get(&path).await.refused(400, "invalid_request");
    }
    let many: Vec<String> = (0..201).map(|number| number.to_string()).collect();
    for (count, status) in [(200, 200), (201, 400)] {
        let path =
            format!("/sse/stream?project_id={}&channels={}", project.id, many[..count].join(","));
        assert_eq!(Answer::to(project.client.request("HEAD", &path)).await.status, status);
    }
}

#[tokio::test]
async fn a_channel_that_comes_later_is_carried_if_it_was_named() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (mut named, _) = project.stream("&channels=later").await;
    let (mut other, _) = project.stream("&channels=general").await;
    make(&project, &["later"]).await;
    assert_eq!(named.expect("channel.created").await["channel"]["name"], "later");
    assert_eq!(heard(&project, &mut named, &["later", "general"]).await, ["later"]);
    assert_eq!(other.entry().await.kind(), "message.created");
}

#[tokio::test]
async fn what_was_left_out_is_not_missed_afterwards() {
    let parley = Parley::start_with(&["--keepalive-interval", "200ms"]).await;
    let project = parley.as_user("ada").project().await;
    make(&project, &["a"]).await;
    let (mut stream, hello) = project.stream("&channels=a").await;
    for _ in 0..5 {
        project.send("not for this stream").await;
    }
    // A sign of life moves the client to where it is, though it was told of nothing.
    let end = project.cursor().await;
    assert_ne!(hello["cursor"], end);
    while stream.until("heartbeat").await.id != end {}
    drop(stream);
    say(&project, "a", "while away").await;
    project.send("general").await;
    let (mut again, hello) = project.stream(&format!("&channels=a&last_event_id={end}")).await;
    assert_eq!(hello["resumed"], true);
    assert_eq!(again.expect("message.created").await["message"]["text"], "while away");
    assert_eq!(heard(&project, &mut again, &["general", "a"]).await, ["a"]);
}

#[tokio::test]
async fn an_open_stream_changes_its_channels_within_a_second() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    make(&project, &["a", "b"]).await;
    let all = ["general", "a", "b"];
    let (mut stream, _) = project.stream("&stream_id=tab").await;
    let (mut other, _) = project.stream("&stream_id=other").await;
    let mut waits = Vec::new();
    let steps: [(Value, &[&str]); 7] = [
        (json!({"remove": ["a"]}), &["general", "b"]),
        (json!({"remove": ["general", "nowhere"]}), &["b"]),
        (json!({"add": ["a"], "remove": ["b"]}), &["a"]),
        (json!({"add": ["b"], "remove": ["b"]}), &["a", "b"]),
        (json!({"add": ["nowhere"]}), &["a", "b"]),
        (json!({"remove": ["a", "b"]}), &[]),
        (json!({"add": ["general", "a", "b"]}), &all),
    ];
    for (step, expected) in &steps {
        let asked = Instant::now();
        assert_eq!(change(&project, "tab", step.clone()).await.status, 204);
        let obeyed = async { while heard(&project, &mut stream, &all).await != *expected {} };
        timeout(Duration::from_secs(10), obeyed).await.unwrap_or_else(|_| panic!("never: {step}"));
        waits.push(asked.elapsed());
    }
    waits.sort_unstable();
    eprintln!("it took {waits:?}");
    assert!(waits[waits.len() / 2] < Duration::from_secs(1), "{waits:?}");
    // Another stream of the same user is none of it.
    let rounds = project.history().await.len();
    for _ in 0..rounds {
        other.until("message.created").await;
    }
}

#[tokio::test]
async fn a_stream_that_names_its_channels_is_changed_too_and_typing_is_of_a_channel() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    make(&project, &["a"]).await;
    let (mut stream, hello) = project.stream("&channels=a").await;
    // Without a name of its own it has the connection's.
    let id = text(&hello["streamId"]);
    assert_eq!(id, text(&hello["connectionId"]));
    let both = json!({"add": ["general"], "remove": ["a"]});
    assert_eq!(change(&project, &id, both).await.status, 204);
    let changed =
        async { while heard(&project, &mut stream, &["general", "a"]).await != ["general"] {} };
    timeout(Duration::from_secs(10), changed).await.expect("it changes");
    for channel in ["a", "general"] {
        let typing = project.call("POST", "/typing", &json!({"channel": channel})).await;
        assert!((200..300).contains(&typing.status), "{typing:?}");
    }
    let typing = stream.until("user.typing").await;
    assert_eq!(typing.data["channel"], "general", "{typing:?}");
}

#[tokio::test]
async fn only_ones_own_open_streams_can_be_changed() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "owner").await;
    let (stream, hello) = project.stream("&stream_id=tab").await;
    let connection = text(&hello["connectionId"]);
    let body = json!({"remove": ["general"]});
    for name in ["tab", &connection] {
        change(&grace, name, body.clone()).await.refused(404, "not_found");
    }
    for name in ["nowhere", "%25", &"x".repeat(4_000)] {
        change(&project, name, body.clone()).await.refused(404, "not_found");
    }
    change(&project, "tab%00", body.clone()).await.refused(400, "invalid_request");
    let anybody = Project { client: parley.client(), id: project.id.clone() };
    change(&anybody, "tab", body.clone()).await.refused(401, "unauthenticated");
    for wrong in
        [json!({"add": ["A"]}), json!({"add": "a"}), json!({"more": []}), json!({"add": [1]})]
    {
        let answer = change(&project, "tab", wrong.clone()).await;
        assert_eq!(answer.status, 422, "{wrong}: {answer:?}");
        answer.is_well_formed_refusal();
    }
    let many: Vec<String> = (0..201).map(|number| number.to_string()).collect();
    for field in ["add", "remove"] {
        let answer = change(&project, "tab", json!({field: many})).await;
        assert_eq!(answer.refused(422, "invalid_field")["field"], field);
    }
    // A stream of jobs has no channels; one that has ended is none.
    let _jobs = parley.as_user("ada").open("/api/jobs/stream?stream_id=jobs").await;
    change(&project, "jobs", body.clone()).await.refused(404, "not_found");
    assert_eq!(change(&project, "tab", json!({})).await.status, 204);
    drop(stream);
    let gone = async { while change(&project, "tab", body.clone()).await.status != 404 {} };
    timeout(Duration::from_secs(10), gone).await.expect("it is gone");
}

#[tokio::test]
async fn a_change_is_of_the_streams_of_one_project() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let (one, other) = (ada.project().await, ada.project().await);
    let (mut of_one, _) = one.stream("&stream_id=tab").await;
    let (mut of_other, _) = other.stream("&stream_id=tab").await;
    for project in [&one, &other] {
        make(project, &["a"]).await;
    }
    let both = ["general", "a"];
    let refused = change(&one, "tab", json!({"remove": ["a"]})).await.refused(422, "invalid_field");
    assert_eq!(refused["field"], "project_id");
    assert_eq!(heard(&one, &mut of_one, &both).await, both);
    assert_eq!(heard(&other, &mut of_other, &both).await, both);

    let named = json!({"remove": ["a"], "project_id": one.id});
    assert_eq!(change(&one, "tab", named).await.status, 204);
    let changed = async { while heard(&one, &mut of_one, &both).await != ["general"] {} };
    timeout(Duration::from_secs(10), changed).await.expect("it changes");
    assert_eq!(heard(&other, &mut of_other, &both).await, both, "of another project");

    let in_query = format!("/sse/streams/tab/channels?project_id={}", other.id);
    let body = json!({"remove": ["general"]});
    assert_eq!(ada.call("POST", &in_query, &body).await.status, 204);
    let changed = async { while heard(&other, &mut of_other, &both).await != ["a"] {} };
    timeout(Duration::from_secs(10), changed).await.expect("it changes");
    assert_eq!(heard(&one, &mut of_one, &both).await, ["general"]);

    let contrary = json!({"remove": ["general"], "project_id": one.id});
    ada.call("POST", &in_query, &contrary).await.refused(422, "invalid_field");
    let third = ada.project().await;
    let elsewhere = json!({"remove": ["general"], "project_id": third.id});
    change(&one, "tab", elsewhere).await.refused(404, "not_found");
    drop(of_other);
    // With one stream of the name left, the project need not be named.
    let body = json!({"add": ["a"]});
    let alone = async { while change(&one, "tab", body.clone()).await.status != 204 {} };
    timeout(Duration::from_secs(10), alone).await.expect("the other one is gone");
}
