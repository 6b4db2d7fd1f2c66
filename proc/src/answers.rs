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
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use shared::{
    ids::{AnswerId, ProjectId, UserId},
    journal::{Lease, Topic},
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

/// Interval at which a writer looks for answers without a writer.
const LOOK: Duration = Duration::from_secs(2);
/// Length of a writer's lease: answers of one that was not heard of for so long are taken over.
const WRITER_LEASE: Duration = Duration::from_secs(5);
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
    lease: Lease,
    lifecycle: Lifecycle,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
    running: Mutex<HashMap<AnswerId, (Pen, CancellationToken)>>,
    /// Answers that may be in the database already and are not among the running ones yet.
    starting: Mutex<HashSet<AnswerId>>,
}

/// An answer on its way to be a running one.
struct Starting {
    answers: Answers,
    id: AnswerId,
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.answers.starting().remove(&self.id);
    }
}

/// A running answer; dropped when its task ends, by a panic too.
struct Running {
    answers: Answers,
    pen: Pen,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut all = self.answers.running();
        if all.get(&self.pen.id).is_some_and(|(held, _)| *held == self.pen) {
            all.remove(&self.pen.id);
        }
    }
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
        let lease = Lease::new(&store, WRITER_LEASE);
        let desk = Desk { store: store.clone(), lease: lease.clone(), retriever, writer, figures };
        let limits =
            Limits { at_once: config.answers_per_user, a_minute: config.answers_per_minute };
        let inner = Inner {
            store,
            desk,
            limits,
            max_age: config.answer_max_age,
            writer: Uuid::now_v7(),
            lease,
            lifecycle,
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            running: Mutex::default(),
            starting: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Begins to answer, or finds the answer that the same request began.
    async fn start(&self, question: Question) -> Result<Outcome, Busy> {
        if self.inner.lifecycle.is_closing() || self.inner.room.available_permits() == 0 {
            return Err(Busy::Here);
        }
        // In a task of its own: a caller that goes away leaves no answer which is begun and not written.
        let begin = self.clone().begin(question);
        self.inner.tasks.spawn(begin).await.map_err(|_| Error::Gone)?
    }

    async fn begin(self, question: Question) -> Result<Outcome, Busy> {
        let Inner { store, writer, limits, lease, .. } = &*self.inner;
        if !lease.is_held() {
            self.renew().await?;
        }
        let (id, writer, limits, now) = (AnswerId::mint(), *writer, *limits, store.now());
        self.starting().insert(id);
        let starting = Starting { answers: self.clone(), id };
        let asked = question.clone();
        let outcome =
            store.write(move |tx| asking::start(tx, &asked, (id, writer), limits, now)).await?;
        if let Outcome::Started(id) = outcome {
            let answer = Answer { id, question, started_at: now, ended_at: None, passages: None };
            self.write(answer, Pen { id, writer, writers: 1 });
        }
        drop(starting);
        Ok(outcome)
    }

    /// Says what would come of asking, and does nothing.
    async fn check(&self, question: Question) -> Result<Outcome, Error> {
        let limits = self.inner.limits;
        let now = self.inner.store.now();
        self.inner.store.read(move |reader| asking::verdict(reader, &question, limits, now)).await
    }

    /// Ends the owner's answer of this name and returns it; `None` if there is none.
    async fn cancel(&self, owner: &UserId, stream_id: &str) -> Result<Option<Shown>, Error> {
        let found = self.find(owner, stream_id).await?;
        let Some(answer) = found else { return Ok(None) };
        if answer.ended_at.is_none() {
            let id = answer.id;
            let cancel = self
                .inner
                .store
                .write_in(Topic::answer(id), move |tx| store::cancel(tx, &answer, tx.now()));
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
        let ends = Running { answers: self.clone(), pen };
        tasks.spawn(async move {
            ends.answers.inner.desk.write(&answer, pen, &stop).await;
            drop((ends, running, held, permit));
        });
    }

    /// Keeps this process's answers and takes over those of lost writers, until the end; then gives back what is not
    /// finished.
    pub(crate) async fn run(self) {
        let Inner { store, desk, lifecycle, tasks, writer, .. } = &*self.inner;
        let writer = *writer;
        let stop =
            if desk.writer.can_hand_over() { lifecycle.closing() } else { lifecycle.shutdown() };
        tokio::join!(self.keep_lease(&stop), self.look_for_abandoned(&stop));
        tasks.close();
        for (_, stop) in self.running().values() {
            stop.cancel();
        }
        // One that hangs is dropped with the process, and refused whatever it writes once it is taken over.
        let _ = tokio::time::timeout(STOPPING, tasks.wait()).await;
        let release = move |tx: &mut Tx<'_>| store::release(tx, writer);
        if let Err::<_, Error>(error) = store.write(release).await {
            tracing::warn!(%error, "failed to give the process's answers back");
        }
    }

    async fn keep_lease(&self, stop: &CancellationToken) {
        let Inner { store, lease, .. } = &*self.inner;
        let mut tick = tokio::time::interval(lease.interval());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            // Where nobody else can take over, an idle process has nothing to keep.
            let is_idle = self.running().is_empty() && self.starting().is_empty();
            if is_idle && store.is_embedded() {
                continue;
            }
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, "failed to renew the lease on answers");
            }
        }
    }

    /// Renews the writer's lease, and stops answers that are no longer its own before the others go on.
    async fn renew(&self) -> Result<(), Error> {
        let Inner { writer, lease, .. } = &*self.inner;
        let (writer, length) = (*writer, lease.length());
        let renew =
            move |tx: &mut Tx<'_>, now: Timestamp| store::renew(tx, writer, now.after(length));
        // Answers that begin meanwhile are not missed in what the renewal finds.
        let before: Vec<Pen> = self.running().values().map(|(pen, _)| *pen).collect();
        let renewal = lease.renew(None, renew).await?;
        if let Some(ours) = &renewal.outcome {
            let mut running = self.running();
            for lost in before.iter().filter(|pen| !ours.contains(pen)) {
                if running.get(&lost.id).is_some_and(|(pen, _)| pen == lost)
                    && let Some((_, stop)) = running.remove(&lost.id)
                {
                    stop.cancel();
                }
            }
        }
        renewal.confirm();
        Ok(())
    }

    async fn look_for_abandoned(&self, stop: &CancellationToken) {
        loop {
            let pause = LOOK.mul_f64(rand::rng().random_range(0.75..1.0));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            if let Err(error) = self.take_abandoned().await {
                tracing::warn!(%error, "failed to look for answers that nobody writes");
            }
        }
    }

    /// Begins to write answers that are this process's and that it does not write, and those of lost writers.
    async fn take_abandoned(&self) -> Result<(), Error> {
        let Inner { store, lifecycle, lease, writer, .. } = &*self.inner;
        let writer = *writer;
        let held = store.read(move |reader| store::held(reader, writer)).await?;
        for pen in held {
            // A write whose outcome nobody knows, or a task that broke, has left it.
            let id = pen.id;
            // In this order, since an answer that starts comes to be a running one.
            if self.starting().contains(&id) || self.running().contains_key(&id) {
                continue;
            }
            let take = move |tx: &mut Tx<'_>| store::take_again(tx, pen);
            self.go_on(store.write_in(Topic::answer(id), take).await?);
        }
        let may_take_over = store.is_embedded() || lease.may_take_over();
        if !may_take_over || lifecycle.is_closing() {
            return Ok(());
        }
        let lost = store.read(|reader| store::abandoned(reader, reader.now())).await?;
        if !lost.is_empty() && !lease.is_held() {
            self.renew().await?;
        }
        for id in lost {
            if lifecycle.is_closing() {
                break;
            }
            let take = move |tx: &mut Tx<'_>| store::take_over(tx, id, writer, tx.now());
            self.go_on(store.write_in(Topic::answer(id), take).await?);
        }
        Ok(())
    }

    fn go_on(&self, taken: Option<(Answer, Pen)>) {
        if let Some((answer, pen)) = taken {
            tracing::info!(answer.id = %pen.id, pen.writers, "an answer was taken over");
            self.write(answer, pen);
        }
    }

    /// Deletes answers that are old at `now`. Returns how many.
    pub(crate) async fn delete_old(&self, now: Timestamp) -> Result<usize, Error> {
        let Inner { store, max_age, .. } = &*self.inner;
        let oldest = now.before(*max_age);
        store.write(move |tx| store::forget_writers(tx, oldest)).await?;
        until_none(store, move |tx| store::forget(tx, oldest)).await
    }

    fn running(&self) -> MutexGuard<'_, HashMap<AnswerId, (Pen, CancellationToken)>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn starting(&self) -> MutexGuard<'_, HashSet<AnswerId>> {
        self.inner.starting.lock().unwrap_or_else(PoisonError::into_inner)
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
