//! A client that speaks bytes, and what an event stream is to it.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{project::Project, sse::Event, support::PATIENCE};

/// A client that speaks bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn connect(base: &str) -> Self {
        Self::connecting(base, TcpStream::connect(address(base))).await
    }

    /// Connects with so little room that what is not read is soon not sent either.
    pub(crate) async fn connect_narrow(base: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1).expect("the least that the system allows");
        let addr = address(base).parse().expect("an address");
        Self::connecting(base, socket.connect(addr)).await
    }

    async fn connecting(
        base: &str,
        connecting: impl Future<Output = std::io::Result<TcpStream>>,
    ) -> Self {
        let connected = timeout(PATIENCE, connecting).await.expect("in time");
        Self(connected.unwrap_or_else(|error| panic!("{base}: {error}")))
    }

    /// Connects and sends; the server may hang up before it has read all of it.
    pub(crate) async fn sending(base: &str, bytes: impl AsRef<[u8]>) -> Self {
        let mut client = Self::connect(base).await;
        client.send(bytes).await;
        client
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(PATIENCE, self.0.write_all(bytes.as_ref())).await.expect("in time");
    }

    /// Returns everything until the server hangs up.
    pub(crate) async fn rest(&mut self) -> String {
        String::from_utf8_lossy(&self.rest_bytes().await).into_owned()
    }

    /// Returns everything until the server hangs up, by an end or by a reset.
    pub(crate) async fn rest_bytes(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("it hangs up");
        rest
    }

    /// Reads until something has come.
    pub(crate) async fn until(&mut self, needle: &str) -> String {
        String::from_utf8_lossy(&self.bytes_until(needle).await).into_owned()
    }

    /// Reads until something has come.
    pub(crate) async fn bytes_until(&mut self, needle: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(needle) {
            let read = timeout(PATIENCE, self.0.read_buf(&mut bytes)).await.expect("in time");
            assert!(read.expect("a sound connection") > 0, "{}", String::from_utf8_lossy(&bytes));
        }
        bytes
    }
}

fn address(base: &str) -> &str {
    base.trim_start_matches("http://")
}

/// Returns the request for the project's stream, as ada, with more header lines.
pub(crate) fn stream_request(project: &Project, version: &str, lines: &str) -> String {
    format!(
        "GET /sse/stream?project_id={} HTTP/{version}\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\n{lines}\r\n",
        project.id
    )
}

/// What has come of a chunked event stream, which may break off anywhere.
pub(crate) struct Received {
    pub(crate) events: Vec<Event>,
    /// The last chunk has come, and nothing after it.
    pub(crate) ended: bool,
}

impl Received {
    /// Reads an answer from its first byte.
    #[track_caller]
    pub(crate) fn of(answer: &[u8]) -> Self {
        let (head, mut rest) = split(answer, b"\r\n\r\n").expect("a whole head");
        assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(head));
        let (mut events, mut id, mut ended) = (Vec::new(), String::new(), false);
        while let Some((size, after)) = split(rest, b"\r\n") {
            let size = std::str::from_utf8(size).ok();
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.expect("a chunk's size");
            if size == 0 {
                assert_eq!(after, b"\r\n", "nothing comes after the end");
                ended = true;
                break;
            }
            let (Some(chunk), Some(next)) = (after.get(..size), after.get(size + 2..)) else {
                break;
            };
            assert_eq!(&after[size..size + 2], b"\r\n");
            let chunk = std::str::from_utf8(chunk).expect("a chunk is whole characters");
            let frames = chunk.strip_suffix("\n\n").expect("a chunk is whole events");
            events.extend(frames.split("\n\n").map(|frame| event(frame, &mut id)));
            rest = next;
        }
        Self { events, ended }
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

fn event(frame: &str, id: &mut String) -> Event {
    let (mut name, mut data) = ("message", Value::Null);
    for line in frame.split('\n') {
        match line.split_once(": ") {
            Some(("id", value)) => value.clone_into(id),
            Some(("event", value)) => name = value,
            Some(("data", value)) => data = serde_json::from_str(value).expect(frame),
            Some(("retry" | "", _)) => {}
            _ => panic!("{line:?} is no line of {frame:?}"),
        }
    }
    Event { id: id.clone(), name: name.into(), data }
}
