//! NATS, which the services tell each other by what is new.

use std::{net::SocketAddr, ops::Deref, path::PathBuf};

use rustix::process::Signal;

use crate::{
    folder::{Folder, write_private},
    ports::Ports,
    probe::Probe,
    process::{Plan, Process},
    programs,
};

/// The user of the services.
const USER: &str = "parley";

/// The bus between processes.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    addr: SocketAddr,
    password: String,
}

impl Nats {
    /// Plans a server of the given program, or else of the one that is installed.
    pub fn plan(
        folder: &Folder,
        ports: &mut Ports,
        program: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let port = ports.take()?;
        let (addr, password) = (port.addr, folder.secret("bus-password")?);
        let config = folder.file("nats.conf");
        // In a file, since everybody can see a command line.
        write_private(
            &config,
            &format!(
                "listen: \"{addr}\"\nauthorization {{ user: {USER}, password: \"{password}\" }}\n"
            ),
        )?;
        let plan = Plan {
            name: "nats".into(),
            program: program.map_or_else(|| programs::find("nats-server"), Ok)?,
            args: vec!["--config".into(), config.into()],
            env: vec![],
            user: None,
            log: folder.file("nats.log"),
            ready: Probe::Greeting(addr, "INFO "),
            // At SIGTERM it says that something went wrong.
            stop: Signal::INT,
            last: Signal::KILL,
        };
        Ok(Self { process: Process::new(plan, vec![port]), addr, password })
    }

    /// Returns where it is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the services' `NATS_URL`, by way of `addr`.
    #[must_use]
    pub fn url_by(&self, addr: SocketAddr) -> String {
        format!("nats://{USER}:{}@{addr}", self.password)
    }
}

impl Deref for Nats {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
