//! Roles of those in whose name jobs run, as ingress gave them within the last second: attempts of one batch ask once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::ids::{ProjectId, TraceId, UserId};
use tokio::time::Instant;
use tonic::Status;

use crate::ingress::{Ingress, Role};

/// Age up to which an answer of ingress counts.
const ROLE_MAX_AGE: Duration = Duration::from_secs(1);
/// Answers beyond which expired ones are dropped.
const MAX_ROLES: usize = 1_024;

/// A user, and the project in which the user acts.
pub(crate) type Acting = (UserId, ProjectId);

/// Roles by user and project; a clone shares them.
#[derive(Clone, Debug)]
pub(crate) struct ProjectRoles {
    ingress: Ingress,
    known: Arc<Mutex<HashMap<Acting, Known>>>,
    /// In tests without an ingress every user is an owner everywhere.
    #[cfg(test)]
    everybody_owns: bool,
}

#[derive(Copy, Clone, Debug)]
struct Known {
    role: Option<Role>,
    asked_at: Instant,
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.asked_at) < ROLE_MAX_AGE
    }
}

impl ProjectRoles {
    pub(crate) fn new(ingress: Ingress) -> Self {
        Self {
            ingress,
            known: Arc::default(),
            #[cfg(test)]
            everybody_owns: false,
        }
    }

    /// Returns roles that need no ingress.
    #[cfg(test)]
    pub(crate) fn of_everybody(ingress: Ingress) -> Self {
        Self { everybody_owns: true, ..Self::new(ingress) }
    }

    /// Returns the user's role in the project, at most a second old; `None` for a stranger.
    pub(crate) async fn role(
        &self,
        acting: &Acting,
        trace: &TraceId,
    ) -> Result<Option<Role>, Status> {
        if let Some(Known { role, .. }) = self.fresh(acting) {
            return Ok(role);
        }
        // On the heap, as a call to ingress is rare beside attempts, whose tasks would all have room for it.
        Box::pin(self.ask(acting, trace)).await
    }

    /// Returns the user's role in the project as it is now; `None` for a stranger.
    pub(crate) async fn ask(
        &self,
        acting: &Acting,
        trace: &TraceId,
    ) -> Result<Option<Role>, Status> {
        #[cfg(test)]
        if self.everybody_owns {
            return Ok(Some(Role::Owner));
        }
        let asked_at = Instant::now();
        let role = self.ingress.role(&acting.0, acting.1, trace).await?;
        self.note(acting.clone(), role, asked_at);
        Ok(role)
    }

    /// Asks ingress once for all of these that are not known.
    pub(crate) async fn fetch(&self, acting: impl Iterator<Item = Acting>) -> Result<(), Status> {
        let unknown: HashSet<Acting> =
            acting.filter(|acting| self.fresh(acting).is_none()).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let (unknown, asked_at) = (Vec::from_iter(unknown), Instant::now());
        let roles = self.ingress.roles(&unknown, &TraceId::mint()).await?;
        for (acting, role) in unknown.into_iter().zip(roles) {
            self.note(acting, role, asked_at);
        }
        Ok(())
    }

    /// Keeps an answer of ingress that was asked for at `asked_at`.
    fn note(&self, acting: Acting, role: Option<Role>, asked_at: Instant) {
        let mut known = self.lock();
        if known.len() >= MAX_ROLES {
            let now = Instant::now();
            known.retain(|_, known| known.is_fresh(now));
        }
        known.insert(acting, Known { role, asked_at });
    }

    fn fresh(&self, acting: &Acting) -> Option<Known> {
        let now = Instant::now();
        #[cfg(test)]
        if self.everybody_owns {
            return Some(Known { role: Some(Role::Owner), asked_at: now });
        }
        self.lock().get(acting).copied().filter(|known| known.is_fresh(now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Acting, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
