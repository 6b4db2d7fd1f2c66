//! One open stream: greeting, what was missed, then what happens, until one side ends it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use rand::RngExt as _;
use serde::Serialize;
use shared::{
    ids::{ConnectionId, SessionId, UserId},
    journal::{Cursor, Entry, Position, ResetReason, Topic},
    store::{Error, Store},
    time::Timestamp,
};
use tokio::time::{Instant, Sleep};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{
    frame::{self, Control},
    hub::{Cut, Delivery, Follower, Hub},
};
use crate::presence::Here;

/// Entries read from the journal at once.
const PAGE: i64 = 200;

/// What a stream is opened with.
pub(super) struct Opening {
    pub(super) hub: Hub,
    pub(super) store: Store,
    pub(super) topic: Topic,
    pub(super) user: UserId,
    pub(super) session: SessionId,
    pub(super) connection: ConnectionId,
    pub(super) stream_id: String,
    /// The client's cursor, whatever it is.
    pub(super) cursor: Option<String>,
    pub(super) keepalive: Duration,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) closing: CancellationToken,
    /// Keeps the listeners up until this stream is closed.
    pub(super) _open: TaskTrackerToken,
    pub(super) drain_spread: Duration,
    /// The end of the project's log when the reader was seen to be a member: a removal before it is over.
    pub(super) member_at: i64,
    pub(super) here: Option<Here>,
}

/// Why a stream ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    IdleTimeout,
    SlowConsumer,
    Revoked,
    ServerShutdown,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hello<'a> {
    r#type: &'static str,
    connection_id: ConnectionId,
    stream_id: &'a str,
    session_id: &'a SessionId,
    user: &'a UserId,
    cursor: &'a str,
    #[serde(rename = "heartbeat_seconds")]
    heartbeat_seconds: u64,
    #[serde(rename = "silence_seconds")]
    silence_seconds: u64,
    resumed: bool,
}

#[derive(Serialize)]
struct Reset<'a> {
    reason: ResetReason,
    cursor: &'a str,
}

#[derive(Serialize)]
struct Bye {
    reason: Reason,
    reconnect: bool,
    retry_after_ms: u64,
}

#[derive(Serialize)]
struct ServerShutdown {
    reason: &'static str,
    retry_after_ms: u64,
}

/// An open stream.
pub(super) struct Session {
    opening: Opening,
    follower: Follower,
    /// The last entry that was passed on.
    position: Position,
    /// Why the stream does not go on where the client was.
    reset: Option<ResetReason>,
    /// Frames to send before anything else, the next one last.
    ready: Vec<Bytes>,
    /// Entries read from the journal, the next one last.
    missed: Vec<Arc<Entry>>,
    heartbeat: std::pin::Pin<Box<Sleep>>,
    /// When a stream without events ends.
    idle_at: Option<Instant>,
    /// When this stream is told to go, once the server is going.
    goes_at: Option<Instant>,
    over: bool,
}

impl Session {
    /// Takes a place in the log; what happens from now on will be passed on.
    pub(super) async fn open(opening: Opening) -> Result<Self, Error> {
        // Listening begins before the journal is read: between the two nothing is lost, and what comes twice is dropped.
        let follower = opening.hub.follow(&opening.topic).await?;
        let (topic, cursor) = (opening.topic.clone(), opening.cursor.clone());
        let start =
            opening.store.read(move |reader| reader.start(&topic, cursor.as_deref())).await?;
        let start = start.ok_or(Error::Gone)?;
        Ok(Self {
            follower,
            position: start.position,
            reset: start.reset,
            ready: Vec::new(),
            missed: Vec::new(),
            heartbeat: Box::pin(tokio::time::sleep(opening.keepalive)),
            idle_at: opening.idle_timeout.map(|timeout| Instant::now() + timeout),
            goes_at: None,
            over: false,
            opening,
        })
    }

    /// Says whether the client goes on where it was, and so needs no snapshot of the present.
    pub(super) fn is_resumed(&self) -> bool {
        self.opening.cursor.is_some() && self.reset.is_none()
    }

    /// Returns the stream's frames: the greeting, the snapshot if there is one, and then the log.
    pub(super) fn frames(
        mut self,
        snapshot: Option<&str>,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + use<> {
        self.ready.extend(snapshot.map(frame::ephemeral));
        self.greet();
        stream::unfold(self, |mut session| async move {
            let frame = session.next().await?;
            Some((frame, session))
        })
    }

    fn cursor(&self) -> String {
        Cursor::at(&self.opening.topic, self.position).to_string()
    }

    fn greet(&mut self) {
        let cursor = self.cursor();
        let hello = Hello {
            r#type: "hello",
            connection_id: self.opening.connection,
            stream_id: &self.opening.stream_id,
            session_id: &self.opening.session,
            user: &self.opening.user,
            cursor: &cursor,
            heartbeat_seconds: self.opening.keepalive.as_secs(),
            silence_seconds: super::silence(self.opening.keepalive).as_secs(),
            resumed: self.is_resumed(),
        };
        let hello = serde_json::to_string(&hello).unwrap_or_default();
        if let Some(reason) = self.reset {
            self.ready.push(frame::control(Control::Reset, &Reset { reason, cursor: &cursor }));
        }
        self.ready.push(frame::hello(retry_ms(), &cursor, &hello));
    }

    /// Returns the next frame; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            if let Some(frame) = self.ready.pop() {
                return Some(Ok(frame));
            }
            if self.over {
                return None;
            }
            if let Some(entry) = self.missed.pop() {
                if let Some(frame) = self.pass(&entry, || frame::entry(&entry)) {
                    return Some(Ok(frame));
                }
                continue;
            }
            if self.position.seq < self.follower.began.seq {
                match self.read_missed().await {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "a stream's past was not read");
                        return Some(Err(error));
                    }
                }
            }
            if let Some(frame) = self.wait().await {
                return Some(Ok(frame));
            }
        }
    }

    async fn read_missed(&mut self) -> Result<(), Error> {
        let (topic, after) = (self.opening.topic.clone(), self.position.seq);
        self.missed =
            self.opening.store.read(move |reader| reader.entries(&topic, after, PAGE)).await?;
        let dense = self.missed.first().is_some_and(|first| first.position.seq == after + 1);
        if !dense {
            // Retention has just passed us by, or the log was replaced: start anew, and say so.
            self.restart().await?;
        }
        self.missed.reverse();
        Ok(())
    }

    /// Takes a new place at the end of the log, telling the client why.
    async fn restart(&mut self) -> Result<(), Error> {
        self.missed.clear();
        self.follower = self.opening.hub.follow(&self.opening.topic).await?;
        let (topic, cursor) = (self.opening.topic.clone(), self.cursor());
        let start =
            self.opening.store.read(move |reader| reader.start(&topic, Some(&cursor))).await?;
        let start = start.ok_or(Error::Gone)?;
        self.position = start.position;
        if let Some(reason) = start.reset {
            let cursor = self.cursor();
            self.ready.push(frame::control(Control::Reset, &Reset { reason, cursor: &cursor }));
        }
        Ok(())
    }

    /// Waits for something to happen.
    async fn wait(&mut self) -> Option<Bytes> {
        let far = Instant::now() + Duration::from_hours(24);
        tokio::select! {
            delivery = self.follower.next() => match delivery {
                Ok(Delivery::Entry(entry, frame)) => self.pass(&entry, || frame),
                Ok(Delivery::Ephemeral(frame)) => Some(self.sent(frame)),
                Err(Cut::Lagged) => Some(self.bye(Reason::SlowConsumer, true)),
                Err(Cut::Replaced) => {
                    if let Err(error) = self.restart().await {
                        tracing::warn!(%error, "a stream was not restarted");
                        self.over = true;
                    }
                    None
                }
            },
            () = &mut self.heartbeat => {
                let beat = frame::heartbeat(Timestamp::now());
                Some(self.sent(beat))
            }
            () = tokio::time::sleep_until(self.idle_at.unwrap_or(far)) => Some(self.bye(Reason::IdleTimeout, true)),
            () = self.opening.closing.cancelled(), if self.goes_at.is_none() => {
                // Each at its own time, so that clients do not all come back at once.
                let spread = self.opening.drain_spread.mul_f64(rand::rng().random_range(0.0..1.0));
                self.goes_at = Some(Instant::now() + spread);
                None
            }
            () = tokio::time::sleep_until(self.goes_at.unwrap_or(far)) => Some(self.go()),
        }
    }

    /// Passes an entry on unless the client has it; the word that the reader is out is the last one.
    fn pass(&mut self, entry: &Entry, frame: impl FnOnce() -> Bytes) -> Option<Bytes> {
        if entry.position.seq <= self.position.seq {
            return None;
        }
        self.position = entry.position;
        let is_removal = self.opening.here.is_some()
            && entry.position.seq > self.opening.member_at
            && super::removes(entry, &self.opening.user);
        if is_removal {
            return Some(self.bye(Reason::Revoked, false));
        }
        self.idle_at = self.opening.idle_timeout.map(|timeout| Instant::now() + timeout);
        Some(self.sent(frame()))
    }

    fn sent(&mut self, frame: Bytes) -> Bytes {
        let next = Instant::now() + self.opening.keepalive;
        self.heartbeat.as_mut().reset(next);
        frame
    }

    fn go(&mut self) -> Bytes {
        let retry_after_ms = retry_ms();
        self.ready.push(frame::control(
            Control::Bye,
            &Bye { reason: Reason::ServerShutdown, reconnect: true, retry_after_ms },
        ));
        self.over = true;
        let going = ServerShutdown { reason: "draining", retry_after_ms };
        frame::control(Control::ServerShutdown, &going)
    }

    fn bye(&mut self, reason: Reason, reconnect: bool) -> Bytes {
        self.over = true;
        let retry_after_ms = retry_ms();
        frame::control(Control::Bye, &Bye { reason, reconnect, retry_after_ms })
    }
}

/// When to come back, for each client another time.
fn retry_ms() -> u64 {
    rand::rng().random_range(1_000..3_000)
}
