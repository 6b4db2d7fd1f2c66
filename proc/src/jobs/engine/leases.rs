//! Keeps the lease under which this process has its jobs, and hears what becomes of them elsewhere.

use std::{collections::HashSet, future::pending, sync::atomic::Ordering, time::Duration};

use serde::Deserialize;
use shared::{
    bus::Notice,
    ids::{JobId, UserId},
    journal::Topic,
    store,
    time::Timestamp,
};
use tokio::time::{Instant, MissedTickBehavior, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Error,
        machine::{Claim, Command},
        store::{apply, claims},
    },
    Engine, Inner, POLL,
};

/// How long after hints of several events it is looked for what of ours was cancelled, once for all that come meanwhile.
const LOOK: Duration = Duration::from_millis(50);

impl Engine {
    /// Begins to be heard of, and goes on with what earlier processes have left.
    pub(super) async fn take_over(&self) -> Result<(), Error> {
        // Where the database belongs to this process alone, whatever still runs in it has lost its worker.
        if self.inner.tools.store.is_embedded() {
            let taken_over = self.reap(Timestamp::from_ms(i64::MAX)).await?;
            if taken_over > 0 {
                tracing::info!(jobs = taken_over, "jobs of an earlier process go on");
            }
        }
        let Inner { worker, lease, .. } = &*self.inner;
        let (worker, length) = (*worker, lease.length());
        let begin = move |tx: &mut store::Tx<'_>, now: Timestamp| {
            tx.ensure(&Topic::jobs())?;
            claims::renew(tx, worker, now.after(length))
        };
        let renewal = lease.renew(None, begin).await;
        renewal.map_err(|error: store::Error| error)?.confirm();
        // What admins see of workers has this id.
        tracing::info!(worker.id = %worker, "jobs are taken");
        Ok(())
    }

    /// Renews the worker's lease, stops jobs that are no longer its own, and frees those of lost workers.
    pub(crate) async fn keep_leases(self, shutdown: CancellationToken) {
        let Inner { tools, lease, .. } = &*self.inner;
        let mut tick = tokio::time::interval(lease.interval().min(POLL));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = None;
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            if renewed.is_none_or(|at: Instant| at.elapsed() >= lease.interval()) {
                let sent = Instant::now();
                match self.renew().await {
                    Ok(()) => renewed = Some(sent),
                    Err(error) => tracing::warn!(%error, "failed to renew the worker's lease"),
                }
                if lease.may_take_over()
                    && let Err(error) = self.reap(tools.store.now()).await
                {
                    tracing::warn!(%error, "failed to free the jobs of lost workers");
                }
            }
            if let Err(error) = self.stop_lost().await {
                tracing::warn!(%error, "failed to look for jobs that others have taken");
            }
        }
    }

    async fn renew(&self) -> Result<(), Error> {
        let Inner { worker, lease, .. } = &*self.inner;
        let (worker, length, forgets) = (*worker, lease.length(), lease.may_take_over());
        let renew = move |tx: &mut store::Tx<'_>, now: Timestamp| {
            claims::renew(tx, worker, now.after(length))?;
            if forgets {
                claims::forget(tx, now)?;
            }
            Ok::<_, store::Error>(())
        };
        let renewal = lease.renew(None, renew).await?;
        if !lease.is_held() {
            // Jobs that others took meanwhile stop before the others go on.
            self.stop_lost().await?;
        }
        renewal.confirm();
        Ok(())
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
                    if let Err(error) = self.stop_lost().await {
                        tracing::warn!(%error, "failed to look for jobs that others have taken");
                    }
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
    async fn stop_lost(&self) -> Result<(), store::Error> {
        // Looked at first: what is claimed afterwards is not missed in the answer.
        let before: Vec<_> = self.running(|running| running.keys().copied().collect());
        if before.is_empty() {
            return Ok(());
        }
        let held = self.held().await?.into_iter();
        let ours: HashSet<_> = held.map(|(id, _, claim)| (id, claim.fence)).collect();
        self.running(|running| {
            let lost = before.iter().filter(|attempt| !ours.contains(attempt));
            lost.filter_map(|attempt| running.get(attempt)).for_each(CancellationToken::cancel);
        });
        Ok(())
    }

    /// Hands back jobs whose claim was not answered, whenever there may be some, until shutdown.
    pub(super) async fn hand_back_when_unclear(&self, shutdown: &CancellationToken) {
        let unclear = &self.inner.unclear;
        while shutdown.run_until_cancelled(sleep(POLL)).await.is_some() {
            if unclear.swap(false, Ordering::Relaxed)
                && let Err(error) = self.hand_back_unknown().await
            {
                tracing::warn!(%error, "failed to hand back jobs that were claimed unknowingly");
                unclear.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Gives back jobs that are ours and that we know nothing of: the answer to their claim was lost. Nothing may be
    /// claimed meanwhile.
    pub(in super::super) async fn hand_back_unknown(&self) -> Result<(), Error> {
        let nothing_begins = self.inner.beginning.write().await;
        let held = self.held().await?;
        drop(nothing_begins);
        for (id, owner, claim) in held {
            if self.running(|running| running.contains_key(&(id, claim.fence))) {
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
