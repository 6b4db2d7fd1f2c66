//! What all clients share: where the services are, the projects, the clock, and what went wrong so far.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    roster::{OWNER, Roster, STRANGER, User},
    scenario::Scenario,
};

/// Time that a client waits for an answer: longer than the judge allows, so that a late one is told from none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time that the cluster has to recover from the last fault before its logs are read.
const RECOVERY: Duration = Duration::from_secs(20);
/// The longest that a client waits before it comes back, whatever it was told: a run is short.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(600);
/// Requests at once while everything is made ready.
const AT_ONCE: usize = 16;
/// Failed requests that are kept to be shown.
const EXAMPLES: usize = 12;

/// The world of one run.
pub(crate) struct World {
    http: Client,
    url: String,
    began: Instant,
    /// When it was first sent.
    pub(crate) load_began: OnceLock<Duration>,
    pub(crate) roster: Roster,
    /// The projects' ids; the last one is the stranger's.
    pub(crate) projects: Vec<String>,
    pub(crate) open_streams: AtomicUsize,
    pub(crate) acknowledged: AtomicUsize,
    failures: Mutex<Failures>,
}

/// Requests that were not answered as they should be.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    pub count: usize,
    /// Answered with 500 or refused for good, which no fault excuses.
    pub wrong: usize,
    /// The first of them.
    pub examples: Vec<String>,
}

/// How one request ended.
pub(crate) enum Outcome {
    Done(Value),
    /// Nobody knows; it may be sent again after a while.
    Again(Duration),
    /// It was refused for good.
    Wrong,
}

impl World {
    /// Makes projects and members.
    pub(crate) async fn prepare(url: String, scenario: &Scenario) -> anyhow::Result<Arc<Self>> {
        let mut world = Self {
            http: Client::builder().no_proxy().build()?,
            url,
            began: Instant::now(),
            load_began: OnceLock::new(),
            roster: Roster::of(scenario),
            projects: Vec::new(),
            open_streams: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            failures: Mutex::default(),
        };
        for number in 0..=scenario.projects {
            let owner = if number < scenario.projects { OWNER } else { STRANGER };
            let body = json!({"name": format!("Project {number}")});
            let request = world.request(owner, Method::POST, "/api/chat/projects").json(&body);
            let made = world.must(request).await?;
            world.projects.push(made["id"].as_str().context("a project has no id")?.to_owned());
        }
        let added = stream::iter(world.roster.members()).map(|(project, user)| {
            let path = world.path(project, &format!("/members/{}", user.name()));
            world.must(world.request(OWNER, Method::PUT, &path).json(&json!({"role": "member"})))
        });
        added.buffer_unordered(AT_ONCE).try_for_each(|_| std::future::ready(Ok(()))).await?;
        Ok(Arc::new(world))
    }

    /// Returns a path in a project.
    pub(crate) fn path(&self, project: usize, rest: &str) -> String {
        format!("/api/chat/projects/{}{rest}", self.projects[project])
    }

    pub(crate) fn request(&self, user: User, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(user.token())
    }

    /// Sends a request that is to succeed, while nothing happens to the cluster. It is sent again while the cluster
    /// recovers from the last fault.
    pub(crate) async fn must(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let until = Instant::now() + RECOVERY;
        loop {
            let again = request.try_clone().context("the body of a request is a stream")?;
            let response = again.timeout(PATIENCE * 4).send().await?;
            let (status, url) = (response.status(), response.url().path().to_owned());
            let pause = wait(&response).unwrap_or(LONGEST_WAIT);
            let body = response.text().await?;
            if status.is_success() {
                return Ok(serde_json::from_str(&body).unwrap_or_default());
            }
            if status != StatusCode::SERVICE_UNAVAILABLE || Instant::now() >= until {
                bail!("{url} answered {status}: {body}");
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a request once, and notes it if it fails.
    pub(crate) async fn once(&self, what: &str, request: RequestBuilder) -> Outcome {
        let pause = LONGEST_WAIT / 4;
        let response = match request.timeout(PATIENCE).send().await {
            Ok(response) => response,
            Err(error) => {
                self.failed(what, &format!("{:#}", anyhow::Error::new(error)), false);
                return Outcome::Again(pause);
            }
        };
        let (status, wait) = (response.status(), wait(&response));
        match response.text().await {
            Ok(body) if status.is_success() => {
                Outcome::Done(serde_json::from_str(&body).unwrap_or_default())
            }
            Ok(body) => {
                let refused = status.is_client_error() && status.as_u16() != 429;
                let wrong = refused || status.as_u16() == 500;
                self.failed(what, &format!("{status} {}", body.trim()), wrong);
                if refused { Outcome::Wrong } else { Outcome::Again(wait.unwrap_or(pause)) }
            }
            Err(error) => {
                self.failed(what, &format!("{status}, then {error}"), false);
                Outcome::Again(pause)
            }
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn failed(&self, what: &str, how: &str, wrong: bool) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        failures.wrong += usize::from(wrong);
        // What nothing excuses is always shown.
        if failures.examples.len() < EXAMPLES || (wrong && failures.wrong < EXAMPLES) {
            let at = self.now().saturating_sub(self.load_began.get().copied().unwrap_or_default());
            failures.examples.push(format!("{:.2} s  {what}: {how}", at.as_secs_f64()));
        }
    }

    /// Returns what went wrong so far.
    pub(crate) fn failures(&self) -> Failures {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how things are, in a line.
    pub(crate) fn summary(&self) -> String {
        let failures = self.failures();
        format!(
            "{} acknowledged, {} streams open, {} requests failed",
            self.acknowledged.load(Ordering::Relaxed),
            self.open_streams.load(Ordering::Relaxed),
            failures.count
        )
    }
}

/// Returns when to come back, if the answer says so.
pub(crate) fn wait(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}
