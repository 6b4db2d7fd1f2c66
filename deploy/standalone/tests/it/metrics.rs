//! What operators see at `/metrics` of the internal listeners.

use serde_json::json;

use crate::support::{Parley, eventually};

/// Collects a service's figures, as a Prometheus does.
pub(crate) async fn collect(parley: &Parley, service: &str) -> String {
    let url = format!("{}/metrics", parley.internal(service));
    let answer = reqwest::get(url).await.expect("an answer");
    let media = answer.headers()["content-type"].to_str().expect("text").to_owned();
    assert!(media.starts_with("application/openmetrics-text; version=1.0.0"), "{media}");
    let text = answer.text().await.expect("text");
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}

#[tokio::test]
async fn streams_and_requests_are_counted() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (mut stream, _) = project.stream("").await;
    project.send("hello").await;
    stream.texts_until("hello").await;
    let has = async |line: &str| {
        let text = collect(&parley, "ingress").await;
        text.lines().any(|shown| shown == line)
    };
    // The message, and perhaps that its author is there.
    let delivered = async || {
        let text = collect(&parley, "ingress").await;
        let count =
            text.lines().find_map(|line| line.strip_prefix("parley_stream_deliveries_total "));
        count.and_then(|count| count.parse::<u64>().ok()) >= Some(1)
    };
    eventually("it is counted", delivered).await;
    assert!(has("parley_streams 1").await);
    assert!(has("parley_streams_opened_total 1").await);
    let route = r#"route="/api/chat/projects/{project}/messages""#;
    let line = format!(r#"parley_http_requests_total{{method="POST",{route},status="201"}} 1"#);
    assert!(has(&line).await, "{line}");
    drop(stream);
    eventually("the stream is gone", async || has("parley_streams 0").await).await;
}

#[tokio::test]
async fn waiting_jobs_are_counted() {
    let parley = Parley::start_with(&["--proc-workers", "1"]).await;
    let project = parley.as_user("ada").project().await;
    for waiting in 0..3 {
        let line = format!("parley_jobs_waiting {waiting}");
        let body = json!({"project_id": project.id, "data": {"to": 1000, "delay_ms": 100}});
        let path = "/api/integrations/bundles/demo/operations/count";
        project.client.call("POST", path, &body).await.is(202);
        eventually(&line, async || collect(&parley, "proc").await.contains(&line)).await;
    }
    let text = collect(&parley, "proc").await;
    for line in ["parley_jobs_running 1", "parley_jobs_due 2", "parley_jobs_parked 0"] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
    let oldest =
        text.lines().find_map(|line| line.strip_prefix("parley_jobs_oldest_wait_seconds "));
    assert!(oldest.is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{text}");
}

#[tokio::test]
async fn what_a_client_makes_up_is_no_series() {
    let parley = Parley::start().await;
    let client = parley.as_user("ada");
    for number in 0..50 {
        client.get(&format!("/api/made-up/{number}")).await.refused(404, "not_found");
        client.get(&format!("/api/chat/projects/{number}")).await.refused(400, "invalid_request");
        client.request(&format!("MADEUP{number}"), "/health").send().await.expect("an answer");
    }
    let text = collect(&parley, "ingress").await;
    let series = text.lines().filter(|line| line.starts_with("parley_http_requests_total")).count();
    assert_eq!(series, 3, "{text}");
}
