//! `chat.export`: a whole project as lines of JSON.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proto::ExportProjectRequest;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{failed, persist::persist};
use crate::{
    bundles::{Operation, parse, schema_of},
    ingress::{Role, principal},
    jobs::{JobContext, JobError, Progress},
};

/// Writes a project into an artifact. A new worker begins it anew: the artifact appears only when it is whole.
pub(crate) struct Export;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {}

#[async_trait]
impl Operation for Export {
    fn name(&self) -> &'static str {
        "export"
    }

    fn description(&self) -> &'static str {
        "Writes the project's members, channels, people and messages as newline-delimited JSON."
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

    async fn run(&self, context: JobContext, input: Value) -> Result<Value, JobError> {
        let Input {} = parse(input)?;
        let job = context.job();
        let principal = principal(&job.owner, job.project_id, &job.trace_id);
        let request = ExportProjectRequest { principal: Some(principal) };
        let chat = context.ingress().streaming(self.timeout());
        let pages = persist(&context, request, |request| {
            let mut chat = chat.clone();
            async move { chat.export_project(request).await }
        });
        let mut pages = pages.await?;
        let mut artifact = context.artifact("export.ndjson", "application/x-ndjson");
        let (mut records, mut messages, mut total) = (0, 0, 0);
        while let Some(page) = pages.message().await.map_err(|status| failed(&status))? {
            records += page.records;
            messages += page.messages;
            total = total.max(page.total_messages);
            artifact.write(Bytes::from(page.ndjson)).await?;
            let progress = Progress::of(messages, total.max(messages), "messages", "exporting");
            context.advance(progress, None::<()>).await?;
        }
        // A stream that its server ends early, such as in a drain, ends like a complete one.
        if records == 0 || messages < total {
            return Err(JobError::transient("unavailable", "chat ended the export early"));
        }
        let artifact = artifact.finish().await?;
        Ok(json!({"artifact": artifact, "records": records, "messages": messages}))
    }
}
