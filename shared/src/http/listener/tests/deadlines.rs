//! How long a connection may stay where it is, in a time that only the tests wait for.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{DEADLINES, GET, hello, run};
use crate::http::{
    BodyError,
    listener::{
        close::linger,
        drive::{Outcome, drive},
        state::State,
    },
};

/// Reads one answer of `hello`.
async fn read_hello(peer: &mut DuplexStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        assert!(peer.read_buf(&mut answer).await.unwrap() > 0, "an answer");
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    let (io, _peer) = duplex(1024);
    let begun = Instant::now();
    assert!(matches!(run(io, hello).await, Outcome::Ended));
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_dribbles_is_closed() {
    let (io, mut peer) = duplex(1024);
    let begun = Instant::now();
    let dribble = async {
        for byte in b"GET /a-long-path-for-a-dribble HTTP/1.1\r\n" {
            sleep(Duration::from_secs(1)).await;
            if peer.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    let (outcome, ()) = tokio::join!(run(io, hello), dribble);
    assert!(matches!(outcome, Outcome::Ended));
    assert_eq!(begun.elapsed().as_secs(), 11, "the first byte that finds it closed");
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_waits_longer_for_a_request_than_for_its_rest() {
    let (io, mut peer) = duplex(1024);
    let client = async {
        for _ in 0..2 {
            peer.write_all(GET).await.unwrap();
            read_hello(&mut peer).await;
            sleep(Duration::from_secs(70)).await;
        }
        peer.write_all(b"GET").await.unwrap();
        Instant::now()
    };
    let (outcome, last_byte) = tokio::join!(run(io, hello), client);
    assert!(matches!(outcome, Outcome::Ended));
    assert_eq!(last_byte.elapsed().as_secs(), 10);

    let (io, mut peer) = duplex(1024);
    let client = async {
        peer.write_all(GET).await.unwrap();
        read_hello(&mut peer).await;
        (Instant::now(), peer)
    };
    let (outcome, (answered, _peer)) = tokio::join!(run(io, hello), client);
    assert!(matches!(outcome, Outcome::Ended));
    assert_eq!(answered.elapsed().as_secs(), 75);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_its_time_but_not_its_reader() {
    let answer = async |_: Request| -> Response {
        sleep(Duration::from_mins(5)).await;
        Response::new(Body::from(vec![b'x'; 1000]))
    };
    let (io, mut peer) = duplex(100);
    let begun = Instant::now();
    peer.write_all(GET).await.unwrap();
    assert!(matches!(run(io, answer).await, Outcome::Ended));
    assert_eq!(begun.elapsed().as_secs(), 330);

    // A reader that is slow, but reads.
    let (io, mut peer) = duplex(100);
    let client = async {
        peer.write_all(GET).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(&[b'x'; 1000]) {
            sleep(Duration::from_secs(20)).await;
            let read = (&mut peer).take(100).read_buf(&mut answer).await;
            assert!(read.unwrap() > 0, "it is not cut");
        }
        drop(peer);
    };
    tokio::join!(run(io, answer), client);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_slow_but_has_to_come() {
    let answer = async |request: Request| match request.into_body().collect().await {
        Ok(body) => body.to_bytes().len().to_string().into_response(),
        Err(error) => BodyError::from(error).into_response(),
    };
    let post = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\n";
    for (bytes, status) in [(9, "200"), (8, "408")] {
        let (io, mut peer) = duplex(1024);
        let client = async {
            peer.write_all(post).await.unwrap();
            for _ in 0..bytes {
                sleep(Duration::from_secs(29)).await;
                peer.write_all(b"x").await.unwrap();
            }
            let mut answer = vec![0; 12];
            peer.read_exact(&mut answer).await.unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), format!("HTTP/1.1 {status}"));
            peer
        };
        let (outcome, peer) = tokio::join!(run(io, answer), client);
        assert_eq!(matches!(outcome, Outcome::Unread { .. }), bytes < 9);
        drop(peer);
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_closes_what_is_idle_and_finishes_what_runs() {
    let stop = CancellationToken::new();
    let state = State::<()>::new(DEADLINES);
    let (io, mut idle) = duplex(1024);
    let served = drive(io, &state, hello, stop.cancelled());
    let client = async {
        idle.write_all(GET).await.unwrap();
        read_hello(&mut idle).await;
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(timeout(Duration::from_secs(1), served), client);
    assert!(matches!(outcome, Ok(Outcome::Ended)));

    let (io, _silent) = duplex(1024);
    let served = drive(io, &State::<()>::new(DEADLINES), hello, stop.cancelled()).await;
    assert!(matches!(served, Outcome::Ended), "what has sent nothing is idle");

    let stop = CancellationToken::new();
    let answer = async |request: Request| {
        stop.cancel();
        sleep(Duration::from_secs(5)).await;
        hello(request).await
    };
    let (io, mut busy) = duplex(1024);
    busy.write_all(GET).await.unwrap();
    let served = drive(io, &State::<()>::new(DEADLINES), answer, stop.cancelled()).await;
    assert!(matches!(served, Outcome::Ended));
    assert!(read_hello(&mut busy).await.contains("connection: close"));
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_after_the_answer_is_thrown_away_for_a_while() {
    let (io, mut peer) = duplex(1024);
    let begun = Instant::now();
    let client = async {
        let mut end = Vec::new();
        peer.read_to_end(&mut end).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO, "the end is said at once");
        let part = Bytes::from(vec![b'x'; 64 * 1024]);
        let mut sent = 0;
        while peer.write_all(&part).await.is_ok() {
            sent += part.len();
        }
        sent
    };
    let (sent, ()) = tokio::join!(client, linger(io));
    assert_eq!(sent, 1024 * 1024);
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn several_hosts_are_refused() {
    let (io, mut peer) = duplex(4096);
    peer.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await.unwrap();
    run(io, hello).await;
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(
        head.contains(&format!("x-trace-id: {}", body["trace_id"].as_str().unwrap())),
        "{answer}"
    );
}
