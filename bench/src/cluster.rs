//! What an installation of many processes does a second: sends by way of nginx and up to three ingress, in turn with the
//! same rows by `pgbench` on the same database, and deliveries across replicas.

pub(crate) mod cpu;
mod delivery;
mod pgbench;
mod place;
mod sends;
pub(crate) mod table;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use shared::lifecycle::signalled;

use self::place::{Parts, Place};

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds; each has every case once, and the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each case is counted, in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Clients that send at once, each waiting for its 201.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Projects they send into, beside one alone.
    #[arg(long, default_value_t = 16)]
    projects: usize,
    /// Streams that are open while deliveries are timed; rounded down to the same number for each project.
    #[arg(long, default_value_t = 2_000)]
    streams: usize,
    /// Projects of these streams.
    #[arg(long, default_value_t = 20)]
    stream_projects: usize,
    /// Sends a second to these streams.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// When the run is ended, if it is not over by itself, in seconds.
    #[arg(long, default_value_t = 235)]
    limit: u64,
    #[command(flatten)]
    parts: Parts,
}

/// Measures until it is done, the time is over or somebody asks for the end. Everything that was started ends with it.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let (limit, stopped) = (Duration::from_secs(options.limit), signalled()?);
    crate::streams::raise_descriptors()?;
    let began = Instant::now();
    println!("{}", machine("before")?);
    tokio::select! {
        done = measure(options) => done?,
        () = tokio::time::sleep(limit) => bail!("not done after {} s", limit.as_secs()),
        () = stopped => bail!("stopped"),
    }
    println!("\n{}; {} s in all", machine("afterwards")?, began.elapsed().as_secs());
    Ok(())
}

async fn measure(options: Options) -> anyhow::Result<()> {
    let Options { rounds, seconds, clients, projects, stream_projects, rate, .. } = options;
    let time = Duration::from_secs(seconds);
    let streams = options.streams / stream_projects * stream_projects;
    let members = delivery::members(streams, stream_projects);
    let place = Place::start(options.parts, members * stream_projects).await?;

    let sends = sends::Plan { clients, rounds, time };
    sends::run(&place, &place.projects(1, 0).await?, &sends).await?;
    sends::run(&place, &place.projects(projects, 0).await?, &sends).await?;

    let projects = place.projects(stream_projects, members).await?;
    let plan = delivery::Plan { streams, rate, rounds, time };
    delivery::run(&place, &projects, &plan).await?;
    place.stop().await
}

/// Says how large the machine is, and how busy.
pub(crate) fn machine(when: &str) -> anyhow::Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().context("the load")?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!("{cores} cores; load average {when} {load}"))
}
