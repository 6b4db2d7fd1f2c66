//! What is said of a run.

use std::{fmt, time::Duration};

use crate::{
    history::History,
    judge::{Counts, Verdict},
};
pub use crate::{
    latency::{Latency, Percentiles, Phase},
    world::Failures,
};

/// Streams of which it is said what happened to them.
const STREAMS_SHOWN: usize = 10;

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub verdict: Verdict,
    pub failures: Failures,
    /// Whether a request may fail at first.
    pub requests_may_fail: bool,
    pub acknowledged: usize,
    /// Sends of which nobody knows what became of them.
    pub unknown: usize,
    pub streams: usize,
    pub deliveries: usize,
    /// How often streams were opened again.
    pub reopened: usize,
    pub latencies: Vec<Latency>,
    /// Parts that did not end well when the cluster was stopped.
    pub stop: Result<(), String>,
}

impl Report {
    pub(crate) fn new(
        seed: u64,
        history: &History,
        verdict: Verdict,
        latencies: Vec<Latency>,
        failures: Failures,
        requests_may_fail: bool,
    ) -> Self {
        let answered = history.sends.iter().filter(|send| send.answer.is_some()).count();
        let members = || history.streams.iter().filter(|stream| stream.is_member);
        Self {
            seed,
            verdict,
            failures,
            requests_may_fail,
            acknowledged: answered,
            unknown: history.sends.len() - answered,
            streams: members().count(),
            deliveries: history.streams.iter().map(|stream| stream.seen.len()).sum(),
            reopened: members().map(|stream| stream.opened.saturating_sub(1)).sum(),
            latencies,
            stop: Ok(()),
        }
    }

    /// Returns what went wrong with streams and sends.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.verdict.counts
    }

    /// Says whether everything was as promised.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let may = if self.requests_may_fail { self.failures.wrong } else { self.failures.count };
        self.counts().is_clean() && may == 0 && self.stop.is_ok()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failures, verdict, .. } = self;
        for example in &failures.examples {
            writeln!(f, "  failed at {example}")?;
        }
        for (number, counts) in verdict.by_stream.iter().take(STREAMS_SHOWN) {
            writeln!(f, "  stream checker-{number}: {counts}")?;
        }
        if let Err(error) = &self.stop {
            writeln!(f, "  {error}")?;
        }
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "{:>14} sends acknowledged, {} unknown", self.acknowledged, self.unknown)?;
        writeln!(
            f,
            "{:>14} deliveries on {} streams, which were opened again {} times",
            self.deliveries, self.streams, self.reopened
        )?;
        writeln!(
            f,
            "{:>14} requests failed as they may, {} as none may",
            failures.count - failures.wrong,
            failures.wrong
        )?;
        if verdict.rewound > 0 {
            writeln!(f, "{:>14} rewound", verdict.rewound)?;
        }
        for (name, count) in verdict.counts.named() {
            writeln!(f, "{count:>14} {name}")?;
        }
        writeln!(f, "{:>16}{:>34}{:>34}", "", "send, ms", "acknowledged to delivered, ms")?;
        let head = ["count", "p50", "p99", "max"].map(|name| format!("{name:>8}")).concat();
        writeln!(f, "{:>16}  {head}  {head}", "")?;
        for Latency { phase, send, delivery } in &self.latencies {
            writeln!(f, "{phase:>16}  {send}  {delivery}")?;
        }
        f.write_str(if self.is_clean() { "as promised" } else { "NOT AS PROMISED" })
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let Self { count, p50, p99, max } = *self;
        write!(f, "{count:>8}{:>8.1}{:>8.0}{:>8.0}", ms(p50), ms(p99), ms(max))
    }
}
