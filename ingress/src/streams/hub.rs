//! One order of events for each topic that has a follower here: the driver of [`Log`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt as _;
use shared::{
    bus::{Bus, Notice, Subscription},
    journal::{Entry, Position, Topic},
    lifecycle::Lifecycle,
    store::{Error, Store},
};
use tokio::sync::{Notify, broadcast};

use super::{
    frame,
    log::{Log, Replaced},
};

/// How many events a follower may be behind before it is cut off; it can resume.
const LAG: usize = 1024;
/// Entries read from the journal at once.
const PAGE: i64 = 256;

/// What followers get.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// The log's next entry and its frame.
    Entry(Arc<Entry>, Bytes),
    /// An event that is not in the log: its frame.
    Ephemeral(Bytes),
}

/// Follows topics; a clone is the same hub.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    store: Store,
    bus: Bus,
    lifecycle: Lifecycle,
    active: Arc<Mutex<HashMap<Topic, Arc<Active>>>>,
}

/// A topic that is followed.
#[derive(Debug)]
struct Active {
    state: Mutex<State>,
    /// The journal may have more than the bus has told.
    look: Notify,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// `None` once the log was replaced: followers find out and start anew.
    sender: Option<broadcast::Sender<Delivery>>,
}

/// Follows one topic from where it began.
#[derive(Debug)]
pub(crate) struct Follower {
    /// The entry before the first that is delivered.
    pub(crate) began: Position,
    receiver: broadcast::Receiver<Delivery>,
}

/// Why a follower gets no more.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It was too slow.
    Lagged,
    /// The log is another one now.
    Replaced,
}

impl Follower {
    /// Waits for the next delivery. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Delivery, Cut> {
        self.receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(_) => Cut::Lagged,
            broadcast::error::RecvError::Closed => Cut::Replaced,
        })
    }

    /// Waits until the log has grown, or might have.
    pub(crate) async fn entry(&mut self) {
        while let Ok(Delivery::Ephemeral(_)) = self.next().await {}
    }
}

impl Active {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives the log an entry and the followers what leaves it.
    fn entry(&mut self, entry: Arc<Entry>) {
        let Some(sender) = &self.sender else { return };
        match self.log.entry(entry) {
            Ok(leaving) => {
                for entry in leaving {
                    let frame = frame::entry(&entry);
                    // Nobody listens at the moment: the topic is about to be put down.
                    let _ = sender.send(Delivery::Entry(entry, frame));
                }
            }
            Err(Replaced) => self.sender = None,
        }
    }

    fn head(&mut self, head: Option<Position>, known: Position) {
        if head.is_none_or(|head| self.log.head(head, known).is_err()) {
            self.sender = None;
        }
    }

    fn has_followers(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| sender.receiver_count() > 0)
    }
}

impl Hub {
    pub(crate) fn new(store: Store, bus: Bus, lifecycle: Lifecycle) -> Self {
        Self { store, bus, lifecycle, active: Arc::default() }
    }

    /// Follows `topic` from its present end on; makes the topic if it is new.
    pub(crate) async fn follow(&self, topic: &Topic) -> Result<Follower, Error> {
        if let Some(follower) = self.join(topic) {
            return Ok(follower);
        }
        // Hear the bus first, then ask where the log is: what is committed in between comes twice, not never.
        let subscription = self.bus.subscribe(topic);
        let head = self.head_or_new(topic).await?;
        let mut active = self.lock();
        if let Some(follower) = active.get(topic).and_then(|active| active.join()) {
            return Ok(follower);
        }
        let (sender, receiver) = broadcast::channel(LAG);
        let state = State { log: Log::after(head), sender: Some(sender) };
        let entry = Arc::new(Active { state: Mutex::new(state), look: Notify::new() });
        active.insert(topic.clone(), entry.clone());
        drop(active);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its last follower or at shutdown"
        )]
        tokio::spawn(self.clone().drive(topic.clone(), entry, subscription));
        Ok(Follower { began: head, receiver })
    }

    /// Asks for the end of every followed log in one read, every so often, until shutdown: whatever hint was lost, its
    /// entry is found here.
    pub(crate) async fn poll(self, interval: Duration) {
        let shutdown = self.lifecycle.shutdown();
        loop {
            let pause = interval.mul_f64(rand::rng().random_range(0.75..1.0));
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            let known =
                |(topic, active): (&Topic, &Arc<Active>)| (topic.clone(), active.lock().log.last());
            let topics: Vec<(Topic, Position)> = self.lock().iter().map(known).collect();
            if topics.is_empty() {
                continue;
            }
            let heads = self
                .store
                .read(move |reader| {
                    let head = |(topic, known)| Ok((reader.head(&topic)?, known, topic));
                    topics.into_iter().map(head).collect()
                })
                .await;
            match heads {
                Ok(heads) => self.heads(heads),
                Err::<_, Error>(error) => tracing::warn!(%error, "the logs' ends were not read"),
            }
        }
    }

    fn heads(&self, heads: Vec<(Option<Position>, Position, Topic)>) {
        let active = self.lock();
        for (head, known, topic) in heads {
            let Some(active) = active.get(&topic) else { continue };
            active.lock().head(head, known);
            active.look.notify_one();
        }
    }

    /// Feeds one topic's log from the bus and from the journal until nobody follows it.
    async fn drive(self, topic: Topic, active: Arc<Active>, mut subscription: Subscription) {
        let shutdown = self.lifecycle.shutdown();
        loop {
            let gap = active.lock().log.gap();
            if let Some(after) = gap {
                self.fill(&topic, &active, after).await;
            }
            tokio::select! {
                () = shutdown.cancelled() => return self.put_down(&topic, &active),
                () = active.look.notified() => {
                    if self.is_idle(&topic, &active) {
                        return;
                    }
                }
                notice = subscription.next() => match notice {
                    Ok(Notice::Entry(entry)) => active.lock().entry(entry),
                    Ok(Notice::Ephemeral(json)) => {
                        let state = active.lock();
                        if let (Some(sender), Ok(json)) = (&state.sender, std::str::from_utf8(&json)) {
                            let _ = sender.send(Delivery::Ephemeral(frame::ephemeral(json)));
                        }
                    }
                    Err(shared::bus::Lost) => self.look(&topic, &active).await,
                },
            }
        }
    }

    async fn fill(&self, topic: &Topic, active: &Active, after: i64) {
        let named = topic.clone();
        match self.store.read(move |reader| reader.entries(&named, after, PAGE)).await {
            Ok(page) => {
                let mut state = active.lock();
                if page.first().is_none_or(|first| first.position.seq != after + 1) {
                    // Retention was faster than we: followers start anew, and are told why.
                    state.sender = None;
                }
                for entry in page {
                    state.entry(entry);
                }
            }
            Err::<_, Error>(error) => {
                tracing::warn!(%topic, %error, "a gap was not read");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn look(&self, topic: &Topic, active: &Active) {
        let named = topic.clone();
        let known = active.lock().log.last();
        match self.store.read(move |reader| reader.head(&named)).await {
            Ok(head) => active.lock().head(head, known),
            Err::<_, Error>(error) => tracing::warn!(%topic, %error, "the log's end was not read"),
        }
    }

    /// Puts the topic down if nobody follows it. Joining takes the same lock, so nobody joins in between.
    fn is_idle(&self, topic: &Topic, active: &Arc<Active>) -> bool {
        let mut all = self.lock();
        let idle = !active.lock().has_followers();
        if idle && all.get(topic).is_some_and(|present| Arc::ptr_eq(present, active)) {
            all.remove(topic);
        }
        idle
    }

    fn put_down(&self, topic: &Topic, active: &Arc<Active>) {
        active.lock().sender = None;
        self.lock().remove(topic);
    }

    fn join(&self, topic: &Topic) -> Option<Follower> {
        self.lock().get(topic)?.join()
    }

    async fn head_or_new(&self, topic: &Topic) -> Result<Position, Error> {
        let named = topic.clone();
        if let Some(head) = self.store.read(move |reader| reader.head(&named)).await? {
            return Ok(head);
        }
        let named = topic.clone();
        self.store
            .write(move |tx| {
                tx.ensure(&named)?;
                tx.head(&named)?.ok_or(Error::Gone)
            })
            .await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Arc<Active>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    fn join(&self) -> Option<Follower> {
        let state = self.lock();
        let receiver = state.sender.as_ref()?.subscribe();
        Some(Follower { began: state.log.last(), receiver })
    }
}
