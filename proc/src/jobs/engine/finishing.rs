//! Ends of jobs, written together: whoever comes first writes for all of its owner's that end until the write begins.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::{
    ids::{JobId, UserId},
    journal::Topic,
    sabotage::Sabotage,
    store,
};
use tokio::sync::oneshot;

use super::{
    super::{
        JobContext,
        machine::Command,
        store::{End, Outcome, apply_all, end_all},
    },
    Engine,
};

/// Ends that wait to be written, by owner. There are at most as many as there are jobs that run.
#[derive(Clone, Debug, Default)]
pub(super) struct Finishing {
    waiting: Arc<Mutex<HashMap<UserId, Vec<Finish>>>>,
}

#[derive(Debug)]
struct Finish {
    id: JobId,
    command: Command,
    /// What it comes to if nobody else has changed the job.
    end: Option<End>,
    answer: oneshot::Sender<Outcome>,
}

impl Finishing {
    /// Adds an end, and says whether it is the first of its owner's, so that a write has to be begun.
    fn add(&self, owner: &UserId, finish: Finish) -> bool {
        let mut waiting = self.lock();
        if let Some(others) = waiting.get_mut(owner) {
            others.push(finish);
            return false;
        }
        waiting.insert(owner.clone(), vec![finish]);
        true
    }

    fn take(&self, owner: &UserId) -> Vec<Finish> {
        self.lock().remove(owner).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, Vec<Finish>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Writes how a job left its worker, in one transaction with others of its owner that end just now.
    pub(super) async fn finish(&self, context: &JobContext, command: Command) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let (id, owner) = (context.job().id, &context.job().owner);
        // What it did well it has come to the end of; else what it might still be doing counts for the next attempt.
        let succeeds = matches!(command, Command::Succeed { .. });
        let now = self.inner.tools.store.now();
        let known = context.known().filter(|_| succeeds);
        let end = known.and_then(|job| End::new(&job, command.clone(), now).ok());
        if self.inner.finishing.add(owner, Finish { id, command, end, answer }) {
            // In a task of its own, since others wait for it too.
            self.inner.tasks.spawn(self.clone().write_finishes(owner.clone()));
        }
        answered.await.map_err(|_| store::Error::Gone)?
    }

    /// Writes the ends of one owner's jobs.
    async fn write_finishes(self, owner: UserId) {
        let finishing = &self.inner.finishing;
        let taken: Arc<Mutex<Vec<Finish>>> = Arc::default();
        let (waiting, mine, log) = (finishing.clone(), taken.clone(), Topic::user(&owner));
        let of = owner.clone();
        let write = move |tx: &mut store::Tx<'_>| {
            // Done once more, it takes those along that came meanwhile.
            let mut mine = mine.lock().unwrap_or_else(PoisonError::into_inner);
            mine.extend(waiting.take(&of));
            let trusts = tx.sabotage != Some(Sabotage::NoFence);
            let (known, others): (Vec<_>, Vec<_>) =
                mine.drain(..).partition(|finish| finish.end.is_some() && trusts);
            let ends: Vec<&End> = known.iter().filter_map(|finish| finish.end.as_ref()).collect();
            let commands = others.iter().map(|finish| (finish.id, finish.command.clone()));
            let outcomes = [end_all(tx, &ends), apply_all(tx, commands.collect())];
            mine.extend(known.into_iter().chain(others));
            let [ended, applied] = outcomes;
            let mut outcomes = ended?;
            outcomes.extend(applied?);
            Ok::<_, store::Error>(outcomes)
        };
        let written = self.inner.tools.store.write_in(log, write).await;
        match written {
            Ok(outcomes) => {
                let taken =
                    std::mem::take(&mut *taken.lock().unwrap_or_else(PoisonError::into_inner));
                for (finish, outcome) in taken.into_iter().zip(outcomes) {
                    // Who asked waits, or the process goes.
                    let _ = finish.answer.send(outcome);
                }
            }
            // Nobody is answered, so each hears that it was not done, and comes again; those too for whom it was not begun.
            Err(error) => {
                tracing::warn!(%error, "ends of jobs could not be written");
                drop(finishing.take(&owner));
            }
        }
    }
}
