//! What can be taken away from a running cluster, and how it comes back.

mod driver;

use std::{fmt, time::Duration};

use anyhow::Context;
use cluster::{Cluster, Link, Process, Then, Trap};
use humantime::format_duration;
use rand::{RngExt as _, rngs::StdRng};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

pub(crate) use self::driver::drive;
use crate::scenario::duration;

/// The commit of a send, whose text every sender's message has.
const SEND_COMMIT: Trap =
    Trap { after: "is about as long as what people say", text: "COMMIT", then: Then::Cut };
/// Time to wait for a send that is being committed.
const SPRING_TIMEOUT: Duration = Duration::from_secs(5);

/// A part of the cluster; which replica is left to chance.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Ingress,
    Proc,
    Nats,
    Postgres,
}

/// Something that happens to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    Nothing,
    /// It ends at once and is started again.
    Kill {
        part: Part,
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// It is asked to end and, when it has, started again.
    Stop {
        part: Part,
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// It does nothing for a while and then goes on as if nothing had been.
    Freeze {
        part: Part,
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// One ingress cannot reach NATS.
    Cut {
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// Nothing arrives between one ingress and NATS, though both think that they are connected.
    Stall {
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// The database is copied, and a while later goes back to its copy: what was committed meanwhile is lost.
    Rewind {
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// The connection of one ingress to the database stalls: both sides take it for open, and no byte arrives.
    StallDatabase {
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// The same from the moment on at which a send is being committed: it arrives, and no answer comes back.
    StallCommit {
        #[serde(rename = "for", deserialize_with = "duration")]
        time: Duration,
    },
    /// One connection to the database ends while a send is being committed.
    CutCommit,
    /// The same, and the commit does not arrive.
    LoseCommit,
    /// Every ingress and then every proc is asked to end and started again, one after the other.
    Roll {
        #[serde(deserialize_with = "duration")]
        pause: Duration,
    },
}

/// A fault with the replica that it happens to.
#[derive(Clone, Debug)]
pub(crate) struct Aimed {
    fault: Fault,
    number: usize,
}

impl Fault {
    /// Returns whether a request waits for the fault's end, whatever the service does.
    fn holds_answers(&self) -> bool {
        matches!(self, Self::Freeze { part: Part::Ingress, .. })
    }

    /// Chooses whom it happens to.
    pub(crate) fn aim(&self, cluster: &Cluster, chance: &mut StdRng) -> Aimed {
        let count = match self {
            Self::Kill { part, .. } | Self::Stop { part, .. } | Self::Freeze { part, .. } => {
                part.count(cluster)
            }
            Self::Cut { .. }
            | Self::Stall { .. }
            | Self::StallDatabase { .. }
            | Self::StallCommit { .. }
            | Self::CutCommit
            | Self::LoseCommit => cluster.ingress_count(),
            Self::Nothing | Self::Rewind { .. } | Self::Roll { .. } => 1,
        };
        Aimed { fault: self.clone(), number: chance.random_range(0..count) }
    }
}

impl Part {
    fn count(self, cluster: &Cluster) -> usize {
        match self {
            Self::Ingress => cluster.ingress_count(),
            Self::Proc => cluster.proc_count(),
            Self::Nats | Self::Postgres => 1,
        }
    }

    fn process(self, cluster: &Cluster, number: usize) -> &Process {
        match self {
            Self::Ingress => cluster.ingress(number),
            Self::Proc => cluster.proc(number),
            Self::Nats => cluster.nats(),
            Self::Postgres => cluster.postgres(),
        }
    }
}

impl Aimed {
    /// Returns whether it loses what was acknowledged while it was there.
    pub(crate) fn rewinds(&self) -> bool {
        matches!(self.fault, Fault::Rewind { .. })
    }

    /// Does it and undoes it, at the latest when `over`.
    pub(crate) async fn happen(
        &self,
        cluster: &Cluster,
        over: &CancellationToken,
    ) -> anyhow::Result<()> {
        let away = async |time: Duration| {
            over.run_until_cancelled(tokio::time::sleep(time)).await;
        };
        let link = || {
            let link = cluster.ingress(self.number).nats_link();
            link.context("the cluster has no links")
        };
        let database = || {
            let link = cluster.ingress(self.number).database_link();
            link.context("the cluster has no links")
        };
        match &self.fault {
            Fault::Nothing => {}
            Fault::Kill { part, time } => {
                let process = part.process(cluster, self.number);
                if *part == Part::Postgres {
                    // Killed, it would leave its own processes behind.
                    cluster.postgres().stop_immediate().await?;
                } else {
                    process.kill().await?;
                }
                away(*time).await;
                process.start().await?;
            }
            Fault::Stop { part, time } => {
                let process = part.process(cluster, self.number);
                stop(process).await?;
                away(*time).await;
                process.start().await?;
            }
            // With all of its processes, each of which serves a client.
            Fault::Freeze { part: Part::Postgres, time } => {
                cluster.postgres().freeze()?;
                away(*time).await;
                cluster.postgres().thaw()?;
            }
            Fault::Freeze { part, time } => {
                let process = part.process(cluster, self.number);
                process.freeze()?;
                away(*time).await;
                process.thaw()?;
            }
            Fault::Cut { time } => {
                link()?.cut();
                away(*time).await;
                link()?.mend();
            }
            Fault::Stall { time } => {
                link()?.stall();
                away(*time).await;
                link()?.mend();
            }
            Fault::Rewind { time } => {
                let postgres = cluster.postgres();
                stop(postgres).await?;
                postgres.keep_copy()?;
                postgres.start().await?;
                away(*time).await;
                postgres.stop_immediate().await?;
                postgres.put_copy_back()?;
                postgres.start().await?;
            }
            Fault::StallDatabase { time } => {
                database()?.stall();
                away(*time).await;
                database()?.mend();
            }
            Fault::StallCommit { time } => {
                let trap = Trap { then: Then::StallAll, ..SEND_COMMIT };
                self.spring(database()?, trap, over).await;
                away(*time).await;
                database()?.mend();
            }
            Fault::CutCommit => {
                self.spring(database()?, SEND_COMMIT, over).await;
                database()?.mend();
            }
            Fault::LoseCommit => {
                let trap = Trap { then: Then::Lose, ..SEND_COMMIT };
                self.spring(database()?, trap, over).await;
                database()?.mend();
            }
            Fault::Roll { pause } => {
                let ingress = (0..cluster.ingress_count()).map(|number| (Part::Ingress, number));
                let proc = (0..cluster.proc_count()).map(|number| (Part::Proc, number));
                for (part, number) in ingress.chain(proc) {
                    let process = part.process(cluster, number);
                    stop(process).await?;
                    process.start().await?;
                    tokio::time::sleep(*pause).await;
                }
            }
        }
        Ok(())
    }
}

impl Aimed {
    /// Waits until a send springs the trap, not for ever.
    async fn spring(&self, link: &Link, trap: Trap, over: &CancellationToken) {
        link.set(trap);
        let sprung = tokio::time::timeout(SPRING_TIMEOUT, link.sprung());
        over.run_until_cancelled(sprung).await;
    }
}

async fn stop(process: &Process) -> anyhow::Result<()> {
    let status = process.stop().await?;
    anyhow::ensure!(status.success(), "{process} was asked to end and did with {status}");
    Ok(())
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Proc => "proc",
            Self::Nats => "NATS",
            Self::Postgres => "PostgreSQL",
        })
    }
}

impl fmt::Display for Aimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |part: &Part| match part {
            Part::Ingress | Part::Proc => format!("{part}-{}", self.number),
            Part::Nats | Part::Postgres => part.to_string(),
        };
        let (what, time) = match &self.fault {
            Fault::Nothing => return f.write_str("nothing"),
            Fault::Kill { part, time } => (format!("{} is killed", name(part)), time),
            Fault::Stop { part, time } => (format!("{} is stopped", name(part)), time),
            Fault::Freeze { part, time } => (format!("{} is frozen", name(part)), time),
            Fault::Cut { time } => (format!("ingress-{} is cut off from NATS", self.number), time),
            Fault::Stall { time } => {
                (format!("nothing passes between ingress-{} and NATS", self.number), time)
            }
            Fault::Rewind { time } => ("the database goes back to what it was".to_owned(), time),
            Fault::StallDatabase { time } => {
                (format!("nothing passes between ingress-{} and PostgreSQL", self.number), time)
            }
            Fault::StallCommit { time } => (
                format!(
                    "in a COMMIT nothing passes between ingress-{} and PostgreSQL",
                    self.number
                ),
                time,
            ),
            Fault::CutCommit => {
                return write!(f, "ingress-{} loses a connection in a COMMIT", self.number);
            }
            Fault::LoseCommit => {
                return write!(
                    f,
                    "a COMMIT of ingress-{} is lost with its connection",
                    self.number
                );
            }
            Fault::Roll { .. } => {
                return f.write_str("every ingress and proc is stopped and started in turn");
            }
        };
        write!(f, "{what} for {}", format_duration(*time))
    }
}
