//! Streams of one user and project: five, whatever becomes of them.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    project::Project,
    raw::Raw,
    sse::Sse,
    support::{Answer, Client, PATIENCE, Parley, column},
};

/// What the server frees by itself, without word from the client, it frees later than this.
const AT_ONCE: Duration = Duration::from_secs(5);

pub(crate) async fn head(client: &Client, path: &str) -> Answer {
    Answer::to(client.request("HEAD", path)).await
}

/// Waits until a stream would be let in and returns how long that took.
pub(crate) async fn has_room(client: &Client, path: &str) -> Duration {
    let began = Instant::now();
    let asking = async { while head(client, path).await.status != 200 {} };
    timeout(PATIENCE, asking).await.expect("there is room again");
    began.elapsed()
}

fn path_of(project: &Project) -> String {
    format!("/sse/stream?project_id={}", project.id)
}

async fn hold(project: &Project, count: usize) -> Vec<(Sse, Value)> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(project.stream("").await);
    }
    held
}

/// Returns the ids of a user's open streams, as an admin sees them.
async fn open_streams(project: &Project, user: &str) -> Vec<String> {
    let path = format!("/api/debug/sse-connections/{user}/{}", project.id);
    let list = project.client.as_user("admin").get(&path).await.is(200);
    let ids = column(&list["connections"], "id");
    assert_eq!(list["count"], ids.len());
    ids
}

/// Holds a refusal of a user's sixth stream to every word of it.
#[track_caller]
fn is_refused_the_sixth(answer: Answer) -> HeaderMap {
    for (name, value) in
        [("retry-after", "10"), ("x-sse-connection-limit", "5"), ("x-sse-current-connections", "5")]
    {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let (trace, head) = (answer.header("x-trace-id").to_owned(), answer.head.clone());
    let expected = json!({
        "error": "too_many_connections",
        "message": "SSE connection limit exceeded. Maximum 5 connections allowed per user/project.",
        "current_connections": 5,
        "max_connections": 5,
        "retry_after_ms": 10_000,
        "recommendation": "Close other chat windows or switch this tab to follower mode",
        "scope": "user",
        "trace_id": trace,
    });
    assert_eq!(answer.refused(429, "too_many_connections"), expected);
    head
}

#[tokio::test]
async fn a_user_has_five_streams_of_a_project_and_a_sixth_is_refused() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let held = hold(&project, 5).await;
    for path in ["/sse/stream", "/api/persistent-chat/stream"] {
        let path = format!("{path}?project_id={}", project.id);
        let ask = |method| project.client.request(method, &path).header("x-trace-id", "t");
        let mut of_get = is_refused_the_sixth(Answer::to(ask("GET")).await);
        let of_head = Answer::to(ask("HEAD")).await;
        assert_eq!((of_head.status, &of_head.body), (429, &Value::Null));
        let mut of_head = of_head.head;
        for changing in ["date", "x-session-id"] {
            assert!(of_get.remove(changing).is_some() && of_head.remove(changing).is_some());
        }
        assert_eq!(of_head, of_get);
    }
    // The limit is one user's in one project.
    let grace = project.with("grace", "viewer").await;
    hold(&grace, 5).await;
    hold(&project.client.project().await, 5).await;
    drop(held);
}

#[tokio::test]
async fn asking_with_head_takes_nothing() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let path = path_of(&project);
    for _ in 0..20 {
        head(&project.client, &path).await.is(200);
    }
    let held = hold(&project, 5).await;
    for _ in 0..20 {
        head(&project.client, &path).await.is(429);
    }
    let ids: Vec<&Value> = held.iter().map(|(_, hello)| &hello["connectionId"]).collect();
    assert_eq!(json!(open_streams(&project, "ada").await), json!(ids));
}

#[tokio::test]
async fn a_stream_that_ends_makes_room_at_once() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let path = path_of(&project);
    let mut held = hold(&project, 4).await;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\n\r\n");
    for way in ["leaves", "half closes", "resets", "is closed by an admin"] {
        let mut fifth = Raw::sending(&parley.ingress, &request).await;
        fifth.until("\"hello\"").await;
        is_refused_the_sixth(project.client.get(&path).await);
        match way {
            "half closes" => tokio::io::AsyncWriteExt::shutdown(&mut fifth.0).await.unwrap(),
            "resets" => fifth.0.set_zero_linger().unwrap(),
            "is closed by an admin" => {
                let ids = open_streams(&project, "ada").await;
                let path = format!("/api/debug/sse-connections/{}", ids[4]);
                assert_eq!(parley.as_user("admin").delete(&path).await.status, 204);
            }
            _ => {}
        }
        let kept = way == "half closes" || way == "is closed by an admin";
        let fifth = kept.then_some(fifth);
        let took = has_room(&project.client, &path).await;
        eprintln!("who {way} has made room after {took:?}");
        assert!(took < AT_ONCE, "{way}: {took:?}");
        drop(fifth);
    }
    held.clear();
    has_room(&project.client, &path).await;
    // Exactly what was given up is there again.
    let room = async { while !open_streams(&project, "ada").await.is_empty() {} };
    timeout(PATIENCE, room).await.expect("nothing is left");
    let _held = hold(&project, 5).await;
    is_refused_the_sixth(project.client.get(&path).await);
}

#[tokio::test]
async fn who_comes_back_under_the_same_name_takes_over_and_never_counts_twice() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "viewer").await;
    let mut other = grace.stream("&stream_id=tab-0").await.0;
    let mut held = Vec::new();
    for number in 0..5 {
        let (stream, hello) = project.stream(&format!("&stream_id=tab-{number}")).await;
        assert_eq!(hello["streamId"], format!("tab-{number}"));
        held.push(stream);
    }
    for round in 0..10 {
        let name = format!("&stream_id=tab-{}", round % 5);
        assert_eq!(head(&project.client, &(path_of(&project) + &name)).await.status, 200);
        let (successor, _) = project.stream(&name).await;
        let mut replaced = std::mem::replace(&mut held[round % 5], successor);
        let rest = replaced.rest().await;
        let [bye] = &rest[..] else { panic!("{rest:?}") };
        assert_eq!((bye.name.as_str(), &bye.data["reason"]), ("bye", &json!("replaced")));
        assert_eq!(bye.data["reconnect"], false);
        assert_eq!(open_streams(&project, "ada").await.len(), 5);
        is_refused_the_sixth(project.client.get(&path_of(&project)).await);
    }
    // Those who stayed are all there, the other user's stream of that name too.
    project.send("marker").await;
    for stream in held.iter_mut().chain([&mut other]) {
        stream.until("message.created").await;
    }
}

#[tokio::test]
async fn of_many_who_come_under_one_name_at_the_same_time_one_stays() {
    let parley = Parley::start_with(&["--max-connections-per-user", "2"]).await;
    let project = parley.as_user("ada").project().await;
    let _other = project.stream("&stream_id=other").await;
    let mut tabs = JoinSet::new();
    for _ in 0..30 {
        let project = project.clone();
        tabs.spawn(async move {
            let mut stream = project.stream("&stream_id=tab").await.0;
            loop {
                let event = stream.next().await.expect("a last word");
                if event.kind() == "bye" || event.kind() == "message.created" {
                    return (event.kind() == "message.created", event.data);
                }
            }
        });
    }
    let mut ended = Vec::new();
    while ended.len() < 29 {
        ended.push(tabs.join_next().await.unwrap().unwrap());
    }
    assert!(ended.iter().all(|(stays, bye)| !stays && bye["reason"] == "replaced"), "{ended:?}");
    assert_eq!(open_streams(&project, "ada").await.len(), 2);
    project.send("marker").await;
    assert!(tabs.join_next().await.unwrap().unwrap().0);
}

#[tokio::test]
async fn what_a_killed_process_held_is_free_when_it_is_back() {
    let mut parley = Parley::start().await;
    let mut project = parley.as_user("ada").project().await;
    for _ in 0..2 {
        let mut held = hold(&project, 5).await;
        is_refused_the_sixth(project.client.get(&path_of(&project)).await);
        parley.kill().await;
        // Nobody has said that these are over: the streams are cut, the slots are in the database.
        held.clear();
        parley = Parley::start_in(&parley.dir, &[]).await;
        project = Project { client: parley.as_user("ada"), id: project.id };
        let took = has_room(&project.client, &path_of(&project)).await;
        eprintln!("there is room {took:?} after the restart");
        assert!(took < AT_ONCE, "{took:?}");
        let _held = hold(&project, 5).await;
        is_refused_the_sixth(project.client.get(&path_of(&project)).await);
        assert!(parley.terminate().await.success());
        parley = Parley::start_in(&parley.dir, &[]).await;
        project = Project { client: parley.as_user("ada"), id: project.id };
    }
}
