//! One thread of the reactor: polls its sockets, writes what is new to all of a topic's streams, keeps their deadlines.

mod all;
mod clock;
mod topics;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use shared::{
    ids::ConnectionId,
    journal::{Position, Topic},
    store::Clock,
};
use slab::Slab;
use tokio::sync::mpsc;

use self::topics::Followed;
use super::{
    super::{
        control::Reason, filter::ChannelFilter, frame::Frame, hub::Follower, refill::Refill,
        stats::Stats,
    },
    Ask, Inbox, Limits, Message, Parked,
    deadlines::Deadlines,
    stream::{Gone, Link, NEVER, Place, Stream},
};

/// The token of the inbox; streams have their keys.
pub(super) const WAKE: Token = Token(usize::MAX);

pub(super) struct Shard {
    poll: Poll,
    inbox: Arc<Inbox>,
    limits: Limits,
    stats: Arc<Stats>,
    refills: mpsc::UnboundedSender<Refill>,
    /// The clock by which answers began and credentials end.
    clock: Clock,
    began: Instant,
    now: u64,
    streams: Slab<Stream>,
    keys: HashMap<ConnectionId, usize>,
    topics: Slab<Followed>,
    by_topic: HashMap<Topic, usize>,
    deadlines: Deadlines,
    /// Streams to be closed at the end of the pass.
    gone: Vec<usize>,
    /// Kept for its room.
    unsettled: Vec<(usize, Result<(), Gone>)>,
    beat: (u64, Arc<Frame>),
    draining: bool,
    stopped: bool,
}

impl Shard {
    pub(super) fn new(
        limits: Limits,
        stats: Arc<Stats>,
        refills: mpsc::UnboundedSender<Refill>,
        clock: Clock,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let inbox = Arc::new(Inbox::new(&poll)?);
        Ok(Self {
            poll,
            inbox,
            limits,
            stats,
            refills,
            began: Instant::now(),
            now: 0,
            streams: Slab::new(),
            keys: HashMap::new(),
            topics: Slab::new(),
            by_topic: HashMap::new(),
            deadlines: Deadlines::default(),
            gone: Vec::new(),
            unsettled: Vec::new(),
            beat: (0, Frame::heartbeat(clock.now())),
            clock,
            draining: false,
            stopped: false,
        })
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    /// Runs until it is told to stop; streams that are open then are closed without a word.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.stopped {
            let wait = self.deadlines.next().map(|due| due.saturating_sub(self.elapsed()));
            match self.poll.poll(&mut events, wait.map(Duration::from_millis)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            self.now = self.elapsed();
            for event in &events {
                let Token(key) = event.token();
                if event.token() != WAKE && self.streams.contains(key) {
                    let readable = event.is_readable() || event.is_read_closed();
                    self.ready(key, readable || event.is_error(), event.is_writable());
                }
            }
            // Streams that closed just now are not written to.
            self.close_gone();
            self.inbox.awake.store(false, Ordering::SeqCst);
            let messages = std::mem::take(
                &mut *self.inbox.messages.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for message in messages {
                self.hear(message);
            }
            let topics = std::mem::take(
                &mut *self.inbox.topics.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for topic in topics {
                self.spread(topic);
            }
            self.close_gone();
            self.attend();
            self.close_gone();
        }
        Ok(())
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NEVER)
    }

    fn ready(&mut self, key: usize, readable: bool, writable: bool) {
        let stream = &mut self.streams[key];
        let mut outcome = if readable { stream.read() } else { Ok(()) };
        if outcome.is_ok() && writable {
            outcome = stream.flush(self.now);
        }
        self.settle(key, outcome);
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Park(parked) => self.park(*parked),
            Message::Fed(fed) => self.fed(*fed),
            Message::Ask(connection, ask) => {
                let Some(&key) = self.keys.get(&connection) else { return };
                match ask {
                    Ask::End(reason) => self.end(key, reason),
                    Ask::Channels { add, remove } => {
                        let filter = &mut self.streams[key].filter;
                        let mut changed =
                            filter.take().map_or(ChannelFilter::all(), |filter| *filter);
                        if changed.change(&add, &remove).is_err() {
                            // Refused where it was asked for.
                            tracing::error!(connection.id = %connection, "a filter is too long");
                        }
                        *filter = (!changed.is_all()).then(|| Box::new(changed));
                    }
                }
            }
            Message::Ended(ended) => self.end_sessions(&ended),
            Message::Inspect(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.connections());
            }
            Message::Drain { rest_ms } => self.drain(rest_ms),
            Message::Stop => self.stopped = true,
        }
    }

    fn end(&mut self, key: usize, reason: Reason) {
        let outcome = self.streams[key].end(reason, &self.limits, self.now);
        self.settle(key, outcome);
    }

    fn park(&mut self, mut parked: Parked) {
        if let Some(answering) = &mut parked.answering {
            answering.park(self.now, self.clock.now());
        }
        let connection = parked.about.connection;
        let times = self.times(&parked);
        let size = self.limits.send_buffer_bytes;
        let set = socket2::SockRef::from(&parked.socket).set_send_buffer_size(size);
        let mut socket = mio::net::TcpStream::from_std(parked.socket);
        let key = self.streams.vacant_key();
        let registered = set.and_then(|()| {
            self.poll.registry().register(&mut socket, Token(key), Interest::READABLE)
        });
        if let Err(error) = registered {
            tracing::warn!(%error, "a stream was not parked");
            self.inbox.streams.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let place = |(follower, position): &(Follower, Position)| Place {
            topic: follower.topic().clone(),
            position: *position,
            life: follower.life(),
            link: Link::Reading,
        };
        let mut stream = Stream {
            socket,
            wire: parked.wire,
            about: parked.about,
            places: parked.places.iter().map(place).collect(),
            told: parked.told,
            answering: parked.answering,
            jobs: parked.jobs,
            filter: (!parked.filter.is_all()).then(|| Box::new(parked.filter)),
            outbox: None,
            times,
            messages: 0,
            member_at: parked.member_at,
            skipped: false,
            astray: None,
            resets: 0,
            input_bytes: 0,
            ending: false,
            wants_room: false,
            _held: parked.held,
        };
        for first in &parked.first {
            stream.say(first, self.now);
        }
        self.streams.insert(stream);
        self.keys.insert(connection, key);
        let outcome = self.streams[key].flush(self.now);
        self.settle(key, outcome);
        // What a stream begins with is no lag: until its client has read it, nothing follows, and the logs have the rest.
        let is_slow = self.streams[key].outbox.is_some();
        for (which, (follower, _)) in parked.places.into_iter().enumerate() {
            if is_slow {
                self.streams[key].places[which].link = Link::Fed(follower);
            } else {
                self.join(key, which, &follower);
            }
        }
    }

    /// Sees to what follows from what was just done to a stream.
    fn settle(&mut self, key: usize, outcome: Result<(), Gone>) {
        let stream = &mut self.streams[key];
        let wants_room = stream.outbox.is_some();
        let outcome = outcome.and_then(|()| {
            if wants_room != stream.wants_room {
                stream.wants_room = wants_room;
                let writable = if wants_room { Some(Interest::WRITABLE) } else { None };
                let interest = writable.map_or(Interest::READABLE, |w| Interest::READABLE | w);
                self.poll.registry().reregister(&mut stream.socket, Token(key), interest)?;
            }
            Ok(())
        });
        if outcome.is_err() {
            return self.gone.push(key);
        }
        let due = stream.next_due(&self.limits);
        if due < stream.times.due {
            stream.times.due = due;
            self.deadlines.push(due, key);
        }
        if let Some(which) = stream.astray.take() {
            return self.go_astray(key, which);
        }
        if let Some((which, follower)) = stream.joins() {
            self.join(key, which, &follower);
        }
    }

    fn close_gone(&mut self) {
        while let Some(key) = self.gone.pop() {
            // It may have gone for two reasons.
            let Some(mut stream) = self.streams.try_remove(key) else { continue };
            let _ = self.poll.registry().deregister(&mut stream.socket);
            self.keys.remove(&stream.about.connection);
            self.inbox.streams.fetch_sub(1, Ordering::Relaxed);
            for place in &stream.places {
                if let Link::Joined { topic, member } = place.link {
                    self.leave(topic, member);
                }
            }
        }
    }
}
