//! Both services of Parley in one process, on an embedded database and a bus of their own.

use std::{future::Future, net::SocketAddr};

use clap::Parser;
use http::Uri;
use mimalloc::MiMalloc;
use shared::parts::Parts;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Parley, the backend of a chat platform: both services in one process, data in a folder.
#[derive(Clone, Debug, Parser)]
#[command(name = "parley", version)]
pub struct Config {
    #[command(flatten)]
    pub common: shared::config::Config,
    #[command(flatten)]
    pub ingress: ingress::Config,
    #[command(flatten)]
    pub proc: proc::Config,
}

/// Both services with their listeners bound.
#[derive(Debug)]
pub struct App {
    config: Config,
    parts: Parts,
    ingress: ingress::App,
    proc: proc::App,
}

impl App {
    /// Opens the database and binds every listener; nothing is served yet.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let Config { common, ingress, proc } = config.clone();
        let parts = Parts::embedded(&common)?;
        let ingress = ingress::App::bind(&common, ingress, parts.clone()).await?;
        let mut common = common;
        if config.ingress.enable_console && ingress.addr()?.ip().is_loopback() {
            // The console is a page of ingress, and proc is of another origin to it.
            let port = ingress.addr()?.port();
            let names = ["127.0.0.1", "[::1]", "localhost"];
            common.cors_origin.extend(names.map(|name| format!("http://{name}:{port}")));
        }
        let proc = proc::App::bind(&common, proc, parts.clone()).await?;
        Ok(Self { config, parts, ingress, proc })
    }

    /// Returns where ingress is.
    pub fn ingress_addr(&self) -> std::io::Result<SocketAddr> {
        self.ingress.addr()
    }

    /// Returns where proc is.
    pub fn proc_addr(&self) -> std::io::Result<SocketAddr> {
        self.proc.addr()
    }

    /// Serves until `stop` resolves, then ends in order.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { config, parts, ingress, proc } = self;
        // Each other, unless somebody stands between them.
        let or_own = |urls: &[Uri], own: SocketAddr| match urls {
            [] => shared::grpc::url(&format!("http://{own}")).map(|url| vec![url]),
            urls => Ok(urls.to_vec()),
        };
        let proc_grpc = or_own(&config.ingress.proc_grpc_url, proc.internal_addr()?);
        let ingress_grpc = or_own(&config.proc.ingress_grpc_url, ingress.internal_addr()?);
        ingress.start(proc_grpc.map_err(anyhow::Error::msg)?, Some(proc.addr()?))?;
        proc.start(ingress_grpc.map_err(anyhow::Error::msg)?)?;
        let ended = parts.lifecycle.run(stop, &config.common.drain).await;
        parts.store.empty_log().await;
        ended
    }
}
