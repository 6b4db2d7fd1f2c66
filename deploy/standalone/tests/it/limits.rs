//! How often one caller may come, and how many are served at once.

mod flood;
mod guard;
mod room;
mod settings;

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use shared::limits::Class;

use crate::{
    job::submit,
    project::Project,
    support::{Answer, Client, Parley, eventually},
};

/// Budgets that do not grow while a test runs.
const FEW: [&str; 4] = [
    "--rate-limit-reads=4/0.001",
    "--rate-limit-sends=4/0.001",
    "--rate-limit-opens=4/0.001",
    "--rate-limit-submits=4/0.001",
];

async fn read(client: &Client) -> Answer {
    client.get("/api/auth/me").await
}

async fn send(project: &Project) -> Answer {
    project.call("POST", "/messages", &json!({"text": "x"})).await
}

/// Holds a refusal to the contract, and returns how long it tells the client to wait.
#[track_caller]
fn wait_of(answer: Answer) -> Duration {
    let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
    let body = answer.refused(429, "rate_limited");
    let ms = body["retry_after_ms"].as_u64().expect("milliseconds");
    assert!(ms > 0 && seconds == ms.div_ceil(1_000), "{seconds} s, {ms} ms");
    Duration::from_millis(ms)
}

#[tokio::test]
async fn each_kind_of_request_has_a_budget_of_its_own() {
    let parley = Parley::start_with(&FEW).await;
    let project = parley.as_user("ada").project().await;
    for _ in 0..3 {
        send(&project).await.is(201);
    }
    wait_of(send(&project).await);
    wait_of(project.delete("").await);
    for _ in 0..4 {
        read(&project.client).await.is(200);
    }
    wait_of(read(&project.client).await);
    wait_of(project.get("/messages").await);
    wait_of(project.get("/events").await);
    wait_of(project.client.get("/api/integrations/jobs").await);
    for _ in 0..4 {
        submit(&project, "demo.count", json!({"to": 1})).await.is(202);
    }
    wait_of(submit(&project, "demo.count", json!({"to": 1})).await);
    wait_of(project.client.call("POST", "/api/integrations/uploads", &json!({})).await);
    let path = format!("/sse/stream?project_id={}", project.id);
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(project.client.open(&path).await);
    }
    wait_of(project.client.get(&path).await);
    wait_of(project.client.get("/api/jobs/stream").await);
    // Another user's are whole.
    let grace = project.of("grace");
    read(&grace.client).await.is(200);
    grace.client.project().await;
}

#[tokio::test]
async fn a_head_of_a_stream_takes_nothing_and_says_what_a_get_would() {
    let parley = Parley::start_with(&["--rate-limit-opens=1/0.001"]).await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}", project.id);
    let head = async || Answer::to(project.client.request("HEAD", &path)).await;
    for _ in 0..10 {
        assert_eq!(head().await.status, 200);
    }
    let _open = project.client.open(&path).await;
    let (get, head) = (project.client.get(&path).await, head().await);
    assert_eq!((head.status, get.status), (429, 429));
    let shown = |head: &HeaderMap| {
        let mut names: Vec<_> = head.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(shown(&head.head), shown(&get.head));
    assert!(!head.header("retry-after").is_empty());
}

#[tokio::test]
async fn who_waits_as_long_as_told_gets_through() {
    let parley = Parley::start_with(&["--rate-limit-reads=1/3"]).await;
    let ada = parley.as_user("ada");
    read(&ada).await.is(200);
    for _ in 0..5 {
        let wait = wait_of(read(&ada).await);
        assert!(wait <= Duration::from_millis(334), "{wait:?}");
        tokio::time::sleep(wait).await;
        read(&ada).await.is(200);
    }
}

#[tokio::test]
async fn a_role_may_raise_a_limit() {
    let parley = Parley::start_with(&["--rate-limit-reads=2/0.001,admin=5/0.001"]).await;
    for (user, burst) in [("ada", 2), ("admin", 5)] {
        let client = parley.as_user(user);
        for _ in 0..burst {
            read(&client).await.is(200);
        }
        wait_of(read(&client).await);
    }
}

#[tokio::test]
async fn both_services_take_from_one_budget() {
    let parley = Parley::start_with(&FEW).await;
    let ada = parley.as_user("ada");
    for _ in 0..2 {
        read(&ada).await.is(200);
        ada.get("/api/integrations/jobs").await.is(200);
    }
    wait_of(read(&ada).await);
    wait_of(ada.get("/api/integrations/jobs").await);
}

/// Returns an address's budget for reads, spent on bad credentials.
async fn spent() -> Parley {
    let parley = Parley::start_with(&FEW).await;
    for guess in ["a", "b", "c", "d"] {
        read(&parley.as_user(guess)).await.refused(401, "unauthenticated");
    }
    parley
}

#[tokio::test]
async fn bad_credentials_spend_the_budget_of_their_address_and_good_ones_pass() {
    let parley = spent().await;
    wait_of(read(&parley.as_user("e")).await);
    wait_of(read(&parley.client()).await);
    // Neither has been seen before.
    read(&parley.as_user("ada")).await.is(200);
    let cookie = parley.client().request("GET", "/api/auth/me");
    Answer::to(cookie.header("cookie", "other=1; __Secure-LATC=dev-grace")).await.is(200);
    // Another cookie and another query are not another credential.
    let again = parley.client().request("GET", "/api/auth/me?x=1");
    Answer::to(again.header("cookie", "__Secure-LATC=dev-grace; more=2")).await.is(200);
}

#[tokio::test]
async fn guesses_beyond_the_budget_are_verified_only_so_often() {
    let parley = spent().await;
    // Twenty at once and five a second: after a second's worth more there is none left.
    let guesses = (0..40).map(|number| parley.as_user(&format!("guess-{number}")));
    for guess in guesses {
        wait_of(read(&guess).await);
    }
    let fresh = parley.as_user("ada");
    let mut refused = 0;
    eventually("a verification", async || {
        let answer = read(&fresh).await;
        refused += u32::from(answer.status == 429);
        answer.status == 200
    })
    .await;
    println!("{refused} refusals before a new good credential passed");
}

#[tokio::test]
async fn a_credential_that_was_refused_costs_its_neighbours_nothing_again() {
    let parley = Parley::start_with(&FEW).await;
    for _ in 0..100 {
        read(&parley.as_user("stale")).await.refused(401, "unauthenticated");
    }
    let path = "/sse/stream?project_id=0199aaaa-0000-7000-8000-000000000000";
    for _ in 0..100 {
        parley.as_user("stale").get(path).await.refused(401, "unauthenticated");
        let spent = format!("{path}&ticket=spent");
        parley.client().get(&spent).await.refused(401, "unauthenticated");
    }
    // Of four, one is spent.
    for guess in ["a", "b", "c"] {
        read(&parley.as_user(guess)).await.refused(401, "unauthenticated");
    }
    wait_of(read(&parley.as_user("d")).await);
}

#[tokio::test]
async fn a_guess_by_head_counts_as_one() {
    let parley = Parley::start_with(&FEW).await;
    let path = "/sse/stream?project_id=0199aaaa-0000-7000-8000-000000000000";
    let guess = async |number: u32| {
        let client = parley.as_user(&format!("guess-{number}"));
        Answer::to(client.request("HEAD", path)).await.status
    };
    for number in 0..4 {
        assert_eq!(guess(number).await, 401);
    }
    for number in 4..8 {
        assert_eq!(guess(number).await, 429);
    }
    assert_eq!(Answer::to(parley.as_user("ada").request("HEAD", path)).await.status, 404);
}

#[tokio::test]
async fn what_is_no_part_of_the_api_is_free() {
    let parley = Parley::start_with(&FEW).await;
    let client = parley.client();
    for path in ["/health", "/health/live", "/health/ready", "/openapi.json"] {
        for _ in 0..10 {
            client.get(path).await.is(200);
        }
    }
    for _ in 0..10 {
        client.get("/api/nothing/here").await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn every_stream_that_is_documented_is_counted_as_one() {
    let parley = Parley::start().await;
    let document = parley.client().get("/openapi.json").await.is(200);
    let paths = document["paths"].as_object().expect("paths");
    let is_stream = |operation: &Value| {
        let content = &operation["responses"]["200"]["content"];
        content.get("text/event-stream").is_some()
    };
    let mut streams = 0;
    for (path, operations) in paths.iter().filter(|(_, operations)| operations["get"].is_object()) {
        let class = Class::of(&reqwest::Method::GET, path);
        assert_eq!(class == Some(Class::Opens), is_stream(&operations["get"]), "{path}");
        streams += usize::from(is_stream(&operations["get"]));
    }
    assert!(streams >= 2, "{streams}");
}
