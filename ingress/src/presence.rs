//! Who is there: everybody with an open stream, and for a grace after their last one closed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::{
    auth::User,
    bus::{Bus, Notice},
    http::{Json, Path},
    ids::{ProjectId, TraceId, UserId},
    journal::Topic,
    store::Store,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{Caller, Role},
    error::ApiError,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, set))
}

/// How present a user is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Presentness {
    Online,
    Away,
    Offline,
}

/// A user's presence in a project.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct UserPresence {
    user: UserId,
    state: Presentness,
    /// Since when.
    since: Timestamp,
}

#[derive(Serialize)]
struct PresenceEvent<'a> {
    presence: &'a UserPresence,
}

/// Everybody who is not offline.
#[derive(Serialize, utoipa::ToSchema)]
struct PresenceList {
    presence: Vec<UserPresence>,
    next: Option<UserId>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PresenceFields {
    state: Presentness,
}

/// Knows who is there; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bus: Bus,
    grace: Duration,
    present: Mutex<BTreeMap<(ProjectId, UserId), Present>>,
}

#[derive(Debug)]
struct Present {
    streams: usize,
    state: Presentness,
    since: Timestamp,
    /// When the last stream closed.
    left: Option<Timestamp>,
}

/// A stream's part in its user's presence, given up when dropped.
#[derive(Debug)]
pub(crate) struct Here {
    presence: Presence,
    project: ProjectId,
    user: UserId,
}

impl Presence {
    pub(crate) fn new(bus: Bus, grace: Duration) -> Self {
        Self { inner: Arc::new(Inner { bus, grace, present: Mutex::default() }) }
    }

    /// Counts one more stream of the caller.
    pub(crate) fn enter(&self, caller: Caller) -> Here {
        let now = Timestamp::now();
        let mut present = self.lock();
        let entry = present.entry((caller.project, caller.user.clone())).or_insert(Present {
            streams: 0,
            state: Presentness::Offline,
            since: now,
            left: None,
        });
        entry.streams += 1;
        entry.left = None;
        if entry.state == Presentness::Offline {
            entry.state = Presentness::Online;
            entry.since = now;
            self.tell(&caller, Presentness::Online, now);
        }
        drop(present);
        Here { presence: self.clone(), project: caller.project, user: caller.user }
    }

    /// Says who has been gone for longer than the grace, once a second until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            self.sweep(Timestamp::now());
        }
    }

    fn sweep(&self, now: Timestamp) {
        let grace = self.inner.grace;
        let gone = |present: &Present| present.left.is_some_and(|left| now.since(left) >= grace);
        let mut present = self.lock();
        for ((project, user), _) in present.extract_if(.., |_, present| gone(present)) {
            let caller = Caller { project, user, trace: TraceId::mint() };
            self.tell(&caller, Presentness::Offline, now);
        }
    }

    fn set(&self, caller: &Caller, state: Presentness) -> UserPresence {
        let now = Timestamp::now();
        let mut present = self.lock();
        // Without a stream the word holds for the grace: nobody would say when it ends.
        let entry = present.entry((caller.project, caller.user.clone())).or_insert(Present {
            streams: 0,
            state: Presentness::Offline,
            since: now,
            left: Some(now),
        });
        if entry.state != state {
            entry.state = state;
            entry.since = now;
            self.tell(caller, state, now);
        }
        UserPresence { user: caller.user.clone(), state, since: entry.since }
    }

    fn tell(&self, caller: &Caller, state: Presentness, since: Timestamp) {
        let presence = UserPresence { user: caller.user.clone(), state, since };
        match caller.event("user.presence", &PresenceEvent { presence: &presence }) {
            Ok(event) => {
                let topic = Topic::project(caller.project);
                self.inner.bus.publish(&topic, Notice::Ephemeral(event.into()));
            }
            Err(error) => tracing::error!(%error, "a presence event was not made"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ProjectId, UserId), Present>> {
        self.inner.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut present = self.presence.lock();
        if let Some(entry) = present.get_mut(&(self.project, self.user.clone())) {
            entry.streams = entry.streams.saturating_sub(1);
            if entry.streams == 0 {
                entry.left = Some(Timestamp::now());
            }
        }
    }
}

#[utoipa::path(get, path = "/{project}/presence", responses((status = 200, body = PresenceList)))]
async fn list(
    State(store): State<Store>,
    State(presence): State<Presence>,
    user: User,
    Path(project): Path<ProjectId>,
) -> Result<Json<PresenceList>, ApiError> {
    let caller = Caller::new(project, &user);
    store.read(move |reader| caller.require(reader, Role::Viewer)).await?;
    let present = presence.lock();
    let in_project = present
        .iter()
        .filter(|((of, _), present)| *of == project && present.state != Presentness::Offline);
    let presence = in_project.map(|((_, user), present)| UserPresence {
        user: user.clone(),
        state: present.state,
        since: present.since,
    });
    Ok(Json(PresenceList { presence: presence.collect(), next: None }))
}

#[utoipa::path(put, path = "/{project}/presence", request_body = PresenceFields, responses((status = 200, body = UserPresence)))]
async fn set(
    State(store): State<Store>,
    State(presence): State<Presence>,
    user: User,
    Path(project): Path<ProjectId>,
    Json(PresenceFields { state }): Json<PresenceFields>,
) -> Result<Json<UserPresence>, ApiError> {
    let caller = Caller::new(project, &user);
    let checked = caller.clone();
    store.read(move |reader| checked.require(reader, Role::Viewer)).await?;
    Ok(Json(presence.set(&caller, state)))
}
