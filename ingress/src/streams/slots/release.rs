//! Frees slots: a lease says that they are given up, one task deletes them, many at a time.

use std::{mem, sync::Arc, time::Duration};

use shared::{
    ids::{ConnectionId, ReplicaId},
    store::{Error, Reader, Store, Tx},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Leases whose slots are freed in one write.
pub(crate) const BATCH: usize = 256;
/// How long a store that failed is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// Slots by scope key and number; boxed, since there is one for each open stream.
type Held = Box<[(Box<str>, i64)]>;

/// Slots that a connection has given up.
#[derive(Clone, Debug)]
pub(crate) struct Freed {
    connection: ConnectionId,
    slots: Held,
}

/// What an open stream holds: its slots are freed when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: ConnectionId,
    slots: Held,
    freed: mpsc::UnboundedSender<Freed>,
}

impl Lease {
    pub(super) fn new(
        connection: ConnectionId,
        slots: Held,
        freed: mpsc::UnboundedSender<Freed>,
    ) -> Self {
        Self { connection, slots, freed }
    }

    /// Returns what is freed when it is dropped, for who wants to free it sooner.
    pub(crate) fn freed(&self) -> Freed {
        Freed { connection: self.connection, slots: self.slots.clone() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let freed = Freed { connection: self.connection, slots: mem::take(&mut self.slots) };
        // Without a bound, since dropping can't wait; it holds each open stream once at most. After the releaser has
        // ended, the end of the replica frees what is left.
        let _ = self.freed.send(freed);
    }
}

/// Deletes freed slots, unless another connection has them by now.
pub(crate) fn release(tx: &mut Tx<'_>, freed: &[Freed]) -> Result<(), Error> {
    let sql = "DELETE FROM slots WHERE scope = $1 AND n = $2 AND connection = $3";
    let rows = freed.iter().flat_map(|Freed { connection, slots }| {
        slots.iter().map(|(scope, n)| (&**scope, *n, *connection))
    });
    // In one order by everybody, so that two who free the same rows do not wait for each other.
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable();
    for (scope, n, connection) in rows {
        tx.execute(sql, &[scope.into(), n.into(), connection.into()])?;
    }
    Ok(())
}

/// Returns every slot of a replica. Reads the whole table, which the death of a replica is rare enough for.
pub(crate) fn held_by(reader: &Reader<'_>, replica: ReplicaId) -> Result<Vec<Freed>, Error> {
    let sql = "SELECT scope, n, connection FROM slots WHERE replica = $1";
    reader.query(sql, &[replica.into()], |row| {
        let slot = (row.get::<String>(0)?.into(), row.get(1)?);
        Ok(Freed { connection: row.get(2)?, slots: [slot].into() })
    })
}

/// The task that frees slots.
#[derive(Debug)]
pub(crate) struct Releaser {
    store: Store,
    given_up: mpsc::UnboundedReceiver<Freed>,
}

impl Releaser {
    pub(super) fn new(store: Store, given_up: mpsc::UnboundedReceiver<Freed>) -> Self {
        Self { store, given_up }
    }

    /// Frees until shutdown, then what is still queued.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            let more = self.given_up.recv_many(&mut batch, BATCH);
            if shutdown.run_until_cancelled(more).await.is_none_or(|count| count == 0) {
                break;
            }
            self.free(batch, &shutdown).await;
        }
        self.given_up.close();
        loop {
            let mut batch = Vec::new();
            if self.given_up.recv_many(&mut batch, BATCH).await == 0 {
                break;
            }
            self.free(batch, &shutdown).await;
        }
    }

    /// Tries until it succeeds; in a shutdown once, since the rows of a replica that is gone are free anyway.
    async fn free(&self, batch: Vec<Freed>, shutdown: &CancellationToken) {
        let batch: Arc<[Freed]> = batch.into();
        loop {
            let freed = batch.clone();
            match self.store.write(move |tx| release(tx, &freed)).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "slots were not freed"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }

    /// Returns what was given up and not yet freed.
    #[cfg(test)]
    pub(crate) fn queued(&mut self) -> Vec<Freed> {
        std::iter::from_fn(|| self.given_up.try_recv().ok()).collect()
    }
}
