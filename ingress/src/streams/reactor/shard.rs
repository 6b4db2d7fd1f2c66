//! One thread of the reactor: polls its sockets, writes what is new to all of a topic's streams, keeps their deadlines.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use rand::RngExt as _;
use shared::{
    ids::{ConnectionId, SessionId},
    journal::{Position, Topic},
    time::Timestamp,
};
use slab::Slab;
use tokio::sync::mpsc;

use super::{
    super::{
        about::Connection,
        control::{Reason, Reset},
        filter::ChannelFilter,
        frame::{self, Control, Frame},
        hub::{Cut, Follower},
        refill::{Fed, Refill},
        stats::Stats,
    },
    Ask, Inbox, Limits, Message, Parked, Waker,
    deadlines::Deadlines,
    stream::{Gone, Link, NEVER, Place, Stream, Times},
};

/// The token of the inbox; streams have their keys.
pub(super) const WAKE: Token = Token(usize::MAX);
/// Frames written to a topic's streams in one pass.
const BATCH: usize = 64;
/// A heartbeat's time is as old as this at most.
const BEAT_MS: u64 = 50;

pub(super) struct Shard {
    poll: Poll,
    inbox: Arc<Inbox>,
    limits: Limits,
    stats: Arc<Stats>,
    refills: mpsc::UnboundedSender<Refill>,
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

/// A topic that streams of this shard follow.
struct Followed {
    follower: Follower,
    waker: Waker,
    /// The index of the next frame.
    at: u64,
    members: Vec<Member>,
}

/// A stream, and which of its places is in this topic.
#[derive(Copy, Clone)]
struct Member {
    stream: usize,
    which: usize,
}

impl Shard {
    pub(super) fn new(
        limits: Limits,
        stats: Arc<Stats>,
        refills: mpsc::UnboundedSender<Refill>,
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
            beat: (0, Frame::heartbeat(Timestamp::now())),
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
            messages.into_iter().for_each(|message| self.hear(message));
            let topics = std::mem::take(
                &mut *self.inbox.topics.lock().unwrap_or_else(PoisonError::into_inner),
            );
            topics.into_iter().for_each(|topic| self.spread(topic));
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
                        changed.change(&add, &remove);
                        *filter = (!changed.is_all()).then(|| Box::new(changed));
                    }
                }
            }
            Message::Inspect(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.connections());
            }
            Message::Drain => self.drain(),
            Message::Stop => self.stopped = true,
        }
    }

    fn end(&mut self, key: usize, reason: Reason) {
        let outcome = self.streams[key].end(reason, &self.limits, self.now);
        self.settle(key, outcome);
    }

    fn park(&mut self, parked: Parked) {
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
            link: Link::Reading,
        };
        let mut stream = Stream {
            socket,
            wire: parked.wire,
            about: parked.about,
            places: parked.places.iter().map(place).collect(),
            filter: (!parked.filter.is_all()).then(|| Box::new(parked.filter)),
            outbox: None,
            times,
            messages: 0,
            member_at: parked.member_at,
            skipped: false,
            input_bytes: 0,
            ending: false,
            wants_room: false,
            _held: parked.held,
        };
        if let Some(first) = parked.first {
            stream.say(&first, self.now);
        }
        self.streams.insert(stream);
        self.keys.insert(connection, key);
        let outcome = self.streams[key].flush(self.now);
        self.settle(key, outcome);
        for (which, (follower, _)) in parked.places.into_iter().enumerate() {
            self.join(key, which, follower);
        }
    }

    fn times(&self, parked: &Parked) -> Times {
        let mut random = rand::rng();
        let now = self.now;
        let at = |after: u64| now.saturating_add(after);
        let expires = parked.expires_at.map_or(NEVER, |expires| {
            let left = expires.since(Timestamp::now()).as_millis();
            at(u64::try_from(left).unwrap_or(NEVER))
        });
        let idle_after = parked
            .idle_timeout
            .map_or(NEVER, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(NEVER));
        // Streams that opened together are not to come back together.
        let rotates = self
            .limits
            .max_age_ms
            .map_or(NEVER, |age| at(random.random_range(age - age / 5..=age)));
        let spread = self.limits.drain_spread_ms;
        Times {
            opened: now,
            last_sent: now,
            early: random.random_range(0..=self.limits.keepalive_ms / 4),
            idle_after,
            idle: if idle_after == NEVER { NEVER } else { at(idle_after) },
            rotates,
            expires,
            goes: if self.draining { at(random.random_range(0..=spread)) } else { NEVER },
            cut: NEVER,
            due: NEVER,
        }
    }

    /// Makes a stream a member of the topic, giving it what is between its place and the present; sends it to the
    /// journal if that is no longer at hand.
    fn join(&mut self, key: usize, which: usize, follower: Follower) {
        let topic = self.follow(&follower);
        let followed = &mut self.topics[topic];
        let stream = &mut self.streams[key];
        match follower.join(stream.places[which].position, followed.at) {
            Ok(frames) => {
                let member = followed.members.len();
                followed.members.push(Member { stream: key, which });
                stream.places[which].link = Link::Joined { topic, member };
                self.feed(key, which, &frames);
            }
            Err(Cut::Behind | Cut::Replaced) => {
                self.read_journal(key, which);
                self.put_down(topic);
            }
        }
    }

    fn read_journal(&mut self, key: usize, which: usize) {
        let stream = &mut self.streams[key];
        let place = &mut stream.places[which];
        place.link = Link::Reading;
        let refill = Refill {
            inbox: self.inbox.clone(),
            connection: stream.about.connection,
            topic: place.topic.clone(),
            position: place.position,
        };
        // Without a reader the process is ending.
        let _ = self.refills.send(refill);
    }

    /// Takes what the journal had for a stream.
    fn fed(&mut self, fed: Fed) {
        let Some(&key) = self.keys.get(&fed.connection) else { return };
        let stream = &mut self.streams[key];
        let Some(which) = stream.places.iter().position(|place| place.topic == fed.topic) else {
            return;
        };
        let Some(page) = fed.page else {
            // It could not be read: the client comes back to another replica, or later.
            self.gone.push(key);
            return;
        };
        if let Some(reset) = page.reset {
            stream.places[which].position = page.position;
            let cursor = stream.cursor().to_string();
            let reset = Reset { reason: reset, cursor: &cursor };
            stream.say(&frame::control(Control::Reset, &reset), self.now);
        }
        stream.places[which].link = Link::Fed(page.follower);
        self.feed(key, which, &page.frames);
    }

    fn feed(&mut self, key: usize, which: usize, frames: &[Arc<Frame>]) {
        let stream = &mut self.streams[key];
        let before = stream.messages;
        let outcome = stream.feed(which, frames, &self.limits, self.now);
        self.stats.broadcast(0, stream.messages - before);
        self.settle(key, outcome);
    }

    /// Writes what a topic has new to all its streams.
    fn spread(&mut self, topic: usize) {
        let Some(followed) = self.topics.get_mut(topic) else { return };
        let frames = match followed.follower.pull(&followed.waker, &mut followed.at, BATCH) {
            Ok(frames) => frames,
            Err(Cut::Behind | Cut::Replaced) => return self.rejoin(topic),
        };
        if frames.len() == BATCH {
            // More may be there: next time round, so that sockets and deadlines have their turn.
            followed.waker.wake();
        }
        let (mut delivered, mut unsettled) = (0, std::mem::take(&mut self.unsettled));
        for &Member { stream: key, which } in &followed.members {
            let stream = &mut self.streams[key];
            let before = stream.messages;
            let outcome = stream.deliver(which, &frames, &self.limits, self.now);
            delivered += stream.messages - before;
            if outcome.is_err() || stream.outbox.is_some() != stream.wants_room {
                unsettled.push((key, outcome));
            }
        }
        let events = frames.iter().filter(|frame| frame.spreads_first()).count();
        self.stats.broadcast(events as u64, delivered);
        for (key, outcome) in unsettled.drain(..) {
            self.settle(key, outcome);
        }
        self.unsettled = unsettled;
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
        if let Some((which, follower)) = stream.joins() {
            self.join(key, which, follower);
        }
    }

    /// Does what is due.
    fn attend(&mut self) {
        while let Some((due, key)) = self.deadlines.pop(self.now) {
            let beat = self.beat();
            let Some(stream) = self.streams.get_mut(key) else { continue };
            if stream.times.due == due {
                stream.times.due = NEVER;
                let outcome = stream.attend(&self.limits, self.now, &beat);
                self.settle(key, outcome);
            }
        }
    }

    /// Returns the heartbeat that all streams share which beat about now.
    fn beat(&mut self) -> Arc<Frame> {
        if self.now >= self.beat.0 + BEAT_MS {
            self.beat = (self.now, Frame::heartbeat(Timestamp::now()));
        }
        self.beat.1.clone()
    }

    /// Gives every stream its own time to go, evenly over the spread.
    fn drain(&mut self) {
        self.draining = true;
        let keys: Vec<usize> = self.streams.iter().map(|(key, _)| key).collect();
        let count = keys.len().max(1) as u64;
        for (number, key) in (0u64..).zip(keys) {
            let place = number * self.limits.drain_spread_ms / count;
            let within = rand::rng().random_range(0..=self.limits.drain_spread_ms / count);
            self.streams[key].times.goes = self.now + place + within;
            self.settle(key, Ok(()));
        }
    }

    /// Returns the index of a topic that is followed from now on.
    fn follow(&mut self, follower: &Follower) -> usize {
        if let Some(&topic) = self.by_topic.get(follower.topic()) {
            if self.topics[topic].follower.is_of(follower) {
                return topic;
            }
            // The log was replaced and its streams have not heard yet.
            self.rejoin(topic);
        }
        let entry = self.topics.vacant_entry();
        let topic = entry.key();
        let waker = Waker { inbox: self.inbox.clone(), topic };
        let at = follower.listen(waker.clone());
        entry.insert(Followed { follower: follower.clone(), waker, at, members: Vec::new() });
        self.by_topic.insert(follower.topic().clone(), topic);
        topic
    }

    /// Sends every stream of a topic to the journal.
    fn rejoin(&mut self, topic: usize) {
        for Member { stream, which } in std::mem::take(&mut self.topics[topic].members) {
            self.read_journal(stream, which);
        }
        self.put_down(topic);
    }

    /// Follows a topic no more if no stream is in it.
    fn put_down(&mut self, topic: usize) {
        if self.topics.get(topic).is_some_and(|followed| followed.members.is_empty()) {
            let Followed { follower, waker, .. } = self.topics.remove(topic);
            follower.unlisten(&waker);
            self.by_topic.remove(follower.topic());
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

    fn leave(&mut self, topic: usize, member: usize) {
        let members = &mut self.topics[topic].members;
        members.swap_remove(member);
        if let Some(&Member { stream, which }) = members.get(member)
            && let Some(stream) = self.streams.get_mut(stream)
        {
            stream.places[which].link = Link::Joined { topic, member };
        }
        self.put_down(topic);
    }

    fn connections(&self) -> Vec<(SessionId, Connection)> {
        let now = Timestamp::now();
        let describe = |(_, stream): (usize, &Stream)| {
            let about = &stream.about;
            let quiet = Duration::from_millis(self.now.saturating_sub(stream.times.last_sent));
            let connection = Connection {
                id: about.connection,
                ip: about.address,
                user_agent: about.user_agent.clone(),
                created_at: about.opened_at.as_ms(),
                last_activity_at: Some(now.before(quiet).as_ms()),
                messages_sent: Some(stream.messages),
                duration_ms: self.now.saturating_sub(stream.times.opened),
                closed: stream.ending,
            };
            (about.session.clone(), connection)
        };
        self.streams.iter().map(describe).collect()
    }
}
