//! Where Parley runs: one process on SQLite, or an ingress and a proc on PostgreSQL.

use std::time::Duration;

use ::cluster::Cluster;
use anyhow::Context;
use tempfile::TempDir;

use super::database::Database;
use crate::{cluster::cpu, process, server::Server, users};

/// A place that is started anew with as many workers as are wanted.
pub(super) enum Home<'a> {
    File { folder: TempDir, server: Option<Server> },
    Cluster(&'a Cluster),
}

impl Home<'_> {
    /// Makes a place for a file, with so many users.
    pub(super) fn file(owners: usize) -> anyhow::Result<Self> {
        let folder = process::folder()?;
        users::write(&folder.path().join("users.json"), owners)?;
        Ok(Self::File { folder, server: None })
    }

    pub(super) fn database(&self) -> Database {
        match self {
            Self::File { folder, .. } => Database::Sqlite(folder.path().join("data/parley.db")),
            Self::Cluster(cluster) => Database::Postgres(cluster.postgres().url()),
        }
    }

    /// Starts it, or stops it and starts it again. It is at work when this returns, or a little before.
    pub(super) async fn start(&mut self, workers: usize) -> anyhow::Result<()> {
        match self {
            Self::File { folder, server } => {
                *server = None;
                let names = folder.path().join("users.json");
                *server = Some(Server::start_in(&folder.path().join("data"), |command| {
                    command.env("AUTH_USERS_FILE", names);
                    command.arg(format!("--proc-workers={workers}"));
                    command.arg("--proc-queue-limit=1000000");
                    Ok(())
                })?);
            }
            Self::Cluster(cluster) => {
                let proc = cluster.proc(0);
                if proc.pid().is_some() {
                    proc.stop().await?;
                }
                proc.set("PROC_WORKERS", &workers.to_string());
                proc.start().await?;
            }
        }
        Ok(())
    }

    pub(super) fn ingress(&self) -> anyhow::Result<String> {
        Ok(match self {
            Self::File { server, .. } => server.as_ref().context("it runs")?.ingress.clone(),
            Self::Cluster(cluster) => cluster.ingress(0).addr().to_string(),
        })
    }

    pub(super) fn proc(&self) -> anyhow::Result<String> {
        Ok(match self {
            Self::File { server, .. } => server.as_ref().context("it runs")?.proc.clone(),
            Self::Cluster(cluster) => cluster.proc(0).addr().to_string(),
        })
    }

    /// Returns the CPU time of Parley since its start, and of PostgreSQL.
    pub(super) fn cpu(&self) -> anyhow::Result<(Duration, Duration)> {
        Ok(match self {
            Self::File { server, .. } => {
                (server.as_ref().context("it runs")?.process.cpu()?, Duration::ZERO)
            }
            Self::Cluster(cluster) => (
                cpu::below(cluster.proc(0))? + cpu::below(cluster.ingress(0))?,
                cpu::below(cluster.postgres())?,
            ),
        })
    }

    /// Returns the CPU time of what goes on while [`Home::start`] stops the rest.
    pub(super) fn cpu_of_others(&self) -> anyhow::Result<(Duration, Duration)> {
        Ok(match self {
            Self::File { .. } => (Duration::ZERO, Duration::ZERO),
            Self::Cluster(cluster) => {
                (cpu::below(cluster.ingress(0))?, cpu::below(cluster.postgres())?)
            }
        })
    }
}
