//! `PostgreSQL` with a data folder of its own, as safe as in production: every commit reaches the disk.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context, ensure};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use crate::{
    folder::Folder,
    ports::Ports,
    probe::Probe,
    process::{Plan, Process},
    programs,
};

/// The user and the database of the services.
const NAME: &str = "parley";
/// Whom it runs as when we are root, which it refuses to run as.
const SYSTEM_USER: &str = "postgres";
/// The longest name of a socket's folder: the whole name has 107 bytes at most.
const MAX_SOCKET_FOLDER: usize = 85;

/// The database server.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    addr: SocketAddr,
    password: String,
    data: PathBuf,
    user: Option<&'static str>,
}

impl Postgres {
    /// Plans a server in `postgres/` of the folder.
    pub fn plan(folder: &Folder, ports: &mut Ports) -> anyhow::Result<Self> {
        let port = ports.take()?;
        let addr = port.addr;
        let user = programs::is_root().then_some(SYSTEM_USER);
        let home = folder.file("postgres");
        let data = home.join("data");
        let mut args = vec![OsString::from("-D"), data.clone().into_os_string()];
        let sockets = home.to_str().filter(|home| home.len() <= MAX_SOCKET_FOLDER);
        for setting in [
            format!("port={}", addr.port()),
            format!("listen_addresses={}", addr.ip()),
            format!("unix_socket_directories={}", sockets.unwrap_or_default()),
            "max_connections=300".into(),
            "logging_collector=off".into(),
        ] {
            args.extend(["-c".into(), setting.into()]);
        }
        let plan = Plan {
            name: "postgres".into(),
            program: programs::find_postgres("postgres")?,
            args,
            env: vec![("LC_ALL".into(), "C".into())],
            user,
            log: folder.file("postgres.log"),
            ready: Probe::Postmaster(data.clone()),
            // "Fast": connections are closed, everything is written.
            stop: Signal::INT,
            // "Immediate": its own processes end too, and the next start recovers.
            last: Signal::QUIT,
        };
        let process = Process::new(plan, vec![port]);
        Ok(Self { process, addr, password: folder.secret("database-password")?, data, user })
    }

    /// Starts it and waits until it is ready; the first time in a folder, makes the database.
    pub async fn start(&self) -> anyhow::Result<()> {
        let fresh = !self.data.join("PG_VERSION").exists();
        if fresh {
            self.make_data()?;
        }
        self.process.start().await?;
        if fresh {
            self.make_database(NAME)?;
        }
        Ok(())
    }

    /// Ends it without saying goodbye to anybody; what was committed is there at the next start.
    pub async fn stop_immediate(&self) -> anyhow::Result<ExitStatus> {
        self.process.stop_with(Signal::QUIT).await
    }

    /// Copies the data of the server, which must not run. A copy from before is replaced.
    pub fn keep_copy(&self) -> anyhow::Result<()> {
        copy(&self.data, &self.data.with_file_name("copy"))
    }

    /// Takes the server, which must not run, back to the data of the last copy: what was committed since is lost.
    pub fn put_copy_back(&self) -> anyhow::Result<()> {
        copy(&self.data.with_file_name("copy"), &self.data)
    }

    /// Holds every process of the server where it is, as when its machine stands still: clients keep their connections and
    /// are told nothing.
    pub fn freeze(&self) -> anyhow::Result<()> {
        // The first process first, so that no others are made meanwhile.
        self.process.freeze()?;
        self.signal_others(Signal::STOP)
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal_others(Signal::CONT)?;
        self.process.thaw()
    }

    fn signal_others(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.process.pid().context("it does not run")?;
        let others = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        for other in others.split_whitespace() {
            let other = Pid::from_raw(other.parse()?).context("no process has the id 0")?;
            match kill_process(other, signal) {
                // It has ended meanwhile.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Returns where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the services' `DATABASE_URL` by another address, such as a link's.
    #[must_use]
    pub(crate) fn url_by(&self, addr: SocketAddr) -> String {
        format!("postgres://{NAME}:{}@{addr}/{NAME}", self.password)
    }

    /// Returns the services' `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    /// Makes one more database and returns its URL.
    pub fn make_database(&self, name: &str) -> anyhow::Result<String> {
        run(self.client("createdb")?.arg(name))?;
        Ok(self.url_of(name))
    }

    /// Returns a command of one of `PostgreSQL`'s own clients, such as `pgbench`, on the services' database unless it is
    /// given another.
    pub fn client(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(programs::find_postgres(program)?);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.addr.port().to_string());
        command.env("PGUSER", NAME).env("PGPASSWORD", &self.password).env("PGDATABASE", NAME);
        Ok(command)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{NAME}:{}@{}/{database}", self.password, self.addr)
    }

    fn make_data(&self) -> anyhow::Result<()> {
        let home = self.data.parent().context("the data folder is in a folder")?;
        fs::create_dir_all(home)?;
        let password = home.join("password");
        crate::folder::write_private(&password, &self.password)?;
        if let Some(user) = self.user {
            give(home, user)?;
            give(&password, user)?;
            let reachable =
                run(programs::command(Path::new("/bin/ls"), self.user, None)?.arg(home));
            reachable.with_context(|| {
                format!(
                    "PostgreSQL does not run as root but as the user {user}, who may not enter {}; choose another folder, such as one in /var/tmp",
                    home.display()
                )
            })?;
        }
        let initdb = programs::find_postgres("initdb")?;
        let mut command = programs::command(&initdb, self.user, None)?;
        command.arg("-D").arg(&self.data).arg("--pwfile").arg(&password);
        command.args(["--username", NAME, "--auth", "scram-sha-256"]);
        // Locales differ between machines, and with them the order of texts.
        command.args(["--locale=C", "--encoding=UTF8", "--no-instructions"]);
        // There is nothing in it yet that could be lost.
        command.arg("--no-sync");
        run(command.current_dir(home))?;
        Ok(fs::remove_file(password)?)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Frozen, its processes would outlive the first one.
        let _ = self.thaw();
    }
}

impl Deref for Postgres {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn give(path: &Path, user: &str) -> anyhow::Result<()> {
    run(Command::new("chown").arg(format!("{user}:")).arg(path))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    run(Command::new("cp").arg("-a").arg(from).arg(to))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("failed to start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed ({}): {}", output.status, said.trim());
    Ok(())
}
