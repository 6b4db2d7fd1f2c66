//! How many requests are answered at once, and what does not count.

use futures_util::future::{join, join_all};
use reqwest::RequestBuilder;
use serde_json::json;

use crate::{
    raw::Raw,
    support::{Answer, Parley, eventually, text},
};

use super::{read, send};

#[tokio::test]
async fn beyond_the_room_requests_are_refused_and_nothing_else_happens_to_them() {
    let parley = Parley::start_with(&["--max-in-flight", "1"]).await;
    let project = parley.as_user("ada").project().await;
    let answers = join_all((0..200).map(|_| send(&project))).await;
    let mut sent = 0;
    for answer in answers {
        if answer.status == 201 {
            sent += 1;
            continue;
        }
        let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
        let body = answer.refused(503, "backpressure");
        let ms = body["retry_after_ms"].as_u64().expect("milliseconds");
        assert!((1_000..3_000).contains(&ms) && seconds == ms.div_ceil(1_000), "{body}");
    }
    assert!((1..200).contains(&sent), "{sent} of 200 were let in");
    assert_eq!(project.history().await.len(), sent);
}

#[tokio::test]
async fn who_only_waits_takes_no_room() {
    let parley = Parley::start_with(&["--max-in-flight", "1"]).await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    // Streams, long polls, a wait for a job, and a body that does not come.
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(project.stream("").await.0);
    }
    let path = project.path(&format!("/events?after={cursor}&wait=20"));
    let polls = (0..2).map(|_| let_in(project.client.request("GET", &path)));
    let mut unfinished = Raw::connect(&parley.ingress).await;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\ncontent-type: application/json\r\n\
         content-length: 12\r\n\r\n{{",
        project.path("/messages")
    );
    unfinished.send(head).await;
    let submitted = json!({"project_id": project.id, "data": {"to": 1_000, "delay_ms": 100}});
    let submit = || {
        let path = "/api/integrations/bundles/demo/operations/count";
        project.client.request("POST", path).json(&submitted)
    };
    let job = let_in(submit()).await.is(202);
    let path = format!("/api/integrations/jobs/{}", text(&job["id"]));
    let waiting = submit().header("prefer", "wait=20");
    let meanwhile = async {
        // All of them are waiting when this succeeds again and again.
        let mut row = 0;
        eventually("twenty in a row", async || {
            row = if read(&project.client).await.status == 200 { row + 1 } else { 0 };
            row >= 20
        })
        .await;
        project.client.get(&path).await.is(200);
        eventually("a send", async || send(&project).await.status == 201).await;
    };
    let polled = tokio::select! {
        (polled, ()) = join(join_all(polls), meanwhile) => polled,
        answer = let_in(waiting) => panic!("it was to wait: {answer:?}"),
    };
    for answer in polled {
        assert_eq!(answer.is(200)["events"].as_array().map(Vec::len), Some(1));
    }
}

/// Asks until there is room.
async fn let_in(request: RequestBuilder) -> Answer {
    loop {
        let answer = Answer::to(request.try_clone().expect("it can be repeated")).await;
        if answer.status != 503 {
            return answer;
        }
    }
}
