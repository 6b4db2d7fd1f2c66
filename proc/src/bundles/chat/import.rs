//! `chat.import`: a Slack workspace export into a project, in batches that can be repeated.

mod reader;
mod sender;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::ids::UploadId;

#[cfg(test)]
pub(super) use self::sender::to_send;

use self::{
    reader::{Batch, Found},
    sender::Sender,
};
use super::slack::{Error, Position, Survey};
use crate::{
    bundles::{Operation, parse, schema_of},
    ingress::Role,
    jobs::{JobContext, JobError, Progress},
    raw_json::RawJson,
    uploads,
};

/// Kinds of skipped records told apart in the result.
const KINDS: usize = 64;
/// Reasons of broken records that one attempt puts into the job's log.
const REASONS: usize = 100;

/// Imports people, channels and messages. What is there already stays as it is, so it can be run again.
pub(crate) struct Import;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The export, as uploaded to `/api/integrations/uploads`.
    #[schemars(with = "String", extend("format" = "uuid"))]
    upload_id: UploadId,
    /// What the export is.
    #[serde(default)]
    #[expect(dead_code, reason = "there is only one yet")]
    format: Format,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Format {
    /// The ZIP file of a Slack workspace export.
    #[default]
    Slack,
}

/// What became of the archive's records.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Messages {
    total: u64,
    imported: u64,
    /// In the project before this import.
    existing: u64,
    failed: u64,
    /// By kind.
    skipped: BTreeMap<String, u64>,
}

/// What became of people or channels.
#[derive(Clone, Default, Serialize)]
struct Counts {
    total: usize,
    written: u64,
    existing: u64,
    failed: u64,
}

/// Where a next worker goes on, and what was counted up to there.
#[derive(Default, Serialize, Deserialize)]
struct Checkpoint {
    position: Position,
    messages: Messages,
}

#[async_trait]
impl Operation for Import {
    fn name(&self) -> &'static str {
        "import"
    }

    fn description(&self) -> &'static str {
        "Imports the people, channels and messages of an uploaded Slack workspace export."
    }

    fn role(&self) -> Role {
        Role::Owner
    }

    fn timeout(&self) -> Duration {
        Duration::from_hours(6)
    }

    fn schema(&self) -> Value {
        schema_of::<Input>()
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError> {
        let Input { upload_id, format: _ } = parse(input)?;
        let file = open(&context, upload_id).await?;
        let Checkpoint { position, mut messages } = context.checkpoint().unwrap_or_default();
        let mut found = reader::start(file, position)
            .map_err(|_| JobError::transient("internal", "the archive could not be read"))?;
        let Some(Found::Survey(survey)) = next(&mut found).await? else {
            return Err(JobError::permanent("internal", "the reader of the archive broke"));
        };
        let Survey { people, channels, records, ignored_files } = survey;
        let mut sender = Sender::new(&context, &channels);
        let people = sender.people(people).await?;
        let channels = sender.channels(channels).await?;
        let mut logged = 0;
        while messages.total < records {
            let Some(Found::Batch(batch)) = next(&mut found).await? else {
                return Err(JobError::permanent("internal", "the reader of the archive broke"));
            };
            let Batch { next: position, messages: texts, skipped, reasons, .. } = batch;
            let outcome = sender.messages(texts).await?;
            messages.total += batch.records;
            messages.imported += outcome.written;
            messages.existing += outcome.existing;
            messages.failed += outcome.failed + batch.failed;
            messages.skip(skipped);
            for reason in reasons.into_iter().take(REASONS - logged) {
                logged += 1;
                context.log("warn", reason);
            }
            let progress = Progress::of(messages.total, records, "messages", "importing");
            let checkpoint = Checkpoint { position, messages: messages.clone() };
            context.advance(progress, Some(checkpoint)).await?;
        }
        Ok(json!({
            "people": people,
            "channels": channels,
            "messages": messages,
            "files_ignored": ignored_files,
        })
        .into())
    }
}

async fn open(context: &JobContext, upload: UploadId) -> Result<std::fs::File, JobError> {
    let gone =
        || JobError::permanent("upload_not_found", "you have no such upload, or it was too old");
    let owner = context.job().owner.clone();
    let known = context.store().read(move |reader| uploads::exists(reader, upload, &owner)).await;
    let known = known
        .map_err(|_| JobError::transient("unavailable", "the upload could not be looked up"))?;
    if !known {
        return Err(gone());
    }
    context.blobs().file(&uploads::path(upload)).await.map_err(|error| {
        if let Some(object_store::Error::NotFound { .. }) = error.downcast_ref() {
            return gone();
        }
        tracing::warn!(upload.id = %upload, ?error, "an upload could not be read");
        JobError::transient("storage", "the upload could not be read")
    })
}

async fn next(
    found: &mut tokio::sync::mpsc::Receiver<Result<Found, Error>>,
) -> Result<Option<Found>, JobError> {
    found.recv().await.transpose().map_err(|error| match error {
        Error::Io(error) => {
            tracing::warn!(%error, "an archive could not be read");
            JobError::transient("storage", "the archive could not be read")
        }
        error => JobError::permanent("invalid_archive", error.to_string()),
    })
}

impl Messages {
    fn skip(&mut self, skipped: BTreeMap<String, u64>) {
        for (kind, count) in skipped {
            let room = self.skipped.len() < KINDS || self.skipped.contains_key(&kind);
            *self.skipped.entry(if room { kind } else { "other".into() }).or_default() += count;
        }
    }
}
