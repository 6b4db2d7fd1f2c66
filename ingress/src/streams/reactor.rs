//! Where quiet streams live: bare sockets on a few threads, each event written to all of them in one pass.
//!
//! A stream arrives here once HTTP has said its first words, and nothing else writes to its socket from then on. The
//! reactor owns every deadline, so each holds when the peer does not read.

mod coming;
mod deadlines;
mod outbox;
mod shard;
mod stream;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use shared::{
    auth::Revocations,
    ids::{ChannelName, ConnectionId, SessionId, UserId},
    journal::Position,
    lifecycle::Lifecycle,
    store::Clock,
    time::Timestamp,
};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::coming::Announced;
use self::{coming::Coming, shard::Shard};
use super::{
    about::{About, Connection, Held},
    answering::Answering,
    control::Reason,
    filter::ChannelFilter,
    hub::Follower,
    job_view::JobView,
    refill::{Fed, Refill},
    relief::Relief,
    stats::Stats,
    wire::Wire,
};

/// What a stream may cost and how long it may take.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) threads: usize,
    pub(crate) keepalive_ms: u64,
    pub(crate) write_timeout_ms: u64,
    pub(crate) max_age_ms: Option<u64>,
    pub(crate) lag_events: usize,
    pub(crate) lag_bytes: usize,
    pub(crate) send_buffer_bytes: usize,
    pub(crate) drain_spread_ms: u64,
    /// How long a stream that was told its end may take to read that.
    pub(crate) end_grace_ms: u64,
    /// Until when, in the shard's time, clients that come back are refused: 0 while the process serves, and where another
    /// replica does.
    pub(crate) refuses_until: u64,
}

/// A stream on its way to the reactor.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) socket: std::net::TcpStream,
    pub(crate) wire: Wire,
    pub(crate) about: Box<About>,
    pub(crate) held: Held,
    /// Where it is in each of its logs.
    pub(crate) places: Vec<(Follower, Position)>,
    /// How many of them it tells of; the others are there for what ends it.
    pub(crate) told: usize,
    /// The answer that it is the stream of.
    pub(crate) answering: Option<Box<Answering>>,
    /// Events to begin with, however slowly they are read.
    pub(crate) first: Vec<String>,
    /// View of jobs, if the stream carries any.
    pub(crate) jobs: Option<Box<JobView>>,
    pub(crate) filter: ChannelFilter,
    pub(crate) member_at: i64,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// What can be asked of an open stream.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    End(Reason),
    Channels { add: Vec<ChannelName>, remove: Vec<ChannelName> },
}

/// What a shard is told.
#[derive(Debug)]
enum Message {
    Park(Box<Parked>),
    Fed(Box<Fed>),
    Ask(ConnectionId, Ask),
    Ended(Arc<Revocations>),
    Inspect(oneshot::Sender<Vec<(SessionId, Connection)>>),
    /// Streams go, and clients are not to come back before `rest_ms` are over.
    Drain {
        rest_ms: u64,
    },
    Stop,
}

/// Where other threads leave word for a shard.
#[derive(Debug)]
pub(crate) struct Inbox {
    messages: Mutex<Vec<Message>>,
    /// Topics that have something new; each is in here once at most.
    topics: Mutex<Vec<usize>>,
    awake: AtomicBool,
    waker: mio::Waker,
    /// Streams of the shard, those on their way included.
    streams: AtomicUsize,
}

/// Tells a shard that one of its topics has something new.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    inbox: Arc<Inbox>,
    topic: usize,
}

impl Waker {
    pub(super) fn wake(&self) {
        self.inbox.topics.lock().unwrap_or_else(PoisonError::into_inner).push(self.topic);
        self.inbox.wake();
    }
}

impl PartialEq for Waker {
    fn eq(&self, other: &Self) -> bool {
        self.topic == other.topic && Arc::ptr_eq(&self.inbox, &other.inbox)
    }
}

impl Inbox {
    fn new(poll: &mio::Poll) -> io::Result<Self> {
        Ok(Self {
            messages: Mutex::default(),
            topics: Mutex::default(),
            awake: AtomicBool::new(false),
            waker: mio::Waker::new(poll.registry(), shard::WAKE)?,
            streams: AtomicUsize::new(0),
        })
    }

    fn push(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.wake();
    }

    pub(super) fn feed(&self, fed: Fed) {
        self.push(Message::Fed(Box::new(fed)));
    }

    fn wake(&self) {
        if !self.awake.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "the reactor was not woken");
        }
    }
}

/// The reactor; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Reactor {
    shards: Arc<[Arc<Inbox>]>,
    coming: Coming,
}

impl Reactor {
    /// Starts the threads, each ended by the lifecycle. What streams missed is asked for through `refills`.
    pub(crate) fn start(
        limits: &Limits,
        stats: &Arc<Stats>,
        refills: &mpsc::UnboundedSender<Refill>,
        relief: &Relief,
        clock: &Clock,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<Self> {
        let mut shards = Vec::new();
        for number in 0..limits.threads {
            let shard = Shard::new(limits.clone(), stats.clone(), refills.clone(), clock.clone())
                .context("failed to start the reactor")?;
            let inbox = shard.inbox();
            let (ended, end) = oneshot::channel::<()>();
            std::thread::Builder::new().name(format!("reactor-{number}")).spawn(move || {
                // Dropped at the end of the thread, by a panic too.
                let _ended = ended;
                if let Err(error) = shard.run() {
                    tracing::error!(%error, "the reactor failed");
                }
            })?;
            let attending = attend(inbox.clone(), end, relief.clone(), lifecycle.clone());
            lifecycle.spawn("reactor", attending);
            shards.push(inbox);
        }
        Ok(Self { shards: shards.into(), coming: Coming::default() })
    }

    /// Announces a stream, so that what is asked of it before it is parked is not lost. To be done before others know it.
    pub(crate) fn announce(
        &self,
        connection: ConnectionId,
        user: &UserId,
        session: &SessionId,
    ) -> Announced {
        self.coming.announce(connection, user, session)
    }

    /// Gives a stream to the shard that has the fewest.
    pub(crate) fn park(&self, announced: Announced, parked: Parked) {
        let load = |shard: &&Arc<Inbox>| shard.streams.load(Ordering::Relaxed);
        if let Some(shard) = self.shards.iter().min_by_key(load) {
            shard.streams.fetch_add(1, Ordering::Relaxed);
            announced.arrive(|connection, asks, revocations| {
                shard.push(Message::Park(Box::new(parked)));
                for ask in asks {
                    shard.push(Message::Ask(connection, ask));
                }
                for revocations in revocations {
                    shard.push(Message::Ended(Arc::new(revocations)));
                }
            });
        }
    }

    /// Asks something of a stream, if it is here or on its way here.
    pub(crate) fn ask(&self, connection: ConnectionId, ask: &Ask) {
        if self.coming.keep(connection, ask) {
            return;
        }
        for shard in self.shards.iter() {
            shard.push(Message::Ask(connection, ask.clone()));
        }
    }

    /// Ends the streams of sessions that were ended, those on their way here too.
    pub(crate) fn end_sessions(&self, ended: Revocations) {
        let ended = Arc::new(ended);
        self.coming.ended(&ended);
        for shard in self.shards.iter() {
            shard.push(Message::Ended(ended.clone()));
        }
    }

    /// Returns every open stream with its session.
    pub(crate) async fn connections(&self) -> Vec<(SessionId, Connection)> {
        let mut all = Vec::new();
        for shard in self.shards.iter() {
            let (reply, answer) = oneshot::channel();
            shard.push(Message::Inspect(reply));
            all.extend(answer.await.unwrap_or_default());
        }
        all
    }
}

/// Tells a shard of the process's end, and is over when the shard is.
async fn attend(
    inbox: Arc<Inbox>,
    end: oneshot::Receiver<()>,
    mut relief: Relief,
    lifecycle: Lifecycle,
) {
    let stages = async {
        lifecycle.closing().cancelled().await;
        let rest = relief.rest_of_drain().await;
        let rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        inbox.push(Message::Drain { rest_ms });
        lifecycle.shutdown().cancelled().await;
        inbox.push(Message::Stop);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = stages => {}
        _ = end => {}
    }
}
