//! Clients that submit jobs, each until it is taken: its key makes it the same one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use uuid::Uuid;

use super::{
    OWNERS, SUBMITTERS, Seen,
    bundle::{Bundles, OPERATIONS},
    home::Home,
    judge::Last,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a client waits before it asks again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a request is tried that is to succeed.
const TRIES: usize = 600;

fn client() -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().timeout(PATIENCE).build()?)
}

/// Asks until it is answered; being away and having too much to do are no answers.
async fn ask(request: &RequestBuilder) -> anyhow::Result<Value> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let request = request.try_clone().context("it can be sent again")?;
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                match response.text().await {
                    Ok(body) if status.is_success() => return Ok(serde_json::from_str(&body)?),
                    Ok(body) if ![429, 502, 503, 504].contains(&status.as_u16()) => {
                        bail!("{status} {body}");
                    }
                    Ok(body) => last = format!("{status} {body}"),
                    Err(error) => last = error.to_string(),
                }
            }
            Err(error) => last = error.to_string(),
        }
        sleep(PAUSE).await;
    }
    bail!("it is not answered: {last}")
}

/// Makes a project and returns its id.
pub(super) async fn project(home: &Home, owner: &str) -> anyhow::Result<String> {
    let request = client()?.post(format!("{}/api/chat/projects", home.ingress_url()));
    let made =
        ask(&request.bearer_auth(format!("dev-{owner}")).json(&json!({"name": "x"}))).await?;
    Ok(made["id"].as_str().context("a project has an id")?.to_owned())
}

/// Registers a bundle behind a URL.
pub(super) async fn register(home: &Home, name: &str, url: &str) -> anyhow::Result<()> {
    let path = format!("{}/api/integrations/admin/bundles/{name}", home.proc_url());
    let request = client()?.put(path).bearer_auth("dev-admin");
    ask(&request.json(&Bundles::registration(name, url))).await.map(drop)
}

/// A client of an owner.
pub(super) struct Submitter {
    /// URLs of the bundles.
    url: String,
    number: usize,
    owner: &'static str,
    project: String,
    counts: u64,
    pause: Duration,
}

impl Submitter {
    pub(super) fn new(
        home: &Home,
        number: usize,
        owner: &'static str,
        project: &str,
        counts: u64,
        pause: Duration,
    ) -> Self {
        let url = format!("{}/api/integrations/bundles", home.proc_url());
        Self { url, number, owner, project: project.to_owned(), counts, pause }
    }

    /// Returns the operation of a job, and its input: half of them count, each other half waits for its bundle in some way.
    fn operation(&self, number: usize) -> (String, Value) {
        // The jobs of one client are as far apart as there are clients.
        let place = number / (OWNERS.len() * SUBMITTERS);
        if let Some(operation) = OPERATIONS.get(place % (2 * OPERATIONS.len())) {
            let path = operation.replace('.', "/operations/");
            return (format!("{}/{path}", self.url), json!({}));
        }
        let data = json!({"to": self.counts, "delay_ms": 15});
        (format!("{}/demo/operations/count", self.url), data)
    }

    /// Submits the jobs of these numbers, each when it is its turn.
    pub(super) async fn submit(
        self,
        numbers: impl Iterator<Item = usize> + Send,
        seen: Arc<Seen>,
    ) -> anyhow::Result<()> {
        let client = client()?;
        let began = Instant::now();
        for number in numbers {
            let turn = began + self.pause * u32::try_from(number)?;
            let mut tick = interval_at(turn, PAUSE);
            tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
            tick.tick().await;
            let (url, data) = self.operation(number);
            let request = client.post(url).bearer_auth(format!("dev-{}", self.owner));
            let request = request.header("idempotency-key", number.to_string());
            let request = request.json(&json!({"project_id": self.project, "data": data}));
            let job = ask(&request).await?;
            let job = job["id"].as_str().context("a job has an id")?.parse()?;
            seen.with(|history| history.owners[self.number].submitted.push(job));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Page {
    jobs: Vec<Job>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Job {
    id: Uuid,
    state: String,
    attempt: u64,
    result: Option<Value>,
    bundle: String,
    operation: String,
    error: Option<Value>,
    run_after: Option<String>,
}

/// Notes how every job is in the end.
pub(super) async fn read_all(home: &Home, owners: &[&str], seen: &Seen) -> anyhow::Result<()> {
    let client = client()?;
    for (number, owner) in owners.iter().enumerate() {
        let (mut last, mut cursor) = (HashMap::new(), None);
        loop {
            let request = client.get(format!("{}/api/integrations/jobs", home.proc_url()));
            let request = request.bearer_auth(format!("dev-{owner}")).query(&[("limit", "200")]);
            let more: Vec<(&str, String)> =
                cursor.take().map(|at| ("cursor", at)).into_iter().collect();
            let page: Page = serde_json::from_value(ask(&request.query(&more)).await?)?;
            for job in page.jobs {
                let Job { id, state, attempt, error, run_after, .. } = job;
                let counted = job.result.and_then(|result| result["counted"].as_u64());
                let operation = format!("{}.{}", job.bundle, job.operation);
                last.insert(id, Last { state, attempt, counted, operation, error, run_after });
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        seen.with(|history| history.owners[number].last = last);
    }
    Ok(())
}
