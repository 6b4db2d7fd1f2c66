//! Ends of jobs, written together: whoever comes first writes for all who came meanwhile.

use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use shared::{
    ids::{JobId, UserId},
    journal::Topic,
    store,
};
use tokio::sync::oneshot;

use super::{
    super::{
        Error,
        machine::{Command, Job},
        store::apply_all,
    },
    Engine,
};

/// Ends that wait to be written. There are at most as many as there are jobs that run.
#[derive(Debug, Default)]
pub(super) struct Finishing {
    waiting: Mutex<Vec<Finish>>,
    /// Held by whoever writes.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Finish {
    owner: UserId,
    id: JobId,
    command: Command,
    answer: oneshot::Sender<Result<Job, Error>>,
}

impl Engine {
    /// Writes how a job left its worker, in one transaction with others of its owner that end just now.
    pub(super) async fn finish(
        &self,
        owner: &UserId,
        id: JobId,
        command: Command,
    ) -> Result<Job, Error> {
        let Finishing { waiting, turn } = &self.inner.finishing;
        let (answer, mut answered) = oneshot::channel();
        let finish = Finish { owner: owner.clone(), id, command, answer };
        waiting.lock().unwrap_or_else(PoisonError::into_inner).push(finish);
        let turn = turn.lock().await;
        if let Ok(outcome) = answered.try_recv() {
            return outcome;
        }
        // Those that are about to end come along.
        tokio::task::yield_now().await;
        let mut all = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
        all.sort_by(|one, other| one.owner.as_str().cmp(other.owner.as_str()));
        let mut writes = Vec::new();
        while let Some(last) = all.last() {
            let first = all.partition_point(|finish| finish.owner.as_str() < last.owner.as_str());
            writes.push(self.write_finishes(all.split_off(first)));
        }
        join_all(writes).await;
        drop(turn);
        answered.await.map_err(|_| store::Error::Gone)?
    }

    /// Writes the ends of one owner's jobs.
    async fn write_finishes(&self, finishes: Vec<Finish>) {
        let Some(owner) = finishes.first().map(|finish| finish.owner.clone()) else { return };
        let commands: Vec<_> =
            finishes.iter().map(|finish| (finish.id, finish.command.clone())).collect();
        let log = Topic::user(&owner);
        let write = move |tx: &mut store::Tx<'_>| apply_all(tx, commands.clone());
        match self.inner.tools.store.write_in(log, write).await {
            Ok(outcomes) => {
                for (finish, outcome) in finishes.into_iter().zip(outcomes) {
                    // Who asked waits, or the process goes.
                    let _ = finish.answer.send(outcome);
                }
            }
            // Nobody is answered, so each hears that it was not done, and comes again.
            Err(error) => tracing::warn!(%error, "ends of jobs could not be written"),
        }
    }
}
