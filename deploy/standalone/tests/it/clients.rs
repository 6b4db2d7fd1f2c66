//! Clients of other people follow our streams, each as its documentation says: over cuts within events, a `kill -9`, a drain,
//! and to an end that is meant.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    fault_proxy::{Cut, FaultProxy, Faults},
    project::Project,
    readers::start,
    support::{PATIENCE, Parley, eventually, text},
};

/// Longest time after the greeting's `retry:` until a client is back.
const BACK: Duration = Duration::from_secs(10);

/// A client, and what it has read: a line of JSON for each event.
struct Program {
    lines: mpsc::UnboundedReceiver<Value>,
    _running: JoinSet<()>,
}

impl Program {
    /// `eventsource` of npm, as many streams of one process; `NUMBER` in the URL is which.
    fn eventsource(url: &str, count: usize) -> Self {
        Self::of(start("node", &["eventsource.js", url, "dev-ada", &count.to_string()]))
    }

    /// `httpx-sse`, a Python package.
    fn httpx(url: &str) -> Self {
        Self::of(start("python3", &["httpx_reader.py", url, "dev-ada"]))
    }

    /// `eventsource-client` of npm.
    fn eventsource_client(url: &str) -> Self {
        Self::of(start("node", &["eventsource_client.js", url, "dev-ada"]))
    }

    fn of(mut child: Child) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let mut running = JoinSet::new();
        let mut read = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        running.spawn(async move {
            // The program ends with the task.
            let _child = child;
            while let Ok(Some(line)) = read.next_line().await {
                if sender.send(serde_json::from_str(&line).expect("JSON")).is_err() {
                    return;
                }
            }
        });
        Self { lines, _running: running }
    }

    /// Returns the next line, `None` at the end of the program.
    async fn next(&mut self) -> Option<Value> {
        timeout(PATIENCE, self.lines.recv()).await.expect("a line in time")
    }

    /// Reads on until a line of this name, and returns it.
    async fn until(&mut self, name: &str) -> Value {
        loop {
            let line = self.next().await.unwrap_or_else(|| panic!("it ended without {name}"));
            if line["name"] == name {
                return line;
            }
        }
    }

    /// Returns the texts of messages up to this one.
    async fn texts_until(&mut self, last: &str) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        while texts.last().is_none_or(|text| text != last) {
            let line = self.until("message").await;
            texts.extend(message_in(&line));
        }
        texts
    }
}

fn message_in(line: &Value) -> Option<String> {
    let data: Value = serde_json::from_str(line["data"].as_str()?).expect("a whole event");
    (data["type"] == "message.created").then(|| text(&data["message"]["text"]))
}

/// Starts the server again where it was.
async fn again(parley: &Parley, flags: &[&str]) -> Parley {
    let listen = parley.ingress.trim_start_matches("http://").to_owned();
    let flags = [flags, &["--ingress-listen", &listen]].concat();
    Parley::start_in(&parley.dir, &flags).await
}

fn project_of(parley: &Parley, project: &Project) -> Project {
    Project { client: parley.as_user("ada"), id: project.id.clone() }
}

#[tokio::test]
async fn other_clients_lose_nothing_over_cuts_within_events_and_a_kill() {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let line = FaultProxy::before(&parley.ingress).await;
    let mut cursor = project.cursor().await;
    let url = |name: &str, since: &str| {
        let path = format!("/sse/stream?project_id={}&since={since}", project.id);
        format!("{}{path}&stream_id={name}", line.url)
    };
    let mut sent = Vec::new();
    // The connection ends in the middle of the greeting, of an event, of its id: an event that is read in part is read again.
    let largest = "\"".repeat(28_671);
    line.set(Faults { cut: Some((1_100, Cut::Closed)), ..Faults::default() });
    let mut programs = [
        Program::eventsource(&url("eventsource", &cursor), 1),
        Program::httpx(&url("httpx", &cursor)),
        Program::eventsource_client(&url("eventsource-client", &cursor)),
    ];
    for number in 0..40 {
        sent.push(format!("{number} {}", "é".repeat(number * 17)));
        project.send(sent.last().unwrap()).await;
    }
    for cut in [1_700, 2_903, 4_001] {
        let before = line.cuts();
        line.set(Faults { cut: Some((cut, Cut::Reset)), ..Faults::default() });
        eventually("the lines are cut", async || line.cuts() >= before + 3).await;
    }
    line.set(Faults::default());
    sent.push(largest);
    project.send(sent.last().unwrap()).await;
    // Each has seen a part, and the process goes without a word.
    for program in &mut programs {
        let line = program.until("message").await;
        cursor = text(&line["id"]);
    }
    assert!(cursor.starts_with("v1."), "{cursor}");
    parley.kill().await;
    let parley = again(&parley, &[]).await;
    let project = project_of(&parley, &project);
    sent.push("after the kill".into());
    project.send(sent.last().unwrap()).await;
    let names = ["eventsource", "httpx", "eventsource-client"];
    for (name, mut program) in names.into_iter().zip(programs) {
        // The first message was read by the loop above if it was not a greeting.
        let texts = program.texts_until("after the kill").await;
        let expected = &sent[sent.len() - texts.len()..];
        assert_eq!(texts, expected, "{name}");
        assert!(texts.len() >= sent.len() - 1, "{name} has {} of {}", texts.len(), sent.len());
    }
}

#[tokio::test]
async fn a_drain_stops_no_client_for_good() {
    const STREAMS: usize = 30;
    let flags =
        ["--drain-spread", "4s", "--max-connections-per-user", "100", "--max-connections", "1000"];
    let mut parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let path = format!("/sse/stream?project_id={}&stream_id=NUMBER", project.id);
    let mut program = Program::eventsource(&format!("{}{path}", parley.ingress), STREAMS);
    for _ in 0..STREAMS {
        program.until("open").await;
    }
    let signalled = Instant::now();
    parley.signal();
    assert!(parley.ended().await.success());
    let parley = again(&parley, &flags).await;
    // `eventsource` stops for good at any status but 200, and looks at no `Retry-After`.
    let mut back = BTreeMap::new();
    while back.len() < STREAMS {
        let line = program.next().await.expect("it goes on");
        assert_ne!(line["name"], "stopped", "after {:?}: {line}", signalled.elapsed());
        if line["name"] == "open" {
            back.insert(line["number"].to_string(), signalled.elapsed());
        }
    }
    let latest = back.values().max().expect("streams");
    assert!(*latest < Duration::from_secs(4 + 3 + 3) + BACK, "{latest:?}");
    project_of(&parley, &project).send("after the drain").await;
    for _ in 0..STREAMS {
        program.texts_until("after the drain").await;
    }
}

#[tokio::test]
async fn a_client_that_is_told_not_to_come_back_stops() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let url = format!("{}/sse/stream?project_id={}", parley.ingress, project.id);
    let programs: [&dyn Fn() -> Program; 3] = [
        &|| Program::eventsource(&format!("{url}&stream_id=NUMBER"), 1),
        &|| Program::httpx(&url),
        &|| Program::eventsource_client(&url),
    ];
    for program in programs {
        let mut program = program();
        program.until("open").await;
        let open = project.streams().await;
        let [stream] = &open[..] else { panic!("{open:?}") };
        let path = format!("/api/debug/sse-connections/{}", text(&stream["id"]));
        parley.as_user("admin").delete(&path).await;
        let bye: Value = serde_json::from_str(program.until("bye").await["data"].as_str().unwrap())
            .expect("JSON");
        assert_eq!(bye["reconnect"], false);
        assert_eq!(program.until("stopped").await["code"], 204);
        assert!(program.next().await.is_none(), "it has nothing more to do");
        eventually("it is gone", async || project.streams().await.is_empty()).await;
    }
}
