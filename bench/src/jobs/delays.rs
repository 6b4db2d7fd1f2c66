//! How long a job waits, in an installation of two proc on PostgreSQL and NATS: for its start, for its cancel, and for
//! another worker when its own was killed or stopped.

use std::time::Duration;

use ::cluster::Cluster;
use anyhow::Context;
use hdrhistogram::Histogram;
use http::Method;
use serde_json::{Value, json};
use shared::time::Timestamp;

use super::{
    Options,
    database::Database,
    peers::{self, Driver, Peer},
    turn::{id, long, submit},
};
use crate::{
    client::Client,
    users::{token, user},
};

/// Jobs that are handed over by stopping their proc.
const HAND_OVERS: usize = 10;

/// Each proc runs one job at a time.
struct Place<'a> {
    cluster: &'a Cluster,
    database: Database,
    project: String,
    started: i64,
}

pub(super) async fn run(options: &Options, cluster: &Cluster) -> anyhow::Result<()> {
    for number in 0..cluster.proc_count() {
        cluster.proc(number).set("PROC_WORKERS", "1");
        cluster.proc(number).stop().await?;
        cluster.proc(number).start().await?;
    }
    let database = Database::Postgres(cluster.postgres().url());
    let ingress = cluster.ingress(0).addr().to_string();
    let project = Client::connect(&ingress, &token(&user(0))).await?.project("delays").await?;
    let started = "SELECT COUNT(*) FROM entries WHERE topic = 'jobs' AND type = 'job.started'";
    let started = database.until(started.into(), |_| true).await?;
    let mut place = Place { cluster, database, project, started };
    println!("\n| ms | p50 | p99 | max |\n| --- | --- | --- | --- |");
    if peers::are_installed() {
        for (name, peer) in [("graphile-worker", Peer::Graphile), ("pg-boss", Peer::Boss)] {
            let url = place.cluster.postgres().make_database(name)?;
            let (p50, p99) = Driver::start(peer, &url)?.starts(options.samples)?;
            println!("| start of a job on an idle queue, {name} | {p50:.1} | {p99:.1} | |");
        }
    }
    let starts = place.starts(0, options.samples).await?;
    row("start of a job on an idle queue", &starts);
    // Whatever runs now is not the first proc's, as that one has something to do.
    place.cluster.proc(1).stop().await?;
    let long = place.long(0).await?;
    place.cluster.proc(1).start().await?;
    row("the same, submitted to another replica", &place.starts(0, options.samples).await?);
    row(
        "cancel by another replica, until its worker has begun the next",
        &place.cancels(options.samples).await?,
    );
    place.cancel(0, &long).await?;
    row("`SIGTERM`, until another replica goes on", &place.hand_overs().await?);
    row("`kill -9`, until another replica goes on", &place.killed().await?);
    Ok(())
}

fn row(what: &str, times: &Histogram<u64>) {
    let (p50, p99) = (times.value_at_quantile(0.5), times.value_at_quantile(0.99));
    println!("| {what} | {p50} | {p99} | {} |", times.max());
}

impl Place<'_> {
    async fn client(&self, proc: usize) -> anyhow::Result<Client> {
        Client::connect(&self.cluster.proc(proc).addr().to_string(), &token(&user(0))).await
    }

    /// Submits a job and waits for its start.
    async fn start(&mut self, proc: usize, data: Value) -> anyhow::Result<(Value, i64)> {
        let job = submit(&mut self.client(proc).await?, &self.project, &data).await?;
        Ok((job, self.next_start().await?))
    }

    /// Waits until one more job has been started, and returns when that was.
    async fn next_start(&mut self) -> anyhow::Result<i64> {
        self.started += 1;
        let sql = format!(
            "SELECT COALESCE((SELECT at FROM entries WHERE topic = 'jobs' AND type = 'job.started' ORDER BY seq OFFSET {} LIMIT 1), 0)",
            self.started - 1
        );
        self.database.until(sql, |at| at > 0).await
    }

    /// Waits until a job that does nothing has ended, and returns when that was. What is written down of a start may be
    /// before the commit that lets it begin; its end is not.
    async fn end(&self, job: &Value) -> anyhow::Result<i64> {
        let sql = format!("SELECT COALESCE(finished_at, 0) FROM jobs WHERE id = '{}'", id(job)?);
        self.database.until(sql, |at| at > 0).await
    }

    async fn long(&mut self, proc: usize) -> anyhow::Result<Value> {
        Ok(self.start(proc, long()).await?.0)
    }

    async fn cancel(&self, proc: usize, job: &Value) -> anyhow::Result<()> {
        let path = format!("/api/integrations/jobs/{}/cancel", id(job)?);
        self.client(proc).await?.json(Method::POST, &path, "").await.map(drop)
    }

    async fn starts(&mut self, proc: usize, samples: usize) -> anyhow::Result<Histogram<u64>> {
        let mut times = Histogram::new(3)?;
        for _ in 0..samples {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (job, _) = self.start(proc, json!({"to": 0})).await?;
            let made: Timestamp = serde_json::from_value(job["created_at"].clone())?;
            times.record(since(self.end(&job).await?, made)?)?;
        }
        Ok(times)
    }

    async fn cancels(&mut self, samples: usize) -> anyhow::Result<Histogram<u64>> {
        let mut times = Histogram::new(3)?;
        let mut running = self.long(0).await?;
        for _ in 0..samples {
            let next = submit(&mut self.client(1).await?, &self.project, &long()).await?;
            let asked = Timestamp::now();
            self.cancel(0, &running).await?;
            times.record(since(self.next_start().await?, asked)?)?;
            running = next;
        }
        self.cancel(0, &running).await?;
        Ok(times)
    }

    /// Stops the proc that has the job, again and again; what it has done is with the other one.
    async fn hand_overs(&mut self) -> anyhow::Result<Histogram<u64>> {
        let mut times = Histogram::new(3)?;
        let job = self.alone_at(0).await?;
        for turn in 0..HAND_OVERS {
            // The other one has been there for a while, as in a rolling restart.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let asked = Timestamp::now();
            let proc = self.cluster.proc(turn % 2);
            proc.begin_stop()?;
            let at = self.next_start().await?;
            times.record(since(at, asked)?)?;
            let proc = self.cluster.proc(turn % 2);
            proc.wait().await?;
            proc.start().await?;
        }
        self.cancel(0, &job).await?;
        Ok(times)
    }

    async fn killed(&mut self) -> anyhow::Result<Histogram<u64>> {
        let mut times = Histogram::new(3)?;
        let job = self.alone_at(0).await?;
        let asked = Timestamp::now();
        self.cluster.proc(0).kill().await?;
        times.record(since(self.next_start().await?, asked)?)?;
        self.cluster.proc(0).start().await?;
        self.cancel(1, &job).await?;
        Ok(times)
    }

    /// Returns a job that runs in this proc, the other one being idle.
    async fn alone_at(&mut self, proc: usize) -> anyhow::Result<Value> {
        let other = 1 - proc;
        self.cluster.proc(other).stop().await?;
        let job = self.long(proc).await?;
        self.cluster.proc(other).start().await?;
        Ok(job)
    }
}

fn since(at: i64, asked: Timestamp) -> anyhow::Result<u64> {
    u64::try_from(at - asked.as_ms()).context("it began before it was asked for")
}
