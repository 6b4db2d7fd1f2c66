//! Knows the streams of this replica, and writes down who comes with the first and goes with the last.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use shared::{
    bus::{Bus, Notice},
    ids::{ProjectId, TraceId, UserId},
    store::Store,
    time::Timestamp,
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{PresenceEvent, Presentness, UserPresence, rows};
use crate::{
    access::{As, Caller, Viewer},
    error::ApiError,
};

/// Changes of one project that are written at once.
const BATCH: usize = 256;
/// How often it is looked for users whose replica went without a word.
const SWEEP: Duration = Duration::from_secs(30);
/// How often it is looked whose grace is over.
const SECOND: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(20);

/// Knows who is here; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    bus: Bus,
    grace: Duration,
    here: Mutex<BTreeMap<(ProjectId, UserId), Streams>>,
    /// Without a bound, since a stream that closes cannot wait; there are at most two for each stream.
    changes: mpsc::UnboundedSender<Change>,
}

/// What a user has open here.
#[derive(Debug)]
struct Streams {
    count: usize,
    /// When the last one closed.
    left: Option<Timestamp>,
}

#[derive(Clone, Debug)]
enum Change {
    Came(Caller),
    Went(Caller),
}

impl Change {
    fn caller(&self) -> &Caller {
        let (Self::Came(caller) | Self::Went(caller)) = self;
        caller
    }
}

/// A stream's part in its user's presence, given up when dropped.
#[derive(Debug)]
pub(crate) struct Here {
    presence: Presence,
    project: ProjectId,
    user: UserId,
}

/// The task that writes changes down.
#[derive(Debug)]
pub(crate) struct Keeper {
    presence: Presence,
    changes: mpsc::UnboundedReceiver<Change>,
}

impl Presence {
    pub(crate) fn new(store: Store, bus: Bus, grace: Duration) -> (Self, Keeper) {
        let (sender, changes) = mpsc::unbounded_channel();
        let inner = Inner { store, bus, grace, here: Mutex::default(), changes: sender };
        let presence = Self { inner: Arc::new(inner) };
        (presence.clone(), Keeper { presence, changes })
    }

    /// Counts one more stream of the caller.
    pub(crate) fn enter(&self, caller: Caller) -> Here {
        let (project, user) = (caller.project, caller.user.clone());
        let mut here = self.lock();
        let streams = here.entry((project, user.clone())).or_insert_with(|| {
            let _ = self.inner.changes.send(Change::Came(caller));
            Streams { count: 0, left: None }
        });
        streams.count += 1;
        streams.left = None;
        drop(here);
        Here { presence: self.clone(), project, user }
    }

    /// Writes down what the caller says of themselves. Without a stream the word holds for the grace: nobody would say
    /// when it ends.
    pub(super) async fn set(
        &self,
        viewer: &As<Viewer>,
        state: Presentness,
    ) -> Result<UserPresence, ApiError> {
        let (new, presence) = viewer
            .write(move |tx, caller| {
                let new = rows::set(tx, caller, state, Timestamp::now())?;
                Ok((new, rows::get(tx, caller)?))
            })
            .await?;
        if let Some(new) = new {
            self.tell(viewer, &new);
        }
        let left = Some(Timestamp::now());
        let key = (viewer.project, viewer.user.clone());
        self.lock().entry(key).or_insert(Streams { count: 0, left });
        presence.ok_or(ApiError::NotFound("the user"))
    }

    /// Forgets whose grace is over, and says so.
    fn sweep(&self, now: Timestamp) {
        let grace = self.inner.grace;
        let gone = |streams: &Streams| streams.left.is_some_and(|left| now.since(left) >= grace);
        let mut here = self.lock();
        for ((project, user), _) in here.extract_if(.., |_, streams| gone(streams)) {
            self.went(project, user);
        }
    }

    fn went(&self, project: ProjectId, user: UserId) {
        let caller = Caller { project, user, trace: TraceId::mint() };
        let _ = self.inner.changes.send(Change::Went(caller));
    }

    fn tell(&self, caller: &Caller, presence: &UserPresence) {
        match caller.event("user.presence", &PresenceEvent { presence }) {
            Ok(event) => {
                self.inner.bus.publish(&caller.topic(), Notice::Ephemeral(event.into()));
            }
            Err(error) => tracing::error!(%error, "a presence event was not made"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ProjectId, UserId), Streams>> {
        self.inner.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut here = self.presence.lock();
        if let Some(streams) = here.get_mut(&(self.project, self.user.clone())) {
            streams.count = streams.count.saturating_sub(1);
            if streams.count == 0 {
                streams.left = Some(Timestamp::now());
            }
        }
    }
}

impl Keeper {
    /// Writes changes down until shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut second = interval(self.presence.inner.grace.clamp(SHORTEST, SECOND));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = interval(SWEEP.mul_f64(rand::rng().random_range(0.8..1.2)));
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = second.tick() => self.presence.sweep(Timestamp::now()),
                _ = sweep.tick() => self.find_forgotten().await,
                _ = self.changes.recv_many(&mut batch, BATCH) => {
                    let mut projects = BTreeMap::<ProjectId, Vec<Change>>::new();
                    for change in batch {
                        projects.entry(change.caller().project).or_default().push(change);
                    }
                    for changes in projects.into_values() {
                        self.write(changes).await;
                    }
                }
            }
        }
    }

    /// Writes changes of one project down, in order, and tells what is new. One that cannot be written is as if it had not
    /// been: it is about presence.
    async fn write(&self, changes: Vec<Change>) {
        let Some(topic) = changes.first().map(|change| change.caller().topic()) else { return };
        let written = self.presence.inner.store.write_in(topic, move |tx| {
            let now = Timestamp::now();
            let mut told = Vec::new();
            for change in &changes {
                let new = match change {
                    Change::Came(caller) => rows::come(tx, caller, now)?,
                    Change::Went(caller) => rows::leave(tx, caller, now)?.then(|| UserPresence {
                        user: caller.user.clone(),
                        state: Presentness::Offline,
                        since: now,
                    }),
                };
                told.extend(new.map(|new| (change.caller().clone(), new)));
            }
            Ok::<_, shared::store::Error>(told)
        });
        match written.await {
            Ok(told) => {
                for (caller, presence) in told {
                    self.presence.tell(&caller, &presence);
                }
            }
            Err(error) => tracing::warn!(%error, "presence was not written down"),
        }
    }

    async fn find_forgotten(&self) {
        let before = Timestamp::now().before(self.presence.inner.grace);
        let found = self
            .presence
            .inner
            .store
            .read(move |reader| rows::forgotten(reader, before, Timestamp::now()));
        match found.await {
            Ok(users) => {
                for (project, user) in users {
                    self.presence.went(project, user);
                }
            }
            Err::<_, shared::store::Error>(error) => {
                tracing::warn!(%error, "it was not looked for users who are gone");
            }
        }
    }
}
