//! What the entries of a project's log mean to the index.

use std::time::Instant;

use proto::ReadMessagesRequest;
use serde::Deserialize;
use shared::{
    ids::{MessageId, ProjectId},
    journal::{Cursor, Entry, Topic},
};

use super::{Fault, Feed, Place, Scope, Sources, build::told};
use crate::search::schema::Told;

/// Entries read at once.
pub(super) const PAGE: i64 = 256;

#[derive(Deserialize)]
struct OfMessage {
    message: Told,
}

#[derive(Deserialize)]
struct Imported {
    channels: Vec<String>,
    first: MessageId,
    last: MessageId,
}

impl Feed {
    /// Reads a log for a while; says whether to its end. A log that does not go on makes the project be built.
    pub(super) fn read_log(
        &mut self,
        project: ProjectId,
        until: Instant,
        sources: &Sources,
    ) -> Result<bool, Fault> {
        let place = self.places.get(&project).copied().unwrap_or_default();
        let (topic, Some(position)) = (Topic::project(project), place.position) else {
            return Ok(true);
        };
        let cursor = Cursor::at(&topic, position).to_string();
        let page = sources.read(&self.store, move |reader| {
            let Some(start) = reader.start(&topic, Some(&cursor))? else { return Ok(None) };
            if start.reset.is_some() {
                return Ok(Some(Err(start.reset)));
            }
            reader.entries(&topic, start.position.seq, PAGE).map(Ok).map(Some)
        })?;
        let entries = match page {
            // Logs of projects are kept; one that is gone was gone before it was asked for.
            None => return Ok(true),
            Some(Ok(entries)) => entries,
            Some(Err(reason)) => {
                tracing::info!(project.id = %project, ?reason, "a log does not go on for the index");
                self.put(project, Place { position: None, ..place })?;
                return Ok(false);
            }
        };
        let is_end = entries.len() < usize::try_from(PAGE).unwrap_or(0);
        let mut read = place;
        for (index, entry) in entries.iter().enumerate() {
            let applied = self.apply(Scope { project, build: place.build }, entry, sources);
            let is_late = Instant::now() >= until;
            match applied {
                Ok(true) => read.position = Some(entry.position),
                Ok(false) => read.position = None,
                Err(_) => {}
            }
            let is_last = index + 1 == entries.len();
            if is_late || is_last || !matches!(applied, Ok(true)) {
                if read != place {
                    self.put(project, read)?;
                }
                applied?;
                return Ok(is_last && is_end && read.position.is_some());
            }
        }
        Ok(is_end)
    }

    /// Does to the index what an entry says; says whether the entry says enough for that.
    fn apply(&mut self, scope: Scope, entry: &Entry, sources: &Sources) -> Result<bool, Fault> {
        match &*entry.kind {
            "message.created" | "message.updated" | "message.deleted" => {
                let Ok(OfMessage { message }) = serde_json::from_str(&entry.data) else {
                    return Ok(false);
                };
                if &*entry.kind != "message.created" {
                    self.redacted.entry(scope.project).or_default().insert(message.id);
                }
                // A build may have met it already.
                self.index.remove(message.id);
                // A redacted entry has no text; where the message was edited, a later entry has it.
                if &*entry.kind != "message.deleted" && !message.text.is_empty() {
                    self.add(scope, &message)?;
                }
            }
            "history.imported" => {
                let Ok(imported) = serde_json::from_str(&entry.data) else { return Ok(false) };
                self.import(scope, imported, sources)?;
            }
            "project.deleted" => self.index.remove_all(scope),
            _ => {}
        }
        Ok(true)
    }

    /// Reads a batch of an import, with whatever else there is between its first message and its last.
    fn import(&mut self, scope: Scope, batch: Imported, sources: &Sources) -> Result<(), Fault> {
        let mut request = ReadMessagesRequest {
            project_id: scope.project.to_string(),
            first: Some(batch.first.to_string()),
            last: Some(batch.last.to_string()),
            channels: batch.channels,
            page: String::new(),
        };
        loop {
            let page = sources.messages(request.clone())?;
            for message in page.messages.into_iter().filter_map(told) {
                self.index.remove(message.id);
                self.add(scope, &message)?;
            }
            if page.next.is_empty() {
                return Ok(());
            }
            request.page = page.next;
        }
    }
}
