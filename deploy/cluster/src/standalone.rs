//! Both services in one process, with a database and a bus of their own.

use std::{net::SocketAddr, ops::Deref, path::Path};

use rustix::process::Signal;

use crate::{
    folder::Folder,
    ports::Ports,
    probe::Probe,
    process::{Plan, Process},
};

/// What `cargo run` starts, as a process that keeps its addresses and its database through every restart.
#[derive(Debug)]
pub struct Standalone {
    process: Process,
    ingress: SocketAddr,
    proc: SocketAddr,
}

impl Standalone {
    /// Plans it with its data in `folder`, of the program in `programs`, with `flags` and `settings`.
    pub fn plan(
        folder: &Folder,
        programs: &Path,
        flags: &[String],
        settings: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let program = programs.join("parley");
        anyhow::ensure!(
            program.is_file(),
            "there is no {}; `cargo build -p standalone` makes it",
            program.display()
        );
        let names = ["INGRESS_LISTEN", "INGRESS_INTERNAL_LISTEN", "PROC_LISTEN"];
        let names = names.into_iter().chain(["PROC_INTERNAL_LISTEN"]);
        let mut any = Ports::default();
        let ports = names.clone().map(|_| any.take()).collect::<anyhow::Result<Vec<_>>>()?;
        let listen = names.zip(&ports).map(|(name, port)| (name.to_owned(), port.addr.to_string()));
        let data = folder.make("data")?.display().to_string();
        let env = listen.chain([("DATA_DIR".to_owned(), data)]).chain(settings.iter().cloned());
        let (ingress, proc) = (ports[0].addr, ports[2].addr);
        let plan = Plan {
            name: "parley".into(),
            program,
            args: flags.iter().map(Into::into).collect(),
            env: env.collect(),
            user: None,
            log: folder.file("parley.log"),
            ready: Probe::Health(proc),
            stop: Signal::TERM,
            last: Signal::KILL,
        };
        Ok(Self { process: Process::new(plan, ports), ingress, proc })
    }

    /// Returns the base URL of ingress.
    #[must_use]
    pub fn ingress_url(&self) -> String {
        format!("http://{}", self.ingress)
    }

    /// Returns the base URL of proc.
    #[must_use]
    pub fn proc_url(&self) -> String {
        format!("http://{}", self.proc)
    }
}

impl Deref for Standalone {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
