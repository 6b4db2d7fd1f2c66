//! The IO that hyper is given: it notes what passes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::State;

/// An IO whose progress is noted in the connection's state.
pub(super) struct Tap<T, P> {
    io: T,
    state: Arc<State<P>>,
}

impl<T, P> Tap<T, P> {
    pub(super) fn new(io: T, state: Arc<State<P>>) -> Self {
        Self { io, state }
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

impl<T: AsyncRead + Unpin, P> AsyncRead for Tap<T, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        match &read {
            Ok(()) => self.state.read(buf.filled().len() - before),
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
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
