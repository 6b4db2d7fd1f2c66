//! Where nginx sends streams, which do not end for hours.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::support::Origin;

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nX-Trace-ID: t\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy";
const OPEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 1\n\n";

/// Streams that a replica refuses before it takes any: the last one that is asked passes its refusal on uncounted.
const REFUSED: usize = 2;

/// A replica that is busy at first and then keeps every stream open.
async fn busy_at_first(serving: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("it has one");
    serving.spawn(async move {
        let asked = AtomicUsize::new(0);
        let mut open = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.expect("nginx comes");
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            if asked.fetch_add(1, Ordering::SeqCst) >= REFUSED {
                let _ = socket.write_all(OPEN.as_bytes()).await;
                open.push(socket);
            } else {
                let _ = socket.write_all(BUSY.as_bytes()).await;
            }
        }
    });
    addr
}

#[tokio::test]
async fn replicas_that_refused_a_stream_are_given_the_next_ones() {
    let mut serving = JoinSet::new();
    let replicas = [busy_at_first(&mut serving).await, busy_at_first(&mut serving).await];
    let origin = Origin::before(&replicas, &replicas).await;
    let open = async || origin.request(Method::GET, "/sse/stream").send().await.unwrap();
    for _ in 0..REFUSED {
        assert_eq!(open().await.status(), 503, "both have refused");
    }
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(open().await);
    }
    assert!(streams.iter().all(|stream| stream.status() == 200), "{streams:?}");
}
