//! `/metrics` of proc: how many jobs wait, beside what every service counts.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::Router;
use shared::{metrics::Metrics, store::Store};

use super::store;

/// Not known, as the database is away.
const UNKNOWN: i64 = -1;

/// Serves the figures to operators on the internal listener.
pub(crate) fn routes(store: Store, metrics: Metrics) -> Router {
    let waiting = Arc::new(AtomicI64::new(UNKNOWN));
    let read = waiting.clone();
    metrics.gauge("jobs_waiting", "Jobs of all proc that nobody runs yet", move || {
        u64::try_from(read.load(Ordering::Relaxed)).ok()
    });
    let show = async move || {
        let count = store.read(|reader| store::waiting(reader, i64::MAX)).await;
        waiting.store(count.unwrap_or(UNKNOWN), Ordering::Relaxed);
        metrics.show()
    };
    Router::new().route("/metrics", axum::routing::get(show))
}
