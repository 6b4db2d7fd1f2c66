//! `make cluster`: starts every part on this machine, says where they are, and keeps them running until it is told to stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use cluster::{Cluster, Folder, Options};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// How often it is looked whether a part has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// How long a cluster that was told to stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// Parley as it runs beyond one machine, on this one: `PostgreSQL`, NATS, several ingress and proc, nginx before them. No
/// containers: each part is a process, and all end with this one.
#[derive(Debug, Parser)]
#[command(name = "cluster", version)]
struct Arguments {
    /// Stops the cluster that is running in the folder.
    #[arg(long)]
    stop: bool,
    /// Folder of data, logs and secrets. One that holds anything else is refused.
    #[arg(long, default_value = "data/cluster")]
    folder: PathBuf,
    /// Keeps the data of an earlier cluster in the folder.
    #[arg(long)]
    keep: bool,
    /// How many ingress.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    ingress: u8,
    /// How many proc.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    proc: u8,
    /// Address that unites both services; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// First of successive ports of all other parts; any free ones if it is not given.
    #[arg(long)]
    first_port: Option<u16>,
    /// Folder of the programs `ingress` and `proc`, such as `target/release`; by default where `cluster` is.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Program of NATS, 2.9 or later; by default the installed `nats-server`.
    #[arg(long)]
    nats_server: Option<PathBuf>,
    /// Puts the clocks of every second ingress and proc (`ingress-1`, `proc-1` …) ahead by this much, such as `30s`; needs
    /// libfaketime.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    clock_skew: Option<Duration>,
    /// A further setting of ingress and proc, such as `LOG=debug`; can be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a setting is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.stop {
        return stop(&arguments.folder).await;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut stopped = std::pin::pin!(stopped);
    let cluster = tokio::select! {
        cluster = Cluster::start(arguments.into()) => cluster?,
        () = &mut stopped => return Ok(()),
    };
    greet(&cluster);
    tokio::select! {
        () = keep_running(&cluster) => {}
        () = stopped => {}
    }
    println!("stopping");
    cluster.stop().await
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        let Arguments { folder, keep, ingress, proc, listen, first_port, programs, .. } = arguments;
        let defaults = Self::new(folder);
        Self {
            keep,
            ingress: ingress.into(),
            proc: proc.into(),
            listen: Some(listen),
            first_port,
            programs: programs.unwrap_or_else(|| defaults.programs.clone()),
            nats_server: arguments.nats_server,
            clock_skew: arguments.clock_skew,
            settings: arguments.settings,
            progress: |step| println!("{step}"),
            ..defaults
        }
    }
}

fn greet(cluster: &Cluster) {
    let (url, folder) = (cluster.base_url(), cluster.folder().path().display());
    println!("\nParley is at {url}. Try it as the demo user ada:");
    println!("  curl -s -H 'Authorization: Bearer dev-ada' {url}/api/auth/me\n");
    for process in cluster.processes() {
        let pid = process.pid().unwrap_or_default();
        println!("  {:<10} process {pid:<8} {}", process.name(), process.log_file().display());
    }
    println!(
        "\nKill any of them: it is started again. The database: (. {folder}/env; psql \"$DATABASE_URL\")"
    );
    println!("Ctrl-C stops all of it; so does `make cluster-stop` from another shell.");
}

/// Starts what has ended again, for as long as it takes.
async fn keep_running(cluster: &Cluster) {
    loop {
        for process in cluster.processes() {
            if process.pid().is_some() {
                match process.ended() {
                    Ok(Some(status)) => println!("{} has ended ({status})", process.name()),
                    Ok(None) => continue,
                    Err(error) => println!("{error:#}"),
                }
            }
            match process.start().await {
                Ok(()) => println!("{} is running again", process.name()),
                Err(error) => println!("{error:#}"),
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Stops the cluster of another process.
async fn stop(folder: &Path) -> anyhow::Result<()> {
    let Some(pid) = Folder::user(folder)? else {
        println!("no cluster is running in {}", folder.display());
        return Ok(());
    };
    let pid = Pid::from_raw(pid).context("no process has the id 0")?;
    kill_process(pid, Signal::TERM).context("failed to tell it")?;
    let ended = async {
        while Folder::user(folder)?.is_some() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(STOP_PATIENCE, ended).await.context("it does not end")??;
    println!("stopped");
    Ok(())
}
