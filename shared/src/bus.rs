//! Hints between replicas: what happened just now on a topic. Everything here may be lost, doubled or late.
//!
//! Within a process a notice goes straight to who subscribes. With NATS it also goes to the other replicas, see
//! [`NatsConfig`]; nobody ever waits for that.

mod nats;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::mpsc;

pub use self::nats::NatsConfig;
use crate::journal::{Entry, Topic};

/// How many notices a subscriber may be behind before it loses the newest.
const BACKLOG: usize = 1024;

/// How many entries of a topic are told of one by one when they were appended together. Of more it is only told that they are
/// there: reading them at once is less work for everybody than hearing of each, and nobody has to who has not asked.
pub(crate) const TOLD: usize = 64;

/// One hint.
#[derive(Clone, Debug)]
pub enum Notice {
    /// An entry was committed.
    Entry(Arc<Entry>),
    /// An event that is nowhere recorded: its JSON.
    Ephemeral(Arc<str>),
}

/// What a commit has to tell.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// An entry was appended.
    Entry(Arc<Entry>),
    /// More than [`TOLD`] were appended together; this is the last of them.
    Many(Arc<Entry>),
}

impl News {
    /// Returns the entry that was appended last.
    pub(crate) fn last(&self) -> &Entry {
        let (Self::Entry(entry) | Self::Many(entry)) = self;
        entry
    }
}

/// The bus; a clone is the same bus.
#[derive(Clone, Debug, Default)]
pub struct Bus {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    topics: Mutex<HashMap<Topic, Vec<Subscriber>>>,
    /// The other replicas, where there are some.
    others: OnceLock<nats::Link>,
}

#[derive(Debug)]
struct Subscriber {
    /// A queue that takes room as it fills: there is one for each topic that is followed.
    queue: mpsc::Sender<Heard>,
    lost: Arc<AtomicBool>,
}

/// What arrives at a subscriber.
#[derive(Clone, Debug)]
enum Heard {
    Notice(Notice),
    /// Notices that were not sent one by one, or did not arrive.
    Lost(Lost),
}

/// A place where a topic's notices arrive.
#[derive(Debug)]
pub struct Subscription {
    topic: Topic,
    bus: Bus,
    queue: mpsc::Receiver<Heard>,
    lost: Arc<AtomicBool>,
}

/// Notices were lost: the journal has what they said.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Notices of this topic alone.
    #[error("notices of a topic were lost")]
    Topic,
    /// Perhaps notices of every topic: the connection to the other replicas was away.
    #[error("notices of all topics were lost")]
    All,
}

impl Bus {
    /// Tells all subscribers of `topic`, here and elsewhere; never waits.
    pub fn publish(&self, topic: &Topic, notice: Notice) {
        self.tell(topic, Heard::Notice(notice));
    }

    /// Tells of what was committed.
    pub(crate) fn publish_all(&self, news: Vec<News>) {
        for news in news {
            let topic = news.last().topic.clone();
            let heard = match news {
                News::Entry(entry) => Heard::Notice(Notice::Entry(entry)),
                News::Many(_) => Heard::Lost(Lost::Topic),
            };
            self.tell(&topic, heard);
        }
    }

    fn tell(&self, topic: &Topic, heard: Heard) {
        if let Some(others) = self.inner.others.get() {
            others.publish(topic, heard.clone());
        }
        self.deliver(topic, heard);
    }

    /// Hears every notice of `topic` from now on.
    #[must_use]
    pub fn subscribe(&self, topic: &Topic) -> Subscription {
        let (sender, queue) = mpsc::channel(BACKLOG);
        let lost = Arc::new(AtomicBool::new(false));
        let subscriber = Subscriber { queue: sender, lost: lost.clone() };
        let mut topics = self.lock();
        let subscribers = topics.entry(topic.clone()).or_default();
        subscribers.push(subscriber);
        if let Some(others) = self.inner.others.get().filter(|_| subscribers.len() == 1) {
            others.changed(topic);
        }
        drop(topics);
        Subscription { topic: topic.clone(), bus: self.clone(), queue, lost }
    }

    /// Tells the subscribers in this process.
    fn deliver(&self, topic: &Topic, heard: Heard) {
        let topics = self.lock();
        let Some((last, others)) = topics.get(topic).and_then(|all| all.split_last()) else {
            return;
        };
        for subscriber in others {
            subscriber.tell(heard.clone());
        }
        last.tell(heard);
    }

    /// Tells every subscriber that it may have missed something.
    fn lose(&self) {
        let topics = self.lock();
        for subscriber in topics.values().flatten() {
            subscriber.tell(Heard::Lost(Lost::All));
        }
    }

    /// Says whether anybody in this process hears `topic`.
    fn is_heard(&self, topic: &Topic) -> bool {
        self.lock().contains_key(topic)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Vec<Subscriber>>> {
        self.inner.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    fn tell(&self, heard: Heard) {
        if self.queue.try_send(heard).is_err() {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}

impl Subscription {
    /// Waits for the next notice. Cancel safe.
    pub async fn next(&mut self) -> Result<Notice, Lost> {
        // A notice is lost only while others wait, so whoever waits for one has lost none.
        if self.lost.swap(false, Ordering::Relaxed) {
            return Err(Lost::Topic);
        }
        match self.queue.recv().await {
            Some(Heard::Notice(notice)) => Ok(notice),
            Some(Heard::Lost(lost)) => Err(lost),
            None => Err(Lost::Topic),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.close();
        let mut topics = self.bus.lock();
        if let Some(subscribers) = topics.get_mut(&self.topic) {
            subscribers.retain(|subscriber| !subscriber.queue.is_closed());
            if subscribers.is_empty() {
                topics.remove(&self.topic);
                if let Some(others) = self.bus.inner.others.get() {
                    others.changed(&self.topic);
                }
            }
        }
    }
}
