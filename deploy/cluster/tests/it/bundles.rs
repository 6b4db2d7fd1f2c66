//! A bundle behind a URL, on more than one replica of proc.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{support::PATIENCE, whole::Whole};

const SECRET: &str = "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5";
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/bundle.py");

#[tokio::test]
async fn every_replica_knows_a_bundle_at_once_and_cancels_what_another_runs() {
    let whole = Whole::start(|options| {
        options.settings.push(("PROC_HTTP_BUNDLES_LOOPBACK".into(), "true".into()));
    })
    .await;
    let mut sample = Command::new("python3");
    sample.args([SAMPLE, "--port", "0"]).env("BUNDLE_SECRET", SECRET).kill_on_drop(true);
    let mut sample = sample.stdout(Stdio::piped()).spawn().expect("python3 starts");
    let mut said = BufReader::new(sample.stdout.take().expect("a pipe")).lines();
    let mut says = async || {
        let line = timeout(PATIENCE, said.next_line()).await.expect("it says something");
        line.expect("text").expect("it runs")
    };
    let url = says().await;
    let manifest = Command::new("python3").args([SAMPLE, "--manifest"]).output().await;
    let manifest = manifest.expect("python3 starts").stdout;
    let mut manifest: Value = serde_json::from_slice(&manifest).expect("a manifest");
    (manifest["url"], manifest["secret"]) = (json!(url), json!(SECRET));
    let procs = [whole.cluster.proc_url(0), whole.cluster.proc_url(1)];
    let project = whole.project().await;
    let ended = async |id: &str| {
        let url = format!("{}/api/integrations/jobs/{id}", procs[0]);
        loop {
            let job = whole.http.get(&url).bearer_auth("dev-ada").send().await.expect("an answer");
            let job: Value = job.json().await.expect("JSON");
            if job["finished_at"].is_string() {
                return job;
            }
        }
    };

    // Whichever runs it, it knows what another was told a moment before.
    for round in 0..6 {
        let path = format!("{}/api/integrations/admin/bundles/round-{round}", procs[round % 2]);
        let put = whole.http.put(path).bearer_auth("dev-admin").json(&manifest);
        assert_eq!(put.send().await.expect("an answer").status(), 201);
        let path = format!("/api/integrations/bundles/round-{round}/operations/count");
        let body = json!({"project_id": project, "data": {"to": 1}});
        let job = whole.post(&procs[1 - round % 2], &path, body).await;
        let job: Value = job.json().await.expect("JSON");
        let job = timeout(PATIENCE, ended(job["id"].as_str().expect("an id"))).await;
        assert_eq!(job.expect("it ends")["result"], json!({"counted": 1}));
        assert!(says().await.starts_with("called") && says().await.starts_with("finished"));
    }

    // One of the two runs it; both are asked.
    for (number, operation, word) in [(0, "count", "hung-up"), (1, "later", "given-up")] {
        for proc in &procs {
            let path = format!("/api/integrations/bundles/round-{number}/operations/{operation}");
            let body = json!({"project_id": project, "data": {"to": 10_000, "delay": 0.05}});
            let job: Value = whole.post(&procs[0], &path, body).await.json().await.expect("JSON");
            let id = job["id"].as_str().expect("an id").to_owned();
            // The bundle may still be told of the job before.
            let called = format!("called {id}");
            while !says().await.starts_with(&called) {}
            let cancel = format!("/api/integrations/jobs/{id}/cancel");
            assert_eq!(whole.post(proc, &cancel, json!({})).await.status(), 200);
            let (expected, mut heard) = (format!("{word} {id}"), Vec::new());
            let stopped = async {
                while heard.last() != Some(&expected) {
                    heard.push(says().await);
                }
            };
            let stopped = timeout(PATIENCE, stopped).await;
            assert!(stopped.is_ok(), "the bundle does not say {expected:?} but {heard:?}");
        }
    }
    whole.cluster.stop().await.expect("every part ends well");
}

#[tokio::test]
async fn an_accepted_job_outlives_the_replica_that_called_and_ends_by_its_deadline_on_another() {
    let whole = Whole::start(|options| {
        let settings =
            [("PROC_HTTP_BUNDLES_LOOPBACK", "true"), ("PROC_LEASE", "1s"), ("PROC_WORKERS", "1")];
        for (name, value) in settings {
            options.settings.push((name.into(), value.into()));
        }
    })
    .await;
    let mut sample = Command::new("python3");
    sample.args([SAMPLE, "--port", "0"]).env("BUNDLE_SECRET", SECRET).kill_on_drop(true);
    let mut sample = sample.stdout(Stdio::piped()).spawn().expect("python3 starts");
    let mut said = BufReader::new(sample.stdout.take().expect("a pipe")).lines();
    let url = said.next_line().await.expect("text").expect("a URL");
    let manifest = Command::new("python3").args([SAMPLE, "--manifest"]).output().await;
    let mut manifest: Value =
        serde_json::from_slice(&manifest.expect("python3 starts").stdout).expect("a manifest");
    (manifest["url"], manifest["secret"]) = (json!(url), json!(SECRET));
    let procs = [whole.cluster.proc_url(0), whole.cluster.proc_url(1)];
    let project = whole.project().await;
    for (bundle, timeout_seconds) in [("long", 600), ("short", 5)] {
        manifest["operations"][1]["timeout_seconds"] = json!(timeout_seconds);
        let path = format!("{}/api/integrations/admin/bundles/{bundle}", procs[1]);
        let put = whole.http.put(path).bearer_auth("dev-admin").json(&manifest);
        assert_eq!(put.send().await.expect("an answer").status(), 201);
    }
    let show = async |id: &str| -> Value {
        let url = format!("{}/api/integrations/jobs/{id}", procs[1]);
        let shown = whole.http.get(&url).bearer_auth("dev-ada").send().await;
        shown.expect("an answer").json().await.expect("JSON")
    };
    let until = async |what: &str, id: &str, is_so: fn(&Value) -> bool| {
        let mut job = Value::Null;
        let waiting = async {
            while !is_so(&job) {
                job = show(id).await;
            }
        };
        let came = timeout(PATIENCE, waiting).await;
        assert!(came.is_ok(), "{what} never came: {job}");
        job
    };
    // No callback comes soon: the first job has ten minutes, the second five seconds.
    let mut ids = Vec::new();
    for bundle in ["long", "short"] {
        let path = format!("/api/integrations/bundles/{bundle}/operations/later");
        let body = json!({"project_id": project, "data": {"to": 60, "delay": 3}});
        let job: Value = whole.post(&procs[0], &path, body).await.json().await.expect("JSON");
        ids.push(job["id"].as_str().expect("an id").to_owned());
    }
    let accepted = "SELECT COUNT(*) FROM jobs WHERE state = 'running' AND worker IS NULL";
    let both = async { while whole.query_text(accepted) != "2" {} };
    timeout(PATIENCE, both).await.expect("both are accepted");
    whole.cluster.proc(0).kill().await.expect("it is there");
    let expired = until("the end of its time", &ids[1], |job| job["error"]["code"] == "timeout");
    let expired = expired.await;
    assert_eq!((&expired["state"], &expired["attempt"]), (&json!("queued"), &json!(1)));
    // By now the lease of the killed one is long over.
    let running = show(&ids[0]).await;
    assert_eq!((&running["state"], &running["attempt"]), (&json!("running"), &json!(1)));
    whole.cluster.proc(0).start().await.expect("it is back");
    let counted = until("a callback", &ids[0], |job| job["progress"]["done"].as_u64() > Some(0));
    assert_eq!(counted.await["attempt"], 1);
    let calls = format!("SELECT COUNT(*) FROM http_calls WHERE job_id = '{}'", ids[0]);
    assert_eq!(whole.query_text(&calls), "1", "it was called again");
    whole.cluster.stop().await.expect("every part ends well");
}
