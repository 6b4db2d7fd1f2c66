//! Keeps the lease under which this process has its jobs, and hears what becomes of them elsewhere.

use std::{collections::HashSet, future::pending, time::Duration};

use serde::Deserialize;
use shared::{
    bus::Notice,
    ids::{JobId, UserId},
    journal::Topic,
    store,
    time::Timestamp,
};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Error,
        machine::{Claim, Command},
        store::{apply, claims},
    },
    Engine, POLL,
};

/// How long after hints of several events it is looked for what of ours was cancelled, once for all that come meanwhile.
const LOOK: Duration = Duration::from_millis(50);

impl Engine {
    /// Begins to be heard of, and goes on with what earlier processes have left.
    pub(super) async fn take_over(&self) -> Result<(), Error> {
        // Where the database belongs to this process alone, whatever still runs in it has lost its worker.
        let embedded = self.inner.tools.store.is_embedded();
        let before = if embedded { Timestamp::from_ms(i64::MAX) } else { Timestamp::now() };
        let taken_over = self.reap(before).await?;
        if taken_over > 0 {
            tracing::info!(jobs = taken_over, "jobs of an earlier process go on");
        }
        let (worker, until) =
            (self.inner.worker, Timestamp::now().after(self.inner.config.proc_lease));
        let begin = move |tx: &mut store::Tx<'_>| {
            tx.ensure(&Topic::jobs())?;
            claims::renew(tx, worker, until)
        };
        self.inner.tools.store.write(begin).await.map_err(|error: store::Error| error)?;
        // What admins see of workers has this id.
        tracing::info!(worker.id = %worker, "jobs are taken");
        Ok(())
    }

    /// Keeps our lease, stops jobs that are no longer ours, and frees those of lost workers.
    pub(crate) async fn keep_leases(self, shutdown: CancellationToken) {
        let (store, worker) = (&self.inner.tools.store, self.inner.worker);
        let lease = self.inner.config.proc_lease;
        let mut tick = tokio::time::interval((lease / 3).min(POLL));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = None;
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            self.stop_lost().await;
            if renewed.is_some_and(|at: Instant| at.elapsed() < lease / 4) {
                continue;
            }
            let now = Timestamp::now();
            let renew = move |tx: &mut store::Tx<'_>| {
                claims::renew(tx, worker, now.after(lease))?;
                claims::forget(tx, now)
            };
            let kept = store.write_lease(renew).await;
            match kept.map_err(Error::Store) {
                Ok(()) => renewed = Some(Instant::now()),
                Err(error) => tracing::warn!(%error, "the lease was not renewed"),
            }
            if let Err(error) = self.reap(now).await {
                tracing::warn!(%error, "jobs of lost workers were not freed");
            }
        }
    }

    /// Hears of jobs that can start and of jobs that were cancelled, wherever that was. Beneath it both are looked for
    /// each second, so a lost hint costs time and nothing else.
    pub(crate) async fn listen(self, shutdown: CancellationToken) {
        let mut notices = self.inner.tools.bus.subscribe(&Topic::jobs());
        let mut look_at = None;
        loop {
            let look = async {
                match look_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let notice = tokio::select! {
                () = shutdown.cancelled() => return,
                () = look => {
                    look_at = None;
                    self.stop_lost().await;
                    continue;
                }
                notice = notices.next() => notice,
            };
            match notice {
                Ok(Notice::Entry(entry)) => match &*entry.kind {
                    "job.queued" | "job.interrupted" => self.wake(),
                    "job.cancelled" => {
                        if let Ok(told) = serde_json::from_str::<Told>(&entry.data) {
                            self.stop(told.job.id);
                        }
                    }
                    _ => {}
                },
                Ok(Notice::Ephemeral(_)) => {}
                Err(_) => {
                    self.wake();
                    look_at.get_or_insert(Instant::now() + LOOK);
                }
            }
        }
    }

    /// Stops jobs that are no longer ours.
    async fn stop_lost(&self) {
        // Looked at first: what is claimed afterwards is not missed in the answer.
        let before: Vec<JobId> = self.running(|running| running.keys().copied().collect());
        if before.is_empty() {
            return;
        }
        if let Ok(held) = self.held().await {
            let ours: HashSet<JobId> = held.into_iter().map(|(id, ..)| id).collect();
            before.into_iter().filter(|id| !ours.contains(id)).for_each(|id| self.stop(id));
        }
    }

    /// Gives back jobs that are ours and that we know nothing of: the answer to their claim was lost. Nothing may be
    /// claimed meanwhile.
    pub(in super::super) async fn hand_back_unknown(&self) -> Result<(), Error> {
        let nothing_begins = self.inner.beginning.write().await;
        let held = self.held().await?;
        drop(nothing_begins);
        for (id, owner, claim) in held {
            if self.running(|running| running.contains_key(&id)) {
                continue;
            }
            match self.apply(&owner, id, Command::HandBack { claim }).await {
                Ok(_) => tracing::info!(job.id = %id, "job was claimed unknowingly, handed back"),
                // It ended just now.
                Err(Error::Refused(_) | Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn held(&self) -> Result<Vec<(JobId, UserId, Claim)>, store::Error> {
        let worker = self.inner.worker;
        self.inner.tools.store.read(move |reader| claims::of_worker(reader, worker)).await
    }

    /// Takes jobs from workers whose lease ended before `now`, and returns how many.
    pub(in super::super) async fn reap(&self, now: Timestamp) -> Result<usize, Error> {
        let store = &self.inner.tools.store;
        let lost = store.read(move |reader| claims::lost(reader, now)).await;
        let mut reaped = 0;
        for (id, owner, claim) in lost.map_err(|error: store::Error| error)? {
            let lose = move |tx: &mut store::Tx<'_>| apply(tx, id, Command::Lose { claim });
            match store.write_in(Topic::user(&owner), lose).await {
                Ok(_) => reaped += 1,
                // Another was first.
                Err(Error::Refused(_) | Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(reaped)
    }
}

/// What is read of an event.
#[derive(Deserialize)]
struct Told {
    job: ToldJob,
}

#[derive(Deserialize)]
struct ToldJob {
    id: JobId,
}
