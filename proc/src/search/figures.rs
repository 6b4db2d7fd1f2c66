//! What operators see of the index at `/metrics`.

use std::{
    path::Path,
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use shared::metrics::{Metrics, Timer};

use super::Search;

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Entries of logs that are not in the index.
    pub(super) lag: AtomicU64,
    /// Messages that were written to the index since the start.
    pub(super) indexed: AtomicU64,
    pub(super) searches: Timer,
}

impl Search {
    /// Adds the index's figures.
    pub(crate) fn tell(&self, metrics: &Metrics) {
        let search = self.clone();
        metrics.gauge("search_documents", "Messages that can be found", move || {
            let shown = search.inner.shown.read().unwrap_or_else(PoisonError::into_inner);
            let logs = u64::try_from(shown.logs).ok()?;
            Some(shown.searcher.num_docs().saturating_sub(logs))
        });
        let search = self.clone();
        metrics.gauge("search_index_bytes", "Bytes of the index on disk", move || {
            Some(search.bytes())
        });
        let search = self.clone();
        metrics.gauge(
            "search_lag_entries",
            "Entries of projects' logs that are not in the index",
            move || Some(search.inner.figures.lag.load(Ordering::Relaxed)),
        );
        let search = self.clone();
        metrics.counter("search_indexed", "Messages written to the index", move || {
            search.inner.figures.indexed.load(Ordering::Relaxed)
        });
        let searches = &self.inner.figures.searches;
        metrics.timer("search_seconds", "Time that a search takes", searches);
    }

    /// Returns how many bytes of disk the index takes.
    pub(crate) fn bytes(&self) -> u64 {
        size(&self.inner.folder)
    }
}

/// Files come and go while it looks; those that are gone have no size.
fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}
