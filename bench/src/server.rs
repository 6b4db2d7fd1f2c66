//! The server under measurement: a child process, so that its CPU time and memory are its own.

use std::{path::Path, process::Command};

use shared::lifecycle::signalled;
use tempfile::TempDir;

use crate::process::{self, Process};

/// A running server with an empty database.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) ingress: String,
    pub(crate) proc: String,
}

/// Runs the server in this process.
pub(crate) async fn serve(config: standalone::Config) -> anyhow::Result<()> {
    let stop = signalled()?;
    let app = standalone::App::bind(config).await?;
    println!("{}\n{}", app.ingress_addr()?, app.proc_addr()?);
    app.run(stop).await
}

impl Server {
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::start_with(|_, _| Ok(()))
    }

    /// Starts a server with more settings; `set` is given the folder too.
    pub(crate) fn start_with(
        set: impl FnOnce(&mut Command, &Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let folder = process::folder()?;
        let data = folder.path().to_owned();
        Self::start_at(&data, folder, |command| set(command, &data))
    }

    /// Starts a server whose data is somebody else's, and outlives it.
    pub(crate) fn start_in(
        data: &Path,
        set: impl FnOnce(&mut Command) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        Self::start_at(data, process::folder()?, set)
    }

    fn start_at(
        data: &Path,
        folder: TempDir,
        set: impl FnOnce(&mut Command) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--log=warn"]).arg("--data-dir").arg(data);
        for listener in ["ingress", "ingress-internal", "proc", "proc-internal"] {
            command.arg(format!("--{listener}-listen=127.0.0.1:0"));
        }
        // One client does the work of many. A program of before the guard ignores its variable.
        command.env("FLOOD_LIMIT", "off");
        for class in ["reads", "sends", "opens", "submits"] {
            command.arg(format!("--rate-limit-{class}=off"));
        }
        set(&mut command)?;
        let mut process = Process::start(&mut command, folder)?;
        let (ingress, proc) = (process.line()?, process.line()?);
        Ok(Self { process, ingress, proc })
    }
}
