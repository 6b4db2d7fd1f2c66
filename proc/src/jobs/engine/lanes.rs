//! Lanes: the workers of a process by what they do. Deliveries to webhooks wait for receivers most of their time, so they
//! have workers of their own, and no receiver that hangs holds up a job. Within a lane a reserve is kept for owners of whom
//! nothing runs here, so that nobody's long jobs keep all others waiting.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::ids::UserId;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use super::IDLE_POLL;
use crate::webhooks;

/// Deliveries that run at once for each worker of other jobs.
const DELIVERIES_PER_WORKER: usize = 4;

/// Returns how many deliveries a process with so many workers makes at once.
pub(crate) fn deliveries_at_once(workers: NonZeroUsize) -> usize {
    workers.get().saturating_mul(DELIVERIES_PER_WORKER)
}

/// Kind of jobs that a lane runs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// All but deliveries.
    Jobs,
    /// Deliveries to webhooks.
    Deliveries,
}

impl Kind {
    pub(super) fn of(bundle: &str) -> Self {
        if bundle == webhooks::BUNDLE { Self::Deliveries } else { Self::Jobs }
    }
}

/// Workers of one kind; a clone is the same lane.
#[derive(Clone, Debug)]
pub(in super::super) struct Lane {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    /// A permit for each job that may run here, whoever owns it.
    open: Arc<Semaphore>,
    /// A permit for each job beyond them that may run here for an owner of whom nothing does.
    reserve: Arc<Semaphore>,
    /// Number of jobs of each owner that run here.
    running: Mutex<HashMap<UserId, usize>>,
    wake: Notify,
}

/// Place of one job in its lane, free again when dropped.
#[derive(Debug)]
pub(in super::super) struct Slot {
    lane: Lane,
    owner: UserId,
    _permit: OwnedSemaphorePermit,
}

/// Number of jobs that a lane could take now.
#[derive(Copy, Clone, Debug)]
pub(in super::super) struct Room {
    pub(in super::super) open: usize,
    pub(super) reserve: usize,
}

impl Lane {
    pub(super) fn new(kind: Kind, workers: NonZeroUsize) -> Self {
        let open = match kind {
            Kind::Jobs => workers.get(),
            Kind::Deliveries => deliveries_at_once(workers),
        };
        let permits = |number: usize| Arc::new(Semaphore::new(number.min(Semaphore::MAX_PERMITS)));
        let inner = Inner {
            kind,
            open: permits(open),
            reserve: permits((open / 2).max(1)),
            running: Mutex::default(),
            wake: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn kind(&self) -> Kind {
        self.inner.kind
    }

    pub(in super::super) fn room(&self) -> Room {
        let Inner { open, reserve, .. } = &*self.inner;
        Room { open: open.available_permits(), reserve: reserve.available_permits() }
    }

    /// Returns whether nothing of the owner runs here.
    pub(in super::super) fn is_idle(&self, owner: &UserId) -> bool {
        !self.lock().contains_key(owner)
    }

    /// Takes at most `most` places for jobs of an owner: open ones, or one of the reserve for whom nothing runs here.
    pub(in super::super) fn take(&self, owner: &UserId, most: usize) -> Vec<Slot> {
        let Inner { open, reserve, .. } = &*self.inner;
        let mut running = self.lock();
        let mut permits = Vec::new();
        while permits.len() < most {
            let is_first = permits.is_empty() && !running.contains_key(owner);
            let permit = open.clone().try_acquire_owned().or_else(|none| {
                if is_first { reserve.clone().try_acquire_owned() } else { Err(none) }
            });
            match permit {
                Ok(permit) => permits.push(permit),
                Err(_) => break,
            }
        }
        if !permits.is_empty() {
            *running.entry(owner.clone()).or_default() += permits.len();
        }
        drop(running);
        let slot = |permit| Slot { lane: self.clone(), owner: owner.clone(), _permit: permit };
        permits.into_iter().map(slot).collect()
    }

    /// Waits until there is room: an open place at once, and one of the reserve after a moment, since only owners of whom
    /// nothing runs here may have that.
    pub(super) async fn has_room(&self) {
        let Inner { open, reserve, .. } = &*self.inner;
        let any_of_the_reserve = async {
            sleep(IDLE_POLL).await;
            reserve.acquire().await
        };
        // A place is waited for and not taken yet: jobs that begin as they are made may have it meanwhile.
        tokio::select! {
            permit = open.acquire() => drop(permit),
            permit = any_of_the_reserve => drop(permit),
        }
    }

    pub(super) fn wake(&self) {
        self.inner.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.inner.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut running = self.lane.lock();
        if let Some(count) = running.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.owner);
            }
        }
        drop(running);
        // Deliveries of an owner share places, so the end of one lets the next begin.
        if self.lane.kind() == Kind::Deliveries {
            self.lane.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    #[test]
    fn the_reserve_is_for_owners_of_whom_nothing_runs() {
        let lane = Lane::new(Kind::Jobs, NonZeroUsize::new(2).unwrap());
        let (ada, grace, linus) = (user("ada"), user("grace"), user("linus"));
        let adas = lane.take(&ada, 10);
        assert_eq!(adas.len(), 2, "one owner may have every open place");
        assert!(lane.take(&ada, 1).is_empty());
        let graces = lane.take(&grace, 10);
        assert_eq!(graces.len(), 1, "another gets the reserve");
        assert!(lane.take(&linus, 1).is_empty());
        drop(graces);
        assert_eq!(lane.take(&linus, 1).len(), 1);
        drop(adas);
        assert!(lane.is_idle(&ada));
        assert_eq!(lane.take(&ada, 10).len(), 2);
    }
}
