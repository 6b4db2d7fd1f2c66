//! Hints between replicas: what happened just now on a topic. Everything here may be lost, doubled or late.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::journal::{Entry, Topic};

/// How many notices a subscriber may be behind before it loses the oldest.
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
    topics: Arc<Mutex<HashMap<Topic, broadcast::Sender<Notice>>>>,
}

/// A place where a topic's notices arrive.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Notice>,
}

/// Notices were lost: ask the journal for what they said.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("notices were lost")]
pub struct Lost;

impl Bus {
    /// Tells all subscribers of `topic`; never waits.
    pub fn publish(&self, topic: &Topic, notice: Notice) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = topics.get(topic)
            && sender.send(notice).is_err()
        {
            topics.remove(topic);
        }
    }

    /// Hears every notice of `topic` from now on.
    #[must_use]
    pub fn subscribe(&self, topic: &Topic) -> Subscription {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = topics.entry(topic.clone()).or_insert_with(|| broadcast::channel(BACKLOG).0);
        Subscription { receiver: sender.subscribe() }
    }
}

impl Subscription {
    /// Waits for the next notice. Cancel safe.
    pub async fn next(&mut self) -> Result<Notice, Lost> {
        // `Closed` cannot happen: a sender is dropped only when it has no receiver.
        self.receiver.recv().await.map_err(|_| Lost)
    }
}
