//! Repairs times that a wrong clock has left too far in the future: next times of schedules, and waits of jobs and webhooks.
//!
//! A clock that was two hours ahead for a minute leaves schedules whose next time is two hours away. Nothing else would look at
//! them until then.

use std::time::Duration;

use shared::{
    ids::ScheduleId,
    store::{Error, Store},
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{jobs, schedules, webhooks};

/// Interval at which stored times are checked.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks at all waits of jobs and webhooks, and at a page of schedules after another.
#[derive(Clone, Debug)]
pub(crate) struct ClockRepair {
    store: Store,
    /// Last schedule of the page before.
    after: Option<ScheduleId>,
}

impl ClockRepair {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, after: None }
    }

    /// Repairs times until shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            if let Some(Err(error)) = shutdown.run_until_cancelled(self.round()).await {
                tracing::warn!(%error, "failed to look for times that a wrong clock has left");
            }
        }
    }

    async fn round(&mut self) -> Result<(), Error> {
        let now = self.store.now();
        self.after = schedules::repair(&self.store, now, self.after).await?;
        jobs::repair(&self.store, now).await?;
        webhooks::repair(&self.store, now).await
    }
}

#[cfg(test)]
mod tests {
    use cluster::{on_both_stores, scratch::Home};
    use shared::{
        bus::Bus,
        ids::{JobId, WebhookId},
        store::{Tx, Value},
        time::Timestamp,
    };
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    on_both_stores!(
        a_schedule_that_a_wrong_clock_put_off_fires_at_its_own_next_time,
        a_job_that_a_wrong_clock_put_off_runs_at_once,
        a_webhook_that_a_wrong_clock_put_off_is_tried_at_once,
    );

    const HOUR: Duration = Duration::from_hours(1);

    struct Scratch {
        store: Store,
        _folder: TempDir,
    }

    impl Scratch {
        fn open(home: Home) -> Self {
            let (folder, bus) = (tempfile::tempdir().unwrap(), Bus::default());
            let store = match home.url() {
                Some(url) => Store::connect(&url, &bus, None).unwrap(),
                None => Store::open(folder.path(), &bus).unwrap(),
            };
            Self { store, _folder: folder }
        }

        async fn write(&self, work: impl Fn(&mut Tx<'_>) -> Result<usize, Error> + Send + 'static) {
            assert_eq!(self.store.write(work).await.unwrap(), 1);
        }

        /// Returns a time of a row, by a statement with the row's id.
        async fn time(&self, sql: &'static str, id: Uuid) -> Timestamp {
            let found = self.store.read(move |reader| {
                reader.find(sql, &[Value::Uuid(id)], |row| row.get::<Timestamp>(0))
            });
            found.await.map_err(|error: Error| error).unwrap().expect("it is there")
        }

        async fn round(&self) {
            ClockRepair::new(self.store.clone()).round().await.unwrap();
        }
    }

    async fn a_schedule_that_a_wrong_clock_put_off_fires_at_its_own_next_time(home: Home) {
        let scratch = Scratch::open(home);
        let now = scratch.store.now();
        let insert = async |n: i64, cron: &'static str, next: Timestamp| {
            let id = Uuid::now_v7();
            let sql = "INSERT INTO schedules (id, project_id, n, owner, bundle, operation, data, cron, time_zone, missed, \
                       state, next_fire_at, created_at, updated_at) \
                       VALUES ($1, $1, $2, 'ada', 'demo', 'count', '{}', $3, 'UTC', 'skip', 'active', $4, 0, 0)";
            scratch
                .write(move |tx| {
                    tx.execute(sql, &[Value::Uuid(id), n.into(), cron.into(), next.into()])
                })
                .await;
            id
        };
        let wrong = insert(0, "* * * * *", now.after(2 * HOUR)).await;
        let yearly = insert(1, "0 0 1 1 *", now.after(100 * HOUR)).await;
        let due = insert(2, "* * * * *", now.before(HOUR)).await;
        let soon = insert(3, "* * * * *", now.after(Duration::from_secs(50))).await;
        scratch.round().await;
        let next = "SELECT next_fire_at FROM schedules WHERE id = $1";
        let mended = scratch.time(next, wrong).await;
        assert!(mended <= now.after(2 * Duration::from_mins(1)), "it stays silent until {mended}");
        for (id, time) in [(due, now.before(HOUR)), (soon, now.after(Duration::from_secs(50)))] {
            assert_eq!(scratch.time(next, id).await, time, "nothing was wrong with it");
        }
        assert_eq!(scratch.time(next, yearly).await, now.after(100 * HOUR), "it fires too soon");
    }

    async fn a_job_that_a_wrong_clock_put_off_runs_at_once(home: Home) {
        let scratch = Scratch::open(home);
        let now = scratch.store.now();
        let insert = async |started: Timestamp, run_after: Timestamp| {
            let id = JobId::mint();
            let sql = "INSERT INTO jobs (id, owner, project_id, bundle, operation, input, state, attempt, max_attempts, \
                       crashes, fence, run_after, rank, priority, progress, trace_id, created_at, started_at) \
                       VALUES ($1, 'ada', $1, 'b', 'o', '{}', 'queued', 1, 3, 0, 1, $2, $4, 10, '{}', 't', $3, $3)";
            scratch
                .write(move |tx| {
                    let rank = run_after.before(Duration::from_mins(10));
                    tx.execute(sql, &[id.into(), run_after.into(), started.into(), rank.into()])
                })
                .await;
            id.0
        };
        let ahead = now.after(2 * HOUR);
        let retried = insert(ahead, ahead.after(Duration::from_secs(2))).await;
        let far = insert(now.before(HOUR), now.after(48 * HOUR)).await;
        let asked = insert(now.before(HOUR), now.after(20 * HOUR)).await;
        scratch.round().await;
        for id in [retried, far] {
            let at = scratch.time("SELECT run_after FROM jobs WHERE id = $1", id).await;
            assert!(at <= scratch.store.now(), "it waits until {at}");
            let rank = scratch.time("SELECT rank FROM jobs WHERE id = $1", id).await;
            assert_eq!(rank, at.before(Duration::from_mins(10)), "its place is another");
        }
        let at = scratch.time("SELECT run_after FROM jobs WHERE id = $1", asked).await;
        assert_eq!(at, now.after(20 * HOUR), "a bundle has asked for this time");
    }

    async fn a_webhook_that_a_wrong_clock_put_off_is_tried_at_once(home: Home) {
        let scratch = Scratch::open(home);
        let now = scratch.store.now();
        let insert = async |since: Timestamp, next: Timestamp| {
            let id = WebhookId::mint();
            let sql = "INSERT INTO webhooks (id, project_id, owner, url, secret, events, state, revision, log, cursor, epoch, \
                       seq, job_key, failures, failing_since, next_at, created_at, updated_at) \
                       VALUES ($1, $1, 'ada', 'http://h/', 's', '[]', 'active', $1, 'l', 'c', 1, 1, 'k', 3, $2, $3, 0, 0)";
            scratch.write(move |tx| tx.execute(sql, &[id.into(), since.into(), next.into()])).await;
            id.0
        };
        let ahead = now.after(2 * HOUR);
        let failed = insert(ahead, ahead.after(Duration::from_secs(4))).await;
        let far = insert(now, now.after(100 * HOUR)).await;
        let asked = insert(now, now.after(70 * HOUR)).await;
        scratch.round().await;
        let next = "SELECT next_at FROM webhooks WHERE id = $1";
        for id in [failed, far] {
            let at = scratch.time(next, id).await;
            assert!(at <= scratch.store.now(), "it waits until {at}");
        }
        assert_eq!(scratch.time(next, asked).await, now.after(70 * HOUR), "it has asked for that");
        let since = "SELECT failing_since FROM webhooks WHERE id = $1";
        assert!(scratch.time(since, failed).await <= scratch.store.now(), "its patience is longer");
    }
}
