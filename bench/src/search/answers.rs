//! How long the first piece of an answer takes, alone and among others.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::interval,
};

use super::QUESTIONS;
use crate::{import::ms, server::Server};

/// Answers in each measurement.
const ASKED: usize = 500;
/// Clients whose questions come at a pace.
const SESSIONS: usize = 50;

/// Prints the times to the first chunk: one question after the other, at a pace, and with `at_once` always running.
pub(super) async fn measure(server: &Server, project: &str, at_once: usize) -> anyhow::Result<()> {
    let began = server.process.cpu()?;
    report("one after the other", &closed(server, project, 1).await?);
    let cpu = server.process.cpu()?.saturating_sub(began).as_secs_f64() * 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let each = cpu / ASKED as f64;
    println!("  {each:.1} ms of CPU each");
    for a_second in [25, 50] {
        let name = format!("{a_second} begun a second");
        report(&name, &open(server, project, a_second).await?);
    }
    let name = format!("{at_once} at once, each followed by another");
    report(&name, &closed(server, project, at_once).await?);
    Ok(())
}

fn report(name: &str, times: &Histogram<u64>) {
    println!(
        "first chunk of {} answers, {name}: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
        times.len(),
        ms(times.value_at_quantile(0.5)),
        ms(times.value_at_quantile(0.99)),
        ms(times.max())
    );
}

/// Keeps `at_once` answers running.
async fn closed(server: &Server, project: &str, at_once: usize) -> anyhow::Result<Histogram<u64>> {
    let mut asking = JoinSet::new();
    for client in 0..at_once {
        let (host, project) = (server.ingress.clone(), project.to_owned());
        asking.spawn(async move {
            let mut times = Vec::new();
            for number in (client..ASKED).step_by(at_once) {
                let question = QUESTIONS[number % QUESTIONS.len()];
                times.push(ask(&host, &project, question, client).await?);
            }
            anyhow::Ok(times)
        });
    }
    collect(asking.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat())
}

/// Begins an answer now and then, however long the others take.
async fn open(server: &Server, project: &str, a_second: u32) -> anyhow::Result<Histogram<u64>> {
    let mut tick = interval(Duration::from_secs(1) / a_second);
    let mut asking = JoinSet::new();
    for number in 0..ASKED {
        tick.tick().await;
        let (host, project) = (server.ingress.clone(), project.to_owned());
        let question = QUESTIONS[number % QUESTIONS.len()];
        let session = number % SESSIONS;
        asking.spawn(async move { ask(&host, &project, question, session).await });
    }
    collect(asking.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?)
}

fn collect(times: Vec<Duration>) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = Histogram::new(3)?;
    for time in times {
        histogram.record(u64::try_from(time.as_micros())?)?;
    }
    Ok(histogram)
}

/// Asks, and reads to the end; returns how long the first chunk took, the connection included.
async fn ask(
    host: &str,
    project: &str,
    question: &str,
    session: usize,
) -> anyhow::Result<Duration> {
    let path = path(project, question, session);
    let began = Instant::now();
    let mut socket = TcpStream::connect(host).await?;
    socket.set_nodelay(true)?;
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer dev-ada\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let (mut bytes, mut first) = (Vec::new(), None);
    while socket.read_buf(&mut bytes).await? > 0 {
        let has = |needle: &[u8]| memchr::memmem::find(&bytes, needle).is_some();
        if first.is_none() && has(b"event: content_chunk") {
            first = Some(began.elapsed());
        }
    }
    let said = || String::from_utf8_lossy(&bytes).into_owned();
    ensure!(memchr::memmem::find(&bytes, b"event: complete").is_some(), "no end: {}", said());
    first.with_context(|| format!("no chunk: {}", said()))
}

fn path(project: &str, question: &str, session: usize) -> String {
    let mut query = form_urlencoded::Serializer::for_suffix("/stream/search?".to_owned(), 15);
    query.append_pair("query", question).append_pair("project_id", project);
    query.append_pair("session", &format!("bench-{session}")).finish()
}
