//! The bodies of requests and answers, which tell the connection's state of their ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::state::State;

/// Why a request's body did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyEnd {
    /// Nothing came for too long.
    #[error("the body stalled")]
    Stalled,
    /// The peer went away, or broke the protocol.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// A request's body; it waits for the peer only for so long.
pub(super) struct RequestBody<P: Send + 'static> {
    incoming: Incoming,
    state: Arc<State<P>>,
    /// Made when the body has to be waited for: most come with their head.
    patience: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    ended: bool,
}

impl<P: Send + 'static> RequestBody<P> {
    /// Wraps what there is to read, which for most requests is nothing.
    pub(super) fn wrap(incoming: Incoming, state: &Arc<State<P>>) -> Body {
        if incoming.is_end_stream() {
            return Body::empty();
        }
        let state = state.clone();
        Body::new(Self { incoming, state, patience: None, waiting: false, ended: false })
    }
}

impl<P: Send + 'static> hyper::body::Body for RequestBody<P> {
    type Data = Bytes;
    type Error = BodyEnd;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyEnd>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            this.waiting = false;
            this.ended = frame.is_none() || this.incoming.is_end_stream();
            return Poll::Ready(frame.map(|frame| Ok(frame?)));
        }
        let patience = this.state.deadlines.body;
        let deadline = this.patience.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !this.waiting {
            this.waiting = true;
            deadline.as_mut().reset(Instant::now() + patience);
        }
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyEnd::Stalled)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<P: Send + 'static> Drop for RequestBody<P> {
    fn drop(&mut self) {
        if !self.ended {
            self.state.left_unread();
        }
    }
}

/// An answer's body: hyper drops it when it has the last byte.
pub(super) struct AnswerBody<P> {
    pub(super) body: Body,
    pub(super) state: Arc<State<P>>,
}

impl<P> hyper::body::Body for AnswerBody<P> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<P> Drop for AnswerBody<P> {
    fn drop(&mut self) {
        self.state.answered();
    }
}

/// A body that yields its first bytes and then hands the connection over.
pub(super) struct LastBody<P> {
    first: Option<Bytes>,
    successor: Option<P>,
    state: Arc<State<P>>,
}

impl<P> LastBody<P> {
    pub(super) fn new(first: Bytes, successor: P, state: Arc<State<P>>) -> Self {
        Self { first: Some(first), successor: Some(successor), state }
    }
}

// Nothing in it is ever pinned.
impl<P> Unpin for LastBody<P> {}

impl<P> hyper::body::Body for LastBody<P> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        // To be asked for more is to have room for it, so the first bytes are with hyper.
        if let Some(successor) = self.successor.take() {
            self.state.hand_over(successor);
        }
        Poll::Pending
    }
}
