//! The operation `search.reindex`: every proc builds its index of a project anew.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{
    ids::ProjectId,
    journal::{Position, Topic},
    store,
    time::Timestamp,
};

use super::{Search, wish};
use crate::{
    bundles::{Operation, parse, schema_of},
    ingress::Role,
    jobs::{JobContext, JobError, Progress, Share, machine::Job},
    raw_json::RawJson,
};

/// How often the job says how far it is.
const TELL: Duration = Duration::from_millis(500);

/// Wishes for a build in the log that every proc follows, and waits for that of its own.
#[derive(Debug)]
pub(crate) struct Reindex {
    search: Search,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {}

/// The wish that was made, so that a next worker makes no second one.
#[derive(Copy, Clone, Serialize, Deserialize)]
struct Wished {
    seq: i64,
    /// The tag of its entry; a job of an earlier version has noted none.
    #[serde(default)]
    tag: Option<u32>,
    at_ms: i64,
}

impl Reindex {
    pub(crate) fn new(search: Search) -> Self {
        Self { search }
    }
}

#[async_trait]
impl Operation for Reindex {
    fn name(&self) -> &'static str {
        "reindex"
    }

    fn description(&self) -> &'static str {
        "Builds the index of the project's messages anew; the old one is searched meanwhile."
    }

    fn role(&self) -> Role {
        Role::Owner
    }

    fn timeout(&self) -> Duration {
        Duration::from_mins(30)
    }

    /// A wish begins a build anew, so a second one waits until the first is fulfilled.
    fn share(&self, job: &Job) -> Option<Share> {
        Some(Share { name: format!("search.reindex/{}", job.project_id), limit: 1 })
    }

    fn schema(&self) -> Value {
        schema_of::<Input>()
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError> {
        let Input {} = parse(input)?;
        let project = context.job().project_id;
        let wished = match context.checkpoint::<Wished>() {
            Some(wished) => wished,
            None => self.wish(&context, project).await?,
        };
        let mut commits = self.search.inner.commits.subscribe();
        while !self.search.inner.fulfils(project, wished.seq, wished.tag) {
            let told = tokio::time::timeout(TELL, commits.changed()).await;
            let (done, total) =
                self.search.inner.building().get(&project).copied().unwrap_or_default();
            if told.is_err() && total > 0 {
                let progress = Progress::of(done, total, "messages", "building the index");
                context.advance(progress, Some(wished)).await?;
            }
        }
        let took = context.store().now().since(Timestamp::from_ms(wished.at_ms));
        let messages = self.search.count(project).await.map_err(|error| {
            tracing::warn!(%error, "the index was not counted");
            JobError::transient("unavailable", "the index was not read")
        })?;
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let bytes = self.search.bytes();
        let result =
            json!({"messages": messages, "duration_ms": duration_ms, "index_bytes": bytes});
        Ok(result.into())
    }
}

impl Reindex {
    async fn wish(&self, context: &JobContext, project: ProjectId) -> Result<Wished, JobError> {
        let wished = context.store().write(move |tx| -> Result<Position, store::Error> {
            let entry = tx.append(&Topic::search(), wish::KIND, &wish::data(project))?;
            Ok(entry.position)
        });
        let position = wished.await.map_err(|error| {
            tracing::warn!(%error, "a wish for a build was not written");
            JobError::transient("unavailable", "the database did not answer")
        })?;
        let (seq, tag) = (position.seq, Some(position.tag));
        let wished = Wished { seq, tag, at_ms: context.store().now().as_ms() };
        context.advance(Progress::default(), Some(wished)).await?;
        Ok(wished)
    }
}
