//! Where the jobs run: two processes of two workers each on PostgreSQL, or one of four on SQLite.

use std::{fmt, time::Duration};

use cluster::{Cluster, Folder, Process, Standalone};
use tokio::time::sleep;

use super::Options;

/// A worker that is not heard of for so long has lost its jobs.
const LEASE: Duration = Duration::from_secs(1);
/// How long a killed process is away at most.
const AWAY: Duration = Duration::from_millis(500);

/// What the services keep everything in.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Database {
    Sqlite,
    Postgres,
}

/// What becomes of a process.
#[derive(Copy, Clone, Debug)]
pub(super) enum Taken {
    Killed,
    Frozen,
    Stopped,
}

impl Taken {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Frozen => "frozen past its lease",
            Self::Stopped => "asked to end",
        }
    }
}

/// The processes.
pub(super) enum Home {
    Cluster(Box<Cluster>),
    One(Box<One>),
}

pub(super) struct One {
    parley: Standalone,
    folder: Folder,
}

impl Home {
    pub(super) async fn start(options: &Options) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&options.folder)?;
        let folder = options.folder.canonicalize()?.join("jobs");
        let all = cluster::Options::new(&folder)
            .set("PROC_LEASE", &format!("{}s", LEASE.as_secs()))
            .set("PROC_QUEUE_LIMIT", "1000000")
            .set("PROC_HTTP_BUNDLES_LOOPBACK", "true")
            .set("DRAIN_SPREAD", "100ms")
            .set("KEEPALIVE_INTERVAL", "2s")
            .without_rate_limits();
        let sabotage = options.sabotage.iter();
        let flags = sabotage.flat_map(|bug| ["--sabotage".to_owned(), bug.clone()]).collect();
        let programs = options.programs.clone().unwrap_or_else(|| all.programs.clone());
        match options.database {
            Database::Postgres => {
                let clock_skew = options.clock_skew;
                let all =
                    cluster::Options { ingress: 1, proc: 2, flags, programs, clock_skew, ..all };
                let cluster = Cluster::start(all.set("PROC_WORKERS", "2")).await?;
                Ok(Self::Cluster(Box::new(cluster)))
            }
            Database::Sqlite => {
                let settings = all.set("PROC_WORKERS", "4").settings;
                let folder = Folder::take(&folder, false)?;
                let parley = Standalone::plan(&folder, &programs, &flags, &settings)?;
                parley.start().await?;
                Ok(Self::One(Box::new(One { parley, folder })))
            }
        }
    }

    pub(super) fn ingress_url(&self) -> String {
        match self {
            Self::Cluster(cluster) => cluster.base_url(),
            Self::One(one) => one.parley.ingress_url(),
        }
    }

    pub(super) fn proc_url(&self) -> String {
        match self {
            Self::Cluster(cluster) => cluster.base_url(),
            Self::One(one) => one.parley.proc_url(),
        }
    }

    /// Returns how many jobs one process runs at most: its workers, and half as many for owners of whom nothing runs.
    pub(super) fn jobs_a_process(&self) -> usize {
        match self {
            Self::Cluster(_) => 3,
            Self::One(_) => 6,
        }
    }

    /// Returns how many processes run jobs.
    pub(super) fn workers(&self) -> usize {
        match self {
            Self::Cluster(cluster) => cluster.proc_count(),
            Self::One(_) => 1,
        }
    }

    fn process(&self, number: usize) -> &Process {
        match self {
            Self::Cluster(cluster) => cluster.proc(number),
            Self::One(one) => &one.parley,
        }
    }

    pub(super) fn name(&self, number: usize) -> &str {
        self.process(number).name()
    }

    /// Takes a process away for a while and brings it back; `pause` from 0 to 1 is how long.
    pub(super) async fn take_away(
        &self,
        what: Taken,
        number: usize,
        pause: f64,
    ) -> anyhow::Result<()> {
        let process = self.process(number);
        match what {
            Taken::Killed => {
                process.kill().await?;
                sleep(AWAY.mul_f64(pause)).await;
                process.start().await
            }
            Taken::Frozen => {
                process.freeze()?;
                sleep(LEASE.mul_f64(1.2 + pause)).await;
                process.thaw()
            }
            Taken::Stopped => {
                let status = process.stop().await?;
                anyhow::ensure!(status.success(), "{process} ended with {status}");
                process.start().await
            }
        }
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Cluster(cluster) => cluster.stop().await,
            Self::One(one) => {
                let One { parley, folder } = *one;
                let status = parley.stop().await?;
                drop(folder);
                anyhow::ensure!(status.success(), "{} ended with {status}", parley.name());
                Ok(())
            }
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite, one process of four workers",
            Self::Postgres => "PostgreSQL, two processes of two workers each",
        })
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
