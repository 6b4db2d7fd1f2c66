//! Jobs: how many a second from enqueue to done, beside `graphile-worker` and `pg-boss` on the same database, and how long
//! one waits for its start, its cancel, and for another worker when its own is gone.

mod database;
mod delays;
mod home;
mod peers;
mod rates;
mod turn;

use std::{path::PathBuf, time::Instant};

use ::cluster::{Cluster, Options as Parts};
use anyhow::Context;
use clap::Args;

use crate::{cluster::machine, process, users};

#[derive(Args)]
pub(crate) struct Options {
    /// Jobs that wait when the work begins; as many are added beside the work. One by one an eighth of it.
    #[arg(long, default_value_t = 24_000)]
    jobs: usize,
    /// Connections that submit to Parley at once.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Jobs that Parley runs at once.
    #[arg(long, default_value_t = 16_000)]
    workers: usize,
    /// Owners of the jobs, beside one alone.
    #[arg(long, default_value_t = 4)]
    owners: usize,
    /// Rounds; each has every case once, and the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Starts and cancels that are timed.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Parts to run; all by default.
    #[arg(long, value_delimiter = ',', default_values = ["sqlite", "rates", "delays"])]
    only: Vec<String>,
    /// Cases whose names begin so, once for each; all by default.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Folder of the programs `ingress` and `proc`; by default where `bench` is.
    #[arg(long)]
    programs: Option<PathBuf>,
}

impl Options {
    /// Returns how many jobs a turn has. One by one they are so slow that fewer tell as much.
    /// Returns whether a case is to be run.
    fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|name| case.starts_with(name))
    }

    fn jobs_of(&self, batch: bool) -> usize {
        if batch { self.jobs } else { self.jobs / 8 }
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let began = Instant::now();
    println!("{}", machine("before")?);
    let wanted = |part: &str| options.only.iter().any(|only| only == part);
    if wanted("sqlite") {
        rates::sqlite(&options).await?;
    }
    if wanted("rates") || wanted("delays") {
        let dir = process::open_folder(None)?;
        let names = dir.path().join("users.json");
        // A second owner keeps the reserve of workers busy, even where one alone submits.
        users::write(&names, options.owners.max(2))?;
        let parts = Parts::new(dir.path().join("cluster")).without_rate_limits();
        let programs = options.programs.clone().unwrap_or_else(|| parts.programs.clone());
        let parts = Parts { ingress: 1, proc: 2, programs, ..parts }
            .set("AUTH_USERS_FILE", names.to_str().context("the folder's name is not text")?)
            .set("PROC_QUEUE_LIMIT", "1000000")
            // Every entry is counted in the end.
            .set("JOURNAL_MAX_ENTRIES", "100000000")
            .set("DRAIN_DELAY", "0s")
            .set("LOG", "warn");
        let cluster = Cluster::start(parts).await?;
        if wanted("rates") {
            cluster.proc(1).stop().await?;
            rates::postgres(&options, &cluster).await?;
            cluster.proc(1).start().await?;
        }
        if wanted("delays") {
            delays::run(&options, &cluster).await?;
        }
        cluster.stop().await?;
    }
    println!("\n{}; {} s in all", machine("afterwards")?, began.elapsed().as_secs());
    Ok(())
}
