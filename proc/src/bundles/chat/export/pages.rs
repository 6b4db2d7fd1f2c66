//! Asks ingress for a project, page by page.

use std::time::Duration;

use bytes::Bytes;
use proto::{ExportOrder, ExportPage, ExportProjectRequest};
use tonic::Streaming;

use crate::{
    bundles::chat::{failed, persist::persist},
    ingress::principal,
    jobs::{JobContext, JobError, Progress},
};

/// The pages of one export, counted as they come.
pub(super) struct Pages<'a> {
    context: &'a JobContext,
    stream: Streaming<ExportPage>,
    records: u64,
    messages: u64,
    total: u64,
    ended: bool,
}

impl<'a> Pages<'a> {
    pub(super) async fn open(
        context: &'a JobContext,
        order: ExportOrder,
        longest: Duration,
    ) -> Result<Self, JobError> {
        let job = context.job();
        let principal = principal(&job.owner, job.project_id, &job.trace_id);
        let request = ExportProjectRequest { principal: Some(principal), order: i32::from(order) };
        let chat = context.ingress().streaming(longest);
        let stream = persist(context, request, |request| {
            let mut chat = chat.clone();
            async move { chat.export_project(request).await }
        });
        let stream = stream.await?;
        Ok(Self { context, stream, records: 0, messages: 0, total: 0, ended: false })
    }

    /// Returns the lines of the next page, `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, JobError> {
        let Some(page) = self.stream.message().await.map_err(|status| failed(&status))? else {
            // A stream that its server ends early, such as in a drain, ends like a complete one.
            if self.ended {
                return Ok(None);
            }
            return Err(JobError::transient("unavailable", "chat ended the export early"));
        };
        self.ended = page.last;
        self.records += page.records;
        self.messages += page.messages;
        self.total = self.total.max(page.total_messages).max(self.messages);
        let progress = Progress::of(self.messages, self.total, "messages", "exporting");
        self.context.advance(progress, None::<()>).await?;
        Ok(Some(Bytes::from(page.ndjson)))
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }
}
