//! The ingress service on its own: auth, event streams, chat REST.

use clap::Parser;
use mimalloc::MiMalloc;
use shared::{files::restrict_new_files, lifecycle::signalled, parts::Parts, telemetry};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Parley's ingress: auth, event streams and chat. Needs PostgreSQL and NATS; `parley` runs without.
#[derive(Parser)]
#[command(name = "ingress", version)]
struct Arguments {
    #[command(flatten)]
    common: shared::config::Config,
    #[command(flatten)]
    ingress: ingress::Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { common, ingress } = Arguments::parse();
    restrict_new_files();
    let stop = signalled()?;
    telemetry::init(&common.log)?;
    let parts = Parts::clustered(&common).await?;
    let proc = ingress.proc_grpc_url.clone();
    anyhow::ensure!(!proc.is_empty(), "set PROC_GRPC_URL to where proc's gRPC is");
    ingress::App::bind(&common, ingress, parts.clone()).await?.start(proc, None)?;
    parts.lifecycle.run(stop, &common.drain).await
}
