//! Bundles behind a URL as tests have them: the sample in Python, and one that does as it is told, however bad.

use std::{process::Stdio, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::support::{Answer, Client, PATIENCE};

pub(crate) const ADMIN: &str = "/api/integrations/admin/bundles";
pub(crate) const SECRET: &str = "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5";

/// What lets bundles be on this machine.
pub(crate) const LOOPBACK: [&str; 2] = ["--proc-http-bundles-loopback", "true"];

/// Registers a bundle.
pub(crate) async fn register(client: &Client, name: &str, url: &str, manifest: &Value) -> Answer {
    let mut body = manifest.clone();
    (body["url"], body["secret"]) = (json!(url), json!(SECRET));
    client.call("PUT", &format!("{ADMIN}/{name}"), &body).await
}

/// Returns a manifest whose operations take anything, with so many seconds for each.
pub(crate) fn manifest(operations: &[&str], timeout_seconds: u64) -> Value {
    let operation = |name: &&str| {
        json!({"name": name, "description": "For tests.", "role": "member", "timeout_seconds": timeout_seconds,
            "input": {"type": "object"}})
    };
    json!({"version": "1", "description": "For tests.", "operations": operations.iter().map(operation).collect::<Value>()})
}

/// The sample bundle, running; it is killed when dropped.
pub(crate) struct Sample {
    pub(crate) url: String,
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Sample {
    fn command() -> Command {
        let mut command = Command::new("python3");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/bundle.py");
        command.arg(script).env("BUNDLE_SECRET", SECRET).kill_on_drop(true);
        command
    }

    pub(crate) async fn start() -> Self {
        let mut command = Self::command();
        command.args(["--port", "0"]).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 starts");
        let mut said = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let url = timeout(PATIENCE, said.next_line()).await.expect("it starts");
        Self { url: url.expect("text").expect("a URL"), process, said }
    }

    pub(crate) async fn manifest() -> Value {
        let output = Self::command().arg("--manifest").output().await.expect("python3 starts");
        serde_json::from_slice(&output.stdout).expect("a manifest")
    }

    /// Waits until it says something and returns it.
    pub(crate) async fn says(&mut self) -> String {
        let line = timeout(PATIENCE, self.said.next_line()).await.expect("it says something");
        line.expect("text").expect("it runs")
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.expect("it is ours");
    }
}

/// How a bundle answers.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// These bytes, and hangs up.
    Ends(String),
    /// These bytes, and nothing more until the other side hangs up.
    Hangs(String),
    /// These bytes, then these others without end.
    Floods(String, &'static [u8]),
}

/// Returns the head of an answer and the lines after it.
pub(crate) fn lines(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{lines}")
}

pub(crate) fn status(line: &str, more: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n{more}\r\n")
}

/// A bundle that does as it is told; it ends when dropped.
pub(crate) struct Rogue {
    pub(crate) url: String,
    calls: mpsc::UnboundedReceiver<Call>,
    _running: JoinSet<()>,
}

/// What a bundle was sent, and that whoever sent it has hung up.
pub(crate) struct Call {
    pub(crate) head: String,
    /// The body as it came, and what it says.
    pub(crate) text: String,
    pub(crate) body: Value,
    pub(crate) hung_up: tokio::sync::oneshot::Receiver<()>,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .unwrap_or_default()
    }
}

impl Rogue {
    /// Answers each call by its body.
    pub(crate) async fn start(answer: impl Fn(&Value) -> Says + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", answer).await
    }

    /// Starts where another one was.
    pub(crate) async fn start_at(
        address: &str,
        answer: impl Fn(&Value) -> Says + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let (tell, calls) = mpsc::unbounded_channel();
        let (answer, mut running) = (Arc::new(answer), JoinSet::new());
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                connections.spawn(serve(socket, answer.clone(), tell.clone()));
            }
        });
        Self { url, calls, _running: running }
    }

    /// Waits for the next call.
    pub(crate) async fn called(&mut self) -> Call {
        timeout(PATIENCE, self.calls.recv()).await.expect("a call").expect("it runs")
    }

    /// Returns whether it is called within a time.
    pub(crate) async fn is_called_within(&mut self, patience: Duration) -> bool {
        timeout(patience, self.calls.recv()).await.is_ok()
    }
}

async fn serve(
    mut socket: TcpStream,
    answer: Arc<impl Fn(&Value) -> Says>,
    tell: mpsc::UnboundedSender<Call>,
) {
    let mut request = Vec::new();
    let (head, text, body) = loop {
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if let Ok(said) = serde_json::from_str::<Value>(body) {
            break (head.to_owned(), body.to_owned(), said);
        }
    };
    let says = answer(&body);
    let (hang_up, hung_up) = tokio::sync::oneshot::channel();
    let _ = tell.send(Call { head, text, body, hung_up });
    match says {
        Says::Ends(bytes) => {
            let _ = socket.write_all(bytes.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
        Says::Hangs(bytes) => {
            let _ = socket.write_all(bytes.as_bytes()).await;
            let _ = socket.read(&mut [0]).await;
        }
        Says::Floods(bytes, more) => {
            let _ = socket.write_all(bytes.as_bytes()).await;
            while socket.write_all(more).await.is_ok() {}
        }
    }
    let _ = hang_up.send(());
}
