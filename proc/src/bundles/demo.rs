//! Something to look at: a job that counts, for those who build on jobs and their streams.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Operation, parse, schema_of};
use crate::{
    ingress::Role,
    jobs::{JobContext, JobError, Progress},
};

/// Counts.
pub(crate) struct Count;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// How far to count.
    #[schemars(range(min = 0, max = 10_000))]
    to: u64,
    /// How long each number takes.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000))]
    delay_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    counted: u64,
}

#[async_trait]
impl Operation for Count {
    fn name(&self) -> &'static str {
        "count"
    }

    fn description(&self) -> &'static str {
        "Counts to a number, slowly if asked to."
    }

    fn role(&self) -> Role {
        Role::Viewer
    }

    fn timeout(&self) -> Duration {
        Duration::from_hours(4)
    }

    fn schema(&self) -> Value {
        schema_of::<Input>()
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<Value, JobError> {
        let Input { to, delay_ms } = parse(input)?;
        let start = context.checkpoint().map_or(0, |Checkpoint { counted }| counted);
        for counted in start + 1..=to {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            let progress = Progress::of(counted, to, "numbers", "counting");
            context.advance(progress, Some(Checkpoint { counted })).await?;
        }
        Ok(json!({"counted": to}))
    }
}
