//! Measures the real server in a process of its own. Run with `--release`; each figure says what it is a ratio of.

mod bare;
mod client;
mod cluster;
mod import;
mod jobs;
mod process;
mod search;
mod sends;
mod server;
mod streams;
mod users;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "What Parley does a second, on this machine, now")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Acknowledged sends a second, beside the same SQL in a bare loop.
    Sends(sends::Options),
    /// Imports a Slack export while another client sends.
    Import {
        /// The export's ZIP.
        archive: PathBuf,
    },
    /// The index of a Slack export: its making, its size, and how long a search takes.
    Search(search::Options),
    /// What a stream costs, beside bare writes and other servers.
    Streams(streams::Options),
    /// Sends and deliveries by way of nginx and several replicas, beside `pgbench` on the same database. Ends by itself.
    Cluster(cluster::Options),
    /// Jobs from their submission to their end, how soon one starts, and how soon a cancel frees its worker.
    Jobs(jobs::Options),
    /// Bare writes; started by `streams`.
    #[command(hide = true)]
    Floor,
    /// The server that is measured; started by the others.
    #[command(hide = true)]
    Serve(Box<standalone::Config>),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Sends(options) => sends::run(options).await,
        What::Import { archive } => import::run(&archive).await,
        What::Search(options) => search::run(options).await,
        What::Streams(options) => streams::run(&options),
        What::Cluster(options) => cluster::run(options).await,
        What::Jobs(options) => jobs::run(options).await,
        What::Floor => streams::floor::serve(),
        What::Serve(config) => Box::pin(server::serve(*config)).await,
    }
}
