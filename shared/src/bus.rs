//! Hints between replicas: what happened just now on a topic. Everything here may be lost, doubled or late.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::journal::{Entry, Topic};

/// How many notices a subscriber may be behind before it loses the newest.
const BACKLOG: usize = 1024;

/// One hint.
#[derive(Clone, Debug)]
pub enum Notice {
    /// An entry was committed.
    Entry(Arc<Entry>),
    /// An event that is nowhere recorded: its JSON.
    Ephemeral(Bytes),
}

/// The bus; a clone is the same bus.
#[derive(Clone, Debug, Default)]
pub struct Bus {
    topics: Arc<Mutex<HashMap<Topic, Vec<Subscriber>>>>,
}

#[derive(Debug)]
struct Subscriber {
    /// A queue that takes room as it fills: there is one for each topic that is followed.
    queue: mpsc::Sender<Notice>,
    lost: Arc<AtomicBool>,
}

/// A place where a topic's notices arrive.
#[derive(Debug)]
pub struct Subscription {
    topic: Topic,
    bus: Bus,
    queue: mpsc::Receiver<Notice>,
    lost: Arc<AtomicBool>,
}

/// Notices were lost: ask the journal for what they said.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("notices were lost")]
pub struct Lost;

impl Bus {
    /// Tells all subscribers of `topic`; never waits.
    pub fn publish(&self, topic: &Topic, notice: Notice) {
        let topics = self.lock();
        let Some((last, others)) = topics.get(topic).and_then(|all| all.split_last()) else {
            return;
        };
        others.iter().for_each(|subscriber| subscriber.tell(notice.clone()));
        last.tell(notice);
    }

    /// Hears every notice of `topic` from now on.
    #[must_use]
    pub fn subscribe(&self, topic: &Topic) -> Subscription {
        let (sender, queue) = mpsc::channel(BACKLOG);
        let lost = Arc::new(AtomicBool::new(false));
        let subscriber = Subscriber { queue: sender, lost: lost.clone() };
        self.lock().entry(topic.clone()).or_default().push(subscriber);
        Subscription { topic: topic.clone(), bus: self.clone(), queue, lost }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Vec<Subscriber>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber {
    fn tell(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}

impl Subscription {
    /// Waits for the next notice. Cancel safe.
    pub async fn next(&mut self) -> Result<Notice, Lost> {
        // A notice is lost only while others wait, so whoever waits for one has lost none.
        if self.lost.swap(false, Ordering::Relaxed) {
            return Err(Lost);
        }
        self.queue.recv().await.ok_or(Lost)
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
            }
        }
    }
}
