//! Answers by way of nginx, on any replica: over lines that break, and when their writer is lost.

use std::time::{Duration, Instant};

use cluster::Link;
use futures_util::StreamExt;
use rand::RngExt as _;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{support::PATIENCE, whole::Whole};

/// How often the line is cut.
const CUTS: usize = 50;
/// Cuts are within so many bytes: in the head, in the greeting, within chunks. A connection brings hardly more than it
/// has to repeat, so that the answer outlasts all of them.
const SPAN: u64 = 2_200;
const QUESTION: &str = "what does the printer want?";

/// A cluster whose writers take their time, and a project with much to quote.
async fn start(flags: &[&str]) -> (Whole, String) {
    let whole = Whole::start(|options| {
        options.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        options.settings.push(("CHUNK_DELAY_MS".into(), "25".into()));
        options.settings.push(("HEARTBEAT_INTERVAL".into(), "1s".into()));
    })
    .await;
    let project = whole.project().await;
    let base = whole.cluster.base_url();
    for number in 0..5 {
        let wants: Vec<String> = (0..140).map(|word| format!("thing{number}{word}")).collect();
        let text = format!("printer {number} wants {}", wants.join(" "));
        let path = format!("/api/chat/projects/{project}/messages");
        assert_eq!(whole.post(&base, &path, json!({"text": text})).await.status(), 201);
    }
    // Each has an index of its own.
    for number in 0..whole.cluster.proc_count() {
        let ready = async { while !says(&whole, number, "parley_search_documents 5").await {} };
        timeout(PATIENCE, ready).await.expect("it is found");
    }
    (whole, project)
}

async fn ask(
    http: &Client,
    base: &str,
    project: &str,
    name: &str,
    cursor: &str,
) -> reqwest::Result<Response> {
    let query = [("query", QUESTION), ("project_id", project), ("stream_id", name)];
    let mut request =
        http.get(format!("{base}/stream/search")).bearer_auth("dev-ada").query(&query);
    if !cursor.is_empty() {
        request = request.header("last-event-id", cursor);
    }
    request.send().await
}

/// What a client has of an answer.
#[derive(Default)]
struct Reader {
    cursor: String,
    chunks: Vec<Value>,
    end: Option<(String, Value)>,
    /// What has come of an event that is not whole.
    rest: String,
}

impl Reader {
    /// Reads until the line breaks or the answer ends; what was only half there is forgotten.
    async fn read(&mut self, response: Response) {
        self.rest.clear();
        let mut bytes = Vec::new();
        let mut body = response.bytes_stream();
        while let Ok(Some(Ok(part))) = timeout(PATIENCE, body.next()).await {
            bytes.extend_from_slice(&part);
            while let Some(end) = memchr::memmem::find(&bytes, b"\n\n") {
                let event: Vec<u8> = bytes.drain(..end + 2).collect();
                self.take(std::str::from_utf8(&event).expect("text"));
            }
        }
    }

    fn take(&mut self, event: &str) {
        let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
        let data = || serde_json::from_str::<Value>(field("data: ").expect("data")).expect("JSON");
        if let Some(id) = field("id: ") {
            id.clone_into(&mut self.cursor);
        }
        match field("event: ") {
            Some("content_chunk") => self.chunks.push(data()),
            Some(name @ ("complete" | "error")) => self.end = Some((name.to_owned(), data())),
            Some("heartbeat") | None => {}
            Some(other) => panic!("{other}: {event}"),
        }
    }

    fn text(&self) -> String {
        let texts = self.chunks.iter().enumerate().map(|(index, chunk)| {
            assert_eq!(chunk["index"], index, "every chunk once and in its place");
            chunk["text"].as_str().expect("text")
        });
        texts.collect()
    }
}

fn count(whole: &Whole, condition: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM answers WHERE {condition}");
    let mut psql = whole.cluster.postgres().client("psql").expect("it is installed");
    let output = psql.args(["-Atc", &sql]).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// Says whether this line is among a proc's figures.
async fn says(whole: &Whole, number: usize, line: &str) -> bool {
    let url = format!("http://{}/metrics", whole.cluster.proc(number).internal_addr());
    let figures = whole.http.get(url).send().await.expect("an answer").text().await.expect("text");
    figures.lines().any(|said| said == line)
}

/// Says whether this proc is writing an answer.
async fn writes(whole: &Whole, number: usize) -> bool {
    says(whole, number, "parley_answers_running 1").await
}

/// Returns which of both writes the one answer.
async fn writer(whole: &Whole) -> usize {
    let writer = usize::from(!writes(whole, 0).await);
    assert!(writes(whole, writer).await);
    writer
}

/// Freezes a writer until another has finished its answer. Returns whether, once the writer has done what it still does,
/// the answer is what its reader was told.
async fn is_as_it_was_read(flags: &[&str]) -> bool {
    let (whole, project) = start(flags).await;
    let base = whole.cluster.base_url();
    let mut reader = Reader::default();
    let response = ask(&whole.http, &base, &project, "frozen", "").await.expect("an answer");
    let writer = self::writer(&whole).await;
    whole.cluster.proc(writer).freeze().expect("it does");
    reader.read(response).await;
    whole.cluster.proc(writer).thaw().expect("it does");
    let rests = async { while writes(&whole, writer).await {} };
    timeout(PATIENCE, rests).await.expect("it finds out");
    let url = format!("{base}/api/chat/answers/frozen");
    let there = whole.http.get(url).bearer_auth("dev-ada").send().await.expect("an answer");
    let there: Value = there.json().await.expect("JSON");
    whole.stop().await;
    let end = reader.end.as_ref().map(|(name, complete)| (name.as_str(), &complete["reason"]));
    assert_eq!(end, Some(("complete", &json!("finished"))));
    // It may have more to say, or to say that it could not: the write in the middle of which it was frozen has failed.
    (&there["text"], &there["state"]) == (&json!(reader.text()), &json!("finished"))
}

#[tokio::test]
async fn a_writer_that_was_frozen_adds_nothing_to_what_another_has_written() {
    assert!(is_as_it_was_read(&[]).await);
}

#[tokio::test]
async fn one_that_does_not_look_whether_it_may_is_noticed() {
    assert!(!is_as_it_was_read(&["--sabotage", "no-fence"]).await);
}

#[tokio::test]
async fn an_answer_over_a_line_that_is_cut_at_any_byte_is_the_same_answer() {
    let (whole, project) = start(&[]).await;
    let base = whole.cluster.base_url();
    let line = Link::open(whole.cluster.nginx().addr()).expect("a port");
    let broken = format!("http://{}", line.addr());
    let seed: u64 = option_env!("FAULTS_SEED")
        .map_or_else(|| rand::rng().random(), |seed| seed.parse().expect("a number"));
    println!("FAULTS_SEED={seed}");
    let mut dice: rand::rngs::SmallRng = rand::SeedableRng::seed_from_u64(seed);
    let mut reader = Reader::default();
    let mut early = 0;
    for _ in 0..CUTS {
        line.cut_after(dice.random_range(1..SPAN));
        // A client of its own, so that each cut is one of a new connection.
        let http = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        match ask(&http, &broken, &project, "cut", &reader.cursor).await {
            Ok(response) => {
                assert_eq!(response.status(), 200, "the answer outlasts the cuts");
                reader.read(response).await;
            }
            Err(_) => early += 1,
        }
    }
    assert!(
        early > 0 && !reader.chunks.is_empty() && reader.end.is_none(),
        "{early} of {CUTS} before the head"
    );
    line.mend();
    while reader.end.is_none() {
        let response = ask(&whole.http, &broken, &project, "cut", &reader.cursor).await;
        reader.read(response.expect("an answer")).await;
    }
    let end = ask(&whole.http, &broken, &project, "cut", &reader.cursor).await.expect("an answer");
    assert_eq!(end.status(), StatusCode::NO_CONTENT);
    assert_eq!(count(&whole, "true"), 1, "exactly one was started");

    let mut uncut = Reader::default();
    uncut.read(ask(&whole.http, &base, &project, "uncut", "").await.expect("an answer")).await;
    assert_eq!(reader.text(), uncut.text());
    let (name, complete) = reader.end.clone().expect("it ended");
    assert_eq!((name.as_str(), &complete["reason"]), ("complete", &json!("finished")));
    assert_eq!(complete["sources"], uncut.end.clone().expect("it ended").1["sources"]);
    whole.stop().await;
}

#[tokio::test]
async fn an_answer_whose_writer_is_killed_is_written_to_its_end_by_another() {
    let (whole, project) = start(&[]).await;
    let base = whole.cluster.base_url();
    let mut reader = Reader::default();
    let response = ask(&whole.http, &base, &project, "orphan", "").await.expect("an answer");
    let writer = self::writer(&whole).await;
    whole.cluster.proc(writer).kill().await.expect("it does");
    let killed = Instant::now();
    reader.read(response).await;
    let (name, complete) = reader.end.clone().expect("the same stream has an end");
    let took = killed.elapsed();
    println!("the stream ended {took:?} after its writer was killed");
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!((name.as_str(), &complete["reason"]), ("complete", &json!("finished")));
    assert_eq!(complete["total_chunks"], reader.chunks.len());
    assert_eq!(count(&whole, "writers = 2 AND ended_at IS NOT NULL"), 1);

    // As if nobody had died.
    let mut whole_one = Reader::default();
    whole_one.read(ask(&whole.http, &base, &project, "whole", "").await.expect("an answer")).await;
    assert_eq!(reader.text(), whole_one.text());
    whole.cluster.proc(writer).start().await.expect("it does");
    // One that stops hands over at once.
    let mut reader = Reader::default();
    let response = ask(&whole.http, &base, &project, "handed", "").await.expect("an answer");
    let writer = self::writer(&whole).await;
    let stop = async { whole.cluster.proc(writer).stop().await.expect("it runs") };
    let (ended, ()) = tokio::join!(stop, reader.read(response));
    assert!(ended.success());
    assert_eq!(reader.text(), whole_one.text());
    whole.stop().await;
}
