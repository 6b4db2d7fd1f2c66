//! Parley behind nginx: one origin for both services, streams that come through at once, and nothing that leaks.

use std::{net::IpAddr, time::Duration};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Origin, PATIENCE, Parley, read_until};

#[tokio::test]
async fn one_origin_has_both_services() {
    let parley = Parley::start(&[]).await;
    let origin = Origin::before(&[parley.ingress], &[parley.proc]).await;
    for path in ["/api/auth/me", "/api/integrations/bundles", "/health/ready", "/health"] {
        let answer = origin.by("ada", Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers().get_all("x-trace-id").iter().count(), 1, "{path}");
    }
    // The services' own refusals pass as they are.
    let answer = origin.request(Method::GET, "/api/auth/me").header("x-trace-id", "mine").send();
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["error"], &body["trace_id"]), (&json!("unauthenticated"), &json!("mine")));
    // A body that is only a little too long is the service's to refuse.
    let project = origin.project().await;
    let path = format!("/api/chat/projects/{project}/messages");
    let long = json!({"text": "x".repeat(70 * 1024)});
    let answer = origin.by("ada", Method::POST, &path).json(&long).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    // Uploads have another limit, and what is in a path arrives as it was sent.
    let upload = origin.by("ada", Method::POST, "/api/integrations/uploads").body(vec![7; 1 << 20]);
    let upload: Value = upload.send().await.unwrap().json().await.unwrap();
    assert_eq!(upload["bytes"], 1 << 20, "{upload}");
    let sent = origin.by("ada", Method::POST, &path).json(&json!({"text": "hello"})).send().await;
    let sent: Value = sent.unwrap().json().await.unwrap();
    let reaction = format!("{path}/{}/reactions/%F0%9F%91%8D%3F%25", sent["id"].as_str().unwrap());
    let answer = origin.by("ada", Method::PUT, &reaction).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

#[tokio::test]
async fn events_come_through_at_once() {
    let parley = Parley::start(&["--enable-compression", "true"]).await;
    let origin = Origin::before(&[parley.ingress], &[parley.proc]).await;
    let project = origin.project().await;
    let path = format!("/sse/stream?project_id={project}");
    let mut stream = origin.by("ada", Method::GET, &path).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream; charset=utf-8");
    read_until(&mut stream, "\"hello\"").await;
    let path = format!("/api/chat/projects/{project}/messages");
    for text in ["first", "second"] {
        let request = origin.by("ada", Method::POST, &path).json(&json!({"text": text}));
        assert_eq!(request.send().await.unwrap().status(), 201);
        let reading = read_until(&mut stream, text);
        timeout(Duration::from_secs(5), reading).await.expect("it does not wait for more");
    }
    let head = origin.by("ada", Method::HEAD, &format!("/sse/stream?project_id={project}"));
    assert_eq!(
        head.send().await.unwrap().headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
}

/// With the timeout at a hundredth and the heartbeats at a hundredth too.
fn hurried(config: &str) -> String {
    let hurried = config.replace("proxy_read_timeout 120s;", "proxy_read_timeout 1200ms;");
    assert_ne!(hurried, config);
    hurried
}

#[tokio::test]
async fn a_quiet_stream_is_not_cut_and_a_dead_one_is() {
    let parley = Parley::start(&["--keepalive-interval", "150ms"]).await;
    let origin = Origin::with(&[parley.ingress], &[parley.proc], hurried).await;
    let project = origin.project().await;
    let path = format!("/sse/stream?project_id={project}");
    let mut stream = origin.by("ada", Method::GET, &path).send().await.unwrap();
    let mut beats = 0;
    let living = async {
        // More than twice the timeout.
        while beats < 20 {
            read_until(&mut stream, "event: heartbeat").await;
            beats += 1;
        }
    };
    timeout(PATIENCE, living).await.expect("it lives");

    let silent = Parley::start(&["--keepalive-interval", "60s"]).await;
    let origin = Origin::with(&[silent.ingress], &[silent.proc], hurried).await;
    let path = format!("/sse/stream?project_id={}", origin.project().await);
    let mut stream = origin.by("ada", Method::GET, &path).send().await.unwrap();
    let ending = async { while let Ok(Some(_)) = stream.chunk().await {} };
    timeout(Duration::from_secs(10), ending).await.expect("what says nothing at all is given up");
}

#[tokio::test]
async fn nobody_chooses_their_address() {
    let parley = Parley::start(&["--sse-max-conn-per-ip", "2"]).await;
    let origin = Origin::before(&[parley.ingress], &[parley.proc]).await;
    let url = format!("{}/api/jobs/stream", origin.nginx.url());
    let from = |addr: &str| {
        let client = Client::builder().no_proxy().local_address(addr.parse::<IpAddr>().unwrap());
        let (client, url) = (client.build().unwrap(), url.clone());
        move |spoofed: &str| {
            let request = client.get(&url);
            let request = request.header("x-forwarded-for", spoofed).bearer_auth("dev-ada");
            request
                .header("x-real-ip", spoofed)
                .header("forwarded", format!("for={spoofed}"))
                .send()
        }
    };
    let first = from("127.0.0.2");
    let mut open = Vec::new();
    for spoofed in ["6.6.6.1", "6.6.6.2"] {
        let stream = first(spoofed).await.unwrap();
        assert_eq!(stream.status(), 200);
        open.push(stream);
    }
    let refused = first("6.6.6.3").await.unwrap();
    assert_eq!(refused.status(), 429, "it is the same address");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["scope"], "ip", "{body}");
    let second = from("127.0.0.3");
    assert_eq!(second("127.0.0.2").await.unwrap().status(), 200, "it is another");
}

#[tokio::test]
async fn tokens_are_in_no_log() {
    let mut parley = Parley::start(&["--drain-spread", "0s"]).await;
    let origin = Origin::before(&[parley.ingress], &[parley.proc]).await;
    let project = origin.project().await;
    let path = |token: &str| format!("/sse/stream?project_id={project}&bearer_token={token}");
    let mut stream = origin.request(Method::GET, &path("dev-ada")).send().await.unwrap();
    read_until(&mut stream, "\"hello\"").await;
    let refused = |token: &str, path: String| {
        let request =
            origin.request(Method::GET, &path).header("referer", format!("http://x/?{token}"));
        request
            .header("user-agent", token.to_owned())
            .header("cookie", format!("__Secure-LATC={token}"))
    };
    let answer = refused("TOKEN-1", path("TOKEN-1")).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    drop(stream);
    // Nobody is there any more: the worst that nginx has to say.
    parley.begin_stop();
    parley.ended().await;
    for (token, path) in [
        ("TOKEN-2", path("TOKEN-2")),
        ("TOKEN-3", "/api/auth/me?bearer_token=TOKEN-3".into()),
        ("TOKEN-4", "/metrics?ticket=TOKEN-4".into()),
        ("TOKEN-5", format!("/?bearer_token=TOKEN-5{}", "x".repeat(20_000))),
        ("TOKEN-6", "/api/integrations/jobs?bearer_token=TOKEN-6".into()),
    ] {
        assert!(refused(token, path).send().await.unwrap().status().as_u16() >= 400);
    }
    let logs = origin.stop_and_read_logs().await;
    assert!(!logs.contains("TOKEN") && !logs.contains("dev-ada"), "{logs}");
    let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let streams = lines.filter(|line| line["path"] == "/sse/stream").collect::<Vec<_>>();
    let statuses = streams.iter().map(|line| line["status"].as_u64().unwrap()).collect::<Vec<_>>();
    assert!(
        statuses.contains(&200) && statuses.contains(&401) && statuses.contains(&503),
        "{logs}"
    );
    assert_eq!(streams[0]["client"], "127.0.0.1");
}

#[tokio::test]
async fn budgets_of_requests_are_of_the_client_and_not_of_nginx() {
    let parley = Parley::start(&["--rate-limit-reads", "3/0.001"]).await;
    let origin = Origin::before(&[parley.ingress], &[parley.proc]).await;
    let url = format!("{}/api/auth/me", origin.nginx.url());
    for addr in ["127.0.0.2", "127.0.0.3"] {
        let client = Client::builder().no_proxy().local_address(addr.parse::<IpAddr>().unwrap());
        let client = client.build().unwrap();
        for (number, status) in [401, 401, 401, 429, 429].into_iter().enumerate() {
            let spoofed = format!("6.6.6.{number}");
            let answer = client.get(&url).header("x-forwarded-for", spoofed).send().await.unwrap();
            assert_eq!(answer.status(), status, "{addr} {number}");
        }
    }
}
