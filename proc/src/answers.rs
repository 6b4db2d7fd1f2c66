//! Answers to questions about a project: begun, written piece by piece into a log of their own, taken over when their
//! writer is lost.

mod asking;
mod events;
mod extractive;
mod figures;
mod grpc;
mod openai;
mod redaction;
mod store;
mod words;
mod writer;
mod writing;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use shared::{
    ids::{AnswerId, ProjectId, UserId},
    journal::Topic,
    lifecycle::Lifecycle,
    metrics::Metrics,
    store::{Error, Store, Tx},
    time::Timestamp,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use self::{
    asking::{Limits, Outcome, Question},
    events::{Reason, Whole},
    figures::Figures,
    store::{Answer, Pen},
    writing::Desk,
};
pub(crate) use self::{grpc::service, redaction::redact, writer::Writer};
use crate::{config::AnswersConfig, search::Retriever};

/// How often a writer says that it is there, and looks for answers of those that are not.
const LOOK: Duration = Duration::from_secs(2);
/// How long a writer that is not heard of keeps its answers.
const LEASE: Duration = Duration::from_secs(5);
/// Answers written at once; further ones are for another replica.
const AT_ONCE: usize = 256;
/// How long answers that were told to stop may take for that.
const STOPPING: Duration = Duration::from_secs(2);
/// How often old answers are deleted.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// All answers of this process; a clone is the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    desk: Desk,
    limits: Limits,
    max_age: Duration,
    /// This process, as the writer of answers.
    writer: Uuid,
    lifecycle: Lifecycle,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
    running: Mutex<HashMap<AnswerId, (Pen, CancellationToken)>>,
}

/// An answer as the API shows it.
struct Shown {
    json: String,
    project: ProjectId,
}

/// Why a question was not taken.
#[derive(Debug, thiserror::Error)]
enum Busy {
    /// As many answers as may are being written here, or the process is going away.
    #[error("this instance takes no further questions")]
    Here,
    #[error(transparent)]
    Store(#[from] Error),
}

impl Answers {
    pub(crate) fn new(
        store: Store,
        retriever: Retriever,
        writer: Writer,
        config: &AnswersConfig,
        lifecycle: Lifecycle,
        metrics: &Metrics,
    ) -> Self {
        let figures = Figures::default();
        figures.tell(metrics);
        let desk = Desk { store: store.clone(), retriever, writer, figures };
        let limits =
            Limits { at_once: config.answers_per_user, a_minute: config.answers_per_minute };
        let inner = Inner {
            store,
            desk,
            limits,
            max_age: config.answer_max_age,
            writer: Uuid::now_v7(),
            lifecycle,
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            running: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Begins to answer, or finds the answer that the same request began.
    async fn start(&self, question: Question) -> Result<Outcome, Busy> {
        let Inner { store, writer, limits, .. } = &*self.inner;
        if self.inner.lifecycle.is_closing() || self.inner.room.available_permits() == 0 {
            return Err(Busy::Here);
        }
        let (id, writer, limits) = (AnswerId::mint(), *writer, *limits);
        let asked = question.clone();
        let now = Timestamp::now();
        let outcome =
            store.write(move |tx| asking::start(tx, &asked, (id, writer), limits, now)).await?;
        if let Outcome::Started(id) = outcome {
            let answer = Answer { id, question, started_at: now, ended_at: None, passages: None };
            self.write(answer, Pen { id, writer, writers: 1 });
        }
        Ok(outcome)
    }

    /// Says what would come of asking, and does nothing.
    async fn check(&self, question: Question) -> Result<Outcome, Error> {
        let limits = self.inner.limits;
        let now = Timestamp::now();
        self.inner.store.read(move |reader| asking::verdict(reader, &question, limits, now)).await
    }

    /// Ends the owner's answer of this name and returns it; `None` if there is none.
    async fn cancel(&self, owner: &UserId, stream_id: &str) -> Result<Option<Shown>, Error> {
        let found = self.find(owner, stream_id).await?;
        let Some(answer) = found else { return Ok(None) };
        if answer.ended_at.is_none() {
            let id = answer.id;
            let cancel = self.inner.store.write_in(Topic::answer(id), move |tx| {
                store::cancel(tx, &answer, Timestamp::now())
            });
            if let Some(totals) = cancel.await? {
                self.inner.desk.figures.ended(Some(Reason::Cancelled), totals);
            }
            // If another process writes it, that one finds out with its next chunk or look.
            if let Some((_, stop)) = self.running().remove(&id) {
                stop.cancel();
            }
        }
        self.whole(owner, stream_id).await
    }

    /// Returns the owner's answer of this name as the API shows it.
    async fn whole(&self, owner: &UserId, stream_id: &str) -> Result<Option<Shown>, Error> {
        let (owner, stream_id) = (owner.clone(), stream_id.to_owned());
        self.inner
            .store
            .read(move |reader| {
                let Some(answer) = store::find(reader, &owner, &stream_id)? else {
                    return Ok(None);
                };
                let entries = store::entries(reader, answer.id)?;
                let json = Whole::json(&answer, &entries).map_err(|_| Error::Gone)?;
                Ok(Some(Shown { json, project: answer.question.asked.project_id }))
            })
            .await
    }

    async fn find(&self, owner: &UserId, stream_id: &str) -> Result<Option<Answer>, Error> {
        let (owner, stream_id) = (owner.clone(), stream_id.to_owned());
        self.inner.store.read(move |reader| store::find(reader, &owner, &stream_id)).await
    }

    /// Writes an answer in a task of its own.
    fn write(&self, answer: Answer, pen: Pen) {
        let Inner { desk, lifecycle, tasks, room, .. } = &*self.inner;
        let permit = room.clone().try_acquire_owned().ok();
        let stop = CancellationToken::new();
        self.running().insert(answer.id, (pen, stop.clone()));
        let running = desk.figures.begin(pen.writers == 1);
        // What nobody can go on with is given the time of the drain to end.
        let held = (!desk.writer.can_hand_over()).then(|| lifecycle.stream());
        let answers = self.clone();
        tasks.spawn(async move {
            answers.inner.desk.write(&answer, pen, &stop).await;
            let mut all = answers.running();
            if all.get(&answer.id).is_some_and(|(held, _)| *held == pen) {
                all.remove(&answer.id);
            }
            drop((all, running, held, permit));
        });
    }

    /// Keeps this process' answers and looks for those of lost ones, until the end; then gives back what is not finished.
    pub(crate) async fn run(self) {
        let Inner { store, desk, lifecycle, tasks, writer, .. } = &*self.inner;
        let writer = *writer;
        let stop =
            if desk.writer.can_hand_over() { lifecycle.closing() } else { lifecycle.shutdown() };
        loop {
            let pause = LOOK.mul_f64(rand::rng().random_range(0.75..1.0));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "answers were not looked after");
            }
        }
        tasks.close();
        for (_, stop) in self.running().values() {
            stop.cancel();
        }
        // One that hangs is dropped with the process, and refused whatever it writes once it is taken over.
        let _ = tokio::time::timeout(STOPPING, tasks.wait()).await;
        if let Err(error) = store.write(move |tx| store::release(tx, writer)).await {
            tracing::warn!(%error, "answers were not given back");
        }
    }

    async fn look(&self) -> Result<(), Error> {
        let Inner { store, lifecycle, writer, .. } = &*self.inner;
        let writer = *writer;
        if !self.running().is_empty() {
            let ours =
                store.write_lease(move |tx| store::renew(tx, writer, Timestamp::now())).await?;
            self.running().retain(|_, (pen, stop)| {
                let is_ours = ours.as_ref().is_none_or(|ours| ours.contains(pen));
                if !is_ours {
                    stop.cancel();
                }
                is_ours
            });
        }
        let now = Timestamp::now();
        let oldest = now.before(LEASE);
        let lost = store.read(move |reader| store::abandoned(reader, oldest)).await?;
        for id in lost {
            if lifecycle.is_closing() {
                break;
            }
            let take = store.write_in(Topic::answer(id), move |tx| {
                store::take_over(tx, id, writer, oldest, now)
            });
            if let Some((answer, pen)) = take.await? {
                tracing::info!(answer.id = %id, pen.writers, "an answer was taken over");
                self.write(answer, pen);
            }
        }
        Ok(())
    }

    /// Deletes answers that are old at `now`. Returns how many.
    pub(crate) async fn delete_old(&self, now: Timestamp) -> Result<usize, Error> {
        let Inner { store, max_age, .. } = &*self.inner;
        let oldest = now.before(*max_age);
        until_none(store, move |tx| store::forget(tx, oldest)).await
    }

    fn running(&self) -> MutexGuard<'_, HashMap<AnswerId, (Pen, CancellationToken)>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes all answers about a project. Returns how many.
pub(crate) async fn delete_of_project(store: &Store, project: ProjectId) -> Result<usize, Error> {
    until_none(store, move |tx| store::forget_project(tx, project)).await
}

/// Runs a step that deletes answers until it finds none. Returns how many there were.
async fn until_none(
    store: &Store,
    step: impl Fn(&mut Tx<'_>) -> Result<usize, Error> + Clone + Send + 'static,
) -> Result<usize, Error> {
    let mut deleted = 0;
    loop {
        match store.write(step.clone()).await? {
            0 => return Ok(deleted),
            answers => deleted += answers,
        }
    }
}

#[cfg(test)]
mod tests;
