//! One order of events for each topic that has a follower here.

mod driver;
mod follower;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use shared::{
    bus::Bus,
    journal::{Entry, Position, Redaction, Topic},
    lifecycle::Lifecycle,
    parts::Parts,
    sabotage::Sabotage,
    store::{Error, Store},
};
use tokio::sync::{Notify, watch};

pub(super) use self::follower::Cut;
pub(crate) use self::follower::Follower;
use super::{frame::Frame, log::Log, reactor::Waker, ring::Ring};

/// Numbers the lives of followed topics.
static LIVES: AtomicU64 = AtomicU64::new(1);

/// Follows topics; a clone is the same hub.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    store: Store,
    bus: Bus,
    lifecycle: Lifecycle,
    /// Hints were lost: the logs' ends are to be asked for at once.
    hurry: Arc<Notify>,
    sabotage: Option<Sabotage>,
    active: Arc<Mutex<HashMap<Topic, Arc<Active>>>>,
}

/// A topic that is followed.
#[derive(Debug)]
struct Active {
    topic: Topic,
    /// Another one each time when the topic is followed anew, so that what was known of it before is checked again.
    life: u64,
    state: Mutex<State>,
    followers: AtomicUsize,
    /// The journal may have more than the bus has told.
    look: Notify,
    /// The number of the last entry that left; it is marked as changed, too, when the log is over.
    grown: watch::Sender<i64>,
}

#[derive(Debug)]
struct State {
    log: Log,
    ring: Ring,
    /// The reactor's shards that have streams of the topic.
    listeners: Vec<Listener>,
    /// The log was replaced or lost its tail: followers find out and start anew.
    over: bool,
}

#[derive(Debug)]
struct Listener {
    waker: Waker,
    /// Told of something new, and has not looked since.
    told: bool,
}

impl Active {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the log an entry of a notice and the listeners what leaves it.
    fn notice(&self, entry: Arc<Entry>) {
        let mut state = self.lock();
        if !state.over {
            let leaving = state.log.notice(entry);
            self.spread(state, &leaving);
        }
    }

    /// Gives the log entries that the journal has proved to follow `after`.
    fn page(&self, after: Position, entries: Vec<Arc<Entry>>) {
        let mut state = self.lock();
        if !state.over {
            let leaving = state.log.page(after, entries);
            self.spread(state, &leaving);
        }
    }

    fn spread(&self, mut state: MutexGuard<'_, State>, leaving: &[Arc<Entry>]) {
        let Some(last) = leaving.last() else { return };
        for entry in leaving {
            if let Some(redaction) = Redaction::by(entry) {
                state.ring.redact(&self.topic, redaction);
            }
            state.ring.push(Frame::entry(entry));
        }
        state.tell();
        drop(state);
        self.grown.send_replace(last.position.seq);
    }

    /// Returns after which entry the journal must be read.
    fn gap(&self) -> Option<Position> {
        let state = self.lock();
        if state.over { None } else { state.log.gap() }
    }

    /// Takes word of where the topic ends, `None` if there is no such topic any more.
    fn head(&self, head: Option<Position>, known: Position) {
        match head {
            Some(head) => self.lock().log.head(head, known),
            None => self.end(),
        }
    }

    /// Has the journal read, which proves the last entry or ends the log.
    fn doubt(&self) {
        self.lock().log.doubt();
        self.look.notify_one();
    }

    /// Ends the log: followers start anew, and the task that feeds it is over.
    fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        state.tell();
        drop(state);
        self.grown.send_modify(|_| {});
        self.look.notify_one();
    }
}

impl State {
    /// Wakes who has not been told yet.
    fn tell(&mut self) {
        for listener in self.listeners.iter_mut().filter(|listener| !listener.told) {
            listener.told = true;
            listener.waker.wake();
        }
    }
}

impl Hub {
    pub(crate) fn new(parts: &Parts) -> Self {
        let Parts { store, bus, lifecycle, sabotage, .. } = parts.clone();
        Self { store, bus, lifecycle, hurry: Arc::default(), sabotage, active: Arc::default() }
    }

    /// Follows `topic` from its present end on; makes the topic if it is new.
    pub(crate) async fn follow(&self, topic: &Topic) -> Result<Follower, Error> {
        if let Some(follower) = self.find(topic).await? {
            return Ok(follower);
        }
        let named = topic.clone();
        self.store.write(move |tx| tx.ensure(&named)).await?;
        self.find(topic).await?.ok_or(Error::Gone)
    }

    /// Follows `topic` from its present end on, `None` if there is no such topic.
    pub(crate) async fn find(&self, topic: &Topic) -> Result<Option<Follower>, Error> {
        if let Some(follower) = self.join(topic) {
            return Ok(Some(follower));
        }
        // Hear the bus first, then ask where the log is: what is committed in between comes twice, not never.
        let subscription = self.bus.subscribe(topic);
        let named = topic.clone();
        let head = self.store.read(move |reader| reader.head(&named)).await?;
        let Some(head) = head else { return Ok(None) };
        let mut all = self.lock();
        if let Some(active) = all.get(topic).filter(|active| !active.lock().over) {
            return Ok(Some(Follower::new(active)));
        }
        let state = State {
            log: Log::after(head),
            ring: Ring::default(),
            listeners: Vec::new(),
            over: false,
        };
        let active = Arc::new(Active {
            topic: topic.clone(),
            life: LIVES.fetch_add(1, Ordering::Relaxed),
            state: Mutex::new(state),
            followers: AtomicUsize::new(0),
            look: Notify::new(),
            grown: watch::Sender::new(head.seq),
        });
        let follower = Follower::new(&active);
        all.insert(topic.clone(), active.clone());
        drop(all);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its last follower or at shutdown"
        )]
        tokio::spawn(self.clone().drive(active, subscription));
        Ok(Some(follower))
    }

    /// Puts the topic down if nobody follows it or its log is over. Joining takes the same lock, so nobody joins in between.
    fn is_idle(&self, active: &Arc<Active>) -> bool {
        let mut all = self.lock();
        let idle = active.followers.load(Ordering::Relaxed) == 0 || active.lock().over;
        if idle && all.get(&active.topic).is_some_and(|present| Arc::ptr_eq(present, active)) {
            all.remove(&active.topic);
        }
        idle
    }

    fn join(&self, topic: &Topic) -> Option<Follower> {
        let all = self.lock();
        let active = all.get(topic).filter(|active| !active.lock().over)?;
        Some(Follower::new(active))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Arc<Active>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
