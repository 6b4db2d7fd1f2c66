//! Periodic deletion of data whose time has passed.
//!
//! A sweep deletes in bounded steps, each a transaction of its own, so that a process may end between any two of them. Of the
//! replicas that share a database one runs a sweep at a time. A sweep that fails is an error in the log and a metric.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    store::{Error, Store, Tx, Value},
    time::Timestamp,
};

/// Rows that one statement of a sweep deletes at most.
pub const MAX_ROWS: usize = 1_000;

/// The sweeps of one service; a clone is the same ones.
#[derive(Clone, Debug)]
pub struct Sweeps {
    store: Store,
    failures: Family<Sweep, Counter>,
    deleted: Family<Sweep, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Sweep {
    sweep: &'static str,
}

impl Sweeps {
    /// Registers the metrics `parley_sweep_failures_total` and `parley_sweep_deleted_rows_total`.
    #[must_use]
    pub fn new(store: Store, metrics: &Metrics) -> Self {
        let sweeps = Self { store, failures: Family::default(), deleted: Family::default() };
        let help = "Runs of a periodic deletion that failed";
        metrics.register("sweep_failures", help, sweeps.failures.clone());
        let help = "Rows that a periodic deletion deleted";
        metrics.register("sweep_deleted_rows", help, sweeps.deleted.clone());
        sweeps
    }

    /// Runs `work` every `every`, on one of the replicas, until shutdown. The work returns how many rows it deleted.
    pub async fn run<W, E>(
        self,
        name: &'static str,
        every: Duration,
        shutdown: CancellationToken,
        work: impl Fn(Timestamp) -> W + Send,
    ) where
        W: Future<Output = Result<usize, E>> + Send,
        E: From<Error> + fmt::Display,
    {
        // A scraper sees each sweep from the start, not from its first failure on.
        drop(self.failures.get_or_create(&Sweep { sweep: name }));
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let now = self.store.now();
            let run =
                async { if self.claim(name, every, now).await? { work(now).await } else { Ok(0) } };
            match shutdown.run_until_cancelled(run).await {
                Some(Ok(rows)) => self.swept(name, rows),
                Some(Err(error)) => self.failed(name, &error),
                None => return,
            }
        }
    }

    fn swept(&self, name: &'static str, rows: usize) {
        if rows > 0 {
            self.deleted.get_or_create(&Sweep { sweep: name }).inc_by(rows as u64);
            tracing::debug!(sweep = name, rows, "deleted data whose time has passed");
        }
    }

    fn failed(&self, name: &'static str, error: &impl fmt::Display) {
        self.failures.get_or_create(&Sweep { sweep: name }).inc();
        tracing::error!(%error, sweep = name, "failed to delete data whose time has passed");
    }

    /// Returns whether the run is this process's. A claim ends before the next tick of the process that has it. One that
    /// lies further ahead than any can was made by a process with another clock, and does not count.
    async fn claim(
        &self,
        name: &'static str,
        every: Duration,
        now: Timestamp,
    ) -> Result<bool, Error> {
        if self.store.is_embedded() {
            return Ok(true);
        }
        let until = now.after(every.mul_f64(0.9));
        let claim = move |tx: &mut Tx<'_>| {
            let sql = "INSERT INTO sweeps (name, until) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE \
                       SET until = excluded.until WHERE sweeps.until <= $3 OR sweeps.until > excluded.until";
            tx.execute(sql, &[name.into(), until.into(), now.into()])
        };
        Ok(self.store.write(claim).await? == 1)
    }
}

/// Deletes at most [`MAX_ROWS`] rows of `table` that `condition` names, and returns how many it found; `key` is the table's
/// key, its columns separated by commas.
pub fn delete_some(
    tx: &mut Tx<'_>,
    table: &str,
    key: &str,
    condition: &str,
    params: &[Value<'_>],
) -> Result<usize, Error> {
    let sql = format!(
        "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT {MAX_ROWS})"
    );
    let deleted = tx.execute(&sql, params)?;
    if deleted > 0 {
        tx.erases();
    }
    Ok(deleted)
}

/// Runs `step`, a transaction that returns how many rows it deleted, until one deletes fewer than [`MAX_ROWS`]. Returns how
/// many rows were deleted in all.
pub async fn delete_all<E: From<Error> + Send + 'static>(
    store: &Store,
    step: impl Fn(&mut Tx<'_>) -> Result<usize, E> + Clone + Send + 'static,
) -> Result<usize, E> {
    let mut deleted = 0;
    loop {
        let rows = store.write(step.clone()).await?;
        deleted += rows;
        if rows < MAX_ROWS {
            return Ok(deleted);
        }
    }
}

#[cfg(test)]
mod tests;
