//! How sessions are ended, and how every process hears of it.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Auth, Refused, User};
use crate::{
    bus::{Bus, Notice, Subscription},
    ids::{SessionId, UserId},
    journal::{
        Entry, Position, Topic,
        tail::{MANY_TAGS, Tail},
    },
    store::{Error, Reader, Tx},
    time::Timestamp,
};

/// How often the log is looked at in case a hint was lost: with the three seconds that a client has which does not read, a
/// stream is over within five.
const POLL: Duration = Duration::from_millis(1_500);
/// How long nothing is read after a failure.
const PAUSE: Duration = Duration::from_millis(500);
/// Endings read at once.
const PAGE: i64 = 1_000;
/// The type of the entries.
const KIND: &str = "session.ended";

/// Which sessions of a user were ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    user: UserId,
    pub(super) session: SessionId,
    /// All but this one, those too that were never written down.
    pub(super) others: bool,
    /// Its place in the log.
    #[serde(skip)]
    seq: i64,
}

impl Ended {
    /// Reads what an entry of the log says, `None` if it is none that this version knows.
    fn from_entry(entry: &Entry) -> Option<Self> {
        let ended: Option<Self> =
            (&*entry.kind == KIND).then(|| serde_json::from_str(&entry.data).ok()).flatten();
        ended.map(|ended| Self { seq: entry.position.seq, ..ended })
    }

    /// Says whether this session of this user is one of them.
    #[must_use]
    pub fn names(&self, user: &UserId, session: &SessionId) -> bool {
        *user == self.user && (*session == self.session) != self.others
    }

    /// Says whether a caller is over who was let in when the log was at `let_in_at`.
    #[must_use]
    pub fn covers(&self, user: &UserId, session: &SessionId, let_in_at: Position) -> bool {
        self.seq > let_in_at.seq && self.names(user, session)
    }

    /// Ends them with the tickets that were issued in them. Returns how many were there to be ended.
    fn write(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<usize, Error> {
        let is_it = if self.others { "<>" } else { "=" };
        let (user, session) = ((&self.user).into(), (&self.session).into());
        let sql = format!(
            "UPDATE sessions SET ended_at = $3, seen_at = $3 WHERE user_id = $1 AND id {is_it} $2 AND ended_at IS NULL"
        );
        let count = tx.execute(&sql, &[user, session, now.into()])?;
        if count > 0 || self.others {
            let sql = format!("DELETE FROM tickets WHERE user_id = $1 AND session {is_it} $2");
            tx.execute(&sql, &[user, session])?;
            let data = serde_json::to_string(self).map_err(|_| Error::Gone)?;
            tx.append(&Topic::sessions(), KIND, &data)?;
        }
        Ok(count)
    }
}

/// Result of a look at the topic.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// The database lost the end of the log; to be heeded before [`Revocations::ended`].
    pub rewound: Option<Arc<Rewound>>,
    /// Sessions that were ended since the last look, and those after the last entry that was not lost.
    pub ended: Vec<Ended>,
}

/// How the log goes on after the database lost its end. The numbers of lost entries are used again, so a number at which a
/// caller was let in may be one of a lost entry.
#[derive(Debug)]
pub struct Rewound {
    /// The last entry that was not lost, if it is known.
    kept: Option<Position>,
    /// The log as it is now.
    tail: Tail,
}

impl Rewound {
    /// Returns where the log was, as far as it is kept, when a caller was let in at `position`. Returns `None` if that is not
    /// known: the caller has to be looked at anew.
    #[must_use]
    pub fn let_in_at(&self, position: Position) -> Option<Position> {
        if self.tail.has(position) {
            return Some(position);
        }
        self.kept.map(|kept| if position.seq < kept.seq { position } else { kept })
    }
}

impl Auth {
    /// Ends one of the caller's sessions; says whether there was one to end.
    pub async fn end_session(&self, user: &User, session: SessionId) -> Result<bool, Error> {
        let ended = Ended { user: user.id.clone(), session, others: false, seq: 0 };
        Ok(self.end(ended).await? > 0)
    }

    /// Ends all of the caller's sessions but the one of the call.
    pub async fn end_other_sessions(&self, user: &User) -> Result<(), Error> {
        let (user, session) = (user.id.clone(), user.session.clone());
        self.end(Ended { user, session, others: true, seq: 0 }).await.map(drop)
    }

    async fn end(&self, ended: Ended) -> Result<usize, Error> {
        let (sessions, end) = (&self.inner.sessions, ended.clone());
        let write = move |tx: &mut Tx<'_>| end.write(tx, tx.now());
        let count = sessions.store().write_in(Topic::sessions(), write).await?;
        // The log brings it too; here it holds from the answer on.
        sessions.hear(&[ended]);
        Ok(count)
    }
}

impl User {
    /// Lets the caller pass whose session goes on and whose credential is still good. Returns where the log of ended
    /// sessions is: what it says from there on holds for this caller.
    pub fn require(&self, reader: &Reader<'_>, now: Timestamp) -> Result<Position, Refused> {
        // One statement, so that it sees one state: what the log has up to its end, the session has. An entry from before
        // stored tags has none here; its position then counts as one of a lost entry if the log is ever rewound.
        let sql = "SELECT epoch, head, COALESCE(tag, 0), (SELECT ended_at FROM sessions WHERE id = $2) \
                   FROM topics WHERE name = $1";
        let topic = Topic::sessions();
        let params = [topic.as_str().into(), (&self.session).into()];
        let (head, ended_at) = reader
            .find(sql, &params, |row| {
                let tag =
                    u32::try_from(row.get::<i64>(2)?).map_err(|_| Error::Column { column: 2 });
                let position = Position { epoch: row.get(0)?, seq: row.get(1)?, tag: tag? };
                Ok((position, row.get::<Option<Timestamp>>(3)?))
            })?
            .ok_or(Error::Gone)?;
        if ended_at.is_some() || self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(Refused::Unauthenticated);
        }
        Ok(head)
    }
}

/// Writes down which sessions were used, now and then, until shutdown.
async fn write_uses(auth: &Auth, shutdown: &CancellationToken) {
    while shutdown.run_until_cancelled(sleep(POLL)).await.is_some() {
        let sessions = &auth.inner.sessions;
        if let Err(error) = sessions.write_uses(sessions.store().now()).await {
            tracing::warn!(%error, "failed to write the last uses of sessions");
        }
    }
}

/// Follows the log of ended sessions from where it was before anybody was served.
#[derive(Debug)]
pub struct Endings {
    auth: Auth,
    notices: Subscription,
    /// The last entries that were read.
    tail: Tail,
}

impl Endings {
    /// Takes the place in the log; nobody is to be served before.
    pub async fn begin(auth: Auth, bus: &Bus) -> Result<Self, Error> {
        let notices = bus.subscribe(&Topic::sessions());
        let tail = auth.inner.sessions.store().write(|tx| {
            tx.ensure(&Topic::sessions())?;
            tx.tail(&Topic::sessions(), MANY_TAGS)?.ok_or(Error::Gone)
        });
        Ok(Self { tail: tail.await?, notices, auth })
    }

    /// Has the sessions refused that were ended, and passes them to `tell`, until shutdown. Beside it the last uses of
    /// sessions are written, for which nobody who ends a session waits.
    pub async fn run(self, tell: impl Fn(Revocations) + Send, shutdown: CancellationToken) {
        let auth = self.auth.clone();
        tokio::join!(self.follow(tell, &shutdown), write_uses(&auth, &shutdown));
    }

    async fn follow(mut self, tell: impl Fn(Revocations) + Send, shutdown: &CancellationToken) {
        loop {
            let patience = POLL.mul_f64(rand::rng().random_range(0.75..1.0));
            let hint = timeout(patience, self.notices.next());
            let Some(hint) = shutdown.run_until_cancelled(hint).await else { return };
            if matches!(&hint, Ok(Ok(Notice::Entry(entry))) if self.tail.has(entry.position)) {
                continue;
            }
            if let Err(error) = self.look(&tell).await {
                tracing::warn!(%error, "failed to read which sessions were ended");
                shutdown.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
    }

    /// Reads the entries that were appended since the last look. Where the log lost its end, what was known of sessions is
    /// forgotten, and the entries after the last one that was not lost are read again.
    pub(super) async fn look(&mut self, tell: impl Fn(Revocations)) -> Result<(), Error> {
        loop {
            let tail = self.tail.clone();
            let read =
                self.auth.inner.sessions.store().read(move |reader| read(reader, tail.clone()));
            let Read { tail, entries, rewound } = read.await?;
            self.tail = tail;
            let sessions = &self.auth.inner.sessions;
            if rewound.is_some() {
                tracing::warn!("the log of ended sessions lost its end");
                sessions.forget();
            }
            if entries.is_empty() && rewound.is_none() {
                return Ok(());
            }
            let ended: Vec<Ended> =
                entries.iter().filter_map(|entry| Ended::from_entry(entry)).collect();
            sessions.hear(&ended);
            tell(Revocations { rewound, ended });
        }
    }
}

/// Entries that were read of the topic.
struct Read {
    tail: Tail,
    entries: Vec<Arc<Entry>>,
    rewound: Option<Arc<Rewound>>,
}

fn read(reader: &Reader<'_>, mut tail: Tail) -> Result<Read, Error> {
    let topic = Topic::sessions();
    if let Ok(entries) = reader.follow(&topic, tail.last(), PAGE)? {
        tail.extend(&entries);
        return Ok(Read { tail, entries, rewound: None });
    }
    if !reader.rewind(&topic, &mut tail)? {
        let tail = reader.tail(&topic, MANY_TAGS)?.ok_or(Error::Gone)?;
        let rewound = Rewound { kept: None, tail: tail.clone() };
        return Ok(Read { tail, entries: Vec::new(), rewound: Some(Arc::new(rewound)) });
    }
    let (kept, mut all) = (tail.last(), Vec::new());
    while let Ok(entries) = reader.follow(&topic, tail.last(), PAGE)? {
        if entries.is_empty() {
            break;
        }
        tail.extend(&entries);
        all.extend(entries);
    }
    let rewound = Rewound { kept: Some(kept), tail: tail.clone() };
    Ok(Read { tail, entries: all, rewound: Some(Arc::new(rewound)) })
}
