//! The IO that hyper is given: it notes what passes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::State;
use crate::http::Failure;

/// An IO whose progress is noted in the connection's state.
pub(super) struct Tap<T, P> {
    io: T,
    state: Arc<State<P>>,
    /// Refusal of a head that hyper could not read, in the shape of all errors, while it is being written.
    refusal: Bytes,
}

impl<T, P> Tap<T, P> {
    pub(super) fn new(io: T, state: Arc<State<P>>) -> Self {
        Self { io, state, refusal: Bytes::new() }
    }

    /// Returns the bare IO.
    pub(super) fn into_inner(self) -> T {
        self.io
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.state.blocked(),
            Poll::Ready(Ok(_)) => self.state.wrote(),
            Poll::Ready(Err(_)) => self.state.broken(),
        }
        written
    }
}

/// Returns what to write in place of an answer that hyper has made itself, which has no body; empty for any other.
fn instead_of<P>(bytes: &[u8], state: &State<P>) -> Bytes {
    const START: &[u8] = b"HTTP/1.1 4";
    // All of our own answers have this header.
    const OURS: &[u8] = b"x-content-type-options";
    let is_hypers = || {
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        bytes.ends_with(b"\r\n\r\n") && has(b"content-length: 0\r\n") && !has(OURS)
    };
    if !bytes.starts_with(START) || !state.is_between_requests() || !is_hypers() {
        return Bytes::new();
    }
    let (status, code, message) = match &bytes[b"HTTP/1.1 ".len()..][..3] {
        b"431" => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too_large",
            "the head of the request is too large: at most 64 headers and 32 KiB",
        ),
        b"414" => (StatusCode::URI_TOO_LONG, "too_large", "the path is too long"),
        b"400" => (StatusCode::BAD_REQUEST, "invalid_request", "the request is not HTTP/1.1"),
        _ => return Bytes::new(),
    };
    super::close::bytes_of(Failure::new(status, code, message)).into()
}

impl<T: AsyncRead + Unpin, P> AsyncRead for Tap<T, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        match &read {
            Ok(()) => self.state.read(&buf.filled()[before..]),
            Err(_) => self.state.broken(),
        }
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin, P> AsyncWrite for Tap<T, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.refusal.is_empty() {
            this.refusal = instead_of(bytes, &this.state);
        }
        if this.refusal.is_empty() {
            let written = Pin::new(&mut this.io).poll_write(cx, bytes);
            return this.note(written);
        }
        while !this.refusal.is_empty() {
            let written = Pin::new(&mut this.io).poll_write(cx, &this.refusal);
            let count = ready!(this.note(written))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.refusal.advance(count);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        if let Some(first) = first
            && (!self.refusal.is_empty() || slices.len() == 1)
        {
            return self.poll_write(cx, first);
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.state.flushed();
        Poll::Ready(Ok(()))
    }

    /// Leaves the IO open: how it is closed depends on how the connection ended.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
