//! `/metrics` of proc: what waits, runs and was given up, beside what every service counts.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use shared::{
    metrics::Metrics,
    store::{Error, Reader, Store},
};

use super::{admin::Counts, store::overview};

/// What the figures are read from; `None` while the database is away.
type Seen = Arc<Mutex<Option<(Counts, i64)>>>;

/// Serves the figures to operators on the internal listener.
pub(crate) fn routes(store: Store, metrics: Metrics) -> Router {
    let seen = Seen::default();
    let gauge = |name, help, value: fn(&Counts, i64) -> i64| {
        let seen = seen.clone();
        metrics.gauge(name, help, move || {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.as_ref().and_then(|(counts, parked)| value(counts, *parked).try_into().ok())
        });
    };
    gauge("jobs_waiting", "Jobs of all proc that nobody runs yet", |counts, _| {
        counts.queued + counts.interrupted
    });
    gauge("jobs_due", "Jobs of all proc that could begin now", |counts, _| counts.due);
    gauge("jobs_running", "Jobs of all proc that run", |counts, _| counts.running);
    gauge(
        "jobs_accepted",
        "Jobs of all proc that wait for their bundle to call back",
        |counts, _| counts.accepted,
    );
    gauge("jobs_parked", "Jobs of all proc that were given up", |_, parked| parked);
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds of some days at most")]
    gauge(
        "jobs_oldest_wait_seconds",
        "How long the first job that is due has been",
        |counts, _| counts.oldest_wait_seconds.unwrap_or_default() as i64,
    );
    let show = async move || {
        let figures = store.read(read).await.ok();
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = figures;
        metrics.show()
    };
    Router::new().route("/metrics", axum::routing::get(show))
}

fn read(reader: &Reader<'_>) -> Result<(Counts, i64), Error> {
    let now = reader.now();
    Ok((Counts::of(&overview::depths(reader, now)?, now), overview::parked(reader)?))
}
