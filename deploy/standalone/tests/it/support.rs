//! A real Parley process, clients of it, and what they are answered.

use std::{
    fs::File,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use reqwest::{Method, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{MissedTickBehavior, timeout},
};

pub(crate) use crate::answer::Answer;
use crate::{canary, project::Project, sse::Sse};

/// How long a test waits for anything: far longer than it takes, since only a failure waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a test that is not about limits of requests runs with; its flags win.
const UNLIMITED: [(&str, &str); 5] = [
    ("FLOOD_LIMIT", "off"),
    ("RATE_LIMIT_READS", "off"),
    ("RATE_LIMIT_SENDS", "off"),
    ("RATE_LIMIT_OPENS", "off"),
    ("RATE_LIMIT_SUBMITS", "off"),
];

/// A running Parley; it is killed when dropped.
pub(crate) struct Parley {
    pub(crate) ingress: String,
    pub(crate) proc: String,
    pub(crate) dir: Arc<TempDir>,
    process: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Parley {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder for data");
        Self::start_in(&Arc::new(dir), flags).await
    }

    /// Starts it with the limits of requests that a new user has; all other tests are not about them.
    pub(crate) async fn start_as_shipped() -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
        let mut command = command(&dir, &[]);
        command.env_clear();
        Self::spawn(&dir, command).await
    }

    pub(crate) async fn start_in(dir: &Arc<TempDir>, flags: &[&str]) -> Self {
        Self::spawn(dir, command(dir, flags)).await
    }

    /// Starts it with further environment variables.
    pub(crate) async fn start_with_env(dir: &Arc<TempDir>, env: &[(&str, &str)]) -> Self {
        let mut command = command(dir, &[]);
        command.envs(env.iter().copied());
        Self::spawn(dir, command).await
    }

    /// Starts a process that may have only so many descriptors.
    pub(crate) async fn start_with_descriptors(descriptors: usize) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
        let parley = command(&dir, &[]);
        let mut command = Command::new("/bin/sh");
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        command.env_clear().envs(UNLIMITED).kill_on_drop(true).arg("-c").arg(script);
        command.arg(parley.as_std().get_program()).args(parley.as_std().get_args());
        Self::spawn(&dir, command).await
    }

    async fn spawn(dir: &Arc<TempDir>, mut command: Command) -> Self {
        let log = File::options().create(true).append(true).open(dir.path().join("stderr.log"));
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(log.expect("a file for the log"))
            .spawn()
            .expect("parley starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let mut base = async |service: &str| {
            let line = timeout(PATIENCE, stdout.next_line()).await.ok()?.ok()??;
            Some(line.strip_prefix(service)?.trim().to_owned())
        };
        let (Some(ingress), Some(proc)) = (base("ingress").await, base("proc").await) else {
            panic!("parley did not start:\n{}", log_of(dir));
        };
        let dir = dir.clone();
        Self { ingress, proc, dir, process, _stdout: stdout }
    }

    /// Starts a process that is to refuse to, and returns what it says.
    pub(crate) async fn refusal(dir: &Arc<TempDir>, flags: &[&str]) -> String {
        let running = command(dir, flags).stdin(Stdio::null()).output();
        let output = timeout(PATIENCE, running).await.expect("it ends").expect("parley starts");
        assert!(!output.status.success(), "it should refuse to start");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Returns what the process has said.
    pub(crate) fn log(&self) -> String {
        log_of(&self.dir)
    }

    /// Returns where the gRPC of `ingress` or `proc` is.
    pub(crate) fn internal(&self, service: &str) -> String {
        let (log, bound) = (self.log(), format!("{service} bound"));
        let line = log.lines().rfind(|line| line.contains(&bound)).expect("it says what it bound");
        let (_, address) = line.rsplit_once("internal=").expect("an address");
        format!("http://{}", address.trim())
    }

    /// Returns a client that shows no credentials.
    pub(crate) fn client(&self) -> Client {
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        Client { http, ingress: self.ingress.clone(), proc: self.proc.clone(), token: None }
    }

    pub(crate) fn as_user(&self, user: &str) -> Client {
        self.client().as_user(user)
    }

    /// Ends the process as a power cut does.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.expect("the process is ours");
    }

    /// Asks the process to stop.
    pub(crate) fn signal(&self) {
        let pid = self.process.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.expect("it runs"), Signal::TERM).expect("the process is ours");
    }

    /// Returns the most memory that the process has had, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        self.kib("VmHWM:")
    }

    /// Returns the memory that the process has now, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.kib("VmRSS:")
    }

    fn kib(&self, field: &str) -> u64 {
        let id = self.process.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a status");
        let found = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        found.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Waits until as many streams are open as expected, of all users and projects.
    pub(crate) async fn has_streams(&self, expected: u64) {
        let admin = self.as_user("admin");
        let stats = async || admin.get("/api/jobs/stream/stats").await.is(200);
        let counted = async || stats().await["activeConnections"] == expected;
        eventually(&format!("{expected} open streams"), counted).await;
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("it ends").expect("it is ours")
    }

    /// Asks the process to stop and waits until it has.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal();
        self.ended().await
    }
}

impl Drop for Parley {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("parley said:\n{}", log_of(&self.dir));
        } else {
            canary::is_nowhere(self.dir.path());
        }
    }
}

fn log_of(dir: &TempDir) -> String {
    std::fs::read_to_string(dir.path().join("stderr.log")).unwrap_or_default()
}

fn command(dir: &TempDir, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parley"));
    command.env_clear().envs(UNLIMITED).kill_on_drop(true).arg("--data-dir").arg(dir.path());
    for listener in ["ingress", "ingress-internal", "proc", "proc-internal"] {
        let flag = format!("--{listener}-listen");
        if !flags.contains(&flag.as_str()) {
            command.args([flag.as_str(), "127.0.0.1:0"]);
        }
    }
    command.args(flags);
    command
}

/// A caller.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    ingress: String,
    proc: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn as_user(&self, user: &str) -> Self {
        Self { token: Some(format!("dev-{user}")), ..self.clone() }
    }

    /// Returns the same caller on another way to ingress.
    pub(crate) fn through(&self, ingress: &str) -> Self {
        Self { ingress: ingress.to_owned(), ..self.clone() }
    }

    /// Begins a request to the service that has the path, with the caller's credentials.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let base = if path.starts_with("/api/integrations") { &self.proc } else { &self.ingress };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self.http.request(method, format!("{base}{path}")).timeout(PATIENCE);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request("GET", path)).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        Answer::to(self.request(method, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::to(self.request("DELETE", path)).await
    }

    /// Opens a stream, which is to succeed.
    pub(crate) async fn open(&self, path: &str) -> Sse {
        Sse::open(self.request("GET", path)).await
    }

    /// Makes a project.
    pub(crate) async fn project(&self) -> Project {
        let made = self.call("POST", "/api/chat/projects", &json!({"name": "Test"})).await.is(201);
        Project { client: self.clone(), id: text(&made["id"]) }
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if is_so().await {
                return;
            }
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "never came: {what}");
}

/// Returns a JSON string's text.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}

/// Returns one field of every element of a list.
pub(crate) fn column(list: &Value, field: &str) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|element| text(&element[field])).collect()
}
