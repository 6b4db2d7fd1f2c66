//! Readers of event streams: one that knows the protocol, by a library that is not ours, and one that sees bytes.

use std::pin::Pin;

use eventsource_stream::Eventsource;
use futures_util::{Stream, StreamExt};
use reqwest::{RequestBuilder, Response, header::HeaderMap};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::PATIENCE;

/// One event of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The last id that the stream gave, which is what a client comes back with.
    pub(crate) id: String,
    /// A control event's name, `message` for all others.
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Event {
    /// Returns what happened: the type in an application event's data, a control event's name.
    pub(crate) fn kind(&self) -> &str {
        if self.name == "message" {
            self.data["type"].as_str().unwrap_or_default()
        } else {
            &self.name
        }
    }
}

/// An open stream.
pub(crate) struct Sse {
    pub(crate) head: HeaderMap,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

impl Sse {
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        let response = response(request).await;
        let head = response.headers().clone();
        let events = response.bytes_stream().eventsource().map(|event| {
            // A connection that breaks off is an error, not an end.
            let event = event.expect("a sound stream");
            let data = serde_json::from_str(&event.data).expect("an event's data is JSON");
            Event { id: event.id, name: event.event, data }
        });
        Self { head, events: Box::pin(events) }
    }

    /// Opens a stream and reads its greeting.
    pub(crate) async fn greeted(request: RequestBuilder) -> (Self, Value) {
        let mut stream = Self::open(request).await;
        let hello = stream.expect("hello").await;
        (stream, hello)
    }

    /// Returns the next event, `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.events.next()).await.expect("an event or the end in time")
    }

    /// Returns the next event that a log has: no heartbeat, no presence, no typing.
    pub(crate) async fn entry(&mut self) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event.name != "heartbeat" && !event.kind().starts_with("user.") {
                return event;
            }
        }
    }

    /// Returns the data of the next event, which is to be of this kind.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            let event = self.entry().await;
            assert_eq!(event.kind(), kind, "at {caller}: {event:?}");
            event.data
        }
    }

    /// Returns the next event of this kind, whatever comes before it.
    pub(crate) async fn until(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().await;
            let event = event.unwrap_or_else(|| panic!("the stream ended without {kind}"));
            if event.kind() == kind {
                return event;
            }
        }
    }

    /// Reads messages until the one with this text and returns the texts of all.
    pub(crate) async fn texts_until(&mut self, last: &str) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != last) {
            let event = self.until("message.created").await;
            texts.push(event.data["message"]["text"].as_str().unwrap_or_default().to_owned());
        }
        texts
    }

    /// Waits for the end and returns what came before it, without signs of life.
    pub(crate) async fn rest(&mut self) -> Vec<Event> {
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            if event.name != "heartbeat" && !event.kind().starts_with("user.") {
                rest.push(event);
            }
        }
        rest
    }
}

/// Reads a stream's bytes until one of them completes `needle`, and returns all of them.
pub(crate) async fn raw_until(request: RequestBuilder, needle: &[u8]) -> Vec<u8> {
    let mut body = response(request).await.bytes_stream();
    let mut bytes = Vec::new();
    while !bytes.windows(needle.len()).any(|window| window == needle) {
        let part = timeout(PATIENCE, body.next()).await.expect("bytes in time");
        bytes.extend_from_slice(&part.expect("the stream goes on").expect("a sound stream"));
    }
    bytes
}

async fn response(request: RequestBuilder) -> Response {
    let response = request.timeout(PATIENCE * 2).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    response
}
