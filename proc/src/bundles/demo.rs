//! Something to look at: a job that counts, for those who build on jobs and their streams.

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Operation, Unfit, parse, schema_of};
use crate::{
    ingress::Role,
    jobs::{JobContext, JobError, Progress},
    raw_json::RawJson,
};

/// Counts.
pub(crate) struct Count;

/// Time for which a worker may be kept by counting.
const MAX_DURATION: Duration = Duration::from_mins(5);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// How far to count.
    #[schemars(range(min = 0, max = 10_000))]
    to: u64,
    /// Time that each number takes; all of them take 5 minutes at most.
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
        MAX_DURATION * 2
    }

    fn schema(&self) -> Value {
        schema_of::<Input>()
    }

    fn check(&self, input: &Value) -> Result<(), Unfit> {
        let Ok(Input { to, delay_ms }) = parse(input.clone()) else { return Ok(()) };
        if Duration::from_millis(to.saturating_mul(delay_ms)) > MAX_DURATION {
            let reason = "counting may take 5 minutes: to * delay_ms is at most 300000";
            return Err(Unfit { field: "delay_ms", reason });
        }
        Ok(())
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError> {
        let Input { to, delay_ms } = parse(input)?;
        let start = context.checkpoint().map_or(0, |Checkpoint { counted }| counted);
        for counted in start + 1..=to {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            let progress = Progress::of(counted, to, "numbers", "counting");
            context.advance(progress, Some(Checkpoint { counted })).await?;
        }
        Ok(json!({"counted": to}).into())
    }
}
