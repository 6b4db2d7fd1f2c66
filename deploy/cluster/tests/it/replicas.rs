//! What holds over all replicas: tickets, sessions, memberships, slots.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::{
    support::{PATIENCE, read_until},
    whole::Whole,
};

/// How soon a stream is over whose user is out.
const SOON: Duration = Duration::from_secs(5);
/// How soon what a dead replica held is free.
const FREED: Duration = Duration::from_secs(15);

/// Begins a request to an ingress, without credentials.
fn at(whole: &Whole, replica: usize, method: Method, path: &str) -> RequestBuilder {
    whole.http.request(method, format!("{}{path}", whole.cluster.ingress_url(replica)))
}

/// Begins a request to an ingress by a demo user, in a session.
fn by(whole: &Whole, user: &str, replica: usize, method: Method, path: &str) -> RequestBuilder {
    let (user, session) = user.split_once('/').unwrap_or((user, "any"));
    at(whole, replica, method, path)
        .bearer_auth(format!("dev-{user}"))
        .header("user-session-id", format!("{user}-{session}"))
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.expect("an answer").status().as_u16()
}

fn path_of(project: &str) -> String {
    format!("/sse/stream?project_id={project}")
}

async fn stream(whole: &Whole, user: &str, replica: usize, project: &str) -> Response {
    let request = by(whole, user, replica, Method::GET, &path_of(project));
    let mut stream = request.send().await.expect("an answer");
    assert_eq!(stream.status(), 200, "{user} at {replica}");
    read_until(&mut stream, "\"hello\"").await;
    stream
}

/// Waits until a request is answered so; returns how long it took.
async fn until(expected: u16, request: impl Fn() -> RequestBuilder) -> Duration {
    let began = Instant::now();
    let waiting = async {
        while status(request()).await != expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it is answered so at last");
    began.elapsed()
}

/// Reads streams to their ends, which are to be for this reason and soon; returns how long it took.
async fn are_over(streams: Vec<Response>, since: Instant) -> Duration {
    for mut stream in streams {
        read_until(&mut stream, r#"data: {"reason":"revoked","reconnect":false"#).await;
        while stream.chunk().await.expect("a sound end").is_some() {}
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }
    since.elapsed()
}

#[tokio::test]
async fn of_fifty_who_race_with_one_ticket_over_three_replicas_one_gets_in() {
    let whole = Whole::start(|_| {}).await;
    let project = whole.project().await;
    for round in 0..5 {
        let issued = by(&whole, "ada", round % 3, Method::POST, "/sse/ticket");
        let issued = issued.json(&json!({"project_id": project})).send().await.expect("an answer");
        let issued: Value = issued.json().await.expect("JSON");
        let path = format!("{}&ticket={}", path_of(&project), issued["ticket"].as_str().unwrap());
        let racing = (0..50).map(|n| at(&whole, n % 3, Method::GET, &path).send());
        let answers = join_all(racing).await;
        let mut statuses: Vec<u16> = answers
            .iter()
            .map(|answer| answer.as_ref().expect("an answer").status().as_u16())
            .collect();
        statuses.sort_unstable();
        assert_eq!((statuses[0], &statuses[1..]), (200, &[401; 49][..]), "round {round}");
    }
    whole.stop().await;
}

#[tokio::test]
async fn signing_out_and_removal_end_streams_on_every_replica_while_nats_is_away() {
    let whole = Whole::start(|_| {}).await;
    let project = whole.project().await;
    let member = format!("/api/chat/projects/{project}/members/grace");
    let add = by(&whole, "ada", 0, Method::PUT, &member).json(&json!({"role": "member"}));
    assert_eq!(status(add).await, 200);
    let (mut lost, mut removed) = (Vec::new(), Vec::new());
    for replica in 0..3 {
        lost.push(stream(&whole, "ada/lost", replica, &project).await);
        removed.push(stream(&whole, "grace", replica, &project).await);
    }
    let mut kept = stream(&whole, "ada/kept", 1, &project).await;
    let list = by(&whole, "ada/kept", 2, Method::GET, "/api/auth/sessions");
    let list: Value = list.send().await.expect("an answer").json().await.expect("JSON");
    let list = list["sessions"].as_array().expect("a list").iter();
    let streams: Vec<_> = list.map(|session| (&session["id"], &session["streams"])).collect();
    let expected =
        [("ada-any", 0), ("ada-kept", 1), ("ada-lost", 3)].map(|(a, b)| (json!(a), json!(b)));
    assert_eq!(streams, expected.each_ref().map(|(id, streams)| (id, streams)));

    whole.cluster.nats().kill().await.expect("it runs");
    let path = "/api/auth/sessions/ada-lost";
    assert_eq!(status(by(&whole, "ada/kept", 2, Method::DELETE, path)).await, 204);
    let ended = Instant::now();
    let took = are_over(lost, ended).await;
    eprintln!("streams of a session were over {took:?} after it was ended");
    let proc = |number| {
        let url = format!("{}/api/integrations/jobs", whole.cluster.proc_url(number));
        whole.http.get(url).bearer_auth("dev-ada").header("user-session-id", "ada-lost")
    };
    for replica in 0..3 {
        until(401, || by(&whole, "ada/lost", replica, Method::GET, "/api/auth/me")).await;
        assert_eq!(
            status(by(&whole, "ada/lost", replica, Method::GET, &path_of(&project))).await,
            401
        );
    }
    for number in 0..whole.cluster.proc_count() {
        until(401, || proc(number)).await;
    }
    assert!(ended.elapsed() < SOON, "{:?}", ended.elapsed());

    assert_eq!(status(by(&whole, "ada/kept", 0, Method::DELETE, &member)).await, 204);
    let took = are_over(removed, Instant::now()).await;
    eprintln!("streams of a member were over {took:?} after their removal");
    for replica in 0..3 {
        assert_eq!(
            status(by(&whole, "grace", replica, Method::GET, &path_of(&project))).await,
            404
        );
    }
    let send = format!("/api/chat/projects/{project}/messages");
    let send = by(&whole, "ada/kept", 2, Method::POST, &send).json(&json!({"text": "still here"}));
    assert_eq!(status(send).await, 201);
    read_until(&mut kept, "still here").await;
    whole.stop().await;
}

#[tokio::test]
async fn five_streams_of_a_user_are_all_there_are_wherever_they_are_open() {
    let whole = Whole::start(|_| {}).await;
    let project = whole.project().await;
    let path = path_of(&project);
    let sixth = async |replicas: &[usize]| {
        for &replica in replicas {
            let answer = by(&whole, "ada", replica, Method::GET, &path).send().await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.status(), 429, "at {replica}");
            assert_eq!(answer.headers()["x-sse-current-connections"], "5");
        }
    };
    let mut held = Vec::new();
    for replica in [0, 0, 1, 1, 2] {
        held.push(stream(&whole, "ada", replica, &project).await);
    }
    sixth(&[0, 1, 2]).await;
    whole.cluster.ingress(0).kill().await.expect("it runs");
    // Exactly what it held. Each replica finds out by itself that another is gone.
    let killed = Instant::now();
    for replica in [1, 2] {
        until(200, || by(&whole, "ada", replica, Method::HEAD, &path)).await;
        let took = killed.elapsed();
        eprintln!("replica {replica} gave away a slot of the killed replica after {took:?}");
        assert!(took < FREED, "{took:?}");
        held.push(stream(&whole, "ada", replica, &project).await);
    }
    sixth(&[1, 2]).await;
    whole.cluster.ingress(0).start().await.expect("it comes back");
    sixth(&[0]).await;
    whole.stop().await;
}
