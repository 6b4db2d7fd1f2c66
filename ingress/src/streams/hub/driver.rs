//! Feeds the logs: with hints from the bus, with pages of the journal where hints are missing, and with the logs' ends,
//! asked for now and then.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use shared::{
    bus::{Lost, Notice, Subscription},
    journal::{Position, Topic},
    sabotage::Sabotage,
    store::Error,
};
use tokio::time::sleep;

use super::{super::frame::Frame, Active, Hub};

/// Entries read from the journal at once.
const PAGE: i64 = 256;
/// How far hints of several writers may overtake each other before what is missing is read from the journal.
const OVERTAKING: Duration = Duration::from_millis(20);
/// Reads of the logs' ends that were asked for at once are as far apart as this.
const HURRY: Duration = Duration::from_millis(50);
/// How long a store that failed is left alone.
const PAUSE: Duration = Duration::from_millis(200);

impl Hub {
    /// Asks for the end of every followed log in one read, every so often and whenever hints were lost, until shutdown:
    /// whatever hint was lost, its entry is found here.
    pub(crate) async fn poll(self, interval: Duration) {
        let shutdown = self.lifecycle.shutdown();
        loop {
            let pause = interval.mul_f64(rand::rng().random_range(0.75..1.0));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
                () = self.hurry.notified() => sleep(HURRY).await,
            }
            if self.sabotage != Some(Sabotage::NoHeadPoll) {
                self.compare().await;
            }
        }
    }

    /// Compares every followed log with the journal.
    async fn compare(&self) {
        let known = |active: &Arc<Active>| {
            let mut state = active.lock();
            state.ring.age();
            (state.log.last(), active.clone())
        };
        let all: Vec<(Position, Arc<Active>)> = self.lock().values().map(known).collect();
        if all.is_empty() {
            return;
        }
        let topics: Vec<Topic> = all.iter().map(|(_, active)| active.topic.clone()).collect();
        match self.store.read(move |reader| reader.heads(&topics)).await {
            Ok(heads) => {
                for (known, active) in all {
                    active.head(heads.get(&active.topic).copied(), known);
                    active.look.notify_one();
                }
            }
            Err::<_, Error>(error) => tracing::warn!(%error, "the logs' ends were not read"),
        }
    }

    /// Feeds one topic's log until nobody follows it.
    pub(super) async fn drive(self, active: Arc<Active>, mut subscription: Subscription) {
        let shutdown = self.lifecycle.shutdown();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = active.look.notified() => {
                    if self.is_idle(&active) {
                        return;
                    }
                }
                heard = subscription.next() => self.hear(&active, heard),
            }
            let complete = self.complete(&active, &mut subscription);
            if shutdown.run_until_cancelled(complete).await.is_none() {
                return;
            }
        }
    }

    fn hear(&self, active: &Active, heard: Result<Notice, Lost>) {
        match heard {
            Ok(Notice::Entry(entry)) => active.notice(entry),
            Ok(Notice::Ephemeral(json)) => {
                let mut state = active.lock();
                state.ring.push(Frame::ephemeral(&json));
                state.tell();
            }
            Err(Lost::Topic) if self.sabotage != Some(Sabotage::NoHeadPoll) => active.doubt(),
            Err(Lost::Topic) => {}
            Err(Lost::All) => self.hurry.notify_one(),
        }
    }

    /// Waits a little for what is missing, then reads it.
    async fn complete(&self, active: &Active, subscription: &mut Subscription) {
        if active.gap().is_none() {
            return;
        }
        let overtaken = sleep(OVERTAKING);
        tokio::pin!(overtaken);
        while let Some(after) = active.gap() {
            tokio::select! {
                biased;
                () = &mut overtaken => self.fill(active, after).await,
                heard = subscription.next() => self.hear(active, heard),
            }
        }
    }

    /// Reads a page behind the last entry that left. A log whose last entry the journal does not prove is over.
    async fn fill(&self, active: &Active, after: Position) {
        if self.sabotage == Some(Sabotage::NoGapFill) {
            return sleep(PAUSE).await;
        }
        let named = active.topic.clone();
        match self.store.read(move |reader| reader.follow(&named, after, PAGE)).await {
            Ok(Ok(page)) => active.page(after, page),
            Ok(Err(reason)) => {
                tracing::info!(topic = %active.topic, %reason, "a topic is followed anew");
                active.end();
            }
            Err::<_, Error>(error) => {
                tracing::warn!(topic = %active.topic, %error, "a gap was not read");
                sleep(PAUSE).await;
            }
        }
    }
}
