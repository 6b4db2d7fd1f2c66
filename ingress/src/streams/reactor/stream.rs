//! One parked stream: its socket, its place in each log, its deadlines.

mod beats;
mod ends;

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    sync::Arc,
};

use bytes::Bytes;
use mio::net::TcpStream;
use shared::journal::{Cursor, Position, Topic};

use super::{
    super::{
        about::{About, Held},
        answering::Answering,
        control::Reason,
        filter::ChannelFilter,
        frame::Frame,
        hub::Follower,
        job_view::{Concern, JobView, Sight},
        ring::{self, Taken},
        wire::Wire,
    },
    Limits,
    outbox::Outbox,
};

/// A time that never comes.
pub(super) const NEVER: u64 = u64::MAX;
/// How much a client may send on a stream, where there is nothing to say.
const MAX_INPUT_BYTES: usize = 64 * 1024;

/// A stream that the reactor owns. Times are milliseconds since the shard began.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    pub(super) wire: Wire,
    pub(super) about: Box<About>,
    pub(super) places: Vec<Place>,
    /// How many of the places it tells of, the first ones; in the others only what ends it is heeded.
    pub(super) told: usize,
    /// The answer that it is the stream of.
    pub(super) answering: Option<Box<Answering>>,
    /// View of jobs, if the stream carries any.
    pub(super) jobs: Option<Box<JobView>>,
    /// `None` carries every channel.
    pub(super) filter: Option<Box<ChannelFilter>>,
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) times: Times,
    pub(super) messages: u64,
    /// The last entry of the project's log when the reader was seen to be a member: a removal before it is over.
    pub(super) member_at: i64,
    /// Entries were left out since the client's cursor last moved.
    pub(super) skipped: bool,
    /// The place of a topic whose last frame did not follow it: only the journal can say how it goes on.
    pub(super) astray: Option<usize>,
    /// Number of times that the stream was sent to the heads of its topics.
    pub(super) resets: u32,
    pub(super) input_bytes: usize,
    pub(super) ending: bool,
    /// It is to be woken when its socket takes more.
    pub(super) wants_room: bool,
    /// Slots, presence and counts, given up when the stream is dropped.
    pub(super) _held: Held,
}

/// The stream's place in one of its logs.
pub(super) struct Place {
    pub(super) topic: Topic,
    pub(super) position: Position,
    /// The life of the topic in which the position, and the right to it, were seen.
    pub(super) life: u64,
    pub(super) link: Link,
}

/// How a stream gets the entries of a log.
pub(super) enum Link {
    /// As a member of the shard's topic, at an index in its list.
    Joined { topic: usize, member: usize },
    /// It has what the journal had, and joins once the socket has taken it.
    Fed(Follower),
    /// The journal is being read for it.
    Reading,
}

/// When something is due.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) opened: u64,
    pub(super) last_sent: u64,
    /// How long before the end of the keepalive interval its heartbeat comes, so that streams do not beat together.
    pub(super) early: u64,
    pub(super) idle_after: u64,
    pub(super) idle: u64,
    pub(super) rotates: u64,
    pub(super) expires: u64,
    /// When it is told that the server goes.
    pub(super) goes: u64,
    /// When an ended stream whose client does not read is cut off.
    pub(super) cut: u64,
    /// The entry of the deadlines that counts.
    pub(super) due: u64,
}

/// The stream is no more.
pub(super) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl Stream {
    /// Returns the cursor of all its logs.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor::of(self.places[..self.told].iter().map(|place| (&place.topic, place.position)))
    }

    /// Passes frames of its log number `which` on.
    pub(super) fn deliver(
        &mut self,
        which: usize,
        frames: &[Arc<Frame>],
        limits: &Limits,
        now: u64,
    ) -> Result<(), Gone> {
        // Nearly always: one event, for everybody, and a socket that takes it.
        if let [frame] = frames
            && self.outbox.is_none()
            && self.is_plain_reader(frame)
        {
            if !self.takes(which, frame) {
                return Ok(());
            }
            self.told(now);
            let chunk = frame.chunk();
            match self.socket.write(chunk) {
                Ok(written) if written == chunk.len() => {}
                Ok(written) => self.wait_for(chunk.slice(written..), written > 0, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_for(chunk.clone(), false, now);
                }
                Err(_) => return Err(Gone),
            }
            return Ok(());
        }
        let waited = self.outbox.is_some();
        self.feed(which, frames, limits, now)?;
        let too_much = |outbox: &Outbox| {
            outbox.pieces() > limits.lag_events || outbox.bytes() > limits.lag_bytes
        };
        if waited && !self.ending && self.outbox.as_deref().is_some_and(too_much) {
            return self.end(Reason::SlowConsumer, limits, now);
        }
        Ok(())
    }

    /// Passes frames on that the stream has asked for, so that there may be any number of them.
    pub(super) fn feed(
        &mut self,
        which: usize,
        frames: &[Arc<Frame>],
        limits: &Limits,
        now: u64,
    ) -> Result<(), Gone> {
        for frame in frames {
            if self.ending {
                break;
            }
            self.pass(which, frame, limits, now);
        }
        self.flush(now)
    }

    /// Says whether the frame's shared bytes are all there is to know about it for this stream. The stream of an answer has
    /// its project as a second place.
    fn is_plain_reader(&self, frame: &Frame) -> bool {
        self.wire.is_simple()
            && self.places.len() == 1
            && self.filter.is_none()
            && self.shows_whole(frame)
            && frame.removes.is_none()
            && !self.ending
    }

    /// Returns whether a frame is shown whole and leaves the view of jobs as it is.
    fn shows_whole(&self, frame: &Frame) -> bool {
        match (frame.concern, &self.jobs) {
            (Some(Concern::Job(project)), Some(view)) => view.of_project(project) == Sight::Whole,
            (Some(_), _) => false,
            (None, _) => true,
        }
    }

    /// Moves the place over a frame; returns whether the stream is to have it.
    fn takes(&mut self, which: usize, frame: &Frame) -> bool {
        match ring::takes(&mut self.places[which].position, frame) {
            Taken::Yes => true,
            Taken::No => false,
            Taken::Astray => {
                self.astray = Some(which);
                false
            }
        }
    }

    /// Queues one frame, if the stream is to have it.
    fn pass(&mut self, which: usize, frame: &Frame, limits: &Limits, now: u64) {
        if !self.takes(which, frame) {
            return;
        }
        if self.is_removed_by(frame) {
            return self.say_bye(Reason::Revoked, limits, now);
        }
        if which >= self.told {
            return;
        }
        let sight = self.jobs.as_mut().map_or(Sight::Whole, |view| view.of_frame(frame));
        let frame = match sight {
            Sight::Whole => Some(frame),
            Sight::Stripped => frame.stripped(),
            Sight::Nothing => None,
        };
        let Some(frame) = frame else {
            self.skipped = true;
            return;
        };
        if let (Some(answering), Some(totals)) = (&mut self.answering, frame.totals) {
            answering.totals = totals;
        }
        if self.filter.as_ref().is_some_and(|filter| !filter.carries(frame)) {
            self.skipped |= frame.position.is_some();
            return;
        }
        let shared = frame.position.is_none() || self.told == 1;
        let cursor = (!shared).then(|| self.cursor());
        self.skipped &= frame.position.is_none();
        self.told(now);
        self.queue(now, |wire| match &cursor {
            Some(cursor) => wire.frame_at(frame, cursor),
            None => wire.frame(frame),
        });
        if frame.is_last {
            self.close(limits, now);
        }
    }

    fn is_removed_by(&self, frame: &Frame) -> bool {
        frame.removes.as_ref().is_some_and(|removal| removal.covers(&self.about.user))
            && frame.position.is_some_and(|position| position.seq > self.member_at)
    }

    /// Counts an application event.
    fn told(&mut self, now: u64) {
        self.messages += 1;
        self.times.last_sent = now;
        if self.times.idle_after != NEVER {
            self.times.idle = now + self.times.idle_after;
        }
    }

    /// Queues an event that only this stream has.
    pub(super) fn say(&mut self, text: &str, now: u64) {
        self.times.last_sent = now;
        self.queue(now, |wire| wire.text(text));
    }

    fn queue(&mut self, now: u64, encode: impl FnOnce(&mut Wire) -> Bytes) {
        let before = self.wire.sum();
        let bytes = encode(&mut self.wire);
        self.outbox.get_or_insert_with(|| Box::new(Outbox::new(now))).push(bytes, before);
    }

    fn wait_for(&mut self, rest: Bytes, torn: bool, now: u64) {
        self.outbox = Some(Box::new(Outbox::of(rest, torn, now)));
    }

    /// Writes what waits. At the end of an ended stream it is gone.
    pub(super) fn flush(&mut self, now: u64) -> Result<(), Gone> {
        if let Some(outbox) = &mut self.outbox
            && outbox.flush(&self.socket, now)?
        {
            self.outbox = None;
        }
        if self.ending && self.outbox.is_none() {
            // What the client may have sent would turn the end into a reset.
            let _ = self.read();
            let _ = self.socket.shutdown(Shutdown::Write);
            return Err(Gone);
        }
        Ok(())
    }

    /// Reads and forgets what the client sends. An end of it is the end of the stream.
    pub(super) fn read(&mut self) -> Result<(), Gone> {
        let mut input = [0; 1024];
        loop {
            match self.socket.read(&mut input) {
                Ok(0) => return Err(Gone),
                Ok(count) => {
                    self.input_bytes += count;
                    if self.input_bytes > MAX_INPUT_BYTES {
                        return Err(Gone);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Takes out a log that the stream is ready to join.
    pub(super) fn joins(&mut self) -> Option<(usize, Follower)> {
        if self.outbox.is_some() || self.ending {
            return None;
        }
        self.places.iter_mut().enumerate().find_map(|(which, place)| {
            match std::mem::replace(&mut place.link, Link::Reading) {
                Link::Fed(follower) => Some((which, follower)),
                other => {
                    place.link = other;
                    None
                }
            }
        })
    }
}
