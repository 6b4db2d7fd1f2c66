//! What one connection is at, as seen by everything that has a part in it, and how long it may stay there.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::framing::Framing;

/// How long a head may still take when the server is stopping.
const HURRIED_HEAD: Duration = Duration::from_millis(500);

/// How long a connection may stay where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// From the first byte that may come to the last of the head.
    pub(super) head: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// Without a byte of a body that is waited for.
    pub(super) body: Duration,
    /// Without a byte of ours that the peer takes.
    pub(super) write: Duration,
}

/// Deadlines of tests and of fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) const DEADLINES: Deadlines = Deadlines {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    body: Duration::from_secs(30),
    write: Duration::from_secs(30),
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Waits for the head of the first request, or for the rest of it.
    New,
    /// Waits for the rest of a later one's.
    Head,
    /// A request is being answered.
    Busy,
    /// Everything is answered.
    Idle,
}

/// Whether an answer takes the IO, and how far it is.
#[derive(Default)]
enum HandOver<P> {
    #[default]
    None,
    /// Its first bytes are with hyper.
    Waiting(P),
    /// Its first bytes are out.
    Out(P),
}

/// One connection's state; `P` is what takes its IO over.
pub(super) struct State<P> {
    pub(super) deadlines: Deadlines,
    inner: Mutex<Inner<P>>,
}

struct Inner<P> {
    phase: Phase,
    /// When the server began to stop: a head that is not there yet has to come soon.
    hurried_since: Option<Instant>,
    framing: Framing,
    /// When the phase began, or anything was written since.
    since: Instant,
    /// Since when the peer takes nothing of what there is to write.
    blocked_since: Option<Instant>,
    /// The last request's body was not read to its end.
    unread: bool,
    /// There is nothing more to come from the peer.
    read_ended: bool,
    hand_over: HandOver<P>,
    /// A deliberate bug for a test to notice: what hyper still holds is not waited for.
    #[cfg(test)]
    hasty: bool,
}

impl<P> State<P> {
    /// Begins with a connection that was just accepted.
    pub(super) fn new(deadlines: Deadlines) -> Arc<Self> {
        let inner = Inner {
            phase: Phase::New,
            hurried_since: None,
            framing: Framing::default(),
            since: Instant::now(),
            blocked_since: None,
            unread: false,
            read_ended: false,
            hand_over: HandOver::None,
            #[cfg(test)]
            hasty: false,
        };
        Arc::new(Self { deadlines, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<P>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn sabotage(&self) {
        self.lock().hasty = true;
    }

    /// A head is complete. Returns whether it states two lengths of its body.
    pub(super) fn requested(&self) -> bool {
        let mut inner = self.lock();
        (inner.phase, inner.unread) = (Phase::Busy, false);
        inner.framing.take_head()
    }

    /// Returns whether no request is being answered, so that what is written now is no answer of ours unless it is the end
    /// of one.
    pub(super) fn is_between_requests(&self) -> bool {
        self.lock().phase != Phase::Busy
    }

    /// The server is stopping.
    pub(super) fn hurry(&self) {
        self.lock().hurried_since.get_or_insert_with(Instant::now);
    }

    /// Says whether no request has come yet.
    pub(super) fn is_new(&self) -> bool {
        self.lock().phase == Phase::New
    }

    /// The last byte of an answer is with hyper.
    pub(super) fn answered(&self) {
        let mut inner = self.lock();
        (inner.phase, inner.since) = (Phase::Idle, Instant::now());
    }

    /// The peer sent something, or its end.
    pub(super) fn read(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        if bytes.is_empty() {
            inner.read_ended = true;
            return;
        }
        if inner.phase == Phase::Idle {
            (inner.phase, inner.since) = (Phase::Head, Instant::now());
        }
        inner.framing.follow(bytes);
    }

    /// The peer took something.
    pub(super) fn wrote(&self) {
        let mut inner = self.lock();
        inner.blocked_since = None;
        if inner.phase == Phase::Idle {
            inner.since = Instant::now();
        }
    }

    /// The peer takes nothing.
    pub(super) fn blocked(&self) {
        self.lock().blocked_since.get_or_insert_with(Instant::now);
    }

    /// The IO is broken, so there is nobody to wait for.
    pub(super) fn broken(&self) {
        self.lock().read_ended = true;
    }

    /// A request's body was dropped before its end.
    pub(super) fn left_unread(&self) {
        self.lock().unread = true;
    }

    /// Says whether the peer may still be sending what nobody will read.
    pub(super) fn is_unread(&self) -> bool {
        self.lock().unread
    }

    /// Says whether nothing more will come from the peer.
    pub(super) fn is_read_ended(&self) -> bool {
        self.lock().read_ended
    }

    /// The first bytes are with hyper, and `successor` waits for them to be with the peer.
    pub(super) fn hand_over(&self, successor: P) {
        self.lock().hand_over = HandOver::Waiting(successor);
    }

    /// Everything that hyper held is out: it flushes only when its own buffer is empty. An answer that waits for that has
    /// nothing more to give it.
    pub(super) fn flushed(&self) {
        let mut inner = self.lock();
        inner.hand_over = match std::mem::take(&mut inner.hand_over) {
            HandOver::Waiting(successor) => HandOver::Out(successor),
            other => other,
        };
    }

    /// Says whether the successor can have the IO.
    pub(super) fn is_handed_over(&self) -> bool {
        let inner = self.lock();
        #[cfg(test)]
        if inner.hasty && matches!(inner.hand_over, HandOver::Waiting(_)) {
            return true;
        }
        matches!(inner.hand_over, HandOver::Out(_))
    }

    /// Takes the successor, to run it or to drop it.
    pub(super) fn take_successor(&self) -> Option<P> {
        match std::mem::take(&mut self.lock().hand_over) {
            HandOver::None => None,
            HandOver::Waiting(successor) | HandOver::Out(successor) => Some(successor),
        }
    }

    /// Returns when the connection has been where it is for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let inner = self.lock();
        let phase = match inner.phase {
            Phase::New | Phase::Head => {
                let hurried = inner.hurried_since.map(|since| since + HURRIED_HEAD);
                Some(inner.since + self.deadlines.head).into_iter().chain(hurried).min()
            }
            Phase::Busy => None,
            Phase::Idle => Some(inner.since + self.deadlines.idle),
        };
        let write = inner.blocked_since.map(|since| since + self.deadlines.write);
        match (phase, write) {
            (Some(phase), Some(write)) => Some(phase.min(write)),
            (phase, write) => phase.or(write),
        }
    }
}
