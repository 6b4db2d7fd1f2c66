//! Requests whose bodies have two lengths are refused, wherever they are on a connection.

use std::sync::Mutex;

use axum::{body::Body, extract::Request, response::Response};
use http_body_util::BodyExt;
use proptest::{prelude::*, test_runner::Config};
use tokio::runtime;

use super::{
    super::framing::Framing,
    run,
    wire::{Plan, Wire},
};

const TWO_LENGTHS: &str = "POST /two HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";

/// Returns the paths of the requests that are served.
async fn served(plan: Plan) -> Vec<String> {
    let paths = Mutex::new(Vec::new());
    let answer = async |request: Request| {
        paths.lock().unwrap().push(request.uri().path().to_owned());
        let _ = request.into_body().collect().await;
        Response::new(Body::from("hello"))
    };
    run(Wire::new(plan), answer).await;
    paths.into_inner().unwrap()
}

fn any_first() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("\r\n\r\n"),
        Just("GET /first HTTP/1.1\r\nhost: x\r\n\r\n"),
        Just("GET /first HTTP/1.1\nhost: x\n\n"),
        Just("POST /first HTTP/1.1\r\nhost: x\r\nContent-Length: 5\r\n\r\nab\r\n\r"),
        Just(
            "POST /first HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nab\r\n\r\r\n0\r\nt: x\r\n\r\n"
        ),
    ]
}

proptest! {
    #![proptest_config(Config::with_cases(48))]
    #[test]
    fn two_lengths_are_refused_behind_any_request(
        first in any_first(),
        mut plan in Plan::any(TWO_LENGTHS.as_bytes()),
    ) {
        plan.sent.splice(..0, first.bytes());
        // Far later than the slowest pace needs.
        plan.gone_at = Some(8_000);
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let paths = runtime.unwrap().block_on(served(plan));
        let expected = if first.contains("/first") { vec!["/first"] } else { vec![] };
        prop_assert_eq!(paths, expected);
    }
}

#[test]
fn a_length_in_the_body_before_is_not_the_next_head_s() {
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let body = "\r\ncontent-length: 5\r\n";
    let sent = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}{chunked}", body.len());
    let mut framing = Framing::default();
    framing.follow(sent.as_bytes());
    assert_eq!([framing.take_head(), framing.take_head()], [false, false]);
}

#[test]
fn a_head_behind_a_line_of_chunks_that_lf_alone_ends_is_not_trusted() {
    for chunks in ["0\n\r\n", "0\r\n\n", "0\r\nt: x\n\r\n"] {
        let mut framing = Framing::default();
        framing.follow(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        framing.follow(format!("{chunks}GET / HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!([framing.take_head(), framing.take_head()], [false, true], "{chunks:?}");
    }
}

#[test]
fn a_head_behind_a_length_that_is_none_is_not_trusted() {
    for length in ["x", "-1", "99999999999999999999", &format!("{}1", " ".repeat(200))] {
        let mut framing = Framing::default();
        framing.follow(format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        framing.follow(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!([framing.take_head(), framing.take_head()], [false, true], "{length}");
    }
}
