//! Sessions: where a user is signed in, and what is over once they have signed out.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    job::follow,
    project::Project,
    sse::{Event, Sse},
    support::{Answer, Client, Parley, column, eventually, text},
};

/// How soon all is over.
const SOON: Duration = Duration::from_secs(5);

fn path(session: &str) -> String {
    format!("/api/auth/sessions/{session}")
}

fn within(client: &Client, session: &str, method: &str, path: &str) -> RequestBuilder {
    client.request(method, path).header("user-session-id", session)
}

async fn show(client: &Client, session: &str) -> Answer {
    Answer::to(within(client, session, "GET", "/api/auth/me")).await
}

/// Returns the caller's sessions: id, whether it is the current one, streams.
async fn list(client: &Client, current: &str) -> Vec<(String, bool, u64)> {
    let list = Answer::to(within(client, current, "GET", "/api/auth/sessions")).await.is(200);
    assert_eq!(list["next"], Value::Null);
    let session = |session: &Value| {
        let streams = session["streams"].as_u64().expect("a number");
        (text(&session["id"]), session["current"] == true, streams)
    };
    list["sessions"].as_array().expect("a list").iter().map(session).collect()
}

async fn stream(project: &Project, session: &str, more: &str) -> Sse {
    project.stream(&format!("&session={session}{more}")).await.0
}

/// Holds a stream to its end by the user's own word.
#[track_caller]
fn is_revoked(rest: &[Event], since: Instant) {
    let bye = rest.last().expect("a last word");
    assert_eq!((bye.name.as_str(), &bye.data["reason"]), ("bye", &json!("revoked")), "{rest:?}");
    assert_eq!(bye.data["reconnect"], false);
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

#[tokio::test]
async fn sessions_are_listed_once_they_were_shown_with_the_streams_that_are_open_in_them() {
    let parley = Parley::start_with(&["--sse-max-conn-per-ip", "9"]).await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "member").await;
    let ada = &project.client;
    // Nobody has shown those that were minted for these.
    let (_minted, _) = project.stream("").await;
    assert_eq!(ada.get("/api/auth/sessions").await.is(200)["sessions"], json!([]));
    let _open = [
        stream(&project, "b", "").await,
        stream(&project, "b", "&include=jobs").await,
        stream(&project, "a", "").await,
        stream(&grace, "g", "").await,
    ];
    let jobs = Sse::open(within(ada, "c", "GET", "/api/jobs/stream")).await;
    let session = |id: &str, current: bool, streams: u64| (id.to_owned(), current, streams);
    let all = [session("a", false, 1), session("b", true, 2), session("c", false, 1)];
    assert_eq!(list(ada, "b").await, all);
    assert_eq!(list(&grace.client, "g").await, [session("g", true, 1)]);
    drop(jobs);
    eventually("the jobs stream is closed", async || list(ada, "b").await[2].2 == 0).await;
    let first = Answer::to(within(ada, "a", "GET", "/api/auth/sessions?limit=2")).await.is(200);
    assert_eq!(
        (column(&first["sessions"], "id"), &first["next"]),
        (vec!["a".into(), "b".into()], &json!("b"))
    );
    let rest = ada.get("/api/auth/sessions?limit=2&after=b").await.is(200);
    assert_eq!((column(&rest["sessions"], "id"), &rest["next"]), (vec!["c".into()], &Value::Null));
    let whole = &first["sessions"][0];
    assert_eq!(whole.as_object().expect("an object").len(), 5);
    assert!(whole["seen_at"].as_str() >= whole["created_at"].as_str(), "{whole}");
}

#[tokio::test]
async fn a_session_that_its_user_ends_is_over_with_all_of_its_streams() {
    let flags = ["--sse-max-conn-per-ip", "9", "--enable-compression", "true"];
    let mut parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let ada = project.client.clone();
    let grace = project.with("grace", "member").await;
    let mut over = vec![
        stream(&project, "lost", "").await,
        stream(&project, "lost", "&include=jobs&channels=general").await,
        Sse::open(within(&ada, "lost", "GET", "/api/jobs/stream")).await,
    ];
    let mut kept = [stream(&project, "kept", "").await, stream(&grace, "other", "").await];
    for (client, session, status) in [
        (&ada, "none", 404),
        (&grace.client, "lost", 404),
        (&ada, "other", 404),
        (&ada, "a%20b", 400),
    ] {
        assert_eq!(client.delete(&path(session)).await.status, status, "{session}");
    }
    let cursor = project.cursor().await;
    let poll = format!("{}&session=lost", project.path(&format!("/events?after={cursor}&wait=20")));
    let polling = ada.get(&poll);
    let ending = async {
        let ended = Instant::now();
        let answer = Answer::to(within(&ada, "kept", "DELETE", &path("lost"))).await;
        assert_eq!(answer.status, 204);
        for stream in &mut over {
            is_revoked(&stream.rest().await, ended);
        }
        project.send("after").await;
        for stream in &mut kept {
            stream.until("message.created").await;
        }
    };
    let (polled, ()) = tokio::join!(polling, ending);
    // What had begun to wait before learns nothing more either.
    polled.refused(401, "unauthenticated");
    show(&ada, "lost").await.refused(401, "unauthenticated");
    for route in [format!("/sse/stream?project_id={}", project.id), "/api/jobs/stream".into()] {
        let get = Answer::to(within(&ada, "lost", "GET", &route)).await;
        get.refused(401, "unauthenticated");
        assert_eq!(Answer::to(within(&ada, "lost", "HEAD", &route)).await.status, 401);
    }
    let at_proc = async || {
        let jobs = within(&ada, "lost", "GET", "/api/integrations/jobs");
        Answer::to(jobs).await.status == 401
    };
    let ended = Instant::now();
    eventually("the other service refuses it", at_proc).await;
    assert!(ended.elapsed() < SOON, "{:?}", ended.elapsed());
    assert_eq!(ada.delete(&path("lost")).await.status, 404, "it is no session any more");
    show(&grace.client, "lost").await.refused(403, "forbidden");
    // The token is as good as it was, in another session.
    show(&ada, "new").await.is(200);
    let ids: Vec<String> = list(&ada, "new").await.into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, ["kept", "new"]);
    assert!(parley.terminate().await.success());
    let parley = Parley::start_in(&parley.dir, &[]).await;
    show(&parley.as_user("ada"), "lost").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn signing_out_ends_ones_own_session_and_signing_out_elsewhere_all_others() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "member").await;
    let ada = &project.client;
    let mut own = stream(&project, "own", "").await;
    let mut others = vec![
        stream(&project, "one", "").await,
        stream(&project, "two", "").await,
        // In a session that was minted for it and never shown.
        project.stream("").await.0,
        follow(ada).await.0,
    ];
    let mut of_grace = stream(&grace, "g", "").await;
    let ended = Instant::now();
    let answer = Answer::to(within(ada, "own", "DELETE", "/api/auth/sessions")).await;
    assert_eq!(answer.status, 204);
    for stream in &mut others {
        is_revoked(&stream.rest().await, ended);
    }
    // Who comes back at once in a new session stays.
    let mut back = stream(&project, "back", "").await;
    for session in ["one", "two"] {
        show(ada, session).await.refused(401, "unauthenticated");
    }
    project.send("still here").await;
    for stream in [&mut own, &mut of_grace, &mut back] {
        stream.until("message.created").await;
    }
    let ended = Instant::now();
    assert_eq!(Answer::to(within(ada, "own", "DELETE", &path("own"))).await.status, 204);
    is_revoked(&own.rest().await, ended);
    show(ada, "own").await.refused(401, "unauthenticated");
    project.send("and here").await;
    assert_eq!(back.texts_until("and here").await, ["and here"]);
}

#[tokio::test]
async fn no_stream_slips_through_while_its_session_is_being_ended() {
    const OPENS: usize = 12;

    let flags = ["--max-connections-per-user", "100"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let ada = project.client.clone();
    let url = format!("/sse/stream?project_id={}", project.id);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..10 {
        let session = format!("session-{round}");
        show(&ada, &session).await.is(200);
        let open = async || {
            let answer = within(&ada, &session, "GET", &url).send().await.expect("an answer");
            match answer.status().as_u16() {
                200 => Some(answer.text().await.expect("a stream that ends")),
                401 => None,
                other => panic!("{other}"),
            }
        };
        let ending = async {
            assert_eq!(ada.delete(&path(&session)).await.status, 204);
            Instant::now()
        };
        // Begun in this order, a little earlier in each round.
        let before = join_all((0..OPENS - round).map(|_| open()));
        let after = join_all((0..round).map(|_| open()));
        let (mut streams, ended, later) = tokio::join!(before, ending, after);
        streams.extend(later);
        assert!(ended.elapsed() < SOON, "{:?}", ended.elapsed());
        for stream in &streams {
            match stream {
                Some(whole) => {
                    opened += 1;
                    assert!(whole.contains("\"reason\":\"revoked\""), "{whole}");
                }
                None => refused += 1,
            }
        }
    }
    eprintln!("{opened} streams were opened and ended, {refused} refused");
    assert!(opened > 0 && refused > 0);
}
