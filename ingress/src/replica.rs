//! This process among the replicas: says that it is there, and clears away after those that are gone.

use std::time::Duration;

use shared::{
    ids::ReplicaId,
    journal::{Lease, Topic},
    store::{Error, Reader, Store, Tx},
    time::Timestamp,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::streams::{slots, stats::serves};

/// Length of a replica's lease: one that was not seen for this long is gone.
const REPLICA_LEASE: Duration = Duration::from_secs(10);
/// What a replica leaves is deleted when it was not seen for this long.
const FORGOTTEN: Duration = Duration::from_mins(1);

/// This process's row; a clone is the same one.
///
/// A process that was frozen, or that could not reach the store, for longer than the timeout comes back as the replica
/// it was. Its streams stay open. Those whose slots were taken over meanwhile no longer count, so a scope may have more
/// streams than slots until they end; when they do, their slots stay with who has them now.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    id: ReplicaId,
    started_at: Timestamp,
    store: Store,
    lease: Lease,
}

impl Replica {
    /// Joins the others, with a topic for orders. Whoever inherits the store clears it of all replicas before.
    pub(crate) async fn join(store: Store) -> Result<Self, Error> {
        let lease = Lease::new(&store, REPLICA_LEASE);
        let replica = Self { id: ReplicaId::mint(), started_at: store.now(), store, lease };
        let (inherits, joining) = (replica.store.inherits(), replica.clone());
        let join = move |tx: &mut Tx<'_>, now| {
            if inherits {
                for gone in tx.query("SELECT id FROM replicas", &[], |row| row.get(0))? {
                    forget(tx, gone)?;
                }
                tx.execute("DELETE FROM slots", &[])?;
                tx.execute("DELETE FROM presence", &[])?;
            }
            joining.insert(tx, "{}", now)
        };
        replica.lease.renew(None, join).await?.confirm();
        Ok(replica)
    }

    /// Returns its id.
    pub(crate) fn id(&self) -> ReplicaId {
        self.id
    }

    /// Returns the time of the oldest renewal of a replica that is not to be taken for gone, `now` being the time by the
    /// database's clock.
    pub(crate) fn oldest(&self, now: Timestamp) -> Timestamp {
        self.lease.oldest(now)
    }

    /// Renews its row with `stats`, a JSON document, and clears away after others, until shutdown; then leaves.
    pub(crate) async fn run(
        self,
        stats: impl Fn() -> String + Send + 'static,
        shutdown: CancellationToken,
    ) {
        let mut tick = interval(self.lease.interval());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            if let Err(error) = self.renew(stats()).await {
                tracing::warn!(%error, replica.id = %self.id, "failed to renew the replica's lease");
            }
            // After the database was away the others renew first.
            if !self.lease.may_take_over() {
                continue;
            }
            if let Err(error) = self.sweep(self.store.now()).await {
                tracing::warn!(%error, "replicas that are gone were not cleared away");
            }
        }
        if let Err(error) = self.clear(self.id, Timestamp::from_ms(i64::MAX)).await {
            tracing::warn!(%error, "the replica left its row behind");
        }
    }

    /// Returns all other replicas that were seen since `oldest`, with their stats.
    pub(crate) fn others(
        &self,
        reader: &Reader<'_>,
        oldest: Timestamp,
    ) -> Result<Vec<(ReplicaId, String)>, Error> {
        let sql = "SELECT id, stats FROM replicas WHERE id <> $1 AND seen_at >= $2 ORDER BY id";
        let params = [self.id.into(), oldest.into()];
        reader.query(sql, &params, |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Renews its row, so that the others know `stats` at once.
    pub(crate) async fn tell(&self, stats: String) -> Result<(), Error> {
        self.renew(stats).await
    }

    /// Returns whether another replica serves, and is not about to stop.
    pub(crate) async fn is_relieved(&self) -> Result<bool, Error> {
        let replica = self.clone();
        let others =
            move |reader: &Reader<'_>| replica.others(reader, replica.oldest(reader.now()));
        let others = self.store.read(others).await?;
        Ok(others.iter().any(|(_, stats)| serves(stats)))
    }

    async fn renew(&self, stats: String) -> Result<(), Error> {
        let renewing = self.clone();
        let renew = move |tx: &mut Tx<'_>, now: Timestamp| {
            let sql = "UPDATE replicas SET seen_at = $2, stats = $3 WHERE id = $1";
            let params = [renewing.id.into(), now.into(), (&stats).into()];
            let is_there = tx.execute(sql, &params)? == 1;
            if !is_there {
                renewing.insert(tx, &stats, now)?;
            }
            Ok::<_, Error>(is_there)
        };
        if !self.lease.renew(Some(Topic::replica(self.id)), renew).await?.confirm() {
            tracing::warn!(replica.id = %self.id, "the replica was given up by the others and is back");
        }
        Ok(())
    }

    fn insert(&self, tx: &mut Tx<'_>, stats: &str, now: Timestamp) -> Result<(), Error> {
        tx.ensure(&Topic::replica(self.id))?;
        tx.execute(
            "INSERT INTO replicas (id, started_at, seen_at, stats) VALUES ($1, $2, $3, $4)",
            &[self.id.into(), self.started_at.into(), now.into(), stats.into()],
        )?;
        Ok(())
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), Error> {
        let (own, before) = (self.id, now.before(FORGOTTEN));
        let sql = "SELECT id FROM replicas WHERE id <> $1 AND seen_at < $2";
        let gone = self
            .store
            .read(move |reader| reader.query(sql, &[own.into(), before.into()], |row| row.get(0)));
        for gone in gone.await? {
            self.clear(gone, before).await?;
            tracing::info!(replica.id = %gone, "cleared away after a replica");
        }
        Ok(())
    }

    /// Deletes what a replica left, a few rows at a time, unless it was seen again since `before`. Its row is the last
    /// to go: as long as it is there, somebody will finish this.
    async fn clear(&self, gone: ReplicaId, before: Timestamp) -> Result<(), Error> {
        let mut held = self.store.read(move |reader| slots::held_by(reader, gone)).await?;
        loop {
            let batch = held.split_off(held.len().saturating_sub(slots::BATCH));
            let last = held.is_empty();
            let delete = move |tx: &mut Tx<'_>| {
                let sql = "SELECT 1 FROM replicas WHERE id = $1 AND seen_at >= $2";
                if tx.find(sql, &[gone.into(), before.into()], |_| Ok(()))?.is_some() {
                    return Ok(true);
                }
                slots::release(tx, &batch)?;
                if last {
                    forget(tx, gone)?;
                }
                Ok::<_, Error>(last)
            };
            if self.store.write_lease_in(Topic::replica(gone), delete).await? {
                return Ok(());
            }
        }
    }
}

/// Deletes topics of replicas that are gone: a command may have made one anew after its replica was cleared away. Returns
/// how many.
pub(crate) async fn forget_left_topics(store: &Store, now: Timestamp) -> Result<usize, Error> {
    let find = move |reader: &Reader<'_>| {
        // Spelled as in the index. A replica that joins has its row with its topic.
        let names = "SELECT t.name, (SELECT e.at FROM entries e WHERE e.topic = t.name AND e.seq = t.head) \
                     FROM topics t WHERE t.name LIKE 'replica/%'";
        let topics = reader.query(names, &[], |row| {
            Ok((row.get::<String>(0)?, row.get::<Option<Timestamp>>(1)?))
        })?;
        let mut left = Vec::new();
        for (name, at) in topics {
            let id = name.strip_prefix("replica/").and_then(|id| id.parse::<ReplicaId>().ok());
            let id = id.ok_or(Error::Column { column: 0 })?;
            let sql = "SELECT 1 FROM replicas WHERE id = $1";
            let is_old = at.is_none_or(|at| now.since(at) >= FORGOTTEN);
            if is_old && reader.find(sql, &[id.into()], |_| Ok(()))?.is_none() {
                left.push(id);
            }
        }
        Ok::<_, Error>(left)
    };
    let left = store.read(find).await?;
    for replica in &left {
        let topic = Topic::replica(*replica);
        let replica = *replica;
        let delete = move |tx: &mut Tx<'_>| {
            let sql = "SELECT 1 FROM replicas WHERE id = $1";
            if tx.find(sql, &[replica.into()], |_| Ok(()))?.is_some() {
                return Ok::<_, Error>(());
            }
            tx.forget(&Topic::replica(replica))
        };
        store.write_in(topic, delete).await?;
    }
    Ok(left.len())
}

fn forget(tx: &mut Tx<'_>, replica: ReplicaId) -> Result<(), Error> {
    tx.forget(&Topic::replica(replica))?;
    tx.execute("DELETE FROM replicas WHERE id = $1", &[replica.into()])?;
    Ok(())
}

#[cfg(test)]
mod tests;
