//! Credentials that this process has seen lately: whose the good ones are, and which were refused.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;

use crate::{auth::Shown, ids::UserId, time::Timestamp};

/// Good credentials that are remembered; beyond them the least used is forgotten.
const MAX_KNOWN: usize = 100_000;
/// Refused credentials that are remembered. Each was verified once, so their number grows no faster than budgets allow.
const MAX_REFUSED: usize = 20_000;
/// Time for which a refused credential is refused again without being verified.
const REFUSED_FOR: Duration = Duration::from_mins(1);

/// Credentials by digest. What is known here decides which budget a request is taken from and never whether it has access.
#[derive(Debug)]
pub(super) struct SeenCredentials {
    known: Cache<[u8; 32], KnownCredential>,
    refused: Cache<[u8; 32], Instant>,
    hasher: RandomState,
}

/// A credential that was good when it was last verified.
#[derive(Copy, Clone, Debug)]
pub(super) struct KnownCredential {
    /// The user, as a number that means nothing outside of this process.
    pub(super) user: u64,
    expires_at: Option<Timestamp>,
}

impl Default for SeenCredentials {
    fn default() -> Self {
        let (known, refused) = (Cache::new(MAX_KNOWN), Cache::new(MAX_REFUSED));
        Self { known, refused, hasher: RandomState::new() }
    }
}

impl SeenCredentials {
    /// Returns whose a credential is, `None` if it is not known or has expired.
    pub(super) fn find(&self, shown: &Shown, now: Timestamp) -> Option<KnownCredential> {
        let known = self.known.get(&shown.digest())?;
        if known.expires_at.is_some_and(|expires_at| expires_at <= now) {
            self.known.remove(&shown.digest());
            return None;
        }
        Some(known)
    }

    /// Remembers a credential that was verified. A ticket is not remembered: it is good once.
    pub(super) fn accept(&self, shown: &Shown, user: &UserId, expires_at: Option<Timestamp>) {
        if !shown.is_ticket() {
            let user = self.number_of(user);
            self.known.insert(shown.digest(), KnownCredential { user, expires_at });
        }
    }

    /// Remembers that a credential was refused, and forgets that it was good: it has been revoked or its key is gone.
    pub(super) fn refuse(&self, shown: &Shown) {
        self.known.remove(&shown.digest());
        self.refused.insert(shown.digest(), Instant::now());
    }

    /// Returns whether a credential was refused within the last minute.
    pub(super) fn is_refused(&self, shown: &Shown) -> bool {
        let Some(at) = self.refused.get(&shown.digest()) else { return false };
        let is_recent = at.elapsed() < REFUSED_FOR;
        if !is_recent {
            self.refused.remove(&shown.digest());
        }
        is_recent
    }

    /// Returns the number of a user or an address.
    pub(super) fn number_of(&self, caller: &impl Hash) -> u64 {
        self.hasher.hash_one(caller)
    }
}
