//! How connections are closed so that the peer reads the last that was said.

use std::time::Duration;

use axum::response::IntoResponse;
use bytes::BytesMut;
use futures_util::FutureExt;
use http::StatusCode;
use http_body_util::BodyExt;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::connections::{ConnectionLimit, Connections};
use crate::http::Failure;

/// How long a peer may take to read the last and to go.
const LINGER: Duration = Duration::from_secs(2);
/// The most that is read only to be thrown away, in bytes.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

/// Says that nothing more comes and waits for the peer to go: bytes that nobody reads would make the kernel answer with a
/// reset, which may overtake the answer.
pub(super) async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let goodbye = async {
        if io.shutdown().await.is_err() {
            return;
        }
        let (mut discarded, mut buffer) = (0, BytesMut::with_capacity(8 * 1024));
        while discarded < MAX_DISCARDED_BYTES {
            match io.read_buf(&mut buffer).await {
                Ok(1..) => discarded += buffer.len(),
                Ok(0) | Err(_) => return,
            }
            buffer.clear();
        }
        // It sends on and on; the answer waits for it all the same.
        sleep(LINGER).await;
    };
    let _ = timeout(LINGER, goodbye).await;
}

/// Answers a connection that is one too many, without waiting for what it asks.
pub(super) fn refuse(
    socket: TcpStream,
    limit: ConnectionLimit,
    connections: &Connections,
    tasks: &TaskTracker,
) {
    // What is so short fits a new socket's buffer. Tokio's own write would wait for the word that it does.
    let _ = SockRef::from(&socket).send(&refusal(limit));
    let permit = connections.refusal();
    // Under a flood the answer may be lost, and memory and descriptors are not.
    if permit.is_some() {
        tasks.spawn(async move {
            linger(socket).await;
            drop(permit);
        });
    }
}

/// Names the limit, so that an operator knows which setting to raise.
fn refusal(limit: ConnectionLimit) -> Vec<u8> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let failure = Failure::retry(status, "backpressure", &limit.to_string());
    let setting = limit.setting();
    bytes_of(failure.with("limit", limit.value()).with("setting", setting))
}

/// Returns the bytes of a whole answer, after which the connection closes.
pub(super) fn bytes_of(failure: Failure) -> Vec<u8> {
    let status = failure.status();
    let (parts, body) = failure.traced().into_response().into_parts();
    // The whole body is there, so nothing is waited for.
    let body = body.collect().now_or_never().and_then(Result::ok);
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            answer.extend_from_slice(part);
        }
    }
    let length = format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    answer.extend_from_slice(length.as_bytes());
    answer.extend_from_slice(&body);
    answer
}
