//! Acknowledged sends: many connections, each waiting for its 201 before the next send.

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use hdrhistogram::Histogram;
use http::{Method, StatusCode};

use crate::{bare, client::Client, server::Server};

#[derive(Args)]
pub(crate) struct Options {
    /// Connections that send at once.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Projects they send into.
    #[arg(long, default_value_t = 8)]
    projects: usize,
    /// How long each run is counted, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Runs; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// Of a user that a server without a file of users has.
const TOKEN: &str = "dev-ada";
const TEXT: &str =
    "sent to be counted, and about as long as what people say to each other in a chat like this";

struct Run {
    sends_a_second: f64,
    p50: Duration,
    p99: Duration,
    cpu_a_send: Duration,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let Options { connections, projects, seconds, runs } = options;
    println!(
        "acknowledged sends, {connections} connections, {projects} projects, SQLite with full durability"
    );
    println!("{:<34}{:>10}{:>10}{:>10}{:>16}", "", "per s", "p50 ms", "p99 ms", "server µs/send");
    let mut rates = Vec::new();
    for number in 1..=runs {
        let one = bare::loop_of(1, 1_500)?;
        let grouped = bare::loop_of(32, 30_000)?;
        let server = Server::start()?;
        // The first second warms caches up and is not counted.
        measure(&server, connections, projects, Duration::from_secs(1)).await?;
        let run = measure(&server, connections, projects, Duration::from_secs(seconds)).await?;
        println!("{:<34}{one:>10.0}", format!("{number}. bare loop, one a transaction"));
        println!("{:<34}{grouped:>10.0}", format!("{number}. bare loop, 32 a transaction"));
        println!(
            "{:<34}{:>10.0}{:>10.1}{:>10.1}{:>16.0}   = {:.2} × one by one",
            format!("{number}. sends"),
            run.sends_a_second,
            run.p50.as_secs_f64() * 1e3,
            run.p99.as_secs_f64() * 1e3,
            run.cpu_a_send.as_secs_f64() * 1e6,
            run.sends_a_second / one,
        );
        rates.push((run.sends_a_second, run.p99));
    }
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (rate, p99) = rates[rates.len() / 2];
    println!(
        "median: {rate:.0} sends/s, p99 {:.1} ms (reach: 8,000 sends/s, p99 ≤ 30 ms)",
        p99.as_secs_f64() * 1e3
    );
    Ok(())
}

/// Sends to the server with all connections, and returns what came of it.
async fn measure(
    server: &Server,
    connections: usize,
    projects: usize,
    time: Duration,
) -> anyhow::Result<Run> {
    let mut first = Client::connect(&server.ingress, TOKEN).await?;
    let mut ids = Vec::new();
    for number in 0..projects {
        ids.push(first.project(&format!("load {number}")).await?);
    }
    let cpu = server.process.cpu()?;
    let load = load(&server.ingress, TOKEN, &ids, connections, time).await?;
    let cpu = server.process.cpu()?.saturating_sub(cpu);
    let Load { times, elapsed } = load;
    let sends = u32::try_from(times.len())?;
    Ok(Run {
        sends_a_second: f64::from(sends) / elapsed.as_secs_f64(),
        p50: Duration::from_micros(times.value_at_quantile(0.5)),
        p99: Duration::from_micros(times.value_at_quantile(0.99)),
        cpu_a_send: cpu / sends,
    })
}

/// How long each send took, in microseconds, and all of them together.
pub(crate) struct Load {
    pub(crate) times: Histogram<u64>,
    pub(crate) elapsed: Duration,
}

/// Sends into the projects from so many connections, each waiting for its 201 before it sends again.
pub(crate) async fn load(
    host: &str,
    token: &str,
    projects: &[String],
    connections: usize,
    time: Duration,
) -> anyhow::Result<Load> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(host, token).await?);
    }
    let began = Instant::now();
    let mut senders = tokio::task::JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let path = format!("/api/chat/projects/{}/messages", projects[number % projects.len()]);
        senders.spawn(async move {
            let mut times = Histogram::<u64>::new(3)?;
            while began.elapsed() < time {
                let body = format!(
                    r#"{{"text":"{TEXT}","client_message_id":"{}"}}"#,
                    uuid::Uuid::now_v7()
                );
                let sent = Instant::now();
                let (status, body) = client.call(Method::POST, &path, body).await?;
                ensure!(
                    status == StatusCode::CREATED,
                    "{status}: {}",
                    String::from_utf8_lossy(&body)
                );
                times.record(u64::try_from(sent.elapsed().as_micros())?)?;
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Histogram::<u64>::new(3)?;
    while let Some(sender) = senders.join_next().await {
        times.add(sender??)?;
    }
    Ok(Load { times, elapsed: began.elapsed() })
}
