//! Sweeps over real databases.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cluster::{on_both_stores, scratch::Home};
use http_body_util::BodyExt as _;
use tokio::sync::Notify;

use super::*;
use crate::bus::Bus;

on_both_stores!(
    one_process_at_a_time_runs_a_sweep,
    a_claim_from_a_clock_that_is_ahead_does_not_count,
    rows_are_deleted_in_bounded_statements,
);

fn open(home: Home, folder: &tempfile::TempDir) -> Store {
    match home.url() {
        None => Store::open(folder.path(), &Bus::default()).unwrap(),
        Some(url) => Store::connect(&url, &Bus::default(), None).unwrap(),
    }
}

const MINUTE: Duration = Duration::from_mins(1);

async fn one_process_at_a_time_runs_a_sweep(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let sweeps = Sweeps::new(open(home, &folder), &Metrics::default());
    let now = Timestamp::now();
    let claim = async |at| sweeps.claim("test", MINUTE, at).await.unwrap();
    assert!(claim(now).await);
    // An embedded database has one process.
    let is_shared = home.url().is_some();
    assert_eq!(!claim(now.after(MINUTE / 2)).await, is_shared);
    assert!(claim(now.after(MINUTE)).await, "the next run of the same process");
}

async fn a_claim_from_a_clock_that_is_ahead_does_not_count(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let sweeps = Sweeps::new(open(home, &folder), &Metrics::default());
    let now = Timestamp::now();
    for at in [now.after(Duration::from_hours(1)), now] {
        assert!(sweeps.claim("test", MINUTE, at).await.unwrap(), "at {at}");
    }
}

async fn rows_are_deleted_in_bounded_statements(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, &folder);
    let fill = |tx: &mut Tx<'_>| {
        let sql = "INSERT INTO sweeps (name, until) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                   WHERE i < 2500) SELECT CAST(i AS TEXT), i FROM n";
        tx.execute(sql, &[])
    };
    store.write(fill).await.unwrap();
    let delete =
        |tx: &mut Tx<'_>| delete_some(tx, "sweeps", "name", "until <= $1", &[2_400.into()]);
    assert_eq!(store.write(delete).await.unwrap(), MAX_ROWS);
    assert_eq!(delete_all(&store, delete).await.unwrap(), 1_400);
    assert_eq!(delete_all(&store, delete).await.unwrap(), 0);
}

#[tokio::test]
async fn a_sweep_that_fails_is_counted_and_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &Bus::default()).unwrap();
    let metrics = Metrics::default();
    let (runs, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let shutdown = CancellationToken::new();
    let work = |_| {
        let (runs, done) = (runs.clone(), done.clone());
        async move {
            match runs.fetch_add(1, Ordering::Relaxed) {
                0 => Err(Error::Gone),
                1 => Ok(5),
                _ => {
                    done.notify_one();
                    Ok(0)
                }
            }
        }
    };
    let sweep =
        Sweeps::new(store, &metrics).run("test", Duration::from_millis(5), shutdown.clone(), work);
    let stop = async {
        done.notified().await;
        shutdown.cancel();
    };
    tokio::join!(sweep, stop);
    let text = metrics.show().into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&text);
    for line in [
        "parley_sweep_failures_total{sweep=\"test\"} 1",
        "parley_sweep_deleted_rows_total{sweep=\"test\"} 5",
    ] {
        assert!(text.contains(line), "{line} is not in the metrics: {text}");
    }
}
