//! How long sends and deliveries took, apart by what was going on.

use std::{fmt, time::Duration};

use crate::history::{History, Send, Window};

/// A part of the run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before anything was taken away.
    Before,
    /// While something was away.
    During,
    /// While everything was there again.
    After,
}

/// Percentiles of some times.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub count: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// The times of one phase.
#[derive(Copy, Clone, Debug)]
pub struct Latency {
    pub phase: Phase,
    /// From the first try of a send to its acknowledgement.
    pub send: Percentiles,
    /// From the acknowledgement to a stream; nothing if the stream was faster.
    pub delivery: Percentiles,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |hundredths: usize| {
            let index = (times.len() * hundredths / 100).min(times.len().saturating_sub(1));
            times.get(index).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}

impl Phase {
    fn of(at: Duration, windows: &[Window]) -> Self {
        if windows.first().is_none_or(|first| at < first.from) {
            Self::Before
        } else if windows.iter().any(|window| (window.from..window.to).contains(&at)) {
            Self::During
        } else {
            Self::After
        }
    }
}

/// Returns the times of each phase that there was.
pub(crate) fn of(history: &History, windows: &[Window]) -> Vec<Latency> {
    let phases: Vec<Phase> =
        history.sends.iter().map(|send| Phase::of(send.began, windows)).collect();
    let answered = |send: &Send| Some(send.answer?.at);
    let latency = |phase: Phase| {
        let is_in = |number: &usize| phases[*number] == phase;
        let numbers = (0..phases.len()).filter(is_in);
        let sends = numbers.filter_map(|number| {
            let send = &history.sends[number];
            Some(answered(send)?.saturating_sub(send.began))
        });
        let seen = history.streams.iter().flat_map(|stream| &stream.seen);
        let deliveries = seen.filter_map(|seen| {
            let number = seen.send.filter(|number| *number < phases.len() && is_in(number))?;
            Some(seen.at.saturating_sub(answered(&history.sends[number])?))
        });
        Latency {
            phase,
            send: Percentiles::of(sends.collect()),
            delivery: Percentiles::of(deliveries.collect()),
        }
    };
    let all = [Phase::Before, Phase::During, Phase::After].map(latency);
    all.into_iter().filter(|latency| latency.send.count > 0).collect()
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::During => "something away",
            Self::After => "all there again",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let percentiles = Percentiles::of(times);
        assert_eq!(percentiles.p50, Duration::from_millis(101));
        assert_eq!(percentiles.p99, Duration::from_millis(199));
        assert_eq!(percentiles.max, Duration::from_millis(200));
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }

    #[test]
    fn a_time_is_in_its_phase() {
        let window = |from, to| Window {
            from: Duration::from_secs(from),
            to: Duration::from_secs(to),
            ..Window::default()
        };
        let windows = [window(10, 12), window(20, 22)];
        let phases = [5, 11, 15, 21, 30].map(|at| Phase::of(Duration::from_secs(at), &windows));
        let expected = [Phase::Before, Phase::During, Phase::After, Phase::During, Phase::After];
        assert_eq!(phases, expected);
        assert_eq!(Phase::of(Duration::from_secs(5), &[]), Phase::Before);
    }
}
