//! The server under measurement: a child process, so that its CPU time and memory are its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use shared::lifecycle::signalled;
use tempfile::TempDir;

/// A running server with an empty database.
pub(crate) struct Server {
    child: Child,
    pub(crate) ingress: String,
    pub(crate) proc: String,
    pub(crate) folder: TempDir,
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
        // Beside the build, on a real disk: the system's temporary folder may be memory.
        let program = std::env::current_exe()?;
        let beside = program.parent().context("the program has no folder")?;
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?;
        let mut child = Command::new(&program)
            .args([
                "serve",
                "--log=warn",
                "--ingress-listen=127.0.0.1:0",
                "--proc-listen=127.0.0.1:0",
            ])
            .args(["--ingress-internal-listen=127.0.0.1:0", "--proc-internal-listen=127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut line = || {
            lines.next().context("the server did not start")?.context("the server's output ended")
        };
        let (ingress, proc) = (line()?, line()?);
        Ok(Self { child, ingress, proc, folder })
    }

    /// Returns the CPU time used so far, user and system.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // Linux counts in hundredths of a second to user space, whatever its own tick.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Returns the most memory that was resident at once, in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no VmHWM")?.parse()?;
        Ok(kib / 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
