//! What operators see of answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shared::{answers::Totals, metrics::Metrics};

use super::events::Reason;

/// Counts of this process; a clone is the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    started: AtomicU64,
    taken_over: AtomicU64,
    finished: AtomicU64,
    capped: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
    chunks: AtomicU64,
    tokens: AtomicU64,
    first_chunks: AtomicU64,
    first_chunk_ms: AtomicU64,
    running: AtomicU64,
}

/// One answer that is being written here.
#[derive(Debug)]
pub(super) struct Running(Figures);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Figures {
    pub(super) fn begin(&self, is_new: bool) -> Running {
        let counts = &self.0;
        let counter = if is_new { &counts.started } else { &counts.taken_over };
        counter.fetch_add(1, Ordering::Relaxed);
        counts.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Counts chunks that were written, `first` being how long the first one took.
    pub(super) fn wrote(&self, chunks: usize, first: Option<Duration>) {
        self.0.chunks.fetch_add(chunks as u64, Ordering::Relaxed);
        if let Some(first) = first {
            let ms = u64::try_from(first.as_millis()).unwrap_or(u64::MAX);
            self.0.first_chunks.fetch_add(1, Ordering::Relaxed);
            self.0.first_chunk_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }

    /// Counts an end; `None` is a failure.
    pub(super) fn ended(&self, reason: Option<Reason>, totals: Totals) {
        let counts = &self.0;
        let counter = match reason {
            Some(Reason::Finished) => &counts.finished,
            Some(Reason::DurationCap) => &counts.capped,
            Some(Reason::Cancelled) => &counts.cancelled,
            None => &counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        counts.tokens.fetch_add(totals.tokens, Ordering::Relaxed);
    }

    pub(super) fn tell(&self, metrics: &Metrics) {
        let counter = |name, help, count: fn(&Counts) -> &AtomicU64| {
            let counts = self.0.clone();
            metrics.counter(name, help, move || count(&counts).load(Ordering::Relaxed));
        };
        counter("answers_started", "Answers begun here", |counts| &counts.started);
        counter("answers_taken_over", "Answers of lost writers continued here", |counts| {
            &counts.taken_over
        });
        counter("answers_finished", "Answers written to their end", |counts| &counts.finished);
        counter("answers_capped", "Answers that ran out of time", |counts| &counts.capped);
        counter("answers_cancelled", "Answers ended by who asked", |counts| &counts.cancelled);
        counter("answers_failed", "Answers that ended in an error", |counts| &counts.failed);
        counter("answer_chunks", "Chunks written", |counts| &counts.chunks);
        counter("answer_tokens", "Tokens of answers that ended", |counts| &counts.tokens);
        counter("answer_first_chunks", "Answers whose first chunk was written", |counts| {
            &counts.first_chunks
        });
        counter(
            "answer_first_chunk_milliseconds",
            "Time from the question to the first chunk, of all of them",
            |counts| &counts.first_chunk_ms,
        );
        let counts = self.0.clone();
        metrics.gauge("answers_running", "Answers being written here", move || {
            Some(counts.running.load(Ordering::Relaxed))
        });
    }
}
