//! What a stream is answered before its first event.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use shared::ids::{ConnectionId, SessionId};

use crate::{StreamsConfig, state::AppState};

/// Returns a body whose length is not known, as a stream's is not: `HEAD` must not say that there is nothing.
pub(in super::super) fn unsized_body() -> Body {
    Body::from_stream(futures_util::stream::empty::<Result<Bytes, std::convert::Infallible>>())
}

/// When a stream says that it is alive, and when it ends.
#[derive(Copy, Clone, Debug)]
pub(in super::super) struct Pace {
    pub(in super::super) heartbeat: Duration,
    max: Option<Duration>,
}

impl Pace {
    pub(in super::super) fn of(config: &StreamsConfig, is_answer: bool) -> Self {
        if is_answer {
            Self { heartbeat: config.heartbeat_interval, max: Some(config.stream_max_seconds) }
        } else {
            Self { heartbeat: config.keepalive_interval, max: None }
        }
    }

    /// Returns how long a client may hear nothing before it should come back: three heartbeats.
    pub(in super::super) fn silence(self) -> Duration {
        self.heartbeat * 3
    }
}

pub(in super::super) fn head(
    connection: ConnectionId,
    session: &SessionId,
    state: &AppState,
    pace: Pace,
    compressed: bool,
) -> HeaderMap {
    let mut head = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        // The socket is closed after the stream, so nobody should think of another request on it.
        (header::CONNECTION, HeaderValue::from_static("close")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        (HeaderName::from_static("x-heartbeat-interval"), pace.heartbeat.as_secs().into()),
        (HeaderName::from_static("x-silence-threshold"), pace.silence().as_secs().into()),
    ]);
    if let Some(max) = pace.max {
        head.insert("x-stream-max-seconds", max.as_secs().into());
    }
    if state.streams.enable_compression {
        head.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if compressed {
        head.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // A ticket's session is not the request's.
    if let Ok(session) = HeaderValue::from_str(session.as_str()) {
        head.insert("x-session-id", session);
    }
    if let Ok(connection) = HeaderValue::from_str(&connection.to_string()) {
        head.insert("x-sse-connection-id", connection);
    }
    head
}
