//! What a cluster is made of.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// The parts of a cluster and where they are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of data and logs.
    pub folder: PathBuf,
    /// Whether data of an earlier cluster in the folder is kept.
    pub keep: bool,
    /// How many ingress.
    pub ingress: usize,
    /// How many proc.
    pub proc: usize,
    /// Where nginx is, both services under one origin; a free port if `None`.
    pub listen: Option<SocketAddr>,
    /// The first of successive ports for all other parts; any free ones if `None`.
    pub first_port: Option<u16>,
    /// The folder of the programs `ingress` and `proc`.
    pub programs: PathBuf,
    /// The program of NATS; the installed one if `None`.
    pub nats_server: Option<PathBuf>,
    /// Whether each service reaches NATS by a [`Link`](crate::Link) of its own, which can be cut.
    pub nats_links: bool,
    /// True if each service reaches the database by a [`Link`](crate::Link) of its own.
    pub database_links: bool,
    /// Time by which the clock of every second ingress and proc (`ingress-1`, `proc-1`, `ingress-3` …) is ahead of this machine's
    /// clock, by libfaketime.
    pub clock_skew: Option<Duration>,
    /// Further settings of the services, as environment variables; they win over the cluster's own.
    pub settings: Vec<(String, String)>,
    /// Further flags of the services, for what has no environment variable.
    pub flags: Vec<String>,
    /// Told what is going on.
    pub progress: fn(&str),
}

impl Options {
    /// Returns three ingress and two proc in the folder, with programs from where `cargo` puts them for this one.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            keep: false,
            ingress: 3,
            proc: 2,
            listen: None,
            first_port: None,
            programs: beside_us(),
            nats_server: None,
            nats_links: false,
            database_links: false,
            clock_skew: None,
            settings: Vec::new(),
            flags: Vec::new(),
            progress: |_| {},
        }
    }

    /// Switches the limits of requests off, for who measures or tests something else.
    #[must_use]
    pub fn without_rate_limits(self) -> Self {
        let classes = ["READS", "SENDS", "OPENS", "SUBMITS"];
        let options = self.set("FLOOD_LIMIT", "off");
        classes
            .iter()
            .fold(options, |options, class| options.set(&format!("RATE_LIMIT_{class}"), "off"))
    }

    /// Adds a setting of the services.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// Tests are one folder below other programs.
fn beside_us() -> PathBuf {
    let us = std::env::current_exe().unwrap_or_default();
    let folder = us.parent().unwrap_or(&us);
    let up = folder.parent().filter(|_| folder.ends_with("deps"));
    up.unwrap_or(folder).to_owned()
}
