//! Requests are read the same in whatever parts their bytes arrive, and a second reader by RFC 9112 finds the same.

#![no_main]

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    response::Response,
};
use futures_util::StreamExt;
use fuzz::http1::{Head, requests};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use shared::http::{BodyBytes, BodyError, Json, MAX_BODY_BYTES, fuzzing::serve};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
};

/// The byte that ends the plan at the begin of an input: each byte before it is how many bytes a read gets.
const PLAN_END: u8 = b'|';
const MAX_PLAN_BYTES: usize = 16;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(end) = input.iter().take(MAX_PLAN_BYTES).position(|byte| *byte == PLAN_END) else {
        return Corpus::Reject;
    };
    let (plan, sent) = (&input[..end], &input[end + 1..]);
    let whole = run(sent, &[]);
    let split = run(sent, plan);
    // A connection goes on behind a body that no route reads only if enough of the body is there.
    match whole.requests.iter().position(|request| request.target.starts_with("/unread")) {
        None if sent.ends_with(b"\r\n\r\n") => assert_eq!(whole, split, "the parts are the whole"),
        // Hyper may look at a head that is no HTTP only when its end is there, which then does not come.
        None => {
            assert_eq!(whole.requests, split.requests, "requests are the same in any parts");
            assert_eq!(answered(&whole), answered(&split), "answers are the same in any parts");
        }
        Some(unread) => assert_eq!(whole.requests[..=unread], split.requests[..=unread]),
    }
    for (number, (found, expected)) in whole.requests.iter().zip(requests(sent)).enumerate() {
        check(number, found, &expected);
    }
    Corpus::Keep
});

/// Outcome of a connection.
#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<Seen>,
    answers: String,
}

/// A request as a route sees it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Result<Vec<u8>, String>,
}

fn check(number: usize, found: &Seen, expected: &Head) {
    assert_eq!(found.method, expected.method, "method of request {number}");
    // The form that names a host gets a path, and a fragment goes nowhere.
    if expected.target.starts_with('/') && !expected.target.contains('#') {
        assert_eq!(found.target, expected.target, "target of request {number}");
    }
    let count = |name: &str| expected.headers.iter().filter(|(header, _)| header == name).count();
    let codings = count("transfer-encoding");
    assert!(codings == 0 || count("content-length") == 0, "request {number} has two lengths");
    assert!(codings <= 1, "request {number} has several transfer codings");
    assert!(count("host") <= 1, "request {number} has several hosts");
    for name in ["host", "content-type", "idempotency-key", "authorization"] {
        let of = |headers: &[(String, Vec<u8>)]| -> Vec<Vec<u8>> {
            let named = headers.iter().filter(|(header, _)| header == name);
            named.map(|(_, value)| value.clone()).collect()
        };
        assert_eq!(of(&found.headers), of(&expected.headers), "{name} of request {number}");
    }
    if let (Ok(found), Some(expected)) = (&found.body, &expected.body)
        && !found.is_empty()
    {
        assert!(found == expected, "body of request {number}");
    }
}

/// Serves one connection whose bytes come as planned.
fn run(sent: &[u8], plan: &[u8]) -> Outcome {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
    }
    let received = Arc::new(Mutex::new(Vec::new()));
    let requests = RefCell::new(Vec::new());
    let peer =
        Peer { sent: sent.into(), at: 0, plan: plan.into(), reads: 0, received: received.clone() };
    let answer = async |request: Request| {
        let (parts, body) = request.into_parts();
        let headers = parts.headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        let mut seen = Seen {
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            headers: headers.collect(),
            body: Ok(Vec::new()),
        };
        let number = requests.borrow().len();
        requests.borrow_mut().push(seen.clone());
        let path = parts.uri.path().to_owned();
        seen.body = read(&path, Request::from_parts(parts, body)).await;
        let status = if seen.body.is_ok() { 200 } else { 400 };
        requests.borrow_mut()[number] = seen;
        Response::builder().status(status).body(Body::from("{}")).expect("an answer")
    };
    RUNTIME.with(|runtime| runtime.block_on(serve(peer, answer)));
    let received = received.lock().unwrap_or_else(PoisonError::into_inner);
    Outcome { requests: requests.into_inner(), answers: comparable(&received) }
}

/// Reads a body as a route of that path does.
async fn read(path: &str, request: Request) -> Result<Vec<u8>, String> {
    let text = |error: BodyError| error.to_string();
    match path {
        "/json" => {
            let Json(value) = Json::<Value>::from_request(request, &()).await.map_err(text)?;
            assert!(value.is_object(), "a JSON body is an object");
            Ok(Vec::new())
        }
        "/bytes" => {
            let BodyBytes(bytes) = BodyBytes::from_request(request, &()).await.map_err(text)?;
            assert!(bytes.len() <= MAX_BODY_BYTES);
            Ok(bytes)
        }
        "/unread" => Ok(Vec::new()),
        _ => {
            let (mut bytes, mut parts) = (Vec::new(), request.into_body().into_data_stream());
            while let Some(part) = parts.next().await {
                bytes.extend_from_slice(&part.map_err(|error| text(error.into()))?);
            }
            Ok(bytes)
        }
    }
}

/// Returns the answers before one to a head that cannot be read.
fn answered(outcome: &Outcome) -> &str {
    let answers = &outcome.answers;
    match answers.rfind("HTTP/1.1 4") {
        Some(last) if answers[last..].contains(r#""error":"#) => &answers[..last],
        _ => answers,
    }
}

/// Returns answers without their dates and trace ids.
fn comparable(answers: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(answers).into_owned();
    for (start, end) in [("\r\ndate: ", '\r'), ("\r\nx-trace-id: ", '\r'), ("\"trace_id\":\"", '"')]
    {
        let mut parts = text.split(start);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            kept.extend([start, part.find(end).map_or("", |at| &part[at..])]);
        }
        text = kept;
    }
    text
}

/// A peer that sends its bytes as the plan says, the last step for all that is left, and then waits.
struct Peer {
    sent: Vec<u8>,
    at: usize,
    plan: Vec<u8>,
    reads: usize,
    received: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = &this.sent[this.at..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let step = this.plan.get(this.reads).map_or(rest.len(), |step| usize::from(*step));
        this.reads += 1;
        if step == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let bytes = step.min(rest.len()).min(buf.remaining());
        buf.put_slice(&rest[..bytes]);
        this.at += bytes;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
