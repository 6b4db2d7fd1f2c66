//! HTTP/1 of the public listeners over any IO, for the targets in `fuzz/`.

use std::{future::pending, time::Duration};

use axum::{extract::Request, response::Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    drive::drive,
    state::{Deadlines, State},
};

const DEADLINES: Deadlines = Deadlines {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    body: Duration::from_secs(30),
    write: Duration::from_secs(30),
};

/// Serves HTTP/1 on `io` as a public listener does, until the connection ends.
pub async fn serve<T, F>(io: T, answer: impl Fn(Request) -> F)
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
    F: Future<Output = Response>,
{
    drop(drive(io, &State::<()>::new(DEADLINES), answer, pending()).await);
}
