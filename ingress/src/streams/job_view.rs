//! View of jobs on a stream: content is shown only for projects that its user is a member of.
//!
//! A stream begins with the memberships of its opening. Later changes are in the user's own log, between the events of jobs that
//! they concern, so that a stream learns of each exactly where it counts.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    auth::User,
    ids::{ProjectId, UserId},
    journal::{Entry, Topic},
    store::{Error, Reader, Tx},
};

use super::frame::Frame;

/// Replacement of an error's message for a caller who may not read it.
const HIDDEN: &str = "only members of the project see this";

const JOINED: &str = "membership.added";
const LEFT: &str = "membership.removed";

/// Writes into a user's log that the user is a member of a project from now on, or no more. Clients are not told of it.
pub(crate) fn record(
    tx: &mut Tx<'_>,
    user: &UserId,
    project_id: ProjectId,
    is_member: bool,
) -> Result<(), Error> {
    let kind = if is_member { JOINED } else { LEFT };
    // The map has text keys alone, so it can be written.
    let data = serde_json::to_string(&InProject { project_id }).unwrap_or_default();
    tx.append(&Topic::user(user), kind, &data).map(drop)
}

#[derive(Copy, Clone, Serialize, Deserialize)]
struct InProject {
    project_id: ProjectId,
}

/// Change of access to jobs that an entry of a job topic makes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    Job(ProjectId),
    Joined(ProjectId),
    Left(ProjectId),
}

impl Concern {
    /// Reads it out of an entry, `None` for entries of other logs.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let is: fn(ProjectId) -> Self = match &*entry.kind {
            kind if kind.starts_with("job.") => Self::Job,
            JOINED => Self::Joined,
            LEFT => Self::Left,
            _ => return None,
        };
        // One that cannot be read is of no project that anybody is in.
        let read = serde_json::from_str(&entry.data);
        Some(is(read.map_or(ProjectId(uuid::Uuid::nil()), |InProject { project_id }| project_id)))
    }
}

/// Part of an event or a job that a stream shows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Whole,
    /// All but its content.
    Stripped,
    Nothing,
}

/// Memberships of a stream's user.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobView {
    member_of: HashSet<ProjectId>,
    /// Admins see that other people's jobs exist.
    is_admin: bool,
    /// Number of the last entry of the user's log of which `member_of` knows.
    known: i64,
}

impl JobView {
    /// Reads the memberships of who opens a stream of jobs, in the transaction that opens it.
    pub(super) fn of(reader: &Reader<'_>, user: Option<&User>) -> Result<Option<Self>, Error> {
        let Some(User { id, roles, .. }) = user else { return Ok(None) };
        let known = reader.head(&Topic::user(id))?.map_or(0, |head| head.seq);
        // Members of a deleted project may be there for a while.
        let sql = "SELECT m.project_id FROM members m JOIN projects p ON p.id = m.project_id WHERE m.user_id = $1";
        let member_of = reader.query(sql, &[id.into()], |row| row.get(0))?;
        Ok(Some(Self { member_of: member_of.into_iter().collect(), is_admin: roles.admin, known }))
    }

    /// Returns what is shown of a job in the project.
    pub(super) fn of_project(&self, project: ProjectId) -> Sight {
        match self.member_of.contains(&project) {
            true => Sight::Whole,
            false if self.is_admin => Sight::Stripped,
            false => Sight::Nothing,
        }
    }

    /// Returns what is shown of a frame, and learns from it.
    pub(super) fn of_frame(&mut self, frame: &Frame) -> Sight {
        let Some(concern) = frame.concern else { return Sight::Whole };
        let is_news = frame.position.is_some_and(|position| position.seq > self.known);
        match concern {
            Concern::Job(project) => return self.of_project(project),
            Concern::Joined(project) if is_news => drop(self.member_of.insert(project)),
            Concern::Left(project) if is_news => drop(self.member_of.remove(&project)),
            Concern::Joined(_) | Concern::Left(_) => {}
        }
        Sight::Nothing
    }

    /// Learns that the user's log began anew, or lost its end: all that follows is news.
    pub(super) fn begin_again(&mut self) {
        self.known = 0;
    }

    /// Returns a job of a snapshot as the stream shows it, if it does.
    pub(super) fn job(&self, job: &str) -> Option<Value> {
        let mut job: Value = serde_json::from_str(job).ok()?;
        let project = job["project_id"].as_str().and_then(|project| project.parse().ok())?;
        match self.of_project(project) {
            Sight::Whole => Some(job),
            Sight::Stripped => {
                strip(&mut job);
                Some(job)
            }
            Sight::Nothing => None,
        }
    }
}

/// Returns the event of a job without its content, `None` if it is none.
pub(super) fn stripped(event: &str) -> Option<String> {
    let mut event: Value = serde_json::from_str(event).ok()?;
    strip(event.get_mut("job")?);
    Some(event.to_string())
}

fn strip(job: &mut Value) {
    for (part, field) in [("", "/result"), ("/progress", "/unit"), ("/progress", "/message")] {
        if let Some(value) = job.pointer_mut(&format!("{part}{field}")) {
            *value = Value::Null;
        }
    }
    if let Some(message) = job.pointer_mut("/error/message") {
        *message = HIDDEN.into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::{journal::Position, time::Timestamp};

    use super::*;

    fn frame(seq: i64, kind: &str, project: ProjectId) -> std::sync::Arc<Frame> {
        let job = json!({"project_id": project, "result": "secret", "state": "failed",
            "progress": {"done": 3, "unit": "secret", "message": "secret"}, "error": {"code": "x", "message": "secret"}});
        let data = json!({"type": kind, "project_id": project, "job": job}).to_string();
        Frame::entry(&Entry {
            topic: Topic::user(&"ada".parse().unwrap()),
            position: Position { epoch: 1, seq, tag: 0 },
            previous: None,
            kind: kind.into(),
            data: data.into(),
            at: Timestamp::from_ms(0),
        })
    }

    #[test]
    fn memberships_of_the_opening_hold_until_the_log_says_otherwise() {
        let (mine, other) = (ProjectId::mint(), ProjectId::mint());
        let mut view = JobView { member_of: HashSet::from([mine]), is_admin: false, known: 10 };
        // Entries from before the opening change nothing any more.
        assert_eq!(view.of_frame(&frame(3, LEFT, mine)), Sight::Nothing);
        assert_eq!(view.of_frame(&frame(4, JOINED, other)), Sight::Nothing);
        assert_eq!(view.of_frame(&frame(5, "job.failed", mine)), Sight::Whole);
        assert_eq!(view.of_frame(&frame(6, "job.failed", other)), Sight::Nothing);
        view.of_frame(&frame(11, JOINED, other));
        assert_eq!(view.of_frame(&frame(12, "job.failed", other)), Sight::Whole);
        view.of_frame(&frame(13, LEFT, mine));
        assert_eq!(view.of_frame(&frame(14, "job.failed", mine)), Sight::Nothing);
        view.is_admin = true;
        assert_eq!(view.of_frame(&frame(15, "job.failed", mine)), Sight::Stripped);
    }

    #[test]
    fn a_stripped_event_has_its_state_and_no_content() {
        let frame = frame(1, "job.failed", ProjectId::mint());
        let stripped = frame.stripped().expect("it is a job's");
        let text = String::from_utf8(stripped.text().to_vec()).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("\"state\":\"failed\"") && text.contains("\"code\":\"x\""), "{text}");
        let id = |frame: &Frame| {
            let text = String::from_utf8_lossy(frame.text()).into_owned();
            text.lines().find(|line| line.starts_with("id:")).map(str::to_owned)
        };
        assert!(id(stripped).is_some(), "{text}");
        assert_eq!(id(stripped), id(&frame));
    }
}
