//! `chat.export`: a whole project as lines of JSON, or as an archive in the shape of a Slack export.

mod archive;
mod line;
mod pages;
mod record;
#[cfg(test)]
mod tests;
mod zipped;

use std::time::Duration;

use async_trait::async_trait;
use proto::ExportOrder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::pages::Pages;
use crate::{
    bundles::{Operation, parse, schema_of},
    ingress::Role,
    jobs::{JobContext, JobError},
    raw_json::RawJson,
};

/// Writes a project into an artifact. A new worker begins it anew: the artifact appears only when it is whole.
pub(crate) struct Export;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// What the export is to be.
    #[serde(default)]
    format: Format,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Format {
    /// Newline-delimited JSON: everything, one record a line.
    #[default]
    Ndjson,
    /// A ZIP file in the shape of a Slack workspace export, which `chat.import` reads.
    Slack,
}

#[async_trait]
impl Operation for Export {
    fn name(&self) -> &'static str {
        "export"
    }

    fn description(&self) -> &'static str {
        "Writes the project's members, channels, people and messages as newline-delimited JSON, or its channels, people \
         and messages as a ZIP file in the shape of a Slack export."
    }

    fn role(&self) -> Role {
        Role::Viewer
    }

    fn timeout(&self) -> Duration {
        Duration::from_hours(2)
    }

    fn schema(&self) -> Value {
        schema_of::<Input>()
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError> {
        match parse::<Input>(input)?.format {
            Format::Ndjson => lines(&context, self.timeout()).await,
            Format::Slack => zipped::export(&context, self.timeout()).await,
        }
    }
}

async fn lines(context: &JobContext, longest: Duration) -> Result<RawJson, JobError> {
    let mut pages = Pages::open(context, ExportOrder::ByTime, longest).await?;
    let mut artifact = context.artifact("export.ndjson", "application/x-ndjson");
    while let Some(page) = pages.next().await? {
        artifact.write(page).await?;
    }
    let artifact = artifact.finish().await?;
    Ok(json!({"artifact": artifact, "records": pages.records(), "messages": pages.messages()})
        .into())
}
