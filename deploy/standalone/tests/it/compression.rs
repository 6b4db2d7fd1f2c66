//! Compressed streams: every event can be read when it arrives, and the end proves that all of it was right.

use std::{io::Write, pin::Pin, time::Duration};

use flate2::write::GzDecoder;
use futures_util::{Stream, StreamExt};
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    job::run,
    project::Project,
    support::{Answer, PATIENCE, Parley, column},
};

/// Nothing but an event itself can bring it: no heartbeat comes in this time.
const NO_HEARTBEAT: [&str; 4] = ["--enable-compression", "true", "--keepalive-interval", "10m"];

/// A stream that is read as far as its bytes have come.
struct Zipped {
    body: Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>>>>,
    decoder: GzDecoder<Vec<u8>>,
    /// How many bytes came over the wire.
    received: usize,
}

impl Zipped {
    async fn open(project: &Project, query: &str) -> Self {
        let response = ask(project, query, Some("gzip")).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let body = Box::pin(response.bytes_stream().map(|part| Ok(part?.to_vec())));
        let mut zipped = Self { body, decoder: GzDecoder::new(Vec::new()), received: 0 };
        zipped.until("\"hello\"").await;
        zipped
    }

    /// Takes what comes next; says whether anything did.
    async fn more(&mut self) -> bool {
        let part = timeout(PATIENCE, self.body.next()).await.expect("bytes in time");
        let Some(part) = part else { return false };
        let part = part.expect("a sound stream");
        self.received += part.len();
        self.decoder.write_all(&part).expect("gzip");
        self.decoder.flush().expect("gzip");
        true
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(self.decoder.get_ref()).into_owned()
    }

    /// Reads until the text is there, with the end of its event.
    async fn until(&mut self, needle: &str) {
        let whole = |text: &str| text.contains(needle) && text.ends_with("\n\n");
        while !whole(&self.text()) {
            assert!(self.more().await, "it ended without {needle}: {}", self.text());
        }
    }

    /// Reads to the end, which checks length and checksum, and returns the whole text.
    async fn end(mut self) -> String {
        while self.more().await {}
        let text = self.decoder.finish().expect("a whole gzip member with the right checksum");
        String::from_utf8(text).expect("text")
    }
}

fn ask(project: &Project, query: &str, accept: Option<&str>) -> RequestBuilder {
    let path = format!("/sse/stream?project_id={}{query}", project.id);
    let request = project.client.request("GET", &path).timeout(PATIENCE * 2);
    match accept {
        Some(accept) => request.header("accept-encoding", accept),
        None => request,
    }
}

/// Returns the entries of a stream's text.
fn entries(text: &str) -> Vec<&str> {
    text.split_inclusive("\n\n")
        .filter(|event| event.starts_with("data: ") && event.contains("\nid: "))
        .collect()
}

#[tokio::test]
async fn each_event_can_be_read_before_the_next_one_is_sent() {
    let mut parley = Parley::start_with(&NO_HEARTBEAT).await;
    let project = parley.as_user("ada").project().await;
    let mut first = Zipped::open(&project, "").await;
    let mut second = Zipped::open(&project, "").await;
    let long = "a long text that says the same again and again, ".repeat(600);
    for number in 0..20 {
        let text = if number % 5 == 4 { format!("{long}{number}") } else { format!("n {number}.") };
        project.send(&text).await;
        for stream in [&mut first, &mut second] {
            timeout(Duration::from_secs(5), stream.until(&text)).await.expect("it is readable");
        }
    }
    eprintln!("{} bytes for {} characters", first.received, first.text().len());
    assert!(first.received * 4 < first.text().len());
    parley.signal();
    let (first, second) = (first.end().await, second.end().await);
    assert!(first.contains("event: server_shutdown\n") && first.contains("event: bye\n"));
    let (first, second) = (entries(&first), entries(&second));
    assert!(first.len() == 20 && first == second, "{} and {}", first.len(), second.len());
    assert!(parley.ended().await.success());
}

#[tokio::test]
async fn every_kind_of_stream_is_right_to_its_last_byte() {
    let flags = ["--enable-compression", "true", "--keepalive-interval", "100ms"];
    let mut parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let since = project.cursor().await;
    for number in 0..300 {
        project.send(&format!("past {number}")).await;
    }
    let mut streams = Vec::new();
    for query in ["", "&include=jobs", "&channels=general", "&channels=elsewhere", "&since=junk"] {
        streams.push((query, Zipped::open(&project, query).await));
    }
    let grace = project.with("grace", "viewer").await;
    let replayed = Zipped::open(&grace, &format!("&since={since}")).await;
    streams.push(("&since", replayed));
    run(&project, "demo.count", json!({"to": 5})).await;
    project.send("the last one").await;
    for (query, stream) in &mut streams {
        if *query != "&channels=elsewhere" {
            stream.until("the last one").await;
        }
        // Some of what it carries is a heartbeat that it shares with others.
        let before = stream.text().matches("event: heartbeat").count();
        while stream.text().matches("event: heartbeat").count() < before + 2 {
            assert!(stream.more().await);
        }
    }
    parley.signal();
    for (query, stream) in streams {
        let text = stream.end().await;
        let count = |needle: &str| text.matches(needle).count();
        let jobs = usize::from(query == "&include=jobs");
        assert_eq!((count("event: bye\n"), count("\"job.succeeded\"")), (1, jobs), "{query}");
        let messages = match query {
            "&since" => 301,
            "&channels=elsewhere" => 0,
            _ => 1,
        };
        assert_eq!(count("\"message.created\""), messages, "{query}");
        assert_eq!(count("event: reset\n"), usize::from(query == "&since=junk"));
    }
    assert!(parley.ended().await.success());
}

#[tokio::test]
async fn only_who_asks_for_it_is_compressed_for() {
    let parley =
        Parley::start_with(&["--enable-compression", "true", "--max-connections-per-user", "99"])
            .await;
    let without = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for (accept, zipped) in [
        (None, false),
        (Some(""), false),
        (Some("identity"), false),
        (Some("deflate, br"), false),
        (Some("gzip;q=0"), false),
        (Some("gzip; q=0.000"), false),
        (Some("br, gzip ;q=0, identity"), false),
        (Some("gzipped"), false),
        (Some("gzip"), true),
        (Some("GZip"), true),
        (Some("gzip, deflate, br, zstd"), true),
        (Some("br;q=1.0, gzip;q=0.5, *;q=0.1"), true),
        (Some("deflate;q=0, gzip;q=0.001"), true),
    ] {
        let response = ask(&project, "", accept).send().await.unwrap();
        let head = response.headers().clone();
        let encoding = head.get("content-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(encoding, zipped.then_some("gzip"), "{accept:?}");
        assert!(head.get_all("vary").iter().any(|value| value == "accept-encoding"), "{accept:?}");
        let mut body = response.bytes_stream();
        let first = timeout(PATIENCE, body.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.starts_with(b"retry: "), !zipped, "{accept:?}");
        // What HEAD says of it is the same.
        let path = format!("/sse/stream?project_id={}", project.id);
        let mut request = project.client.request("HEAD", &path);
        if let Some(accept) = accept {
            request = request.header("accept-encoding", accept);
        }
        let of_head = Answer::to(request).await;
        assert_eq!(of_head.head.get("content-encoding"), head.get("content-encoding"));
    }
    let project = without.as_user("ada").project().await;
    let response = ask(&project, "", Some("gzip")).send().await.unwrap();
    assert!(response.headers().get("content-encoding").is_none());
}

/// A client that keeps little for itself, and that knows no chunks.
async fn old_client(parley: &Parley, project: &Project) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("an option");
    let address = parley.ingress.trim_start_matches("http://").parse().expect("an address");
    let connected = timeout(PATIENCE, socket.connect(address)).await.expect("in time");
    let mut client = connected.expect("it listens");
    let request = format!(
        "GET /sse/stream?project_id={} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\n\
         accept-encoding: gzip\r\n\r\n",
        project.id
    );
    client.write_all(request.as_bytes()).await.expect("it listens");
    client
}

/// Reads to the end of the connection and returns the text of the body.
async fn read_out(mut client: TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = client.read_to_end(&mut bytes);
    timeout(PATIENCE, reading).await.expect("it hangs up").expect("a sound connection");
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let mut decoder = GzDecoder::new(Vec::new());
    decoder.write_all(&bytes[head..]).expect("gzip");
    let text = decoder.finish().expect("a whole gzip member with the right checksum");
    String::from_utf8(text).expect("text")
}

/// Waits until the user has one stream and returns its id.
async fn only_stream(project: &Project) -> String {
    let path = format!("/api/debug/sse-connections/ada/{}", project.id);
    let admin = project.client.as_user("admin");
    let asking = async {
        loop {
            let ids = column(&admin.get(&path).await.is(200)["connections"], "id");
            if let [id] = &ids[..] {
                break id.clone();
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("a stream")
}

#[tokio::test]
async fn an_old_client_without_chunks_is_compressed_for_as_well() {
    let parley = Parley::start_with(&NO_HEARTBEAT).await;
    let project = parley.as_user("ada").project().await;
    let client = old_client(&parley, &project).await;
    let path = format!("/api/debug/sse-connections/{}", only_stream(&project).await);
    assert_eq!(parley.as_user("admin").delete(&path).await.status, 204);
    let text = read_out(client).await;
    assert!(text.starts_with("retry: ") && text.contains("event: bye\n"), "{text}");
}

#[tokio::test]
async fn a_compressed_reader_that_lags_is_cut_off_cleanly() {
    let flags = ["--enable-compression", "true", "--stream-max-lag-events", "32"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let slow = old_client(&parley, &project).await;
    only_stream(&project).await;
    for _ in 0..80 {
        // Nothing that compresses to next to nothing.
        let noise: String = (0..400).map(|_| uuid::Uuid::now_v7().to_string()).collect();
        project.send(&noise).await;
    }
    let text = read_out(slow).await;
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("\"slow_consumer\""), "{last}");
    assert!(entries(&text).len() < 80);
}
