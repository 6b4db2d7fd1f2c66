//! nginx with the production configuration, and a `site` that says where things are here.

use std::{
    ffi::OsString,
    fmt::Write,
    fs,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use rustix::process::{Resource, Signal, getrlimit};

use crate::{
    folder::Folder,
    ports::{Port, Ports},
    probe::Probe,
    process::{Plan, Process},
    programs,
};

const CONFIG: &str = include_str!("../../nginx/nginx.conf");
/// What production asks for.
const DESCRIPTORS: u64 = 65_536;

/// The proxy that makes one origin of all replicas.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    addr: SocketAddr,
    home: PathBuf,
}

impl Nginx {
    /// Plans an nginx before the given replicas, at `listen` or else at a free port.
    pub fn plan(
        folder: &Folder,
        ports: &mut Ports,
        listen: Option<SocketAddr>,
        ingress: &[SocketAddr],
        proc: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        let port = listen.map_or_else(|| ports.take(), Port::at)?;
        let addr = port.addr;
        let home = folder.make("nginx")?;
        folder.make("nginx/site")?;
        let write = |name: &str, text: String| fs::write(home.join(name), text);
        write("nginx.conf", CONFIG.into())?;
        write("site/main.conf", main(&home))?;
        write("site/http.conf", http(&home))?;
        write("site/server.conf", format!("listen {addr};\n"))?;
        write("site/ingress.conf", servers(ingress, "max_fails=1 fail_timeout=3s"))?;
        write("site/streams.conf", servers(ingress, "max_fails=0"))?;
        write("site/proc.conf", servers(proc, "max_fails=1 fail_timeout=3s"))?;
        let mut args = arguments(&home);
        args.extend(["-g".into(), "daemon off;".into()]);
        let plan = Plan {
            name: "nginx".into(),
            program: programs::find("nginx")?,
            args,
            env: vec![],
            user: None,
            log: folder.file("nginx.log"),
            ready: Probe::Listening(addr),
            // "Fast": what is being answered is cut off, streams too.
            stop: Signal::TERM,
            // Killed, it could not end its workers.
            last: Signal::TERM,
        };
        Ok(Self { process: Process::new(plan, vec![port]), addr, home })
    }

    /// Starts it and waits until it is ready, if the configuration is sound.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.check()?;
        self.process.start().await
    }

    /// Asks nginx whether the configuration is sound.
    pub fn check(&self) -> anyhow::Result<()> {
        let mut command = Command::new(programs::find("nginx")?);
        let output = command.arg("-t").args(arguments(&self.home)).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the configuration of nginx is not sound:\n{said}");
        Ok(())
    }

    /// Returns where it is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the origin that unites both services.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the folder of its configuration and of its own logs.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }
}

impl Deref for Nginx {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn arguments(home: &Path) -> Vec<OsString> {
    let config = home.join("nginx.conf");
    vec!["-e".into(), "stderr".into(), "-p".into(), home.into(), "-c".into(), config.into()]
}

fn main(home: &Path) -> String {
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    // As root, workers would be somebody who may not enter the folder.
    let user = if programs::is_root() { "user root;\n" } else { "" };
    format!(
        "{user}pid \"{}\";\nworker_processes 2;\nworker_rlimit_nofile {descriptors};\nerror_log stderr notice;\n",
        home.join("nginx.pid").display()
    )
}

fn http(home: &Path) -> String {
    let mut text = format!("access_log \"{}\" parley;\n", home.join("access.log").display());
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{kind}_temp_path \"{}\";", home.join(kind).display());
    }
    text
}

fn servers(addrs: &[SocketAddr], failures: &str) -> String {
    addrs.iter().fold(String::new(), |mut text, addr| {
        let _ = writeln!(text, "server {addr} {failures};");
        text
    })
}
