//! A webhook's receiver, with replicas of proc that are frozen and killed while they deliver to it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{support::PATIENCE, whole::Whole};

/// How long the receiver takes for each event, so that there is a middle to be disturbed in.
const THINKS: Duration = Duration::from_millis(10);

/// Reads one call, answers it, and returns its `webhook-id` and the message's text.
async fn take(mut socket: TcpStream) -> Option<(String, String)> {
    let mut request = Vec::new();
    loop {
        // A worker that was killed hangs up in the middle.
        if socket.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let Ok(body) = serde_json::from_str::<Value>(body) else { continue };
        let id = head.lines().find_map(|line| line.strip_prefix("webhook-id: "));
        let said = (id?.to_owned(), body["data"]["message"]["text"].as_str()?.to_owned());
        sleep(THINKS).await;
        let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        return Some(said);
    }
}

#[tokio::test]
async fn events_arrive_in_order_whichever_proc_is_frozen_or_killed_meanwhile() {
    let whole = Whole::start(|options| {
        for (name, value) in [("PROC_HTTP_BUNDLES_LOOPBACK", "true"), ("PROC_LEASE", "2s")] {
            options.settings.push((name.into(), value.into()));
        }
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut receiver = JoinSet::new();
    receiver.spawn(async move {
        let mut calls = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            let tell = tell.clone();
            calls.spawn(async move { take(socket).await.map(|said| tell.send(said)) });
        }
    });
    let project = whole.project().await;
    let new = json!({"project_id": project, "url": url, "events": ["message.created"]});
    let made = whole.post(&whole.cluster.proc_url(0), "/api/integrations/webhooks", new).await;
    assert_eq!(made.status(), 201);

    let expected: Vec<String> = (0..300).map(|number| format!("number {number}")).collect();
    let base = whole.cluster.ingress_url(0);
    for text in &expected {
        whole.send(&base, &project, text).await;
    }
    let (mut seen, mut texts, mut again) = (BTreeSet::new(), Vec::new(), 0);
    let mut until = async |count: usize| {
        while texts.len() < count {
            let said = timeout(PATIENCE, told.recv()).await;
            let (id, text) = said.expect("nothing comes any more").expect("the receiver runs");
            if seen.insert(id) {
                texts.push(text);
            } else {
                again += 1;
            }
        }
    };
    // Each in turn, since only one of them delivers, and one that was frozen goes on with what it was about.
    until(20).await;
    for (number, count) in [(0, 70), (1, 120)] {
        let proc = whole.cluster.proc(number);
        proc.freeze().expect("it runs");
        until(count).await;
        proc.thaw().expect("it is there");
    }
    for (number, count) in [(0, 180), (1, 240)] {
        let proc = whole.cluster.proc(number);
        proc.kill().await.expect("it runs");
        until(count).await;
        proc.start().await.expect("it starts again");
    }
    until(300).await;
    assert_eq!(texts, expected);
    eprintln!("300 events in order, {again} of them more than once");
    // What was under way when its worker was frozen, lost or slower than its lease, and not all of it again.
    assert!(again < 30, "{again}");
    whole.stop().await;
}
