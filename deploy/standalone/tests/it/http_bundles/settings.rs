//! Settings of an operation count as they are now, also for jobs that were made before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::callbacks::Callback;
use crate::{
    bundle::{LOOPBACK, Rogue, Says, lines, manifest, register, status},
    job::{JOBS, submit, until_state},
    project::Project,
    support::{Client, Parley, text},
};

/// Time that a test waits for a call that should not come.
const QUIET: Duration = Duration::from_millis(1_500);

/// A bundle whose one operation is changed while its jobs wait.
struct Changing {
    parley: Parley,
    project: Project,
    rogue: Rogue,
    manifest: Value,
}

impl Changing {
    async fn start(
        flags: &[&str],
        operation: &Value,
        answer: impl Fn(&Value) -> Says + Send + Sync + 'static,
    ) -> Self {
        let parley = Parley::start_with(&[&LOOPBACK[..], flags].concat()).await;
        let project = parley.as_user("ada").project().await;
        let rogue = Rogue::start(answer).await;
        let changing = Self { parley, project, rogue, manifest: manifest(&["work"], 60) };
        changing.put(operation).await;
        changing
    }

    /// Registers it with other fields of its operation.
    async fn put(&self, fields: &Value) {
        let mut manifest = self.manifest.clone();
        for (field, value) in fields.as_object().expect("fields") {
            manifest["operations"][0][field] = value.clone();
        }
        let admin = self.parley.as_user("admin");
        let status = register(&admin, "b", &self.rogue.url, &manifest).await.status;
        assert!([200, 201].contains(&status), "{status}");
    }

    async fn submit(&self, data: Value) -> String {
        text(&submit(&self.project, "b.work", data).await.is(202)["id"])
    }

    fn client(&self) -> &Client {
        &self.project.client
    }

    /// Waits for the next call, and returns its job and fence.
    async fn called(&mut self) -> (String, Value) {
        let call = self.rogue.called().await.body;
        assert_eq!((&call["type"], &call["attempt"]), (&json!("run"), &json!(1)), "{call}");
        (text(&call["job"]), call["fence"].clone())
    }

    /// Ends an accepted job.
    async fn finish(&self, (job, fence): &(String, Value)) {
        let result = json!({"fence": fence, "result": null});
        Callback::new(job, "end", &result).send(&self.parley.client()).await.is(204);
        until_state(self.client(), job, "succeeded").await;
    }
}

fn accepts(_: &Value) -> Says {
    Says::Ends(status("202 Accepted", ""))
}

#[tokio::test]
async fn a_lowered_concurrency_makes_jobs_wait_and_fails_none() {
    let workers = ["--proc-workers", "8"];
    let mut bundle = Changing::start(&workers, &json!({"concurrency": 4}), accepts).await;
    let mut jobs = Vec::new();
    for _ in 0..7 {
        jobs.push(bundle.submit(json!({})).await);
    }
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(bundle.called().await);
    }
    bundle.put(&json!({"concurrency": 1})).await;
    for call in running.split_off(1) {
        bundle.finish(&call).await;
    }
    assert!(!bundle.rogue.is_called_within(QUIET).await, "a second one was called");
    let mut call = running.remove(0);
    for _ in 0..3 {
        bundle.finish(&call).await;
        call = bundle.called().await;
        assert!(!bundle.rogue.is_called_within(QUIET).await, "a second one was called");
    }
    bundle.finish(&call).await;
    for id in jobs {
        let job = until_state(bundle.client(), &id, "succeeded").await;
        assert_eq!((&job["attempt"], &job["error"]), (&json!(1), &Value::Null), "{job}");
    }
}

#[tokio::test]
async fn a_raised_concurrency_starts_the_oldest_that_wait() {
    let workers = ["--proc-workers", "8"];
    for before in [json!({"concurrency": 1}), json!({"concurrency": 2})] {
        let mut bundle = Changing::start(&workers, &before, accepts).await;
        let mut jobs = Vec::new();
        for _ in 0..6 {
            jobs.push(bundle.submit(json!({})).await);
        }
        let mut called = vec![bundle.called().await];
        if before["concurrency"] == 2 {
            called.push(bundle.called().await);
        }
        assert!(!bundle.rogue.is_called_within(QUIET).await, "more run than may");
        bundle.put(&json!({"concurrency": 4})).await;
        // A job that is submitted now goes last.
        jobs.push(bundle.submit(json!({})).await);
        while called.len() < 4 {
            called.push(bundle.called().await);
        }
        assert!(!bundle.rogue.is_called_within(QUIET).await, "more run than may");
        let mut first: Vec<_> = called.iter().map(|(job, _)| job.clone()).collect();
        first.sort();
        assert_eq!(first, jobs[..4], "others than the oldest four were called");
        // A limit that is gone leaves none.
        bundle.put(&json!({})).await;
        for job in &jobs[4..] {
            let call = bundle.called().await;
            assert!(jobs[4..].contains(&call.0), "{job} was called twice");
            called.push(call);
        }
        for call in &called {
            bundle.finish(call).await;
        }
    }
}

#[tokio::test]
async fn a_limit_that_is_new_holds_for_jobs_that_wait_already() {
    let workers = ["--proc-workers", "1"];
    let mut bundle = Changing::start(&workers, &json!({}), accepts).await;
    // No job of hers begins while her only worker, and the one beside, are busy.
    let mut long = Vec::new();
    for _ in 0..2 {
        let data = json!({"to": 1_000, "delay_ms": 100});
        long.push(text(&submit(&bundle.project, "demo.count", data).await.is(202)["id"]));
    }
    until_state(bundle.client(), &long[0], "running").await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(bundle.submit(json!({})).await);
    }
    bundle.put(&json!({"concurrency": 1})).await;
    for id in long {
        bundle.client().call("POST", &format!("{JOBS}/{id}/cancel"), &json!({})).await.is(200);
    }
    for job in jobs {
        let call = bundle.called().await;
        assert_eq!(call.0, job, "the oldest goes first");
        assert!(!bundle.rogue.is_called_within(QUIET).await, "more run than may");
        bundle.finish(&call).await;
    }
}

#[tokio::test]
async fn input_that_fails_the_schema_of_now_never_reaches_the_bundle() {
    let schema =
        |of: &str| json!({"input": {"type": "object", "properties": {"to": {"type": of}}}});
    let answer = |_: &Value| Says::Ends(status("500 Internal Server Error", ""));
    let spread = ["--proc-retry-spread", "32s"];
    let mut bundle = Changing::start(&spread, &schema("integer"), answer).await;
    let id = bundle.submit(json!({"to": 3})).await;
    assert_eq!(bundle.called().await.0, id);
    bundle.put(&schema("string")).await;
    for _ in 0..2 {
        let job = until_state(bundle.client(), &id, "failed").await;
        assert_eq!(job["error"]["code"], "invalid_input", "{job}");
        assert!(text(&job["error"]["message"]).starts_with("data.to: "), "{job}");
        // Started over, it fails in the same way.
        bundle.client().call("POST", &format!("{JOBS}/{id}/retry"), &json!({})).await.is(202);
    }
    until_state(bundle.client(), &id, "failed").await;
    assert!(!bundle.rogue.is_called_within(QUIET).await, "the bundle was called with it");
    bundle.put(&schema("integer")).await;
    bundle.client().call("POST", &format!("{JOBS}/{id}/retry"), &json!({})).await.is(202);
    assert_eq!(bundle.called().await.0, id);
}

#[tokio::test]
async fn the_timeout_of_now_counts_for_a_job_that_was_put_back() {
    let is_first = Arc::new(AtomicBool::new(true));
    let answer = move |_: &Value| {
        if is_first.swap(false, Ordering::SeqCst) {
            Says::Ends(status("503 Service Unavailable", "retry-after: 2\r\n"))
        } else {
            Says::Hangs(lines(""))
        }
    };
    let mut bundle = Changing::start(&[], &json!({"timeout_seconds": 600}), answer).await;
    let id = bundle.submit(json!({})).await;
    bundle.called().await;
    bundle.put(&json!({"timeout_seconds": 1})).await;
    let call = bundle.rogue.called().await;
    assert_eq!((&call.body["attempt"], &call.body["timeout_seconds"]), (&json!(1), &json!(1)));
    call.hung_up.await.expect("the bundle runs");
    let job = until_state(bundle.client(), &id, "queued").await;
    assert_eq!((&job["attempt"], &job["error"]["code"]), (&json!(1), &json!("timeout")), "{job}");
}
