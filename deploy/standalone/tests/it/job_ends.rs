//! How jobs end and begin again: cancelled, repeated, interrupted, refused for lack of room; and what goes in and out.

use serde_json::{Value, json};

use crate::{
    job::{JOBS, follow, run, submit, until_end, until_state},
    project::Project,
    sse::{Event, Sse},
    support::{Answer, Parley, text},
};

async fn act(project: &Project, id: &str, action: &str) -> Answer {
    project.client.call("POST", &format!("{JOBS}/{id}/{action}"), &json!({})).await
}

/// Reads the stream until its job has done at least so much.
async fn far(stream: &mut Sse, least: u64) -> Event {
    loop {
        let event = stream.until("job.progress").await;
        if done(&event) >= least {
            return event;
        }
    }
}

fn done(event: &Event) -> u64 {
    event.data["job"]["progress"]["done"].as_u64().expect("a number")
}

/// Starts a job that takes long and waits until it has got somewhere.
async fn counting(project: &Project, to: u64, delay_ms: u64) -> String {
    let (mut stream, _) = follow(&project.client).await;
    let data = json!({"to": to, "delay_ms": delay_ms});
    let id = text(&submit(project, "demo.count", data).await.is(202)["id"]);
    far(&mut stream, 1).await;
    id
}

#[tokio::test]
async fn a_cancelled_job_stays_cancelled_until_it_is_retried() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let id = counting(&project, 30, 100).await;
    let (mut stream, _) = follow(&project.client).await;
    // Farther than it would be when the next progress is told, if it began anew.
    far(&mut stream, 15).await;
    let cancelled = act(&project, &id, "cancel").await.is(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["finished_at"].is_string());
    assert_eq!(act(&project, &id, "cancel").await.is(200), cancelled);
    assert_eq!(until_end(&mut stream, &id).await.last().unwrap().data["job"], cancelled);
    // Nothing of it is told afterwards.
    let other = text(&run(&project, "demo.count", json!({"to": 1})).await["id"]);
    until_end(&mut stream, &other).await;

    // What was done stays done.
    let before = cancelled["progress"]["done"].as_u64().unwrap();
    assert_eq!(act(&project, &id, "retry").await.is(202)["state"], "queued");
    for event in until_end(&mut stream, &id).await {
        assert!(done(&event) >= before, "it began anew: {event:?}");
    }
    assert_eq!(
        until_state(&project.client, &id, "succeeded").await["result"],
        json!({"counted": 30})
    );
    act(&project, &id, "retry").await.refused(409, "conflict");
    act(&project, &id, "cancel").await.refused(409, "conflict");
}

#[tokio::test]
async fn a_failed_job_says_why_and_can_be_retried() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let nothing = json!({"upload_id": uuid::Uuid::now_v7()});
    let failed = run(&project, "chat.import", nothing).await;
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["error"]["code"], "upload_not_found");
    assert_eq!((&failed["error"]["retryable"], &failed["result"]), (&json!(false), &Value::Null));
    let id = text(&failed["id"]);
    act(&project, &id, "cancel").await.refused(409, "conflict");
    assert_eq!(act(&project, &id, "retry").await.is(202)["error"], Value::Null);
    assert_eq!(until_state(&project.client, &id, "failed").await["error"], failed["error"]);
    for action in ["cancel", "retry"] {
        let none = uuid::Uuid::now_v7().to_string();
        act(&project, &none, action).await.refused(404, "not_found");
        act(&project, "junk", action).await.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_takes_again() {
    let flags = ["--proc-workers", "1", "--proc-queue-limit", "1"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let running = counting(&project, 100, 500).await;
    let waiting = text(&submit(&project, "demo.count", json!({"to": 1})).await.is(202)["id"]);
    let refused = submit(&project, "demo.count", json!({"to": 1})).await;
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    assert!(refused.refused(503, "backpressure")["retry_after_ms"].is_u64());
    act(&project, &running, "cancel").await.is(200);
    until_state(&project.client, &waiting, "succeeded").await;
    run(&project, "demo.count", json!({"to": 1})).await;
}

/// Ends the process while a job runs, starts it again, and follows the job to its end.
async fn a_job_outlives(end: impl AsyncFnOnce(&mut Parley)) -> Vec<String> {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (mut stream, _) = follow(&project.client).await;
    let data = json!({"to": 25, "delay_ms": 100});
    let id = text(&submit(&project, "demo.count", data).await.is(202)["id"]);
    let seen = far(&mut stream, 15).await;
    drop(stream);
    end(&mut parley).await;
    let parley = Parley::start_in(&parley.dir, &[]).await;
    let ada = parley.as_user("ada");
    let path = format!("/api/jobs/stream?last_event_id={}", seen.id);
    let mut stream = ada.open(&path).await;
    assert_eq!(stream.expect("hello").await["resumed"], true);
    let events = until_end(&mut stream, &id).await;
    let mut before = done(&seen);
    for event in &events {
        assert!(done(event) >= before, "it began anew: {event:?}");
        // It is one attempt that goes on.
        assert_eq!(event.data["job"]["attempt"], 1);
        before = done(event);
    }
    assert_eq!(events.last().expect("its end").data["job"]["result"], json!({"counted": 25}));
    events.iter().map(|event| event.kind().to_owned()).collect()
}

#[tokio::test]
async fn a_job_goes_on_after_a_kill() {
    let kinds = a_job_outlives(async |parley| parley.kill().await).await;
    assert!(kinds.iter().any(|kind| kind == "job.interrupted"), "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "job.succeeded");
}

#[tokio::test]
async fn a_job_is_handed_back_by_a_stop() {
    let kinds = a_job_outlives(async |parley| assert!(parley.terminate().await.success())).await;
    assert!(kinds.iter().any(|kind| kind == "job.interrupted"), "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "job.succeeded");
}

#[tokio::test]
async fn an_upload_is_kept_whole_or_not_at_all() {
    let parley = Parley::start_with(&["--proc-max-upload-bytes", "100000"]).await;
    let ada = parley.as_user("ada");
    let path = "/api/integrations/uploads";
    let made = Answer::to(ada.request("POST", path).body("hello")).await.is(201);
    assert_eq!(made["bytes"], 5);
    assert_eq!(made["sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert!(uuid::Uuid::parse_str(&text(&made["upload_id"])).is_ok());
    Answer::to(ada.request("POST", path)).await.refused(400, "invalid_request");
    let largest = ada.request("POST", path).body(vec![7; 100_000]);
    assert_eq!(Answer::to(largest).await.is(201)["bytes"], 100_000);
    let stated = ada.request("POST", path).body(vec![7; 100_001]);
    Answer::to(stated).await.refused(413, "too_large");
    // Without a length the bytes are counted as they come.
    let parts = (0..101).map(|_| Ok::<_, std::io::Error>(vec![7; 1_000]));
    let parts = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
    Answer::to(ada.request("POST", path).body(parts)).await.refused(413, "too_large");
    // Another's upload does not exist.
    let project = parley.as_user("grace").project().await;
    let job = run(&project, "chat.import", json!({"upload_id": made["upload_id"]})).await;
    assert_eq!(job["error"]["code"], "upload_not_found");
}

/// Returns the status and the headers of an answer.
async fn head_of(
    project: &Project,
    method: &str,
    url: &str,
    headers: &[(&'static str, &str)],
) -> (u16, reqwest::header::HeaderMap) {
    let mut request = project.client.request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.headers().clone())
}

#[tokio::test]
async fn an_artifact_is_downloaded_whole_or_by_range() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    project.send("kept for ever").await;
    let artifact = run(&project, "chat.export", json!({})).await["result"]["artifact"].clone();
    let url = text(&artifact["url"]);
    let ask = async |range: &str| {
        let request = project.client.request("GET", &url).header("range", range);
        let response = request.send().await.unwrap();
        let (status, head) = (response.status().as_u16(), response.headers().clone());
        (status, head, response.bytes().await.unwrap())
    };
    let (status, head, whole) = ask("none").await;
    assert_eq!((status, &head["content-type"]), (200, &"application/x-ndjson".parse().unwrap()));
    assert_eq!(artifact["bytes"], whole.len());
    assert!(whole.windows(13).any(|window| window == b"kept for ever"));
    let end = whole.len() - 1;
    for (range, first, last) in [
        ("bytes=0-9", 0, 9),
        ("bytes=5-", 5, end),
        ("bytes=-7", end - 6, end),
        ("bytes=3-99999999", 3, end),
    ] {
        let (status, head, part) = ask(range).await;
        assert_eq!((status, &part[..]), (206, &whole[first..=last]), "{range}");
        assert_eq!(head["content-range"], format!("bytes {first}-{last}/{}", whole.len()));
    }
    let (status, head, _) = ask(&format!("bytes={}-", whole.len())).await;
    assert_eq!(
        (status, &head["content-range"]),
        (416, &format!("bytes */{}", whole.len()).parse().unwrap())
    );
    let etag = head_of(&project, "GET", &url, &[]).await.1["etag"].to_str().unwrap().to_owned();
    let weak = format!("W/{etag}");
    let other = "\"other\"";
    let list = format!("{other}, {etag}");
    let part = ("range", "bytes=5-");
    for (method, headers, expected) in [
        // A range is for GET alone.
        ("HEAD", &[("range", "bytes=0-3")][..], 200),
        ("HEAD", &[("range", "bytes=99999999-")], 200),
        ("GET", &[("if-none-match", &*etag)], 304),
        ("HEAD", &[("if-none-match", &*etag)], 304),
        ("GET", &[("if-none-match", "*")], 304),
        ("GET", &[("if-none-match", &*weak)], 304),
        ("GET", &[("if-none-match", &*list), part], 304),
        ("GET", &[("if-none-match", other)], 200),
        ("GET", &[("if-match", other), part], 412),
        ("GET", &[("if-match", &*weak)], 412),
        ("GET", &[("if-match", &*list), part], 206),
        ("GET", &[("if-match", "*"), ("if-none-match", &*etag)], 304),
        ("GET", &[("if-range", &*etag), part], 206),
        ("GET", &[("if-range", &*weak), part], 200),
        ("GET", &[("if-range", other), part], 200),
    ] {
        let (status, head) = head_of(&project, method, &url, headers).await;
        assert_eq!(status, expected, "{method} {headers:?}");
        if status != 412 {
            assert_eq!(head["etag"], *etag);
            assert_eq!(head["cache-control"], "private, no-cache");
        }
        if status == 200 {
            assert_eq!(head["content-length"], whole.len().to_string(), "{method} {headers:?}");
        }
    }
    let elsewhere = url.replace("export.ndjson", "none");
    project.client.get(&elsewhere).await.refused(404, "not_found");
    project.of("grace").client.get(&url).await.refused(404, "not_found");
}
