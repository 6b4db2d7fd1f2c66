//! What is asked of the store: a closure on its way to a thread with a connection, and the answer on its way back.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{
    Error,
    connection::{Reader, Tx},
};
use crate::journal::Topic;

/// A queued write.
pub(super) trait Write: Send {
    /// Runs it and says whether its changes are to be kept. It may run again if the transaction failed.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Answers the caller when the fate of the transaction is known.
    fn settle(self: Box<Self>, committed: Result<(), Error>);
    /// The log that no other write may touch meanwhile.
    fn topic(&self) -> Option<&Topic>;
    /// It takes long, so that no other write should share its transaction.
    fn is_bulk(&self) -> bool;
    /// When the caller stops waiting. A write that has not begun by then never does.
    fn deadline(&self) -> Instant;
}

/// A queued read.
pub(super) trait Read: Send {
    /// Runs it. It may run again if the snapshot was lost.
    fn run(&mut self, reader: &Reader<'_>);
    fn settle(self: Box<Self>, read: Result<(), Error>);
    /// When the caller stops waiting.
    fn deadline(&self) -> Instant;
}

/// A closure, what it returned last, and who waits for it.
pub(super) struct Call<F, T, E> {
    work: F,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
    topic: Option<Topic>,
    is_bulk: bool,
    deadline: Instant,
}

impl<F, T, E: From<Error>> Call<F, T, E> {
    pub(super) fn new(work: F, deadline: Instant) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work, outcome: None, reply, topic: None, is_bulk: false, deadline }, answer)
    }

    pub(super) fn of(self, topic: Topic, is_bulk: bool) -> Self {
        Self { topic: Some(topic), is_bulk, ..self }
    }

    fn answer(self, settled: Result<(), Error>) {
        let Self { work, outcome, reply, .. } = self;
        // It may hold the store, which the caller may want to see closed.
        drop(work);
        let outcome = match settled {
            Ok(()) => outcome.unwrap_or_else(|| Err(Error::Gone.into())),
            Err(error) => Err(error.into()),
        };
        // The caller may have gone; the write stands all the same.
        let _ = reply.send(outcome);
    }
}

impl<F, T, E> Write for Call<F, T, E>
where
    T: Send,
    E: From<Error> + Send,
    F: Fn(&mut Tx<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        // A panic leaves none, which answers that the write was not done.
        self.outcome = None;
        let outcome = (self.work)(tx);
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn settle(self: Box<Self>, committed: Result<(), Error>) {
        self.answer(committed);
    }

    fn topic(&self) -> Option<&Topic> {
        self.topic.as_ref()
    }

    fn is_bulk(&self) -> bool {
        self.is_bulk
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl<F, T, E> Read for Call<F, T, E>
where
    T: Send,
    E: From<Error> + Send,
    F: Fn(&Reader<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, reader: &Reader<'_>) {
        self.outcome = None;
        self.outcome = Some((self.work)(reader));
    }

    fn settle(self: Box<Self>, read: Result<(), Error>) {
        self.answer(read);
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }
}
