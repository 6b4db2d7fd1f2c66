//! The hand-over of a connection: nothing lost, nothing doubled, and what waits for it is run or dropped, once.

use std::{
    cell::Cell,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::StatusCode;
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};
use tokio::{io::AsyncWriteExt, runtime, time::timeout};

use super::{
    DEADLINES, GET,
    wire::{Plan, Wire},
};
use crate::http::listener::{
    body::LastBody,
    drive::{Outcome, drive},
    state::State,
};

const FIRST: &[u8] = b"event: hello\ndata: {}\n\n";
const CHUNK: &[u8] = b"17\r\nevent: hello\ndata: {}\n\n\r\n";
const GET_10: &[u8] = b"GET /x HTTP/1.0\r\n\r\n";
const PIPELINED: &[u8] = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\nGET /y HTTP/1.1\r\nhost: x\r\n\r\n";
const AFTER_ANOTHER: &[u8] = b"POST /first HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabcGET /x HTTP/1.1\r\nhost: x\r\n\r\n";

/// Counts how often it is dropped.
#[derive(Debug)]
struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Outcome of a connection.
struct End {
    made: usize,
    dropped: Arc<AtomicUsize>,
    outcome: Outcome<Wire, Token>,
}

/// Serves a peer; `/first` is answered plainly, all else hands over.
async fn serve(plan: Plan, hasty: bool) -> End {
    let state = State::new(DEADLINES);
    if hasty {
        state.sabotage();
    }
    let (made, dropped) = (Cell::new(0), Arc::new(AtomicUsize::new(0)));
    let answer = async |request: Request| -> Response {
        if request.uri() == "/first" {
            let body = axum::body::to_bytes(request.into_body(), 9).await;
            return if body.is_ok() {
                "ok".into_response()
            } else {
                StatusCode::BAD_REQUEST.into_response()
            };
        }
        made.set(made.get() + 1);
        let token = Token(dropped.clone());
        Response::new(Body::new(LastBody::new(Bytes::from_static(FIRST), token, state.clone())))
    };
    let served = drive(Wire::new(plan), &state, answer, pending());
    let outcome = timeout(DEADLINES.idle * 9, served).await.expect("it ends");
    End { made: made.get(), dropped, outcome }
}

/// Holds what the peer got to what it is to get; answers before the last one are skipped.
async fn check(end: End, chunked: bool) -> Result<(), TestCaseError> {
    let Outcome::HandedOver { mut io, successor } = end.outcome else {
        return Err(TestCaseError::fail("the connection was not handed over"));
    };
    prop_assert_eq!((end.made, end.dropped.load(Ordering::Relaxed)), (1, 0));
    prop_assert!(io.held().is_empty(), "all is with the peer");
    let before = io.received.clone();
    let text = String::from_utf8_lossy(&before);
    let head = text.rfind("HTTP/1.").map(|at| &text[at..]).unwrap_or_default();
    let first = head.split_once("\r\n\r\n").map(|(_, body)| body.as_bytes());
    prop_assert_eq!(first, Some(if chunked { CHUNK } else { FIRST }));
    prop_assert_eq!(head.contains("transfer-encoding: chunked\r\n"), chunked);
    io.write_all(b"5\r\nafter\r\n")
        .await
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    io.flush().await.map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&io.received, &[&before[..], b"5\r\nafter\r\n"].concat());
    drop(successor);
    prop_assert_eq!(end.dropped.load(Ordering::Relaxed), 1);
    Ok(())
}

fn paused() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn config() -> Config {
    let rng_seed = RngSeed::Fixed(1);
    Config { cases: 400, rng_seed, failure_persistence: None, ..Config::default() }
}

fn any_plan() -> impl Strategy<Value = (Plan, bool)> {
    prop_oneof![
        Plan::any(GET).prop_map(|plan| (plan, true)),
        Plan::any(GET_10).prop_map(|plan| (plan, false)),
        Plan::any(PIPELINED).prop_map(|plan| (plan, true)),
        Plan::any(AFTER_ANOTHER).prop_map(|plan| (plan, true)),
    ]
}

#[test]
fn at_any_pace_the_successor_goes_on_where_http_ended() {
    let runtime = paused();
    let outcome = TestRunner::new(config()).run(&any_plan(), |(plan, chunked)| {
        runtime.block_on(async { check(serve(plan, false).await, chunked).await })
    });
    outcome.unwrap();
}

/// What the property is worth: the bug that it is there for fails it.
#[test]
fn haste_is_noticed() {
    let runtime = paused();
    let outcome = TestRunner::new(config()).run(&any_plan(), |(plan, chunked)| {
        runtime.block_on(async { check(serve(plan, true).await, chunked).await })
    });
    assert!(matches!(outcome, Err(TestError::Fail(..))), "{outcome:?}");
}

#[test]
fn a_request_and_an_answer_may_be_split_anywhere() {
    let runtime = paused();
    for split in 1..AFTER_ANOTHER.len() {
        let mut plan = Plan::plain(AFTER_ANOTHER);
        plan.reads = vec![split, 0, usize::MAX];
        plan.writes = vec![split, 0, 0, usize::MAX];
        runtime.block_on(async { check(serve(plan, false).await, true).await }).unwrap();
    }
    for step in 1..20 {
        let mut plan = Plan::plain(GET);
        (plan.reads, plan.writes, plan.flush_polls) = (vec![step, 0], vec![0, step], step);
        runtime.block_on(async { check(serve(plan, false).await, true).await }).unwrap();
    }
}

#[test]
fn a_peer_may_go_at_any_step() {
    let runtime = paused();
    for resets in [false, true] {
        let mut plan = Plan::plain(AFTER_ANOTHER);
        (plan.reads, plan.writes, plan.flush_polls) = (vec![7, 0], vec![9, 0], 2);
        plan.resets = resets;
        let whole = runtime.block_on(serve(plan.clone(), false));
        let Outcome::HandedOver { io, .. } = whole.outcome else { panic!("a whole run") };
        let (mut handed_over, mut dropped) = (0, 0);
        for step in 0..io.polls() + 2 {
            plan.gone_at = Some(step);
            let end = runtime.block_on(serve(plan.clone(), false));
            let now_dropped = end.dropped.load(Ordering::Relaxed);
            if let Outcome::HandedOver { io, .. } = &end.outcome {
                assert_eq!((end.made, now_dropped), (1, 0));
                assert!(io.received.ends_with(CHUNK), "gone only after it was handed over");
                handed_over += 1;
            } else {
                assert_eq!(now_dropped, end.made, "gone at poll {step}");
                dropped += now_dropped;
            }
        }
        assert!(handed_over > 0 && dropped > 0, "both happen: {handed_over}, {dropped}");
    }
}

#[test]
fn an_answer_without_a_body_hands_nothing_over() {
    let runtime = paused();
    let mut plan = Plan::plain(b"HEAD /x HTTP/1.1\r\nhost: x\r\n\r\n");
    plan.gone_at = Some(99);
    let end = runtime.block_on(serve(plan, false));
    assert!(matches!(end.outcome, Outcome::Ended));
    assert_eq!((end.made, end.dropped.load(Ordering::Relaxed)), (1, 1));
}
