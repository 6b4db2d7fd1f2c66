//! The text of a deleted message is gone on every replica, also where recent events are kept in memory.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{support::read_until, whole::Whole};

const DELETED: &str = "hunter2-deleted";
const EDITED: &str = "hunter2-edited";

async fn call(whole: &Whole, method: Method, url: &str, body: Value) -> Value {
    let request = whole.http.request(method, url).bearer_auth("dev-ada").json(&body);
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    answer.json().await.unwrap_or_default()
}

async fn open(whole: &Whole, base: &str, project: &str, from: &str) -> Response {
    let url = format!("{base}/sse/stream?project_id={project}");
    let request = whole.http.get(url).bearer_auth("dev-ada").header("last-event-id", from);
    let stream = request.send().await.expect("an answer");
    assert!(stream.status().is_success(), "{stream:?}");
    stream
}

#[tokio::test]
async fn a_replay_by_another_replica_has_no_deleted_text() {
    let whole = Whole::start(|options| (options.ingress, options.proc) = (2, 1)).await;
    let [first, second] = [0, 1].map(|number| whole.cluster.ingress_url(number));
    let project = whole.project().await;
    let mut greeted = open(&whole, &second, &project, "").await;
    let greeting =
        read_until(&mut greeted, "\"hello\"").await + &read_until(&mut greeted, "\n\n").await;
    let cursor = greeting.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
    let messages = format!("{first}/api/chat/projects/{project}/messages");
    let deleted = call(&whole, Method::POST, &messages, json!({"text": DELETED})).await;
    let edited = call(&whole, Method::POST, &messages, json!({"text": EDITED})).await;
    // The second replica has heard both, so that its frames in memory have both texts.
    read_until(&mut greeted, EDITED).await;
    let at = |message: &Value| format!("{messages}/{}", message["id"].as_str().expect("an id"));
    call(&whole, Method::PATCH, &at(&edited), json!({"text": "the last version"})).await;
    call(&whole, Method::DELETE, &at(&deleted), json!({})).await;
    read_until(&mut greeted, "message.deleted").await;

    for base in [&first, &second] {
        let mut replay = open(&whole, base, &project, cursor).await;
        let said = read_until(&mut replay, "message.deleted").await;
        assert!(said.contains("the last version"), "{said}");
        assert!(!said.contains(DELETED) && !said.contains(EDITED), "{base} replays {said}");
        assert_eq!(said.matches("\"redacted\":true").count(), 2, "{said}");
    }
    whole.stop().await;
}
