//! Building a project from all of its messages, beside the build that is searched meanwhile.

use std::time::Instant;

use proto::ReadMessagesRequest;
use shared::{
    ids::{MessageId, ProjectId},
    journal::{Position, Topic},
};

use super::{Fault, Feed, Place, Scope, Sources};
use crate::search::schema::Told;

/// A build in the making; it is begun anew after a restart.
#[derive(Clone, Debug)]
pub(super) struct Building {
    build: u32,
    /// Where the log was before the first message was read: what happened later is read from there.
    position: Position,
    page: String,
    done: u64,
    total: u64,
}

impl Feed {
    /// Goes on with a build until a time; says whether it is whole.
    pub(super) fn build(
        &mut self,
        project: ProjectId,
        until: Instant,
        sources: &Sources,
    ) -> Result<bool, Fault> {
        let place = self.places.get(&project).copied().unwrap_or_default();
        let mut building = match self.building.remove(&project) {
            Some(building) => building,
            None => self.begin(project, place.build + 1, sources)?,
        };
        let went_on = self.go_on(project, &mut building, until, sources);
        self.shared.building().insert(project, (building.done, building.total));
        if !matches!(went_on, Ok(true)) {
            self.building.insert(project, building);
            return went_on;
        }
        self.index.remove_all(Scope { project, build: place.build });
        let Building { build, position, done, .. } = building;
        self.put(project, Place { position: Some(position), build, ..place })?;
        self.shared.building().remove(&project);
        tracing::info!(project.id = %project, messages = done, "built the index of a project");
        // The log may have gone on.
        Ok(false)
    }

    fn begin(
        &mut self,
        project: ProjectId,
        build: u32,
        sources: &Sources,
    ) -> Result<Building, Fault> {
        let topic = Topic::project(project);
        let head = sources.read(&self.store, move |reader| reader.head(&topic))?;
        let position = head.unwrap_or(Position { epoch: 0, seq: 0, tag: 0 });
        tracing::info!(project.id = %project, "building the index of a project");
        // A build that was not finished before a restart may have left something.
        self.index.remove_all(Scope { project, build });
        Ok(Building { build, position, page: String::new(), done: 0, total: 0 })
    }

    fn go_on(
        &mut self,
        project: ProjectId,
        building: &mut Building,
        until: Instant,
        sources: &Sources,
    ) -> Result<bool, Fault> {
        let scope = Scope { project, build: building.build };
        while Instant::now() < until {
            let request = ReadMessagesRequest {
                project_id: project.to_string(),
                page: building.page.clone(),
                ..ReadMessagesRequest::default()
            };
            let page = sources.messages(request)?;
            building.total = building.total.max(page.total_messages);
            for message in page.messages {
                building.done += 1;
                if let Some(told) = told(message) {
                    self.add(scope, &told)?;
                }
            }
            if page.next.is_empty() {
                return Ok(true);
            }
            building.page = page.next;
        }
        Ok(false)
    }
}

/// Reads a message as ingress gives it.
pub(super) fn told(message: proto::Message) -> Option<Told> {
    let id: MessageId = message.id.parse().ok()?;
    Some(Told { id, channel: message.channel, author: message.author, text: message.text })
}
