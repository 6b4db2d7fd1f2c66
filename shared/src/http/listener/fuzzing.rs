//! HTTP/1 of the public listeners over any IO, for the targets in `fuzz/`.

use std::future::pending;

use axum::{extract::Request, response::Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    drive::drive,
    state::{DEADLINES, State},
};

/// Serves HTTP/1 on `io` as a public listener does, until the connection ends.
pub async fn serve<T, F>(io: T, answer: impl Fn(Request) -> F)
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
    F: Future<Output = Response>,
{
    drop(drive(io, &State::<()>::new(DEADLINES), answer, pending()).await);
}
