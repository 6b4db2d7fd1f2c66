//! A child process whose CPU time and memory are read from outside; it is killed when dropped.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;

/// A running child with a folder of its own.
pub(crate) struct Process {
    child: Child,
    output: Option<Lines<BufReader<ChildStdout>>>,
    pub(crate) folder: TempDir,
}

/// Makes a folder beside the build, on a real disk: the system's temporary folder may be memory.
pub(crate) fn folder() -> anyhow::Result<TempDir> {
    let program = std::env::current_exe()?;
    let beside = program.parent().context("the program has no folder")?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?)
}

/// Makes a folder that the database's own user can enter, on a real disk.
pub(crate) fn open_folder(data: Option<&Path>) -> anyhow::Result<TempDir> {
    use std::os::unix::fs::PermissionsExt as _;

    let program = std::env::current_exe()?;
    let beside = program.parent().context("the program has no folder")?;
    let permissions = std::fs::Permissions::from_mode(0o755);
    let parent = data.unwrap_or(beside);
    tempfile::Builder::new()
        .prefix("bench-")
        .permissions(permissions)
        .tempdir_in(parent)
        .with_context(|| format!("failed to make a folder in {}", parent.display()))
}

impl Process {
    pub(crate) fn start(command: &mut Command, folder: TempDir) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        let output = child.stdout.take().map(|output| BufReader::new(output).lines());
        Ok(Self { child, output, folder })
    }

    /// Waits for the next line that the process prints.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let output = self.output.as_mut().context("the process has no output")?;
        output.next().context("the process did not start")?.context("the output ended")
    }

    /// Returns the end to which to write what the process reads; there is one.
    pub(crate) fn input(&mut self) -> anyhow::Result<ChildStdin> {
        self.child.stdin.take().context("the input is taken")
    }

    /// Returns the lines that the process goes on printing.
    pub(crate) fn output(&mut self) -> anyhow::Result<Lines<BufReader<ChildStdout>>> {
        self.output.take().context("the output is taken")
    }

    /// Returns the CPU time used so far, user and system.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(Stat::of(self.child.id())?.own)
    }

    /// Returns the memory that is resident now, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        // Exact, unlike `status`, whose sums lag behind by some pages a thread.
        self.kib("smaps_rollup", "Rss:")
    }

    /// Returns the most memory that was resident at once, in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<u64> {
        Ok(self.kib("status", "VmHWM:")? / 1024)
    }

    fn kib(&self, file: &str, field: &'static str) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find(|line| line.starts_with(field)).context(field)?;
        Ok(line.split_whitespace().nth(1).context(field)?.parse()?)
    }
}

/// What Linux says of a process.
pub(crate) struct Stat {
    pub(crate) parent: u32,
    /// The CPU time used so far, user and system.
    pub(crate) own: Duration,
    /// The CPU time of the children that have ended.
    pub(crate) ended: Duration,
}

impl Stat {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let time = |first: usize| -> anyhow::Result<Duration> {
            let ticks = fields[first].parse::<u64>()? + fields[first + 1].parse::<u64>()?;
            // Linux counts in hundredths of a second to user space, whatever its own tick.
            Ok(Duration::from_millis(ticks * 10))
        };
        Ok(Self { parent: fields[1].parse()?, own: time(11)?, ended: time(13)? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
