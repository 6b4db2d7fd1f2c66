//! The whole cluster: parts are taken away one by one, and what was acknowledged is seen everywhere, once and in order.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cluster::{Cluster, Options};
use memchr::memmem;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, open_folder, read_until};

/// A cluster, and callers of it.
pub(crate) struct Whole {
    pub(crate) cluster: Cluster,
    pub(crate) http: Client,
    dir: TempDir,
}

impl Whole {
    pub(crate) async fn start(change: impl FnOnce(&mut Options)) -> Self {
        Self::start_filled(async |_| {}, change).await
    }

    /// Starts a cluster in a folder that `fill` has put something into.
    pub(crate) async fn start_filled(
        fill: impl AsyncFnOnce(&Path),
        change: impl FnOnce(&mut Options),
    ) -> Self {
        cluster::build_programs();
        let dir = open_folder();
        fill(&dir.path().join("cluster")).await;
        let mut options = Options::new(dir.path().join("cluster"));
        options = options.without_rate_limits().set("DRAIN_SPREAD", "0s");
        change(&mut options);
        let cluster = Cluster::start(options).await.expect("it starts");
        let http = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Self { cluster, http, dir }
    }

    pub(crate) async fn post(&self, base: &str, path: &str, body: Value) -> Response {
        let request = self.http.post(format!("{base}{path}")).bearer_auth("dev-ada").json(&body);
        request.send().await.expect("an answer")
    }

    pub(crate) async fn project(&self) -> String {
        let base = self.cluster.base_url();
        let made = self.post(&base, "/api/chat/projects", json!({"name": "x"})).await;
        let made: Value = made.json().await.expect("JSON");
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Returns the text that a query of one value gives, by `psql`.
    pub(crate) fn query_text(&self, sql: &str) -> String {
        let mut psql = self.cluster.postgres().client("psql").expect("psql is installed");
        let output = psql.args(["-Atc", sql]).output().expect("psql starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Returns the number that a query gives.
    pub(crate) fn query(&self, sql: &str) -> usize {
        self.query_text(sql).parse().unwrap_or_else(|_| panic!("{sql} gives no number"))
    }

    /// Ends every part, and holds what they leave behind to what they promise.
    pub(crate) async fn stop(self) {
        self.cluster.stop().await.expect("every part ends well");
        Self::keeps_secrets(self.dir.path());
    }

    /// Looks for the tokens of its callers in all that its parts have written: logs, nginx' too, and the database.
    fn keeps_secrets(folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                Self::keeps_secrets(&path);
                continue;
            }
            // Neither sockets nor what is gone by now.
            let bytes = fs::read(&path).unwrap_or_default();
            for token in ["dev-ada", "dev-grace", "dev-admin"] {
                let found = memmem::find(&bytes, token.as_bytes()).is_some();
                assert!(!found, "{token} is in {}", path.display());
            }
        }
    }

    pub(crate) async fn stream(&self, base: &str, project: &str) -> Response {
        let url = format!("{base}/sse/stream?project_id={project}");
        let mut stream = self.http.get(url).bearer_auth("dev-ada").send().await.expect("an answer");
        read_until(&mut stream, "\"hello\"").await;
        stream
    }

    /// Sends a message until it is taken: its key makes it the same one.
    pub(crate) async fn send(&self, base: &str, project: &str, text: &str) {
        let path = format!("/api/chat/projects/{project}/messages");
        let sending = async {
            loop {
                let body = json!({"text": text, "client_message_id": text.replace(' ', "-")});
                match self.post(base, &path, body).await.status().as_u16() {
                    200 | 201 => return,
                    503 => tokio::time::sleep(Duration::from_millis(50)).await,
                    status => panic!("{status}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, sending).await.expect("it is taken");
    }
}

#[tokio::test]
async fn it_goes_on_whatever_part_is_taken_away() {
    goes_on_without_its_parts(None).await;
}

#[tokio::test]
async fn it_does_so_over_the_current_nats_too() {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nats/installed/bin/nats-server");
    goes_on_without_its_parts(Some(installed.into())).await;
}

async fn goes_on_without_its_parts(nats_server: Option<PathBuf>) {
    let whole = Whole::start(|options| {
        options.nats_links = true;
        options.nats_server = nats_server;
    })
    .await;
    let (cluster, base) = (&whole.cluster, whole.cluster.base_url());
    let project = whole.project().await;
    let mut stream = whole.stream(&cluster.ingress_url(0), &project).await;
    let url = cluster.ingress_url(2);
    whole.send(&url, &project, "from another").await;
    let mut said = read_until(&mut stream, "from another").await;

    cluster.ingress(0).nats_link().expect("it was asked for").cut();
    whole.send(&url, &project, "cut off").await;
    said += &read_until(&mut stream, "cut off").await;
    cluster.ingress(0).nats_link().expect("it was asked for").mend();

    cluster.ingress(1).kill().await.expect("it does");
    cluster.nats().kill().await.expect("it does");
    for number in 0..6 {
        whole.send(&base, &project, &format!("one less {number}")).await;
    }
    said += &read_until(&mut stream, "one less 5").await;
    cluster.nats().start().await.expect("it does");
    cluster.ingress(1).start().await.expect("it does");

    cluster.postgres().stop_immediate().await.expect("it does");
    let (started, ()) = tokio::join!(cluster.postgres().start(), async {
        whole.send(&base, &project, "without a database").await;
    });
    started.expect("it does");
    said += &read_until(&mut stream, "without a database").await;

    cluster.ingress(2).freeze().expect("it does");
    whole.send(&cluster.ingress_url(1), &project, "one is frozen").await;
    said += &read_until(&mut stream, "one is frozen").await;
    cluster.ingress(2).thaw().expect("it does");
    assert!(cluster.ingress(2).stop().await.expect("it does").success());
    assert_eq!(said.matches("message.created").count(), 10, "{said}");
    whole.stop().await;
}

/// All processes that were started in a folder.
fn in_folder(folder: &str) -> Vec<String> {
    let output = Command::new("ps").args(["-eo", "pid,args"]).output().expect("ps is there");
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    all.lines().filter(|line| line.contains(folder)).map(str::to_owned).collect()
}

#[tokio::test]
async fn nothing_outlives_the_command() {
    cluster::build_programs();
    let dir = open_folder();
    let folder = dir.path().join("c");
    let folder = folder.to_str().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
    command.args(["--folder", folder, "--listen", "127.0.0.1:0", "--ingress", "1", "--proc", "1"]);
    command.arg("--programs").arg(Options::new("").programs);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    // nginx is the last.
    let log = dir.path().join("c/nginx/nginx.pid");
    let until = async |done: &dyn Fn() -> bool| {
        let waiting = async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("in time");
    };
    until(&|| log.exists()).await;
    // The command itself and what it started; nginx changes its title just after that file is there.
    until(&|| in_folder(folder).len() == 4).await;
    child.kill().unwrap();
    child.wait().unwrap();
    until(&|| in_folder(folder).is_empty()).await;
}
