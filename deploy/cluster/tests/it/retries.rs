//! What nginx sends to another replica, and what it never sends twice.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::support::{Origin, Parley, read_until};

/// A replica that answers every request with the same bytes, none being a connection that breaks.
struct Replica {
    addr: SocketAddr,
    requests: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Replica {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let requests = Arc::new(AtomicUsize::new(0));
        let (mut serving, count) = (JoinSet::new(), requests.clone());
        serving.spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.expect("a connection");
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { addr, requests, _serving: serving }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\nX-Trace-ID: t\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull";

#[tokio::test]
async fn a_broken_connection_repeats_only_what_may_be_done_twice() {
    for (method, sent) in
        [(Method::GET, 2), (Method::PUT, 2), (Method::POST, 1), (Method::PATCH, 1)]
    {
        let (first, second) = (Replica::start("").await, Replica::start("").await);
        let origin = Origin::before(&[first.addr, second.addr], &[first.addr]).await;
        let answer = origin.request(method.clone(), "/api/chat/projects").body("{}").send().await;
        assert_eq!(answer.unwrap().status(), 503);
        assert_eq!(first.requests() + second.requests(), sent, "{method}");
    }
}

#[tokio::test]
async fn what_could_not_be_sent_is_sent_elsewhere() {
    let replica = Replica::start(FINE).await;
    let nobody = "127.0.0.1:1".parse().unwrap();
    let origin = Origin::before(&[nobody, replica.addr, nobody], &[nobody, replica.addr]).await;
    for path in ["/api/chat/projects", "/api/integrations/x", "/sse/ticket"] {
        for method in [Method::POST, Method::GET, Method::POST] {
            let answer = origin.request(method, path).body("{}").send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
        }
    }
    assert_eq!(replica.requests(), 9);
}

#[tokio::test]
async fn a_full_replica_passes_streams_on_and_keeps_its_requests() {
    let (full, roomy) = (Replica::start(FULL).await, Replica::start(FINE).await);
    let origin = Origin::before(&[full.addr, roomy.addr], &[full.addr]).await;
    for _ in 0..4 {
        let answer = origin.request(Method::GET, "/sse/stream").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let before = full.requests();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let answer = origin.request(Method::POST, "/api/chat/projects").body("{}").send().await;
        statuses.push(answer.unwrap().status().as_u16());
    }
    statuses.sort_unstable();
    assert_eq!((statuses.as_slice(), full.requests() - before), (&[200, 200, 503, 503][..], 2));
    // When all are full, one of them says so itself.
    let both = Origin::before(&[full.addr, full.addr], &[full.addr]).await;
    let answer = both.request(Method::GET, "/sse/stream").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "full");
}

#[tokio::test]
async fn whatever_a_replica_refuses_because_it_goes_away_is_done_by_another() {
    let mut going = Parley::start(&["--drain-spread", "20s"]).await;
    let alone = Origin::before(&[going.ingress], &[going.proc]).await;
    let path = format!("/sse/stream?project_id={}", alone.project().await);
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = alone.by("ada", Method::GET, &path).send().await.unwrap();
        read_until(&mut stream, "\"hello\"").await;
        held.push(stream);
    }
    let staying = Parley::start(&[]).await;
    let (ingress, proc) = ([going.ingress, staying.ingress], [going.proc, staying.proc]);
    let origin = Origin::before(&ingress, &proc).await;
    going.begin_stop();
    let refused = async {
        loop {
            let answer =
                alone.by("ada", Method::POST, "/api/chat/projects").json(&json!({"name": "x"}));
            let answer = answer.send().await.unwrap();
            if answer.status() == 503 {
                break answer;
            }
        }
    };
    let refused = refused.await;
    assert!(!refused.headers().contains_key("x-accel-redirect"), "that is between it and nginx");
    assert_eq!(refused.headers().get_all("cache-control").iter().count(), 1);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"], "draining", "with nobody else, the refusal is the answer: {body}");
    for number in 0..12 {
        let new = json!({"name": format!("{number}")});
        let answer = origin.by("ada", Method::POST, "/api/chat/projects").json(&new).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        let made: Value = answer.json().await.unwrap();
        assert_eq!(made["name"], new["name"], "the body came along");
        let answer = origin.by("ada", Method::GET, "/api/integrations/jobs").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer = origin.by("ada", Method::POST, "/sse/ticket").send().await.unwrap();
        assert_ne!(answer.status(), 503);
        assert_eq!(origin.request(Method::GET, "/health").send().await.unwrap().status(), 200);
    }
    drop(held);
    drop(alone);
    going.ended().await;
}
