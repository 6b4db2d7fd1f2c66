//! Tickets: each opens one stream, of what it was issued for, for who asked for it.

use std::{fs, sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use shared::time::Timestamp;
use tokio::time::Instant;

use crate::{
    project::Project,
    sse::Sse,
    support::{Answer, Client, Parley, text},
};

const JOBS: &str = "/api/jobs/stream";

async fn ticket(client: &Client, fields: &Value) -> String {
    let answer = client.call("POST", "/sse/ticket", fields).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let answer = answer.is(200);
    assert_eq!(answer["expires_in"], 30);
    let ticket = text(&answer["ticket"]);
    assert!(ticket.len() == 64 && ticket.bytes().all(|byte| byte.is_ascii_hexdigit()), "{ticket}");
    ticket
}

async fn of(project: &Project) -> String {
    ticket(&project.client, &json!({"project_id": project.id})).await
}

fn stream(project: &Project, ticket: &str) -> String {
    format!("/sse/stream?project_id={}&ticket={ticket}", project.id)
}

/// Begins a request whose only credential is what its path says.
fn bare(parley: &Parley, method: &str, path: &str) -> RequestBuilder {
    parley.client().request(method, path)
}

#[tokio::test]
async fn a_ticket_opens_one_stream_and_head_does_not_spend_it() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for path in [
        stream(&project, &of(&project).await),
        stream(&project, &of(&project).await).replace("project_id", "projectId"),
        format!("{JOBS}?ticket={}", ticket(&project.client, &json!({})).await),
    ] {
        for _ in 0..3 {
            assert_eq!(bare(&parley, "HEAD", &path).send().await.unwrap().status(), 200, "{path}");
        }
        let (mut open, hello) = Sse::greeted(bare(&parley, "GET", &path)).await;
        assert_eq!(hello["user"], "ada");
        assert_eq!(hello["sessionId"], open.head["x-session-id"].to_str().unwrap());
        if path.starts_with("/sse") {
            project.send("hello").await;
            open.until("message.created").await;
        }
        let mut spent = Answer::to(bare(&parley, "GET", &path)).await;
        let mut none = parley.client().get("/api/auth/me").await;
        for answer in [&mut spent, &mut none] {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            answer.body["trace_id"].take();
        }
        assert_eq!((spent.status, &spent.body), (401, &none.body), "nobody learns why");
        assert_eq!(bare(&parley, "HEAD", &path).send().await.unwrap().status(), 401);
    }
}

#[tokio::test]
async fn a_ticket_is_for_one_project_one_session_and_streams_alone() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let other = parley.as_user("ada").project().await;
    let of_jobs = ticket(&project.client, &json!({})).await;
    let in_session = project.client.request("POST", "/sse/ticket").header("user-session-id", "tab");
    let fields = json!({"projectId": project.id});
    let issued = Answer::to(in_session.json(&fields)).await.is(200);
    let of_project = text(&issued["ticket"]);
    let longer = format!("{of_project}0");
    for path in [
        stream(&other, &of_project),
        stream(&project, &of_jobs),
        stream(&project, &longer),
        stream(&project, ""),
        stream(&project, "%00"),
        stream(&project, &"9".repeat(10_000)),
        format!("{JOBS}?ticket={of_project}"),
        format!("{}&session=other", stream(&project, &of_project)),
        format!("/api/auth/me?ticket={of_jobs}"),
        format!("/api/integrations/jobs?ticket={of_jobs}"),
        project.path(&format!("/events?ticket={of_project}")),
    ] {
        Answer::to(bare(&parley, "GET", &path)).await.refused(401, "unauthenticated");
    }
    // Not even with the project's name in the query of another kind of stream.
    let disguised = format!("{JOBS}?project_id={}&ticket={}", project.id, of(&project).await);
    Answer::to(bare(&parley, "GET", &disguised)).await.refused(401, "unauthenticated");
    // None of these has spent it.
    let path = format!("{}&session=tab", stream(&project, &of_project));
    let (open, hello) = Sse::greeted(bare(&parley, "GET", &path)).await;
    assert_eq!(
        (&hello["sessionId"], &open.head["x-session-id"].to_str().unwrap()),
        (&json!("tab"), &"tab")
    );
    let path = format!("{JOBS}?ticket={of_jobs}");
    Sse::greeted(bare(&parley, "GET", &path)).await;
}

#[tokio::test]
async fn the_header_and_the_query_token_come_before_a_ticket_and_the_cookie_after_it() {
    for query_tokens in [true, false] {
        let flags = ["--allow-query-tokens", if query_tokens { "true" } else { "false" }];
        let parley = Parley::start_with(&flags).await;
        let project = parley.as_user("ada").project().await;
        // Header, query token, ticket, cookie; grace is not in the project.
        for (header, token, junk, cookie, status) in [
            (None, None, false, Some("dev-grace"), 200),
            (None, None, true, Some("dev-ada"), 401),
            (Some("dev-grace"), None, false, None, 404),
            (Some("dev-ada"), None, true, None, 200),
            (None, Some("dev-grace"), false, None, if query_tokens { 404 } else { 200 }),
            (None, Some("dev-ada"), true, None, if query_tokens { 200 } else { 401 }),
        ] {
            let ticket = if junk { "junk".to_owned() } else { of(&project).await };
            let token = token.map(|token| format!("&bearer_token={token}")).unwrap_or_default();
            let path = stream(&project, &ticket) + &token;
            for method in ["HEAD", "GET"] {
                let mut request = bare(&parley, method, &path);
                if let Some(token) = header {
                    request = request.bearer_auth(token);
                }
                if let Some(token) = cookie {
                    request = request.header("cookie", format!("__Secure-LATC={token}"));
                }
                let answered = request.send().await.unwrap().status();
                assert_eq!(answered, status, "{method} {header:?} {token} {junk} {cookie:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_leaves_the_ticket() {
    let flags = ["--max-connections-per-user", "1", "--max-connections", "2"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "member").await;
    let held = project.stream("").await;
    let path = stream(&project, &of(&project).await);
    Answer::to(bare(&parley, "GET", &path)).await.refused(429, "too_many_connections");
    let full = grace.stream("").await;
    Answer::to(bare(&parley, "GET", &path)).await.refused(503, "backpressure");
    drop((held, full));
    parley.has_streams(0).await;
    Sse::greeted(bare(&parley, "GET", &path)).await;
    Answer::to(bare(&parley, "GET", &path)).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn of_fifty_who_race_with_one_ticket_one_gets_in() {
    let parley = Parley::start_with(&["--max-connections-per-user", "100"]).await;
    let project = parley.as_user("ada").project().await;
    for _ in 0..3 {
        let path = stream(&project, &of(&project).await);
        let racing = (0..50).map(|_| bare(&parley, "GET", &path).send());
        let answers = join_all(racing).await;
        let mut statuses: Vec<u16> =
            answers.iter().map(|answer| answer.as_ref().unwrap().status().as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!((statuses[0], &statuses[1..]), (200, &[401; 49][..]));
    }
}

#[tokio::test]
async fn a_ticket_carries_what_its_credential_gave_and_no_more() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let file = dir.path().join("users.json");
    let expires_at = Timestamp::now().after(Duration::from_secs(4));
    let users = json!([
        {"user": "never-expired", "token": "dev-never-expired"},
        {"user": "soon-expired", "token": "dev-soon-expired", "expires_at": expires_at, "roles": ["admin"]},
    ]);
    fs::write(&file, users.to_string()).unwrap();
    let flags = ["--auth-users-file", file.to_str().unwrap(), "--sse-max-conn-per-ip", "9"];
    let parley = Parley::start_in(&dir, &flags).await;
    let stays = parley.as_user("never-expired").project().await;
    let ends = stays.with("soon-expired", "member").await;
    let everybody = async |client: &Client| {
        format!("{JOBS}?scope=all&ticket={}", ticket(client, &json!({})).await)
    };
    let path = everybody(&stays.client).await;
    Answer::to(bare(&parley, "GET", &path)).await.refused(403, "forbidden");
    let mut jobs = Sse::open(bare(&parley, "GET", &everybody(&ends.client).await)).await;
    let mut open = Sse::open(bare(&parley, "GET", &stream(&ends, &of(&ends).await))).await;
    let late = stream(&ends, &of(&ends).await);
    for stream in [&mut jobs, &mut open] {
        let rest = stream.rest().await;
        assert_eq!(rest.last().unwrap().data["reason"], "token_expired");
        assert!(Timestamp::now() >= expires_at);
    }
    Answer::to(bare(&parley, "GET", &late)).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_ticket_is_worth_nothing_once_its_user_is_out() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let stranger = parley.as_user("grace");
    let fields = json!({"project_id": project.id});
    stranger.call("POST", "/sse/ticket", &fields).await.refused(404, "not_found");
    parley.client().call("POST", "/sse/ticket", &fields).await.refused(401, "unauthenticated");
    let grace = project.with("grace", "viewer").await;
    // Out of the project.
    let path = stream(&grace, &of(&grace).await);
    assert_eq!(project.delete("/members/grace").await.status, 204);
    Answer::to(bare(&parley, "GET", &path)).await.refused(404, "not_found");
    // Out of the session, whether it was ever shown or not.
    for session in [Some("tab"), None] {
        let mut request = project.client.request("POST", "/sse/ticket").json(&fields);
        if let Some(session) = session {
            request = request.header("user-session-id", session);
        }
        let ticket = text(&Answer::to(request).await.is(200)["ticket"]);
        let path = stream(&project, &ticket);
        assert_eq!(bare(&parley, "HEAD", &path).send().await.unwrap().status(), 200);
        let out = match session {
            Some(session) => project.client.delete(&format!("/api/auth/sessions/{session}")).await,
            None => project.client.delete("/api/auth/sessions").await,
        };
        assert_eq!(out.status, 204);
        Answer::to(bare(&parley, "GET", &path)).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn neither_the_log_nor_the_database_knows_a_ticket() {
    let mut parley = Parley::start_with(&["--log", "trace"]).await;
    let project = parley.as_user("ada").project().await;
    let (spent, left) = (of(&project).await, of(&project).await);
    let began = Instant::now();
    Sse::greeted(bare(&parley, "GET", &stream(&project, &spent))).await;
    bare(&parley, "HEAD", &stream(&project, &left)).send().await.unwrap();
    Answer::to(bare(&parley, "GET", &stream(&project, &spent)))
        .await
        .refused(401, "unauthenticated");
    assert!(parley.terminate().await.success());
    assert!(began.elapsed() < Duration::from_secs(25), "it was still good");
    let mut files = 0;
    for file in fs::read_dir(parley.dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            files += 1;
            let bytes = fs::read(&path).unwrap();
            for ticket in [&spent, &left] {
                let found = bytes.windows(ticket.len()).any(|window| window == ticket.as_bytes());
                assert!(!found, "{} has a ticket", path.display());
            }
        }
    }
    assert!(files >= 2, "the log and the database");
    assert!(parley.log().contains("/sse/stream"), "requests are logged");
}
