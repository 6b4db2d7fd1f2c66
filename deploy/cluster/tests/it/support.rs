//! Parley behind nginx, and what is said in tests.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use clap::Parser;
use cluster::{Folder, Nginx, Ports};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use standalone::{App, Config};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

/// How long a test waits for anything: far longer than it takes, since only a failure waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A temporary folder that everybody may enter, since who runs PostgreSQL may not be who made it.
pub(crate) fn open_folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    dir
}

/// A folder for one test's processes.
pub(crate) fn folder() -> (TempDir, Folder) {
    let dir = open_folder();
    let folder = Folder::take(&dir.path().join("cluster"), false).expect("it is empty");
    (dir, folder)
}

/// Both services in this process.
pub(crate) struct Parley {
    pub(crate) ingress: SocketAddr,
    pub(crate) proc: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<anyhow::Result<()>>,
    _dir: TempDir,
}

impl Parley {
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data = dir.path().to_str().expect("its name is text");
        let mut all = vec!["parley", "--data-dir", data, "--trusted-proxies", "127.0.0.1"];
        all.extend(["--max-connections-per-address", "0"]);
        for limit in ["reads", "sends", "opens", "submits"] {
            let flag: &str = format!("--rate-limit-{limit}").leak();
            if !flags.contains(&flag) {
                all.extend([flag, "off"]);
            }
        }
        for listener in ["--ingress", "--ingress-internal", "--proc", "--proc-internal"] {
            all.extend([format!("{listener}-listen").leak(), "127.0.0.1:0"]);
        }
        all.extend(flags);
        let app = App::bind(Config::parse_from(all)).await.expect("parley starts");
        let [ingress, proc] =
            [app.ingress_addr(), app.proc_addr()].map(|addr| addr.expect("it is bound"));
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.unwrap_or(()) };
        #[expect(clippy::disallowed_methods, reason = "owned and joined by Parley")]
        let running = tokio::spawn(app.run(stopped));
        Self { ingress, proc, stop: Some(stop), running, _dir: dir }
    }

    /// Asks it to stop.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.take().expect("it was not asked before").send(()).expect("it runs");
    }

    /// Waits until it has stopped.
    pub(crate) async fn ended(self) {
        timeout(PATIENCE, self.running)
            .await
            .expect("in time")
            .expect("no panic")
            .expect("it ends well");
    }
}

/// An nginx, and callers of what is behind it.
pub(crate) struct Origin {
    pub(crate) nginx: Nginx,
    pub(crate) http: Client,
    _folder: Folder,
    _dir: TempDir,
}

impl Origin {
    /// Starts nginx before the given replicas.
    pub(crate) async fn before(ingress: &[SocketAddr], proc: &[SocketAddr]) -> Self {
        Self::with(ingress, proc, str::to_owned).await
    }

    /// Starts nginx with something about its configuration changed.
    pub(crate) async fn with(
        ingress: &[SocketAddr],
        proc: &[SocketAddr],
        change: impl Fn(&str) -> String,
    ) -> Self {
        Self::with_files(ingress, proc, |home| {
            let config = home.join("nginx.conf");
            fs::write(&config, change(&read(&config))).expect("it is ours");
        })
        .await
    }

    /// Starts nginx with something about the files of its configuration changed.
    pub(crate) async fn with_files(
        ingress: &[SocketAddr],
        proc: &[SocketAddr],
        change: impl Fn(&Path),
    ) -> Self {
        let (dir, folder) = folder();
        let nginx = Nginx::plan(&folder, &mut Ports::default(), None, ingress, proc);
        let nginx = nginx.expect("nginx is installed");
        change(nginx.home());
        nginx.start().await.expect("nginx starts");
        let http = Client::builder().no_proxy().timeout(PATIENCE).build().expect("an HTTP client");
        Self { nginx, http, _folder: folder, _dir: dir }
    }

    /// Begins a request without credentials.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.nginx.url()))
    }

    /// Begins a request by a demo user.
    pub(crate) fn by(&self, user: &str, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(format!("dev-{user}"))
    }

    /// Makes a project of ada's and returns its id.
    pub(crate) async fn project(&self) -> String {
        let new = serde_json::json!({"name": "Test"});
        let request = self.by("ada", Method::POST, "/api/chat/projects").json(&new);
        let made = request.send().await.expect("an answer");
        let made: Value = made.json().await.expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Stops nginx and returns every byte that it has logged.
    pub(crate) async fn stop_and_read_logs(&self) -> String {
        assert!(self.nginx.stop().await.expect("it runs").success());
        let home = fs::read_dir(self.nginx.home()).expect("it is ours");
        let files = home.map(|file| file.expect("it is ours").path()).filter(|file| file.is_file());
        // Not what it was told.
        let logs = files.filter(|file| file.extension() != Some("conf".as_ref()));
        let logs = logs.chain([self.nginx.log_file().to_owned()]);
        logs.map(|log| read(&log)).collect::<Vec<_>>().join("\n")
    }
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).expect("it is ours")).into_owned()
}

/// Reads a stream until it has said `text`; everything up to there is returned.
pub(crate) async fn read_until(stream: &mut Response, text: &str) -> String {
    let mut said = String::new();
    let reading = async {
        while !said.contains(text) {
            let chunk = stream.chunk().await.expect("the stream is sound");
            let chunk = chunk.unwrap_or_else(|| panic!("the stream ended before {text}: {said}"));
            said.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    let in_time = timeout(PATIENCE, reading).await.is_ok();
    assert!(in_time, "{text} does not come: {said}");
    said
}
