//! The whole of a public listener over sockets: the hand-over through every layer, and the caps.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, routing::get};
use bytes::Bytes;
use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::GET;
use crate::{
    config::DrainConfig,
    http::{Connections, Detach, Detached, layered, listener::ListenConfig, serve_public},
    lifecycle::Lifecycle,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    listen: ListenConfig,
    #[command(flatten)]
    drain: DrainConfig,
}

struct Server {
    addr: SocketAddr,
    stop: Arc<Notify>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    async fn start(routes: Router, max_connections: usize) -> Self {
        let args = Args::parse_from([""]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::default();
        let routes = layered(routes, &lifecycle, &[], None, None).unwrap();
        let connections = Connections::with_max(&args.listen, max_connections);
        lifecycle.serve("http", serve_public(listener, routes, lifecycle.clone(), connections));
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        #[expect(clippy::disallowed_methods, reason = "owned and joined by Server")]
        let running = tokio::spawn(async move {
            lifecycle.run(async move { stopped.notified().await }, &args.drain).await
        });
        Self { addr, stop, running }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    async fn stop(self) {
        self.stop.notify_one();
        timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
    }
}

async fn rest(socket: &mut TcpStream) -> String {
    let mut rest = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut rest)).await.unwrap().unwrap();
    rest
}

#[tokio::test]
async fn a_socket_leaves_http_through_every_layer() {
    let (hand_out, detached) = oneshot::channel::<Detached>();
    let hand_out = Arc::new(std::sync::Mutex::new(Some(hand_out)));
    let answer = async move |ConnectInfo(peer): ConnectInfo<SocketAddr>, detach: Detach| {
        assert!(peer.ip().is_loopback());
        detach.body(Bytes::from_static(b"first"), move |detached| async move {
            let hand_out = hand_out.lock().unwrap().take();
            hand_out.unwrap().send(detached).unwrap();
        })
    };
    let server = Server::start(Router::new().route("/x", get(answer)), 1).await;
    let mut peer = server.connect().await;
    peer.write_all(GET).await.unwrap();
    let Detached { mut socket, connection } = timeout(PATIENCE, detached).await.unwrap().unwrap();
    // It still counts: another is one too many.
    assert!(rest(&mut server.connect().await).await.starts_with("HTTP/1.1 503"));
    socket.write_all(b"4\r\nthen\r\n0\r\n\r\n").await.unwrap();
    drop(socket);
    let answer = rest(&mut peer).await;
    assert!(answer.ends_with("\r\n\r\n5\r\nfirst\r\n4\r\nthen\r\n0\r\n\r\n"), "{answer}");
    drop(connection);
    let mut next = server.connect().await;
    next.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut next).await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Server::start(Router::new(), 1).await;
    let kept = server.connect().await;
    let mut refused = server.connect().await;
    refused.write_all(GET).await.unwrap();
    let answer = rest(&mut refused).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    let head = head.to_lowercase();
    let body_json: serde_json::Value = serde_json::from_str(body).unwrap();
    let trace = body_json["trace_id"].as_str().unwrap();
    for line in [
        "content-type: application/json",
        "cache-control: no-store",
        "retry-after: ",
        "connection: close",
        &format!("content-length: {}", body.len()),
        &format!("x-trace-id: {trace}"),
    ] {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
    assert_eq!(body_json["error"], "backpressure");
    assert!(body_json["retry_after_ms"].is_u64());
    drop(kept);
    server.stop().await;
}

#[tokio::test]
async fn who_waits_to_be_accepted_when_the_listener_closes_is_answered() {
    let args = Args::parse_from([""]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peers = Vec::new();
    for _ in 0..20 {
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        peer.write_all(GET).await.unwrap();
        peers.push(peer);
    }
    let lifecycle = Lifecycle::default();
    lifecycle.run(async {}, &args.drain).await.unwrap();
    let routes = layered(Router::new(), &lifecycle, &[], None, None).unwrap();
    let connections = Connections::with_max(&args.listen, 100);
    serve_public(listener, routes, lifecycle, connections).await;
    for mut peer in peers {
        assert!(rest(&mut peer).await.starts_with("HTTP/1.1 404"));
    }
}

#[tokio::test]
async fn outside_of_a_public_listener_nothing_can_be_detached() {
    use tower::ServiceExt;
    let answer = async |detach: Detach| detach.body(Bytes::new(), async |_| {});
    let routes: Router = Router::new().route("/x", get(answer));
    let request = http::Request::get("/x").body(axum::body::Body::empty()).unwrap();
    assert_eq!(routes.oneshot(request).await.unwrap().status(), 500);
}
