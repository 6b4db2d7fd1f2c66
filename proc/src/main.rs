//! Proc as a service of its own.

use clap::Parser;
use mimalloc::MiMalloc;
use shared::{files::restrict_new_files, lifecycle::signalled, parts::Parts, telemetry};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Parley's integrations: bundles of operations that run as jobs.
#[derive(Parser)]
#[command(name = "proc", version)]
struct Args {
    #[command(flatten)]
    common: shared::config::Config,
    #[command(flatten)]
    proc: proc::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { common, proc } = Args::parse();
    restrict_new_files();
    let stop = signalled()?;
    telemetry::init(&common.log)?;
    let parts = Parts::clustered(&common).await?;
    let ingress = proc.ingress_grpc_url.clone();
    anyhow::ensure!(!ingress.is_empty(), "set INGRESS_GRPC_URL to where ingress' gRPC is");
    proc::App::bind(&common, proc, parts.clone()).await?.start(ingress)?;
    parts.lifecycle.run(stop, &common.drain).await
}
