//! Which streams follow which topics, and how what is new in a topic gets to all of them.

use std::sync::Arc;

use shared::journal::{ResetReason, Topic};

use super::{
    super::{
        super::{
            control::{Reason, Reset},
            frame::{self, Control, Frame},
            hub::{Cut, Follower},
            refill::{Fed, Found, Refill, Wanted},
        },
        Waker,
        stream::{Link, Stream},
    },
    Shard,
};

/// Frames written to a topic's streams in one pass.
const BATCH: usize = 64;

/// A topic that streams of this shard follow.
pub(super) struct Followed {
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
    /// Makes a stream a member of the topic, giving it what is between its place and the present; sends it to the
    /// journal if that is no longer at hand.
    pub(super) fn join(&mut self, key: usize, which: usize, follower: &Follower) {
        if self.streams[key].places[which].life != follower.life() {
            // What was seen before the topic was followed anew may not be so any more.
            return self.read_journal(key, which);
        }
        let topic = self.follow(follower);
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

    pub(super) fn read_journal(&mut self, key: usize, which: usize) {
        let place = &mut self.streams[key].places[which];
        place.link = Link::Reading;
        let (topic, position, life) = (place.topic.clone(), place.position, place.life);
        self.refill(key, Wanted::After { topic, position, life });
    }

    fn refill(&self, key: usize, wanted: Wanted) {
        let Stream { about, resets, .. } = &self.streams[key];
        let (connection, user, resets) = (about.connection, about.user.clone(), *resets);
        // Without a reader the process is ending.
        let _ = self.refills.send(Refill {
            inbox: self.inbox.clone(),
            connection,
            user,
            resets,
            wanted,
        });
    }

    /// Takes what the journal had for a stream.
    pub(super) fn fed(&mut self, fed: Fed) {
        let Some(&key) = self.keys.get(&fed.connection) else { return };
        let stream = &mut self.streams[key];
        if stream.resets != fed.resets || stream.ending {
            return;
        }
        match fed.found {
            // The client comes back to another replica, or later.
            Found::Nothing => self.gone.push(key),
            Found::NotMember => self.end(key, Reason::Revoked),
            Found::Page(page) => {
                let topic = page.follower.topic();
                let Some(which) = stream.places.iter().position(|place| place.topic == *topic)
                else {
                    return;
                };
                let place = &mut stream.places[which];
                place.life = page.follower.life();
                place.link = Link::Fed(page.follower);
                stream.member_at = page.member_at.unwrap_or(stream.member_at);
                self.feed(key, which, &page.frames);
            }
            Found::Broken { topic, reason } => self.begin_anew(key, &topic, reason),
            Found::Heads { starts, member_at, reason } => {
                stream.member_at = member_at.unwrap_or(stream.member_at);
                for (place, (follower, position)) in stream.places.iter_mut().zip(starts) {
                    place.position = position;
                    place.life = follower.life();
                    place.link = Link::Fed(follower);
                }
                if let Some(view) = &mut stream.jobs {
                    view.begin_again();
                }
                let cursor = stream.cursor();
                let shown = cursor.to_string();
                let reset = Reset { reason, cursor: &shown };
                stream.say(&frame::control(Control::Reset, &reset, Some(&cursor)), self.now);
                let outcome = stream.flush(self.now);
                self.settle(key, outcome);
            }
        }
    }

    /// Sends a stream whose topic does not go on at its place to the heads of all its topics, with one reset.
    fn begin_anew(&mut self, key: usize, topic: &Topic, reason: ResetReason) {
        let stream = &mut self.streams[key];
        let told = stream.told;
        if stream.places[told..].iter().any(|place| place.topic == *topic) {
            // What it missed there could have been its end: its client comes back and is looked at anew.
            return self.end(key, Reason::MaxAge);
        }
        stream.resets += 1;
        let mut topics = Vec::with_capacity(told);
        let mut left = Vec::new();
        for place in &mut stream.places[..told] {
            topics.push(place.topic.clone());
            if let Link::Joined { topic, member } =
                std::mem::replace(&mut place.link, Link::Reading)
            {
                left.push((topic, member));
            }
        }
        for (topic, member) in left {
            self.leave(topic, member);
        }
        self.refill(key, Wanted::Heads { topics, reason });
    }

    /// Sends a stream to the journal that got a frame which does not follow its place.
    pub(super) fn go_astray(&mut self, key: usize, which: usize) {
        let place = &mut self.streams[key].places[which];
        if let Link::Joined { topic, member } = std::mem::replace(&mut place.link, Link::Reading) {
            self.leave(topic, member);
        }
        self.read_journal(key, which);
    }

    pub(super) fn feed(&mut self, key: usize, which: usize, frames: &[Arc<Frame>]) {
        let stream = &mut self.streams[key];
        let before = stream.messages;
        let outcome = stream.feed(which, frames, &self.limits, self.now);
        self.stats.broadcast(0, stream.messages - before);
        self.settle(key, outcome);
    }

    /// Writes what a topic has new to all its streams.
    pub(super) fn spread(&mut self, topic: usize) {
        let Some(followed) = self.topics.get_mut(topic) else { return };
        let pulled = followed.follower.pull(&followed.waker, &mut followed.at, BATCH);
        let (frames, more) = match pulled {
            Ok(pulled) => pulled,
            Err(Cut::Behind | Cut::Replaced) => return self.rejoin(topic),
        };
        if more {
            // Next time round, so that sockets and deadlines have their turn.
            followed.waker.wake();
        }
        let (mut delivered, mut unsettled) = (0, std::mem::take(&mut self.unsettled));
        for &Member { stream: key, which } in &followed.members {
            let stream = &mut self.streams[key];
            let before = stream.messages;
            let outcome = stream.deliver(which, &frames, &self.limits, self.now);
            delivered += stream.messages - before;
            let waits = stream.outbox.is_some();
            // One that was told its end has a deadline that it had not before.
            let is_astray = stream.astray.is_some();
            if outcome.is_err() || waits != stream.wants_room || stream.ending || is_astray {
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

    /// Returns the index of a topic that is followed from now on.
    pub(super) fn follow(&mut self, follower: &Follower) -> usize {
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
    pub(super) fn rejoin(&mut self, topic: usize) {
        for Member { stream, which } in std::mem::take(&mut self.topics[topic].members) {
            self.read_journal(stream, which);
        }
        self.put_down(topic);
    }

    /// Follows a topic no more if no stream is in it.
    pub(super) fn put_down(&mut self, topic: usize) {
        if self.topics.get(topic).is_some_and(|followed| followed.members.is_empty()) {
            let Followed { follower, waker, .. } = self.topics.remove(topic);
            follower.unlisten(&waker);
            self.by_topic.remove(follower.topic());
        }
    }

    pub(super) fn leave(&mut self, topic: usize, member: usize) {
        let members = &mut self.topics[topic].members;
        members.swap_remove(member);
        if let Some(&Member { stream, which }) = members.get(member)
            && let Some(stream) = self.streams.get_mut(stream)
        {
            stream.places[which].link = Link::Joined { topic, member };
        }
        self.put_down(topic);
    }
}
