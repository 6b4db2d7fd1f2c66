//! Jobs: how many a second from their submission over HTTP to their end, how soon one starts, and how soon a cancel frees
//! its worker.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use cluster::{Folder, Ports, Postgres};
use hdrhistogram::Histogram;
use http::Method;
use serde_json::{Value, json};
use shared::time::Timestamp;

use crate::{client::Client, process, server::Server};

#[derive(Args)]
pub(crate) struct Options {
    /// Jobs that are submitted at once and run to their end.
    #[arg(long, default_value_t = 10_000)]
    jobs: usize,
    /// Connections that submit.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Jobs that run at once.
    #[arg(long, default_value_t = 256)]
    workers: usize,
    /// Starts and cancels that are timed.
    #[arg(long, default_value_t = 200)]
    samples: usize,
}

/// Of a user that a server without a file of users has.
const TOKEN: &str = "dev-ada";
const COUNT: &str = "/api/integrations/bundles/demo/operations/count";

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    println!(
        "{} jobs with one checkpoint each, {} connections, {} at once",
        options.jobs, options.connections, options.workers
    );
    println!(
        "{:<12}{:>14}{:>14}{:>16}{:>16}",
        "", "submits/s", "jobs/s", "start p99 ms", "cancel p99 ms"
    );
    case("SQLite", &options, None).await?;
    let dir = process::folder()?;
    let folder = Folder::take(&dir.path().join("postgres"), false)?;
    let postgres = Postgres::plan(&folder, &mut Ports::default())?;
    postgres.start().await?;
    let measured = case("PostgreSQL", &options, Some(&postgres)).await;
    postgres.stop().await?;
    measured
}

async fn case(name: &str, options: &Options, postgres: Option<&Postgres>) -> anyhow::Result<()> {
    let start = |workers: usize| {
        Server::start_with(|command, _| {
            command.arg(format!("--proc-workers={workers}")).arg("--proc-queue-limit=1000000");
            command.env("RATE_LIMIT_SUBMITS", "off").env("RATE_LIMIT_READS", "off");
            if let Some(postgres) = postgres {
                command.env("DATABASE_URL", postgres.url());
            }
            Ok(())
        })
    };
    let server = start(options.workers)?;
    let (submits, whole) = throughput(&server, options).await?;
    let started = starts(&server, options.samples).await?;
    drop(server);
    let cancelled = cancels(&start(1)?, options.samples).await?;
    println!(
        "{name:<12}{submits:>14.0}{whole:>14.0}{:>16}{:>16}",
        started.value_at_quantile(0.99),
        cancelled.value_at_quantile(0.99)
    );
    Ok(())
}

async fn submit(
    client: &mut Client,
    project: &str,
    data: Value,
    path: &str,
) -> anyhow::Result<Value> {
    let body = json!({"project_id": project, "data": data}).to_string();
    client.json(Method::POST, path, body).await
}

/// Submits all and waits until all have ended; returns how many were submitted a second, and how many got to their end.
async fn throughput(server: &Server, options: &Options) -> anyhow::Result<(f64, f64)> {
    let project = Client::connect(&server.ingress, TOKEN).await?.project("jobs").await?;
    let began = Instant::now();
    let each = options.jobs / options.connections;
    let submitting = (0..options.connections).map(|_| {
        let project = project.clone();
        let proc = server.proc.clone();
        async move {
            let mut client = Client::connect(&proc, TOKEN).await?;
            for _ in 0..each {
                submit(&mut client, &project, json!({"to": 1}), COUNT).await?;
            }
            anyhow::Ok(())
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    submitting.for_each(|task| drop(tasks.spawn(task)));
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let submitted = began.elapsed();
    let mut client = Client::connect(&server.proc, TOKEN).await?;
    for state in ["queued", "running"] {
        let path = format!("/api/integrations/jobs?limit=1&state={state}");
        while client.json(Method::GET, &path, "").await?["jobs"] != json!([]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let whole = began.elapsed();
    let all = f64::from(u32::try_from(each * options.connections)?);
    let path = "/api/integrations/jobs?limit=1&state=failed";
    ensure!(client.json(Method::GET, path, "").await?["jobs"] == json!([]), "a job failed");
    Ok((all / submitted.as_secs_f64(), all / whole.as_secs_f64()))
}

/// Times from submission to start while nothing else runs, in milliseconds.
async fn starts(server: &Server, samples: usize) -> anyhow::Result<Histogram<u64>> {
    let project = Client::connect(&server.ingress, TOKEN).await?.project("starts").await?;
    let mut client = Client::connect(&server.proc, TOKEN).await?;
    let mut times = Histogram::new(3)?;
    for _ in 0..samples {
        let job = submit(&mut client, &project, json!({"to": 1}), COUNT).await?;
        let job = until(&mut client, &job, "succeeded").await?;
        let waited = at(&job, "started_at")?.as_ms() - at(&job, "created_at")?.as_ms();
        times.record(u64::try_from(waited)?)?;
    }
    Ok(times)
}

/// Times from a cancel to the start of the job that waited for the worker, in milliseconds.
async fn cancels(server: &Server, samples: usize) -> anyhow::Result<Histogram<u64>> {
    let project = Client::connect(&server.ingress, TOKEN).await?.project("cancels").await?;
    let mut client = Client::connect(&server.proc, TOKEN).await?;
    let mut times = Histogram::new(3)?;
    for _ in 0..samples {
        let long = json!({"to": 10_000, "delay_ms": 1_000});
        let long = submit(&mut client, &project, long, COUNT).await?;
        until(&mut client, &long, "running").await?;
        let next = submit(&mut client, &project, json!({"to": 1}), COUNT).await?;
        let id = long["id"].as_str().context("a job has an id")?;
        let asked = Timestamp::now().as_ms();
        client.json(Method::POST, &format!("/api/integrations/jobs/{id}/cancel"), "").await?;
        let next = until(&mut client, &next, "succeeded").await?;
        times.record(u64::try_from(at(&next, "started_at")?.as_ms() - asked)?)?;
    }
    Ok(times)
}

async fn until(client: &mut Client, job: &Value, state: &str) -> anyhow::Result<Value> {
    let path = format!("/api/integrations/jobs/{}", job["id"].as_str().context("an id")?);
    loop {
        let job = client.json(Method::GET, &path, "").await?;
        if job["state"] == state {
            return Ok(job);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn at(job: &Value, field: &str) -> anyhow::Result<Timestamp> {
    Ok(serde_json::from_value(job[field].clone())?)
}
