//! Presence of users: which of their streams are open on this replica, and the rows that all replicas share.
//!
//! A row belongs to the replica that announced the user last. That replica takes the user out when the last stream has been
//! closed for the grace; other replicas do so only when the owner of the row is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use shared::{
    bus::{Bus, Notice},
    ids::{ProjectId, TraceId, UserId},
    store::Store,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{PresenceEvent, Presentness, UserPresence, rows};
use crate::{
    access::{As, Caller, Viewer},
    error::ApiError,
    replica::Replica,
};

/// Changes of one project that one transaction writes.
const BATCH: usize = 256;
/// Interval of the sweep: users of lost replicas go, users whose row is missing are announced again.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which graces are checked.
const GRACE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
const MIN_GRACE_CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Span for which a long poll counts as being present.
const POLL_PRESENCE: Duration = Duration::from_secs(30);
/// Interval at which long polls make the row this replica's again, as each may reach another replica.
const POLL_ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(10);

/// Presence of the users of this replica; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    bus: Bus,
    replica: Replica,
    grace: Duration,
    here: Mutex<BTreeMap<Key, Local>>,
    /// Unbounded, since a stream that closes cannot wait; a stream causes at most two changes.
    changes: mpsc::UnboundedSender<Change>,
}

type Key = (ProjectId, UserId);

/// Streams of one user in one project on this replica.
#[derive(Debug)]
struct Local {
    count: usize,
    /// Moment at which a user without a stream is taken out.
    leaves_at: Instant,
    /// Moment of the last announcement, which made the row this replica's.
    announced_at: Instant,
}

impl Local {
    fn at(now: Instant) -> Self {
        Self { count: 0, leaves_at: now, announced_at: now }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.count == 0 && self.leaves_at <= now
    }
}

/// Change of a user's presence that a transaction has to write.
#[derive(Clone, Debug)]
enum Change {
    /// The first stream after an absence: the user is online, whatever the row says.
    Came(Caller),
    /// A stream within the grace, or a row that is missing: the state that the row has is kept.
    Stayed(Caller),
    Went(Caller),
}

impl Change {
    fn caller(&self) -> &Caller {
        let (Self::Came(caller) | Self::Stayed(caller) | Self::Went(caller)) = self;
        caller
    }
}

/// Part of an open stream in its user's presence, given up when dropped.
#[derive(Debug)]
pub(crate) struct Here {
    presence: Presence,
    key: Key,
}

/// Task that writes changes and sweeps.
#[derive(Debug)]
pub(crate) struct Keeper {
    presence: Presence,
    changes: mpsc::UnboundedReceiver<Change>,
}

impl Presence {
    pub(crate) fn new(store: Store, bus: Bus, replica: Replica, grace: Duration) -> (Self, Keeper) {
        let (sender, changes) = mpsc::unbounded_channel();
        let inner = Inner { store, bus, replica, grace, here: Mutex::default(), changes: sender };
        let presence = Self { inner: Arc::new(inner) };
        (presence.clone(), Keeper { presence, changes })
    }

    /// Counts one more stream of the caller. A user who had none is announced.
    pub(crate) fn enter(&self, caller: Caller) -> Here {
        let key = (caller.project, caller.user.clone());
        let now = Instant::now();
        let mut here = self.lock();
        let was_here = here.contains_key(&key);
        let local = here.entry(key.clone()).or_insert_with(|| Local::at(now));
        if local.count == 0 {
            local.announced_at = now;
            self.announce(caller, was_here);
        }
        local.count += 1;
        drop(here);
        Here { presence: self.clone(), key }
    }

    /// Counts a long poll of the caller, which makes the user present for a while.
    pub(crate) fn poll(&self, caller: &Caller) {
        let key = (caller.project, caller.user.clone());
        let now = Instant::now();
        let mut here = self.lock();
        let was_here = here.contains_key(&key);
        let local = here.entry(key).or_insert_with(|| Local::at(now));
        local.leaves_at = local.leaves_at.max(now + POLL_PRESENCE);
        let is_due = now.duration_since(local.announced_at) >= POLL_ANNOUNCEMENT_INTERVAL;
        if !was_here || (local.count == 0 && is_due) {
            local.announced_at = now;
            self.announce(caller.clone(), was_here);
        }
    }

    fn announce(&self, caller: Caller, was_here: bool) {
        let change = if was_here { Change::Stayed(caller) } else { Change::Came(caller) };
        let _ = self.inner.changes.send(change);
    }

    /// Writes the state that the caller chose. Without a stream it holds for the grace, as nothing would end it.
    pub(super) async fn set(
        &self,
        viewer: &As<Viewer>,
        state: Presentness,
    ) -> Result<UserPresence, ApiError> {
        let replica = self.inner.replica.id();
        let (new, presence) = viewer
            .write(move |tx, caller| {
                let new = rows::set(tx, caller, replica, state, tx.now())?;
                Ok((new, rows::get(tx, caller)?))
            })
            .await?;
        if let Some(new) = new {
            self.publish(viewer, &new);
        }
        let now = Instant::now();
        let key = (viewer.project, viewer.user.clone());
        self.lock()
            .entry(key)
            .or_insert_with(|| Local { leaves_at: now + self.inner.grace, ..Local::at(now) });
        presence.ok_or(ApiError::NotFound("the user"))
    }

    /// Takes out users whose grace is over at `now`.
    fn expire(&self, now: Instant) {
        let mut here = self.lock();
        for ((project, user), _) in here.extract_if(.., |_, local| local.is_over(now)) {
            self.take_out(project, user);
        }
    }

    fn take_out(&self, project: ProjectId, user: UserId) {
        let caller = Caller { project, user, trace: TraceId::mint() };
        let _ = self.inner.changes.send(Change::Went(caller));
    }

    fn publish(&self, caller: &Caller, presence: &UserPresence) {
        match caller.event("user.presence", &PresenceEvent { presence }, self.inner.store.now()) {
            Ok(event) => {
                self.inner.bus.publish(&caller.topic(), Notice::Ephemeral(event.into()));
            }
            Err(error) => tracing::error!(%error, "failed to encode a presence event"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Local>> {
        self.inner.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let grace = self.presence.inner.grace;
        let mut here = self.presence.lock();
        if let Some(local) = here.get_mut(&self.key) {
            local.count = local.count.saturating_sub(1);
            if local.count == 0 {
                local.leaves_at = local.leaves_at.max(Instant::now() + grace);
            }
        }
    }
}

impl Keeper {
    /// Writes changes and sweeps until shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let period = self.presence.inner.grace;
        let mut graces = interval(period.clamp(MIN_GRACE_CHECK_INTERVAL, GRACE_CHECK_INTERVAL));
        graces.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = interval(SWEEP_INTERVAL.mul_f64(rand::rng().random_range(0.8..1.2)));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                () = shutdown.cancelled() => return,
                now = graces.tick() => self.presence.expire(now),
                _ = sweep.tick() => self.sweep().await,
                _ = self.changes.recv_many(&mut batch, BATCH) => self.write_all(batch).await,
            }
        }
    }

    /// Writes changes, those of each project in one transaction.
    async fn write_all(&self, batch: Vec<Change>) {
        let mut projects = BTreeMap::<ProjectId, Vec<Change>>::new();
        for change in batch {
            projects.entry(change.caller().project).or_default().push(change);
        }
        for changes in projects.into_values() {
            self.write(changes).await;
        }
    }

    /// Writes changes of one project in order and publishes what is new. The next sweep makes up for a failure.
    async fn write(&self, changes: Vec<Change>) {
        let Some(topic) = changes.first().map(|change| change.caller().topic()) else { return };
        let replica = self.presence.inner.replica.clone();
        let written = self.presence.inner.store.write_in(topic, move |tx| {
            let (replica, now, oldest) = (replica.id(), tx.now(), replica.oldest(tx.now()));
            let mut news = Vec::new();
            for change in &changes {
                let new = match change {
                    Change::Came(caller) => rows::come(tx, caller, replica, now)?,
                    Change::Stayed(caller) => rows::stay(tx, caller, replica, now)?,
                    Change::Went(caller) => {
                        rows::leave(tx, caller, replica, oldest)?.then(|| UserPresence {
                            user: caller.user.clone(),
                            state: Presentness::Offline,
                            since: now,
                        })
                    }
                };
                news.extend(new.map(|new| (change.caller().clone(), new)));
            }
            Ok::<_, shared::store::Error>(news)
        });
        match written.await {
            Ok(news) => {
                for (caller, presence) in news {
                    self.presence.publish(&caller, &presence);
                }
            }
            Err(error) => tracing::warn!(%error, "failed to write presence"),
        }
    }

    /// Takes out users whose replica is gone, and announces users of this replica who have no row.
    async fn sweep(&self) {
        let local: BTreeSet<Key> = self.presence.lock().keys().cloned().collect();
        let projects: Vec<ProjectId> = {
            let projects: BTreeSet<ProjectId> = local.iter().map(|(project, _)| *project).collect();
            projects.into_iter().collect()
        };
        let inner = &self.presence.inner;
        let replica = inner.replica.clone();
        let found = inner.store.read(move |reader| {
            let lost = rows::of_lost_replicas(reader, replica.oldest(reader.now()))?;
            Ok::<_, shared::store::Error>((lost, rows::present(reader, &projects)?))
        });
        match found.await {
            Ok((lost, present)) => {
                for (project, user) in lost {
                    if !local.contains(&(project, user.clone())) {
                        self.presence.take_out(project, user);
                    }
                }
                for (project, user) in local.difference(&present) {
                    let caller =
                        Caller { project: *project, user: user.clone(), trace: TraceId::mint() };
                    // A user who left since the sweep began is taken out by the grace, later.
                    if self.presence.lock().contains_key(&(*project, user.clone())) {
                        self.presence.announce(caller, true);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "failed to sweep presence"),
        }
    }
}

#[cfg(test)]
mod tests;
