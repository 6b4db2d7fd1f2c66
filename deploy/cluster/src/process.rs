//! A child process with a command that stays the same: started, stopped, killed, frozen, started again.

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{keeper, ports::Port, probe::Probe, programs};

/// How long a start or an end may take: far longer than it does, since only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often it is looked whether something has begun or ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long an end may take when nobody can wait for it.
const DROP_PATIENCE: Duration = Duration::from_secs(3);
/// How much of a log is shown when a process does not start.
const TAIL_LINES: usize = 25;

/// What a process is, whenever it runs.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    /// Whom it runs as, if not as us.
    pub(crate) user: Option<&'static str>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    pub(crate) ready: Probe,
    /// Asks it to end well.
    pub(crate) stop: Signal,
    /// Ends it at once, and what it has started.
    pub(crate) last: Signal,
}

/// A process that may run or not; when dropped, it does not.
#[derive(Debug)]
pub struct Process {
    plan: Plan,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    child: Option<Child>,
    /// Kept until the first start.
    ports: Vec<Port>,
    /// Where the log of this start begins.
    log_start: usize,
    /// Settings that were changed since the plan was made.
    changed: Vec<(String, String)>,
}

impl Process {
    pub(crate) fn new(plan: Plan, ports: Vec<Port>) -> Self {
        let running = Running { ports, ..Running::default() };
        Self { plan, running: Mutex::new(running) }
    }

    /// Returns its name, such as `ingress-0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Returns where its output goes.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.plan.log
    }

    /// Returns its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running().child.as_ref().map(Child::id)
    }

    /// Changes one of its settings from the next start on.
    pub fn set(&self, name: &str, value: &str) {
        self.running().changed.push((name.into(), value.into()));
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.spawn().with_context(|| format!("failed to start {}", self.name()))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                bail!("{} did not start ({status}):\n{}", self.name(), self.log_tail());
            }
            let pid = self.pid().with_context(|| format!("{self} was stopped meanwhile"))?;
            if self.plan.ready.is_ready(pid).await {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} is not ready in time:\n{}", self.name(), self.log_tail());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn spawn(&self) -> anyhow::Result<()> {
        let mut running = self.running();
        anyhow::ensure!(running.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(&self.plan.log)?;
        running.log_start = usize::try_from(log.metadata()?.len())?;
        running.ports.clear();
        let plan = &self.plan;
        let mut command = programs::command(&plan.program, plan.user, Some(plan.last))?;
        command.args(&plan.args);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        let settings = plan.env.iter().chain(&running.changed);
        command.envs(settings.map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C in the terminal is for us, who stop one after the other.
        command.process_group(0);
        running.child = Some(keeper::spawn(command)?);
        Ok(())
    }

    /// Ends it as a power cut does.
    pub async fn kill(&self) -> anyhow::Result<()> {
        // The group's, since nginx has workers.
        self.with_pid(|pid| kill_process_group(pid, Signal::KILL))?;
        self.wait().await?;
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(&self) -> anyhow::Result<ExitStatus> {
        self.stop_with(self.plan.stop).await
    }

    /// Stops it unless it is not running, and fails if it does not end well.
    pub(crate) async fn stop_if_running(&self) -> anyhow::Result<()> {
        if self.pid().is_none() {
            return Ok(());
        }
        self.begin_stop()?;
        self.thaw()?;
        let status = self.wait().await?;
        anyhow::ensure!(status.success(), "{self} ended with {status}:\n{}", self.log_tail());
        Ok(())
    }

    pub(crate) async fn stop_with(&self, signal: Signal) -> anyhow::Result<ExitStatus> {
        self.signal(signal)?;
        self.wait().await
    }

    /// Asks it to end.
    pub fn begin_stop(&self) -> anyhow::Result<()> {
        self.signal(self.plan.stop)
    }

    /// Holds it where it is: it keeps its connections and does nothing.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "{} does not end", self.name());
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Returns how it has ended if it has since it was started; only once.
    pub fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut running = self.running();
        let child = running.child.as_mut().with_context(|| format!("{self} does not run"))?;
        let status = child.try_wait()?;
        if status.is_some() {
            running.child = None;
        }
        Ok(status)
    }

    /// Returns what it has said since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.plan.log).unwrap_or_default();
        let start = self.running().log_start.min(bytes.len());
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("{tail}\n({})", self.plan.log.display())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.with_pid(|pid| kill_process(pid, signal))
    }

    fn with_pid(&self, tell: impl FnOnce(Pid) -> rustix::io::Result<()>) -> anyhow::Result<()> {
        // Locked, so that it cannot be reaped meanwhile and the id be another's.
        let running = self.running();
        let child = running.child.as_ref().with_context(|| format!("{self} does not run"))?;
        Ok(tell(pid_of(child)?)?)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plan.name)
    }
}

fn pid_of(child: &Child) -> anyhow::Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("no process has the id 0")
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = running.child.take() else { return };
        if let Ok(pid) = pid_of(&child) {
            let _ = kill_process(pid, self.plan.last);
            // Were it frozen, only SIGKILL would reach it.
            let _ = kill_process(pid, Signal::CONT);
            if !ended_within(&mut child, DROP_PATIENCE).unwrap_or(true) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
        }
        let _ = child.wait();
    }
}

fn ended_within(child: &mut Child, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            return Ok(false);
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(true)
}
