//! Connection slots: how many streams are open over all replicas, exactly.
//!
//! A slot is a row `(scope, n)` with `n` below the scope's limit, so the primary key lets one replica alone have the last
//! one, and a unique index keeps a user's streams of one name to one slot. The slots of a replica that is gone are free. An
//! open reads all rows of its scopes: limits are meant to be small.

pub(crate) mod inspect;
mod release;
mod scope;
#[cfg(test)]
pub(crate) mod tests;

use shared::{
    ids::{ConnectionId, ReplicaId, UserId},
    store::{Error, Reader, Store, Tx},
    time::Timestamp,
};
use tokio::sync::mpsc;

pub(crate) use self::{
    release::{BATCH, Freed, Lease, Releaser, held_by, release},
    scope::{Kind, Scope, Wanted},
};
use super::command::{Order, What};

/// How often a slot may be lost to another replica before the open is refused as overload.
const MAX_RACES: usize = 16;

/// Who takes slots.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) connection: ConnectionId,
    pub(crate) user: UserId,
    /// The client's `stream_id`.
    pub(crate) stream: String,
    /// What inspection shows, as JSON.
    pub(crate) about: String,
    /// The channels that it carries, as JSON; `None` is every channel.
    pub(crate) channels: Option<String>,
}

/// A scope has no slot left.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) scope: Kind,
    pub(crate) current: i64,
    pub(crate) limit: i64,
}

/// Why there is no lease. It is one error so that `?` rolls the caller's transaction back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("too many streams are open")]
    Full(Full),
    #[error(transparent)]
    Store(#[from] Error),
}

/// Gives out this replica's slots; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    replica: ReplicaId,
    freed: mpsc::UnboundedSender<Freed>,
    #[cfg(test)]
    sabotage: Option<tests::Sabotage>,
}

/// A row of a scope, as seen by a stream that wants one.
struct Taken {
    n: i64,
    connection: ConnectionId,
    replica: ReplicaId,
    /// The same user's stream of the same name.
    same: bool,
    seen_at: Option<Timestamp>,
}

/// The slot that a stream is to have.
struct Seat {
    n: i64,
    before: Option<Before>,
}

/// The connection whose row is taken over.
struct Before {
    connection: ConnectionId,
    /// The slot belongs to the same user's stream of the same name.
    is_same: bool,
    /// Where it may still be open though the client has come back for it.
    replaced_at: Option<ReplicaId>,
}

impl Slots {
    /// Returns the giver and the task that frees what is given up.
    pub(crate) fn new(replica: ReplicaId, store: Store) -> (Self, Releaser) {
        let (freed, given_up) = mpsc::unbounded_channel();
        let slots = Self {
            replica,
            freed,
            #[cfg(test)]
            sabotage: None,
        };
        (slots, Releaser::new(store, given_up))
    }

    /// Gives the verdict of [`Slots::take`] and takes nothing. Replicas that were not seen since `oldest` are gone.
    pub(crate) fn check(
        &self,
        reader: &Reader<'_>,
        wanted: &[Wanted],
        user: &UserId,
        stream: &str,
        oldest: Timestamp,
    ) -> Result<(), Refused> {
        wanted
            .iter()
            .try_for_each(|wanted| self.choose(reader, wanted, user, stream, oldest).map(drop))
    }

    /// Takes a slot in every wanted scope, or none. A stream of the same user and name gives its place up: it never counts
    /// twice, and its replica is ordered to close it.
    ///
    /// The lease is part of what the transaction returns, so that the slots are freed even when the caller has hung up
    /// before the commit: then nobody is left to free them.
    pub(crate) fn take(
        &self,
        tx: &mut Tx<'_>,
        wanted: &[Wanted],
        holder: &Holder,
        oldest: Timestamp,
    ) -> Result<Lease, Refused> {
        let choose = |reader: &Reader<'_>, wanted: &Wanted| {
            self.choose(reader, wanted, &holder.user, &holder.stream, oldest)
        };
        // All are chosen before one is written: a caller that keeps its transaction in spite of `Full` keeps no slot.
        let seats =
            wanted.iter().map(|wanted| choose(tx, wanted)).collect::<Result<Vec<_>, _>>()?;
        let mut replaced = Vec::new();
        let mut slots = Vec::with_capacity(wanted.len());
        let mut seats: Vec<_> = wanted.iter().zip(seats).collect();
        // Rows are taken in the order in which they are freed.
        seats.sort_unstable_by_key(|(wanted, _)| wanted.scope.key());
        for (wanted, mut seat) in seats {
            let key = wanted.scope.key();
            let mut races = 0;
            while !self.sit(tx, &key, &seat, holder)? {
                races += 1;
                if races == MAX_RACES {
                    return Err(Error::Overloaded.into());
                }
                seat = choose(tx, wanted)?;
            }
            if let Some(Before { connection, replaced_at: Some(replica), .. }) = seat.before {
                replaced.push((replica, connection));
            }
            slots.push((key, seat.n));
        }
        // One stream may have held several of the slots; it is told once.
        replaced.sort_unstable();
        replaced.dedup();
        for (replica, connection) in replaced {
            Order { connection, what: What::Replaced }.give(tx, replica)?;
        }
        Ok(Lease::new(holder.connection, slots.into(), self.freed.clone()))
    }

    fn choose(
        &self,
        reader: &Reader<'_>,
        wanted: &Wanted,
        user: &UserId,
        stream: &str,
        oldest: Timestamp,
    ) -> Result<Seat, Refused> {
        let sql = "SELECT s.n, s.connection, s.replica, \
                   CASE WHEN s.user_id = $2 AND s.stream = $3 THEN 1 ELSE 0 END, r.seen_at \
                   FROM slots s LEFT JOIN replicas r ON r.id = s.replica WHERE s.scope = $1 ORDER BY s.n";
        let key = wanted.scope.key();
        let taken = reader.query(sql, &[(&*key).into(), user.into(), stream.into()], |row| {
            let (n, connection, replica) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Taken { n, connection, replica, same: row.get(3)?, seen_at: row.get(4)? })
        })?;
        let current = taken.iter().filter(|row| self.is_live(row, oldest)).count();
        let current = i64::try_from(current).unwrap_or(i64::MAX);
        let full = Full { scope: wanted.scope.kind(), current, limit: wanted.limit };
        if wanted.limit <= 0 {
            return Err(Refused::Full(full));
        }
        // Also one whose replica seems gone: if that was only frozen, it would count again when it thaws.
        if let Some(row) = taken.iter().find(|row| self.is_same(row)) {
            let known = row.replica == self.replica || row.seen_at.is_some();
            let replaced_at = known.then_some(row.replica);
            let before = Some(Before { connection: row.connection, is_same: true, replaced_at });
            return Ok(Seat { n: row.n, before });
        }
        // After the limit was lowered there may be live ones beyond it, and they count.
        if current >= wanted.limit {
            return Err(Refused::Full(full));
        }
        let mut n = 0;
        for row in &taken {
            if row.n > n {
                break;
            }
            if !self.is_live(row, oldest) {
                let connection = row.connection;
                let before = Some(Before { connection, is_same: false, replaced_at: None });
                return Ok(Seat { n, before });
            }
            n += 1;
        }
        Ok(Seat { n, before: None })
    }

    /// Writes the row, unless another replica was first to take the slot or to open the stream. Returns whether it did.
    fn sit(&self, tx: &mut Tx<'_>, key: &str, seat: &Seat, holder: &Holder) -> Result<bool, Error> {
        let Holder { connection, user, stream, about, channels } = holder;
        let (connection, replica) = ((*connection).into(), self.replica.into());
        let (about, channels) = (about.into(), channels.as_ref().into());
        if let Some(Before { connection: before, is_same: true, .. }) = seat.before {
            let sql = "UPDATE slots SET connection = $3, replica = $4, about = $5, channels = $6 \
                       WHERE scope = $1 AND n = $2 AND connection = $7";
            let params =
                [key.into(), seat.n.into(), connection, replica, about, channels, before.into()];
            return Ok(tx.execute(sql, &params)? == 1);
        }
        if let Some(Before { connection: before, .. }) = seat.before {
            // The row of a replica that is gone. An update of it could meet another replica's row of the same stream, and
            // fail; an insert waits for that replica and does nothing.
            let sql = "DELETE FROM slots WHERE scope = $1 AND n = $2 AND connection = $3";
            if tx.execute(sql, &[key.into(), seat.n.into(), before.into()])? == 0 {
                return Ok(false);
            }
        }
        let written = tx.execute(
            "INSERT INTO slots (scope, n, connection, replica, user_id, stream, about, channels) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            &[
                key.into(),
                seat.n.into(),
                connection,
                replica,
                user.into(),
                stream.into(),
                about,
                channels,
            ],
        )?;
        Ok(written == 1)
    }

    /// Its own rows are live whatever the clock says: late renewals must not make a replica overbook itself.
    fn is_live(&self, row: &Taken, oldest: Timestamp) -> bool {
        #[cfg(test)]
        if let Some(verdict) = self.sabotage.and_then(tests::Sabotage::is_live) {
            return verdict;
        }
        row.replica == self.replica || row.seen_at.is_some_and(|seen_at| seen_at >= oldest)
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "a test's sabotage is in there"))]
    fn is_same(&self, row: &Taken) -> bool {
        #[cfg(test)]
        if self.sabotage == Some(tests::Sabotage::CountAgain) {
            return false;
        }
        row.same
    }
}
