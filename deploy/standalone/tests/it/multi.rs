//! Two logs on one stream: a project's and the caller's jobs, with one cursor for both.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    job::{follow, submit, until_end},
    project::Project,
    sse::{Event, Sse},
    support::{PATIENCE, Parley, column, text},
};

async fn with_jobs(project: &Project, cursor: Option<&str>) -> Sse {
    let path = format!("/sse/stream?project_id={}&include=jobs", project.id);
    let request = project.client.request("GET", &path);
    Sse::open(match cursor {
        Some(cursor) => request.header("last-event-id", cursor),
        None => request,
    })
    .await
}

/// What distinguishes an event from every other of its log.
fn key(event: &Value) -> Value {
    json!([event["type"], event["message"]["text"], event["job"]["id"], event["at"]])
}

fn is_of_jobs(event: &Event) -> bool {
    event.kind().starts_with("job.")
}

async fn count(project: &Project, to: u64, delay_ms: u64) -> String {
    let data = json!({"to": to, "delay_ms": delay_ms});
    text(&submit(project, "demo.count", data).await.is(202)["id"])
}

#[tokio::test]
async fn one_stream_carries_both_and_begins_with_unfinished_jobs() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "member").await;
    let id = count(&project, 1_000, 100).await;
    let other = count(&grace, 1_000, 100).await;
    let mut stream = with_jobs(&project, None).await;
    let hello = stream.expect("hello").await;
    let cursor = text(&hello["cursor"]);
    assert!(cursor.len() <= 128 && cursor.matches('-').count() == 1, "{cursor}");
    let snapshot = stream.expect("job.snapshot").await;
    assert_eq!(json!(column(&snapshot["jobs"], "id")), json!([id]));
    project.send("hello").await;
    let message = stream.until("message.created").await;
    assert_eq!((message.name.as_str(), &message.data["actor"]), ("message", &json!("ada")));
    // The jobs of others are theirs alone, though they are in the same project.
    let cancel = |id: &str| format!("/api/integrations/jobs/{id}/cancel");
    grace.client.call("POST", &cancel(&other), &json!({})).await.is(200);
    project.client.call("POST", &cancel(&id), &json!({})).await.is(200);
    loop {
        let event = stream.entry().await;
        assert_eq!(event.data["job"]["id"], id, "{event:?}");
        assert!(event.id.len() <= 128 && event.id.matches('-').count() == 1, "{event:?}");
        if event.kind() == "job.cancelled" {
            break;
        }
    }
}

#[tokio::test]
async fn who_comes_and_goes_has_both_logs_whole_and_in_order() {
    const MESSAGES: usize = 120;
    const JOBS: u64 = 12;

    let mut parley = Parley::start_with(&["--sse-max-conn-per-ip", "9"]).await;
    let mut project = parley.as_user("ada").project().await;
    let mut first = with_jobs(&project, None).await;
    let from = text(&first.expect("hello").await["cursor"]);
    let (mut cursor, mut seen, mut visits) = (from.clone(), Vec::new(), 0);
    drop(first);
    for half in 0..2 {
        let sending = async {
            for number in 0..MESSAGES / 2 {
                project.send(&format!("{half} {number}")).await;
            }
            project.send(&format!("{half} last")).await;
        };
        let working = async {
            for _ in 0..JOBS / 2 {
                count(&project, 3, 5).await;
            }
        };
        let last = format!("{half} last");
        let following = async {
            let (mut ended, mut sent) = (0, false);
            while ended < JOBS / 2 || !sent {
                visits += 1;
                let mut stream = with_jobs(&project, Some(&cursor)).await;
                assert_eq!(stream.expect("hello").await["resumed"], true);
                // Each visit is of another length, so that it breaks off in the middle of everything.
                for _ in 0..=visits * 7 % 13 {
                    let event = stream.entry().await;
                    cursor.clone_from(&event.id);
                    ended += u64::from(event.kind() == "job.succeeded");
                    sent |= event.data["message"]["text"] == *last;
                    seen.push(event);
                    if ended == JOBS / 2 && sent {
                        break;
                    }
                }
            }
        };
        let all = async { tokio::join!(sending, working, following) };
        timeout(PATIENCE, all).await.expect("both are followed to their ends");
        if half == 0 {
            parley.kill().await;
            parley = Parley::start_in(&parley.dir, &["--sse-max-conn-per-ip", "9"]).await;
            project = Project { client: parley.as_user("ada"), id: project.id };
        }
    }
    eprintln!("{} events in {visits} visits", seen.len());
    assert!(visits > 10);
    let (jobs, chat): (Vec<Event>, Vec<Event>) = seen.into_iter().partition(is_of_jobs);
    assert!(chat.iter().map(|event| &event.data).eq(&project.log(&from).await));
    assert_eq!(chat.len(), MESSAGES + 2);
    // The same log of jobs, on a stream of its own that nobody left.
    let path = format!("/api/jobs/stream?last_event_id={from}");
    let mut whole = project.client.open(&path).await;
    assert_eq!(whole.expect("hello").await["resumed"], true);
    for job in &jobs {
        assert_eq!(key(&whole.entry().await.data), key(&job.data));
    }
    assert_eq!(jobs.iter().filter(|event| event.kind() == "job.succeeded").count(), 12);
}

#[tokio::test]
async fn a_cursor_goes_from_one_kind_of_stream_to_another() {
    let parley = Parley::start_with(&["--sse-max-conn-per-ip", "9"]).await;
    let project = parley.as_user("ada").project().await;
    let other = project.client.project().await;
    let mut both = with_jobs(&project, None).await;
    let of_both = text(&both.expect("hello").await["cursor"]);
    let of_project = project.cursor().await;
    let (mut jobs, _) = follow(&project.client).await;
    let id = count(&project, 1, 0).await;
    let of_jobs = until_end(&mut jobs, &id).await;
    project.send("one").await;

    // Of both logs: the project's stream goes on in its own.
    let (mut stream, hello) = project.stream(&format!("&since={of_both}")).await;
    assert_eq!(hello["resumed"], true);
    assert_eq!(stream.expect("message.created").await["message"]["text"], "one");
    // Of the project alone: the jobs are new to it, and begin with those that have not ended.
    let mut stream = with_jobs(&project, Some(&of_project)).await;
    assert_eq!(stream.expect("hello").await["resumed"], true);
    assert_eq!(stream.expect("job.snapshot").await["jobs"], json!([]));
    assert_eq!(stream.expect("message.created").await["message"]["text"], "one");
    // Of the jobs alone: the project begins now.
    let mut stream = with_jobs(&project, Some(&of_jobs[0].id)).await;
    assert_eq!(stream.expect("hello").await["resumed"], true);
    for event in &of_jobs[1..] {
        assert_eq!(stream.entry().await.data, event.data);
    }
    project.send("two").await;
    assert_eq!(stream.expect("message.created").await["message"]["text"], "two");
    // Of another project and the jobs: nothing of that project comes along.
    other.send("elsewhere").await;
    let mut stream = with_jobs(&other, Some(&of_both)).await;
    assert_eq!(stream.expect("hello").await["resumed"], true);
    for event in &of_jobs {
        assert_eq!(stream.entry().await.data, event.data);
    }
    other.send("here").await;
    assert_eq!(stream.expect("message.created").await["message"]["text"], "here");
}

#[tokio::test]
async fn a_log_that_cannot_be_continued_resets_both_and_begins_anew() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let mut stream = with_jobs(&project, None).await;
    let cursor = text(&stream.expect("hello").await["cursor"]);
    let id = count(&project, 1_000, 100).await;
    project.send("missed").await;
    let (chat, jobs) = cursor.split_once('-').unwrap();
    let ahead = |log: &str| {
        let mut parts: Vec<&str> = log.split('.').collect();
        let seq = parts.len() - 2;
        parts[seq] = "zzzz";
        parts.join(".")
    };
    for broken in [format!("{}-{jobs}", ahead(chat)), format!("{chat}-{}", ahead(jobs))] {
        let mut stream = with_jobs(&project, Some(&broken)).await;
        let hello = stream.expect("hello").await;
        assert_eq!(hello["resumed"], false);
        let reset = stream.expect("reset").await;
        assert_eq!(reset["reason"], "ahead");
        // Who goes on from there is told of the jobs, too: the cursor is the project's alone.
        let (of_project, _) = hello["cursor"].as_str().unwrap().split_once('-').unwrap();
        assert_eq!(reset["cursor"], of_project);
        let snapshot = stream.expect("job.snapshot").await;
        assert_eq!(json!(column(&snapshot["jobs"], "id")), json!([id]));
        project.send(&broken).await;
        assert_eq!(stream.until("message.created").await.data["message"]["text"], broken);
    }
}
