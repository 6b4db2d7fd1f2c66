//! A replica of ingress or of proc.

use std::{net::SocketAddr, ops::Deref, path::Path};

use anyhow::{Context, ensure};
use rustix::process::Signal;

use crate::{
    folder::Folder,
    link::Link,
    ports::{Port, Ports},
    probe::Probe,
    process::{Plan, Process},
};

/// Which of the two services.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ingress,
    Proc,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Proc => "proc",
        }
    }
}

/// Where a replica will be.
#[derive(Debug)]
pub(crate) struct Place {
    kind: Kind,
    number: usize,
    public: Port,
    internal: Port,
}

impl Place {
    pub(crate) fn take(kind: Kind, number: usize, ports: &mut Ports) -> anyhow::Result<Self> {
        Ok(Self { kind, number, public: ports.take()?, internal: ports.take()? })
    }

    /// Returns whether it is one of every second replica, whose clock may be ahead.
    pub(crate) fn is_second(&self) -> bool {
        !self.number.is_multiple_of(2)
    }

    /// Returns the URL of its gRPC.
    pub(crate) fn grpc_url(&self) -> String {
        format!("http://{}", self.internal.addr)
    }
}

/// A replica, which keeps its addresses through every restart.
#[derive(Debug)]
pub struct Service {
    process: Process,
    addr: SocketAddr,
    internal: SocketAddr,
    links: Links,
}

/// A service's own ways to other parts, where the cluster was asked for them.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) nats: Option<Link>,
    pub(crate) database: Option<Link>,
}

impl Service {
    /// Plans a replica at its place, of the program in `programs` with `flags`, and with the environment `env` besides its addresses.
    pub(crate) fn plan(
        folder: &Folder,
        programs: &Path,
        flags: &[String],
        place: Place,
        mut env: Vec<(String, String)>,
        links: Links,
    ) -> anyhow::Result<Self> {
        let Place { kind, number, public, internal } = place;
        let program = programs.join(kind.name());
        ensure!(
            program.is_file(),
            "there is no {}; `cargo build -p ingress -p proc` makes it",
            program.display()
        );
        let variable = kind.name().to_uppercase();
        env.push((format!("{variable}_LISTEN"), public.addr.to_string()));
        env.push((format!("{variable}_INTERNAL_LISTEN"), internal.addr.to_string()));
        let name = format!("{}-{number}", kind.name());
        if kind == Kind::Proc {
            let index = folder.make(&format!("{name}-search"))?;
            let index = index.to_str().context("the folder's name is not text")?.to_owned();
            env.push(("PROC_SEARCH_DIR".into(), index));
        }
        let plan = Plan {
            log: folder.file(&format!("{name}.log")),
            name,
            program,
            args: flags.iter().map(Into::into).collect(),
            env,
            user: None,
            ready: Probe::Health(public.addr),
            stop: Signal::TERM,
            last: Signal::KILL,
        };
        let (addr, internal_addr) = (public.addr, internal.addr);
        let process = Process::new(plan, vec![public, internal]);
        Ok(Self { process, addr, internal: internal_addr, links })
    }

    /// Returns the address of its public API.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the base URL of its public API, not by nginx.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the address of gRPC and metrics.
    #[must_use]
    pub fn internal_addr(&self) -> SocketAddr {
        self.internal
    }

    /// Returns its way to NATS, if the cluster was asked for links.
    #[must_use]
    pub fn nats_link(&self) -> Option<&Link> {
        self.links.nats.as_ref()
    }

    /// Returns its way to the database, if the cluster was asked for links to it.
    #[must_use]
    pub fn database_link(&self) -> Option<&Link> {
        self.links.database.as_ref()
    }
}

impl Deref for Service {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
