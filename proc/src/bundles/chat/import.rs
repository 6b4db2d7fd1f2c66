//! `chat.import`: a Slack workspace export into a project, in batches that can be repeated.

mod outcome;
mod reader;
mod sender;

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::ids::UploadId;

#[cfg(test)]
pub(super) use self::sender::to_send;

use self::{
    outcome::{NotRead, Tally, record_name},
    reader::Found,
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

/// Where a next worker goes on, and what was counted up to there.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Checkpoint {
    position: Position,
    #[serde(flatten)]
    tally: Tally,
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
        let Checkpoint { position, mut tally } = context.checkpoint().unwrap_or_default();
        let mut found = reader::start(file, position)
            .map_err(|_| JobError::transient("internal", "the archive could not be read"))?;
        let Some(Found::Survey(survey)) = next(&mut found).await? else {
            return Err(JobError::permanent("internal", "the reader of the archive broke"));
        };
        let Survey { people, guests, channels, private, records, files, .. } = survey;
        let Survey { ignored_files, left_out, bad_entries, bad_counts, .. } = survey;
        let mut sender = Sender::new(&context);
        let mut people = sender.people(people).await?;
        people.leave_out(bad_counts.people);
        sender.guests(guests).await?;
        let mut channels = sender.channels(channels).await?;
        channels.leave_out(bad_counts.channels);
        let made_public = sender.made_public(&private).await?;
        let mut not_read = NotRead::new(left_out, ignored_files, &private, made_public);
        not_read.add_entries(bad_entries, bad_counts);
        drop(private);
        let mut logged = 0;
        while tally.messages.total < records {
            let Some(Found::Batch(batch)) = next(&mut found).await? else {
                return Err(JobError::permanent("internal", "the reader of the archive broke"));
            };
            let sent = sender.messages(batch.messages, batch.deletions).await?;
            tally.messages.total += batch.records;
            tally.add(&sent.response, sent.reactions_not_sound);
            tally.messages.failed += batch.failed;
            tally.messages.skip(batch.skipped);
            tally.messages.skip(sent.not_here);
            for (position, reason) in batch.broken.into_iter().chain(sent.refused) {
                let file = record_name(&files, position);
                tally.name_record(&file, position.record, &reason);
                if logged < REASONS {
                    logged += 1;
                    let line = format!("{file}, record {}: {reason}", position.record);
                    context.log("warn", line);
                }
            }
            let progress = Progress::of(tally.messages.total, records, "messages", "importing");
            let checkpoint = Checkpoint { position: batch.next, tally: tally.clone() };
            context.advance(progress, Some(checkpoint)).await?;
        }
        let warnings = outcome::warnings(&people, &channels, &tally, &not_read);
        // The log has a line for each record that failed.
        for warning in warnings.iter().filter(|warning| !warning.contains("left_out.records")) {
            context.log("warn", warning.clone());
        }
        Ok(outcome::result(&people, &channels, &tally, &not_read, &warnings).into())
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
