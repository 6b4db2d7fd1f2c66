//! What was answered is kept, whatever becomes of the process.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, process::Command, sync::mpsc, task::JoinSet};

use crate::{
    project::Project,
    support::{Parley, eventually, text},
};

const CLIENTS: usize = 8;
const SENDS: usize = 1_000;

/// What each send's key was answered: its message's id, or nothing that arrived.
type Answers = BTreeMap<String, Option<String>>;

fn body(key: &str) -> Value {
    json!({"text": format!("text of {key}"), "client_message_id": key})
}

/// Sends from many clients until all is sent or nobody answers any more, telling of each answer.
fn send_all(project: &Project, told: &mpsc::UnboundedSender<()>) -> JoinSet<Answers> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (project, told) = (project.clone(), told.clone());
        clients.spawn(async move {
            let keys = (client..SENDS).step_by(CLIENTS).map(|number| format!("key-{number}"));
            let mut answers: Answers = keys.map(|key| (key, None)).collect();
            for (key, answer) in &mut answers {
                let request = project.client.request("POST", &project.path("/messages"));
                let Ok(response) = request.json(&body(key)).send().await else { break };
                let status = response.status().as_u16();
                let Ok(message) = response.json::<Value>().await else { break };
                if status == 503 {
                    break;
                }
                assert_eq!(status, 201, "{message}");
                *answer = Some(text(&message["id"]));
                let _ = told.send(());
            }
            answers
        });
    }
    clients
}

/// Holds history and log to each other: the same messages, each once. Returns the ids by text.
async fn kept(project: &Project, cursor: &str) -> BTreeMap<String, String> {
    let by_text = |message: &Value| (text(&message["text"]), text(&message["id"]));
    let history: Vec<(String, String)> = project.history().await.iter().map(by_text).collect();
    let log = project.log(cursor).await;
    assert!(log.iter().all(|event| event["type"] == "message.created"));
    let logged: Vec<(String, String)> =
        log.iter().map(|event| by_text(&event["message"])).collect();
    assert_eq!(history.len(), logged.len());
    let (kept, logged): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (history.iter().cloned().collect(), logged.into_iter().collect());
    assert_eq!(kept.len(), history.len(), "a text is there twice");
    assert_eq!(kept, logged);
    kept
}

/// Returns a number of answers to stop after, another each time.
fn in_the_middle() -> u64 {
    200 + RandomState::new().hash_one(SENDS) % 600
}

/// Stops the process after some answers, starts it again and counts.
async fn sends_outlive(flags: &[&str], after: u64, stop: impl AsyncFnOnce(&mut Parley)) {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    parley.terminate().await;
    let mut parley = Parley::start_in(&parley.dir, flags).await;
    let project = Project { client: parley.as_user("ada"), id: project.id };
    let (told, mut answered) = mpsc::unbounded_channel();
    let clients = send_all(&project, &told);
    for _ in 0..after {
        answered.recv().await.expect("clients that send");
    }
    stop(&mut parley).await;
    let answers: Answers = clients.join_all().await.into_iter().flatten().collect();
    let acknowledged = answers.values().flatten().count();
    eprintln!("stopped after {after} answers; {acknowledged} arrived");
    assert!(acknowledged < SENDS, "it was to stop in the middle");

    let parley = Parley::start_in(&parley.dir, &[]).await;
    let project = Project { client: parley.as_user("ada"), id: project.id };
    let before = kept(&project, &cursor).await;
    for (key, id) in &answers {
        if let Some(id) = id {
            assert_eq!(before.get(&format!("text of {key}")), Some(id), "{key} was answered");
        }
    }
    // Whoever got no answer asks again; what had been written is found, and nothing is there twice.
    for (key, answer) in &answers {
        let again = project.call("POST", "/messages", &body(key)).await;
        let known = before.get(&format!("text of {key}"));
        let expected = if known.is_some() { 200 } else { 201 };
        let message = again.is(expected);
        assert!(known.or(answer.as_ref()).is_none_or(|id| message["id"] == **id));
    }
    let after = kept(&project, &cursor).await;
    assert_eq!(after.len(), SENDS);
    assert_eq!(after.values().collect::<HashSet<_>>().len(), SENDS);
    assert!(before.iter().all(|(text, id)| after.get(text) == Some(id)));
}

#[tokio::test]
async fn every_answered_send_outlives_a_kill() {
    sends_outlive(&[], in_the_middle(), async |parley| parley.kill().await).await;
}

#[tokio::test]
async fn every_answered_send_outlives_a_stop() {
    sends_outlive(&[], in_the_middle(), async |parley| assert!(parley.terminate().await.success()))
        .await;
}

#[tokio::test]
async fn the_check_notices_an_answer_before_its_commit() {
    let sabotaged =
        sends_outlive(&["--sabotage", "answer-early"], 40, async |parley| parley.kill().await);
    let noticed = AssertUnwindSafe(sabotaged).catch_unwind().await.unwrap_err();
    let noticed = noticed.downcast::<String>().unwrap();
    assert!(noticed.contains("was answered"), "{noticed}");
}

#[tokio::test]
async fn after_a_stop_the_file_alone_is_the_whole_database() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let mut parley = Parley::start_in(&dir, &[]).await;
    let project = parley.as_user("ada").project().await;
    for number in 0..20 {
        project.send(&format!("message {number}")).await;
    }
    assert!(parley.terminate().await.success());
    let log = std::fs::metadata(dir.path().join("parley.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0, "bytes that a copy of parley.db lacks");
}

#[tokio::test]
async fn a_database_that_another_program_locks_is_unavailable_and_comes_back() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let parley = Parley::start_in(&dir, &[]).await;
    let project = parley.as_user("ada").project().await;
    let lock = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        db.execute('BEGIN IMMEDIATE')\n\
        print('locked', flush=True)\n\
        sys.stdin.read()\n";
    let mut other = Command::new("python3")
        .args(["-c", lock])
        .arg(dir.path().join("parley.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 starts");
    let mut line = [0; 7];
    other.stdout.as_mut().expect("its output").read_exact(&mut line).await.expect("a line");
    assert_eq!(&line, b"locked\n");
    let began = Instant::now();
    let refused = project.call("POST", "/messages", &body("key-1")).await;
    refused.refused(503, "unavailable");
    assert!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
    drop(other.stdin.take());
    assert!(other.wait().await.expect("it ends").success());
    let is_back = async || project.call("POST", "/messages", &body("key-1")).await.status == 201;
    eventually("the send that was refused succeeds", is_back).await;
}
