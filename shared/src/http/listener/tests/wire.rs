//! A peer that takes and gives bytes as a plan says.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How a peer behaves. Steps repeat; 0 is a poll that has to be repeated, and there is always one that is not.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What the peer sends.
    pub(super) sent: Vec<u8>,
    /// How many bytes a read gets.
    pub(super) reads: Vec<usize>,
    /// How many bytes a write gives.
    pub(super) writes: Vec<usize>,
    /// How many polls a flush takes.
    pub(super) flush_polls: usize,
    /// At which poll the peer is gone.
    pub(super) gone_at: Option<usize>,
    /// Whether it goes with a reset, instead of an end.
    pub(super) resets: bool,
}

impl Plan {
    /// Everything at once.
    pub(super) fn plain(sent: &[u8]) -> Self {
        let (reads, writes) = (vec![usize::MAX], vec![usize::MAX]);
        Self { sent: sent.into(), reads, writes, flush_polls: 1, gone_at: None, resets: false }
    }

    /// Any pace.
    pub(super) fn any(sent: &'static [u8]) -> impl Strategy<Value = Self> {
        let steps = || prop::collection::vec(0..40_usize, 0..6);
        (steps(), steps(), 1..4_usize, 1..200_usize).prop_map(
            move |(mut reads, mut writes, flush_polls, last)| {
                reads.push(last);
                writes.push(last);
                Self { sent: sent.into(), reads, writes, flush_polls, gone_at: None, resets: false }
            },
        )
    }
}

/// Our end of the connection.
#[derive(Debug)]
pub(super) struct Wire {
    plan: Plan,
    polls: usize,
    reads: usize,
    writes: usize,
    flush_polls: usize,
    /// What was written and is not flushed.
    held: Vec<u8>,
    /// What the peer has.
    pub(super) received: Vec<u8>,
}

impl Wire {
    pub(super) fn new(plan: Plan) -> Self {
        let (held, received) = (Vec::new(), Vec::new());
        Self { plan, polls: 0, reads: 0, writes: 0, flush_polls: 0, held, received }
    }

    /// Counts a poll and says whether the peer is gone.
    fn is_gone(&mut self) -> bool {
        self.polls += 1;
        self.plan.gone_at.is_some_and(|at| self.polls > at)
    }

    /// Returns how many polls there were.
    pub(super) fn polls(&self) -> usize {
        self.polls
    }

    /// Returns what was written and did not reach the peer.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }
}

fn again<T>(cx: &mut Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_gone() {
            let reset = Err(io::ErrorKind::ConnectionReset.into());
            return Poll::Ready(if self.plan.resets { reset } else { Ok(()) });
        }
        if self.plan.sent.is_empty() {
            // Nothing will come, but the peer may go.
            return if self.plan.gone_at.is_some() { again(cx) } else { Poll::Pending };
        }
        let step = self.plan.reads[self.reads % self.plan.reads.len()];
        self.reads += 1;
        if step == 0 {
            return again(cx);
        }
        let bytes = step.min(buf.remaining()).min(self.plan.sent.len());
        buf.put_slice(&self.plan.sent[..bytes]);
        self.plan.sent.drain(..bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_gone() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let step = self.plan.writes[self.writes % self.plan.writes.len()];
        self.writes += 1;
        if step == 0 {
            return again(cx);
        }
        let taken = step.min(bytes.len());
        self.held.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_gone() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.flush_polls += 1;
        if !self.flush_polls.is_multiple_of(self.plan.flush_polls) {
            return again(cx);
        }
        let held = std::mem::take(&mut self.held);
        self.received.extend(held);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
