//! Calling operations and following the jobs that come of it.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    project::Project,
    sse::{Event, Sse},
    support::{Answer, Client, PATIENCE},
};

/// Where jobs are.
pub(crate) const JOBS: &str = "/api/integrations/jobs";

/// Calls an operation.
pub(crate) async fn submit(project: &Project, operation: &str, data: Value) -> Answer {
    submit_with(project, operation, data, &[]).await
}

/// Calls an operation with more headers.
pub(crate) async fn submit_with(
    project: &Project,
    operation: &str,
    data: Value,
    head: &[(&str, &str)],
) -> Answer {
    let (bundle, operation) = operation.split_once('.').expect("bundle.operation");
    let path = format!("/api/integrations/bundles/{bundle}/operations/{operation}");
    let mut request = project.client.request("POST", &path);
    for (name, value) in head {
        request = request.header(*name, *value);
    }
    Answer::to(request.json(&json!({"project_id": project.id, "data": data}))).await
}

/// Calls an operation and returns the job when it has ended.
pub(crate) async fn run(project: &Project, operation: &str, data: Value) -> Value {
    submit_with(project, operation, data, &[("prefer", "wait=25")]).await.is(200)
}

/// Asks for the job until it is in this state.
pub(crate) async fn until_state(client: &Client, id: &str, state: &str) -> Value {
    let asking = async {
        loop {
            let job = client.get(&format!("{JOBS}/{id}")).await.is(200);
            if job["state"] == state {
                break job;
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("the job is never {state}"))
}

/// Opens the caller's jobs stream and reads its greeting and snapshot.
pub(crate) async fn follow(client: &Client) -> (Sse, Value) {
    let mut stream = client.open("/api/jobs/stream").await;
    assert_eq!(stream.expect("hello").await["resumed"], false);
    let snapshot = stream.expect("job.snapshot").await;
    (stream, snapshot["jobs"].clone())
}

/// Reads the events of a job up to its end.
pub(crate) async fn until_end(stream: &mut Sse, id: &str) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = stream.entry().await;
        assert_eq!(event.data["job"]["id"], id, "{event:?}");
        let is_last = ["job.succeeded", "job.failed", "job.cancelled"].contains(&event.kind());
        events.push(event);
        if is_last {
            return events;
        }
    }
}
