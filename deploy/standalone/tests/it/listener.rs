//! Clients that are slow, silent, wrong or too many: each is shown the door, and the process serves on.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    raw::Raw,
    support::{PATIENCE, Parley, eventually},
};

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Holds an answer to the contract's shape of refusals.
#[track_caller]
fn refused(answer: &str, status: u16, code: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let length = format!("content-length: {}", body.len());
    let body: Value = serde_json::from_str(body).expect(answer);
    assert_eq!(body["error"], code, "{answer}");
    let head = head.to_lowercase();
    let trace = format!("x-trace-id: {}", body["trace_id"].as_str().expect("a trace"));
    for line in ["cache-control: no-store", "content-type: application/json", &trace, &length] {
        assert!(head.contains(line), "{line} is missing: {answer}");
    }
}

async fn is_alive(parley: &Parley) {
    for base in [&parley.ingress, &parley.proc] {
        let answer = Raw::sending(base, HEALTH).await.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn who_does_not_finish_a_head_is_hung_up_on() {
    let flags = ["--head-timeout", "500ms", "--idle-connection-timeout", "600ms"];
    let parley = Parley::start_with(&flags).await;
    for base in [&parley.ingress, &parley.proc] {
        for begun in ["", "\r\n", "G", "GET /health HTTP/1.1\r\nhost: localhost\r\n"] {
            assert_eq!(Raw::sending(base, begun).await.rest().await, "", "{begun:?}");
        }
        // A byte now and then is no reason to stay.
        let mut client = Raw::sending(base, "GET /").await;
        let dribble = async {
            loop {
                let now = timeout(Duration::from_millis(50), client.0.read_u8()).await;
                if now.is_ok() || client.0.write_all(b"x").await.is_err() {
                    break;
                }
            }
        };
        timeout(PATIENCE, dribble).await.expect("it hangs up");
        let mut kept = Raw::sending(base, HEALTH).await;
        assert!(kept.rest().await.contains("200 OK"), "and on a connection that is idle");
    }
    is_alive(&parley).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_in_time() {
    let parley = Parley::start_with(&["--body-timeout", "500ms"]).await;
    for (base, path, kind) in [
        (&parley.ingress, "/api/chat/projects", "application/json"),
        (&parley.proc, "/api/integrations/uploads", "application/octet-stream"),
    ] {
        for length in ["content-length: 99", "transfer-encoding: chunked"] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\n\
                 content-type: {kind}\r\n{length}\r\n\r\n5\r\n{{\"nam"
            );
            refused(&Raw::sending(base, head).await.rest().await, 408, "timeout");
        }
    }
    is_alive(&parley).await;
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_harms_nobody() {
    let parley = Parley::start().await;
    let long =
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let many = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(64));
    let post = |lines: &str| {
        format!("POST /health HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n\r\n0\r\n\r\n")
    };
    let every_byte: Vec<u8> = (0..=255).rev().collect();
    let cases: [(&[u8], &str); 17] = [
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (b"GET /health\r\n\r\n", "400"),
        (b"GET /health HTTP/9.9\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
        (&every_byte, "400"),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nhost x\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400"),
        (b"GET /health HTTP/1.1\r\n\r\n", "400"),
        (post("transfer-encoding: gzip, chunked").leak().as_bytes(), "501"),
        // Another protocol on this port is not spoken at all.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        (post("content-length: 1\r\ncontent-length: 2").leak().as_bytes(), "400"),
        (post("content-length: -1").leak().as_bytes(), "400"),
        (post("content-length: 99999999999999999999").leak().as_bytes(), "400"),
        (post("transfer-encoding: gzip").leak().as_bytes(), "400"),
        (post("transfer-encoding: chunked, gzip").leak().as_bytes(), "400"),
    ];
    for (bytes, status) in cases {
        for base in [&parley.ingress, &parley.proc] {
            let answer = Raw::sending(base, bytes).await.rest().await;
            let found = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
            let what = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
            assert_eq!(found.unwrap_or_default(), status, "{what:?}: {answer}");
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let has_shape = ["\"error\":", "\"message\":", "\"trace_id\":"];
            let has_shape = has_shape.iter().all(|field| body.contains(field));
            assert!(status.is_empty() || has_shape, "{what:?}: {answer}");
        }
    }
    is_alive(&parley).await;
}

#[tokio::test]
async fn two_lengths_are_never_two_requests() {
    let parley = Parley::start().await;
    for lengths in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        let request = format!(
            "POST /health HTTP/1.1\r\nhost: localhost\r\n{lengths}\r\n\r\n0\r\n\r\n{HEALTH}"
        );
        let answer = Raw::sending(&parley.ingress, request).await.rest().await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        refused(&answer, 400, "invalid_request");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn old_and_persistent_clients_are_served() {
    let parley = Parley::start().await;
    let answer = Raw::sending(&parley.ingress, "GET /health HTTP/1.0\r\n\r\n").await.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with('}'), "{answer}");

    let mut client = Raw::connect(&parley.ingress).await;
    for _ in 0..2 {
        client.0.write_all(HEALTH.as_bytes()).await.unwrap();
        assert!(client.until("\"ok\"}").await.starts_with("HTTP/1.1 200"));
    }
    let last = HEALTH.replacen("host", "connection: close\r\nhost", 1);
    client.0.write_all(format!("{HEALTH}{HEALTH}{last}").as_bytes()).await.unwrap();
    assert_eq!(client.rest().await.matches("HTTP/1.1 200").count(), 3);

    let project = br#"{"name":"Test"}"#;
    let head = format!(
        "POST /api/chat/projects HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        project.len()
    );
    let mut client = Raw::sending(&parley.ingress, head).await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.0.write_all(project).await.unwrap();
    assert!(client.until("}").await.starts_with("HTTP/1.1 201"));
}

#[tokio::test]
async fn a_refusal_is_read_by_who_is_still_sending() {
    let parley = Parley::start().await;
    let head = |path: &str, token: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n",
            5 << 20
        )
    };
    for (base, path, token, status, code) in [
        (&parley.ingress, "/api/chat/projects", "nobody", 401, "unauthenticated"),
        (&parley.ingress, "/api/chat/projects", "dev-ada", 413, "too_large"),
        (&parley.proc, "/api/integrations/uploads", "nobody", 401, "unauthenticated"),
    ] {
        let (mut read, mut write) = Raw::sending(base, head(path, token)).await.0.into_split();
        let sending = async {
            let part = vec![b'x'; 64 << 10];
            for _ in 0..80 {
                if write.write_all(&part).await.is_err() {
                    break;
                }
            }
        };
        // A client that reads the answer only when it has sent what it could.
        timeout(PATIENCE, sending).await.expect("it is read or hung up on");
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("it hangs up");
        refused(&String::from_utf8_lossy(&answer), status, code);
    }
}

#[tokio::test]
async fn an_address_has_only_its_share_of_connections() {
    let parley = Parley::start_with(&["--max-connections-per-address", "4"]).await;
    let mut held = Vec::new();
    for base in [&parley.ingress, &parley.ingress, &parley.proc, &parley.proc] {
        let mut client = Raw::sending(base, HEALTH).await;
        client.until("\"ok\"}").await;
        held.push(client);
    }
    for base in [&parley.ingress, &parley.proc] {
        refused(&Raw::sending(base, HEALTH).await.rest().await, 503, "backpressure");
        refused(&Raw::connect(base).await.rest().await, 503, "backpressure");
    }
    held.clear();
    recovers(&parley).await;
}

/// Connections are given back when the server has noticed that they are gone, one after the other: one that is served says
/// nothing of the next.
async fn recovers(parley: &Parley) {
    for base in [&parley.ingress, &parley.proc] {
        let served = async {
            loop {
                let answer = Raw::sending(base, HEALTH).await.until("\r\n\r\n").await;
                if answer.starts_with("HTTP/1.1 200") {
                    break;
                }
            }
        };
        timeout(PATIENCE, served).await.expect("it serves again");
    }
}

#[tokio::test]
async fn connections_are_refused_before_descriptors_run_out() {
    let parley = Parley::start_with_descriptors(600).await;
    let mut held = Vec::new();
    let refusal = loop {
        let mut client = Raw::sending(&parley.ingress, HEALTH).await;
        let answer = client.until("}").await;
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        held.push(client);
        assert!(held.len() < 600, "there is a cap");
    };
    assert_eq!(held.len(), 600 - 512);
    refused(&refusal, 503, "backpressure");
    assert!(refusal.contains("\"limit\":88,") && refusal.contains("ulimit -n"), "{refusal}");
    eventually("a line in the log", async || parley.log().contains("the limit is 88")).await;
    held.clear();
    recovers(&parley).await;
}

#[tokio::test]
async fn a_process_that_ran_out_of_descriptors_serves_again() {
    let parley = Parley::start_with_descriptors(100).await;
    let mut held = Vec::new();
    let exhausted = async {
        while !parley.log().contains("a connection was not accepted") {
            held.push(Raw::sending(&parley.ingress, HEALTH).await);
        }
    };
    timeout(PATIENCE, exhausted).await.expect("there are only so many");
    held.clear();
    recovers(&parley).await;
}
