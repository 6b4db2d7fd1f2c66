//! The listener over artificial peers and over sockets.

mod deadlines;
mod framing;
mod hand_over;
mod sockets;
mod wire;

use std::future::pending;

use axum::{body::Body, extract::Request, response::Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    drive::{Outcome, drive},
    state::{DEADLINES, State},
};

const GET: &[u8] = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n";

/// Serves with what never hands over.
async fn run<T, F>(io: T, answer: impl Fn(Request) -> F) -> Outcome<T, ()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
    F: Future<Output = Response>,
{
    drive(io, &State::new(DEADLINES), answer, pending()).await
}

async fn hello(_: Request) -> Response {
    Response::new(Body::from("hello"))
}
