//! Parley's turn: submissions over HTTP, and jobs that do nothing.

use std::{ops::Range, time::Instant};

use anyhow::{Context, ensure};
use http::Method;
use serde_json::{Value, json};
use shared::time::Timestamp;
use tokio::task::JoinSet;

use super::{
    Options,
    home::Home,
    rates::{Figures, Spent},
};
use crate::{
    client::Client,
    users::{token, user},
};

const COUNT: &str = "/api/integrations/bundles/demo/operations/count";

/// Jobs that keep the process busy and are not counted: one for its only worker, and one of another owner for the worker
/// that it keeps in reserve for owners of whom nothing runs.
const BUSY: u8 = 2;

/// Query that returns 1 while a counted job has not ended, else 0.
const LEFT: &str = "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM jobs WHERE state IN ('queued', 'interrupted')) \
    OR 2 < (SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE state = 'running' LIMIT 3) running) THEN 1 ELSE 0 END AS BIGINT)";

/// Whose jobs they are, and how they are submitted.
pub(super) struct Turn<'a> {
    pub(super) options: &'a Options,
    pub(super) owners: Range<usize>,
    /// Many in a request.
    pub(super) batch: bool,
}

/// Jobs in a request, and requests at once, where many are submitted in one.
const BATCH: usize = 1_000;
const BATCHES: usize = 4;

/// Submits a job and returns it.
pub(super) async fn submit(
    client: &mut Client,
    project: &str,
    data: &Value,
) -> anyhow::Result<Value> {
    let body = json!({"project_id": project, "data": data}).to_string();
    client.json(Method::POST, COUNT, body).await
}

/// Returns a job's id.
pub(super) fn id(job: &Value) -> anyhow::Result<&str> {
    job["id"].as_str().context("a job has an id")
}

/// Returns a job that takes for ever.
pub(super) fn long() -> Value {
    json!({"to": 300, "delay_ms": 1_000})
}

impl Turn<'_> {
    /// Measures submissions with nobody at work, the work at what they have left, and both at once.
    pub(super) async fn run(&self, home: &mut Home<'_>) -> anyhow::Result<Figures> {
        let (jobs, database) = (self.options.jobs_of(self.batch), home.database());
        home.start(1).await?;
        database.clear().await?;
        let projects = self.projects(home).await?;
        let mut busy = Vec::new();
        for number in 0..BUSY {
            let owner = token(&user(self.owners.start + usize::from(number)));
            let mut ingress = Client::connect(&home.ingress()?, &owner).await?;
            let project = ingress.project("busy").await?;
            let mut client = Client::connect(&home.proc()?, &owner).await?;
            let job = submit(&mut client, &project, &long()).await?;
            busy.push((owner, id(&job)?.to_owned()));
        }
        let running = "SELECT COUNT(*) FROM jobs WHERE state = 'running'";
        database.until(running.into(), |count| count == i64::from(BUSY)).await?;
        let told = "SELECT CAST(SUM(head) AS BIGINT) FROM topics WHERE name = 'jobs' OR name LIKE 'user/%'";
        let told_before = database.until(told.into(), |_| true).await?;
        // What has not ended is asked for when as many events as that takes have been told of: the answer takes its time.
        let everybodys = "SELECT head FROM topics WHERE name = 'jobs'";
        let head = database.until(everybodys.into(), |_| true).await?;
        let all_have_ended = async |jobs: usize| {
            let end = head + i64::try_from(jobs * 3)?;
            database.until(everybodys.into(), move |head| head >= end).await?;
            database.until(LEFT.into(), |left| left == 0).await
        };

        let before = (Instant::now(), home.cpu()?);
        self.submit_all(home, &projects, jobs).await?;
        let enqueue = Spent::since(before, home.cpu()?, jobs);

        let others = home.cpu_of_others()?;
        let asked = Timestamp::now().as_ms();
        home.start(self.options.workers).await?;
        // It was at work before it said that it is ready; what its start took of the processor is among what the jobs took.
        let first =
            format!("SELECT COALESCE(MIN(started_at), 0) FROM jobs WHERE started_at > {asked}");
        all_have_ended(jobs).await?;
        let ended = Timestamp::now().as_ms();
        let first = database.until(first, |_| true).await?;
        let mut drain = Spent::since((Instant::now(), others), home.cpu()?, jobs);
        drain.rate =
            f64::from(u32::try_from(jobs)?) * 1e3 / f64::from(u32::try_from(ended - first)?);

        let before = (Instant::now(), home.cpu()?);
        self.submit_all(home, &projects, jobs).await?;
        all_have_ended(2 * jobs).await?;
        let through = Spent::since(before, home.cpu()?, jobs);

        // Each was told of, in its owner's log and in everybody's, and ended well.
        let told = database.until(told.into(), |_| true).await? - told_before;
        let expected = i64::try_from(2 * jobs * 3 * 2)?;
        // The busy jobs were handed over, and report their progress.
        ensure!((expected..expected + 800).contains(&told), "{told} events instead of {expected}");
        for (owner, id) in busy {
            let path = format!("/api/integrations/jobs/{id}/cancel");
            let mut client = Client::connect(&home.proc()?, &owner).await?;
            client.json(Method::POST, &path, "").await?;
        }
        Ok(Figures { enqueue, drain, through })
    }

    async fn projects(&self, home: &Home<'_>) -> anyhow::Result<Vec<String>> {
        let mut projects = Vec::new();
        for owner in self.owners.clone() {
            let mut client = Client::connect(&home.ingress()?, &token(&user(owner))).await?;
            projects.push(client.project("jobs").await?);
        }
        Ok(projects)
    }

    async fn submit_all(
        &self,
        home: &Home<'_>,
        projects: &[String],
        jobs: usize,
    ) -> anyhow::Result<()> {
        let connections = if self.batch { BATCHES } else { self.options.connections };
        let each = if self.batch { BATCH } else { 1 };
        let connections = connections.max(projects.len());
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            let number = connection % projects.len();
            let (project, owner) = (projects[number].clone(), self.owners.start + number);
            let proc = home.proc()?;
            let mut left = jobs / connections + usize::from(connection < jobs % connections);
            let (batch, data) = (self.batch, json!({"to": 0}));
            tasks.spawn(async move {
                let mut client = Client::connect(&proc, &token(&user(owner))).await?;
                while left > 0 {
                    let some = each.min(left);
                    left -= some;
                    if batch {
                        let data = vec![&data; some];
                        let body = json!({"project_id": project, "data": data}).to_string();
                        client.json(Method::POST, &format!("{COUNT}/batch"), body).await?;
                    } else {
                        submit(&mut client, &project, &data).await?;
                    }
                }
                anyhow::Ok(())
            });
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        Ok(())
    }
}
