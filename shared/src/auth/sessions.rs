//! Sessions: each belongs to the first user who showed it, until it is ended.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use quick_cache::sync::Cache;

use super::{Ended, Refused};
use crate::{
    http::{ClaimedSession, Limit},
    ids::{SessionId, UserId},
    store::{Error, Reader, Row, Store, Tx, Value},
    sweep,
    time::Timestamp,
};

/// Sessions kept in memory.
const CACHED: usize = 100_000;
/// How long a session is remembered that nobody uses, one that was ended too.
const MAX_AGE: Duration = Duration::from_hours(720);
/// Sessions of one user that are remembered. Beyond them those are forgotten that were not used for longest, as if they were
/// older than [`MAX_AGE`].
const MAX_PER_USER: i64 = 10_000;
/// One of so many new sessions is the occasion to count its user's, so that counting costs an open nothing to speak of.
const COUNT_ONE_IN: u32 = 64;
/// How old what is written of a session's last use may be.
const SEEN_EVERY: Duration = Duration::from_mins(5);
/// Uses that may wait to be written; more are left out.
const USES: usize = 100_000;
/// Uses that are written at once.
const BATCH: usize = 256;

/// A session as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// When it was first shown.
    pub created_at: Timestamp,
    /// When it was last used, to a few minutes.
    pub seen_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Sessions {
    store: Store,
    known: Cache<SessionId, Arc<Known>>,
    /// How many endings were heard of: what was read before one is not to be remembered after it.
    endings: Mutex<u64>,
    /// Sessions whose last use is to be written.
    used: Mutex<Vec<SessionId>>,
}

/// What is remembered of a session. Its owner never changes, and what was ended stays so.
#[derive(Debug)]
struct Known {
    owner: UserId,
    ended: bool,
    seen_at_ms: AtomicI64,
}

impl Known {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        let ended_at = row.get::<Option<Timestamp>>(1)?;
        let seen_at_ms = AtomicI64::new(row.get(2)?);
        Ok(Self { owner: row.get(0)?, ended: ended_at.is_some(), seen_at_ms })
    }

    /// Says whether this use is to be written. Only one of several at a time is told so.
    fn is_news(&self, now: Timestamp) -> bool {
        let before = self.seen_at_ms.load(Ordering::Relaxed);
        now.since(Timestamp::from_ms(before)) >= SEEN_EVERY
            && self
                .seen_at_ms
                .compare_exchange(before, now.as_ms(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

const KNOWN: &str = "SELECT user_id, ended_at, seen_at FROM sessions WHERE id = $1";

impl Sessions {
    pub(super) fn new(store: Store) -> Self {
        let (endings, used) = Default::default();
        Self { store, known: Cache::new(CACHED), endings, used }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the session if it is the user's, and makes it theirs if it is nobody's. One that was minted for this
    /// request is written down only when the client comes back with it. `may_make` is called before a session is written
    /// for the first time, and refuses that for a page of another origin.
    pub(super) async fn bind(
        &self,
        claimed: ClaimedSession,
        user: &UserId,
        now: Timestamp,
        may_make: impl FnOnce() -> bool,
    ) -> Result<SessionId, Refused> {
        let session = match claimed {
            ClaimedSession::Minted(session) => return Ok(session),
            ClaimedSession::Shown(session) => session,
            ClaimedSession::Invalid => return Err(Refused::InvalidSession),
        };
        let known = match self.known.get(&session) {
            Some(known) => known,
            None => self.find_or_make(&session, user, now, may_make).await?,
        };
        if known.owner != *user {
            return Err(Refused::ForeignSession);
        }
        if known.ended {
            return Err(Refused::SessionEnded);
        }
        if known.is_news(now) {
            let mut used = lock(&self.used);
            if used.len() < USES {
                used.push(session.clone());
            }
        }
        Ok(session)
    }

    async fn find_or_make(
        &self,
        session: &SessionId,
        user: &UserId,
        now: Timestamp,
        may_make: impl FnOnce() -> bool,
    ) -> Result<Arc<Known>, Refused> {
        let endings = *lock(&self.endings);
        let id = session.clone();
        let found = self.store.read(move |reader| reader.find(KNOWN, &[(&id).into()], Known::read));
        let known = match found.await? {
            Some(known) => known,
            None if !may_make() => return Err(Refused::ForeignPage),
            None => self.make(session.clone(), user.clone(), now).await?,
        };
        let known = Arc::new(known);
        let heard = lock(&self.endings);
        if *heard == endings {
            self.known.insert(session.clone(), known.clone());
        }
        Ok(known)
    }

    async fn make(&self, session: SessionId, user: UserId, now: Timestamp) -> Result<Known, Error> {
        if rand::random_ratio(1, COUNT_ONE_IN) {
            let user = user.clone();
            self.store.write(move |tx| forget_beyond(tx, &user, MAX_PER_USER)).await?;
        }
        let make = move |tx: &mut Tx<'_>| {
            let params = [(&session).into(), (&user).into(), now.into()];
            let sql = "INSERT INTO sessions (id, user_id, created_at, seen_at) VALUES ($1, $2, $3, $3) \
                       ON CONFLICT (id) DO NOTHING";
            tx.execute(sql, &params)?;
            tx.find(KNOWN, &params[..1], Known::read)?.ok_or(Error::Gone)
        };
        self.store.write(make).await
    }

    /// Takes note that sessions were ended, here or elsewhere.
    pub(super) fn hear(&self, ended: &[Ended]) {
        let mut endings = lock(&self.endings);
        *endings += 1;
        for one in ended {
            if one.others {
                self.known.retain(|session, known| !one.names(&known.owner, session));
            } else {
                self.known.remove(&one.session);
            }
        }
    }

    /// Forgets what is known of every session: the database may have lost what was read of it.
    pub(super) fn forget(&self) {
        *lock(&self.endings) += 1;
        self.known.clear();
    }

    /// Writes down which sessions were used.
    pub(super) async fn write_uses(&self, now: Timestamp) -> Result<(), Error> {
        let mut used = mem::take(&mut *lock(&self.used));
        // In one order by everybody, so that two who write the same do not wait for each other.
        used.sort_unstable();
        for some in used.chunks(BATCH) {
            let some = some.to_vec();
            let write = move |tx: &mut Tx<'_>| {
                let values = some.iter().flat_map(|session| [session.into(), now.into()]);
                let values: Vec<Value<'_>> = values.collect();
                tx.update_rows("sessions", &["id", "seen_at"], &values)
            };
            self.store.write(write).await?;
        }
        Ok(())
    }

    pub(super) async fn trim(&self, now: Timestamp) -> Result<usize, Error> {
        let oldest = now.before(MAX_AGE);
        // Both, since a replica of the version before knows nothing of `seen_at` and leaves it zero.
        let old = "seen_at < $1 AND created_at < $1";
        let step =
            move |tx: &mut Tx<'_>| sweep::delete_some(tx, "sessions", "id", old, &[oldest.into()]);
        sweep::delete_all(&self.store, step).await
    }
}

/// Forgets some of a user's sessions if there are more than `most`: those that were not used for longest.
pub(super) fn forget_beyond(tx: &mut Tx<'_>, user: &UserId, most: i64) -> Result<usize, Error> {
    let sql = "SELECT COUNT(*) FROM sessions WHERE user_id = $1";
    let count: i64 = tx.find(sql, &[user.into()], |row| row.get(0))?.unwrap_or(0);
    let excess = (count - most).min(i64::try_from(sweep::MAX_ROWS).unwrap_or(i64::MAX));
    if excess <= 0 {
        return Ok(0);
    }
    let sql = "DELETE FROM sessions WHERE id IN \
               (SELECT id FROM sessions WHERE user_id = $1 ORDER BY seen_at, id LIMIT $2)";
    tx.execute(sql, &[user.into(), excess.into()])
}

/// Returns a page of a user's sessions that were not ended, by id.
pub fn sessions_of(
    reader: &Reader<'_>,
    user: &UserId,
    after: Option<&SessionId>,
    limit: Limit,
) -> Result<Vec<Session>, Error> {
    let sql = "SELECT id, created_at, seen_at FROM sessions \
               WHERE user_id = $1 AND id > $2 AND ended_at IS NULL ORDER BY id LIMIT $3";
    let after = after.map_or("", SessionId::as_str);
    reader.query(sql, &[user.into(), after.into(), limit.and_one().into()], |row| {
        Ok(Session { id: row.get(0)?, created_at: row.get(1)?, seen_at: row.get(2)? })
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
