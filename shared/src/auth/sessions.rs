//! Sessions: each belongs to the first user who showed it.

use std::time::Duration;

use quick_cache::sync::Cache;

use super::Refused;
use crate::{
    http::ClaimedSession,
    ids::{SessionId, UserId},
    store::{Error, Store},
    time::Timestamp,
};

/// Owners kept in memory; a session's owner never changes, so a stale one cannot be.
const CACHED: usize = 100_000;
/// How long a session is remembered.
const MAX_AGE: Duration = Duration::from_hours(720);

#[derive(Debug)]
pub(super) struct Sessions {
    store: Store,
    owners: Cache<SessionId, UserId>,
}

impl Sessions {
    pub(super) fn new(store: Store) -> Self {
        Self { store, owners: Cache::new(CACHED) }
    }

    /// Returns the session if it is the user's, and makes it theirs if it is nobody's. One that was minted for this
    /// request is written down only when the client comes back with it.
    pub(super) async fn bind(
        &self,
        claimed: ClaimedSession,
        user: &UserId,
    ) -> Result<SessionId, Refused> {
        let session = match claimed {
            ClaimedSession::Minted(session) => return Ok(session),
            ClaimedSession::Shown(session) => session,
            ClaimedSession::Invalid => return Err(Refused::InvalidSession),
        };
        let owner = match self.owners.get(&session) {
            Some(owner) => owner,
            None => self.owner(&session, user).await?,
        };
        if owner == *user { Ok(session) } else { Err(Refused::ForeignSession) }
    }

    async fn owner(&self, session: &SessionId, user: &UserId) -> Result<UserId, Error> {
        let (id, claimant) = (session.clone(), user.clone());
        let owner: UserId = self
            .store
            .write(move |tx| {
                let params = [(&id).into(), (&claimant).into(), Timestamp::now().into()];
                let sql = "INSERT INTO sessions (id, user_id, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
                tx.execute(sql, &params)?;
                let sql = "SELECT user_id FROM sessions WHERE id = $1";
                tx.find(sql, &params[..1], |row| row.get(0))?.ok_or(Error::Gone)
            })
            .await?;
        self.owners.insert(session.clone(), owner.clone());
        Ok(owner)
    }

    pub(super) async fn trim(&self) -> Result<usize, Error> {
        let oldest = Timestamp::now().before(MAX_AGE);
        let sql = "DELETE FROM sessions WHERE created_at < $1";
        self.store.write(move |tx| tx.execute(sql, &[oldest.into()])).await
    }
}
