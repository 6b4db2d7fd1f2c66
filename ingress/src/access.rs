//! Who may do what in a project.

mod guard;

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shared::{
    auth::User,
    http::current_trace,
    ids::{ProjectId, TraceId, UserId},
    journal::Topic,
    store::{Error, Reader, Tx},
    time::Timestamp,
};

pub(crate) use self::guard::{
    Admin, As, AtLeast, Granted, Guarded, Member, Own, Owner, Viewer, Writes,
};
use crate::error::ApiError;

/// What a member may do; each role may do what the ones before it may.
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// May read.
    Viewer,
    /// May write.
    Member,
    /// May say who else is in, and change or end the project.
    Owner,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Owner => "owner",
        }
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Viewer, Self::Member, Self::Owner]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(())
    }
}

/// A caller in a project: who does what, and in which trace.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) project: ProjectId,
    pub(crate) user: UserId,
    pub(crate) trace: TraceId,
}

/// What every change to a project needs to be told to its members.
#[derive(Serialize)]
struct Event<'a, T: Serialize> {
    r#type: &'a str,
    project_id: ProjectId,
    at: Timestamp,
    actor: &'a UserId,
    trace_id: &'a TraceId,
    #[serde(flatten)]
    resource: T,
}

impl Caller {
    pub(crate) fn new(project: ProjectId, user: &User) -> Self {
        let trace = current_trace().unwrap_or_else(TraceId::mint);
        Self { project, user: user.id.clone(), trace }
    }

    /// Returns the caller's role, `None` for a stranger.
    pub(crate) fn role(&self, reader: &Reader<'_>) -> Result<Option<Role>, Error> {
        // Of a deleted project the members are there for a while.
        let sql = "SELECT m.role FROM members m JOIN projects p ON p.id = m.project_id \
                   WHERE m.project_id = $1 AND m.user_id = $2";
        reader.find(sql, &[self.project.into(), (&self.user).into()], |row| row.parse(0))
    }

    /// Returns the project's log: what is written under its lock is not disturbed by others.
    pub(crate) fn topic(&self) -> Topic {
        Topic::project(self.project)
    }

    /// Appends an event about `resource`, an object of its fields, to the project's log.
    pub(crate) fn record(
        &self,
        tx: &mut Tx<'_>,
        kind: &str,
        resource: &impl Serialize,
    ) -> Result<(), ApiError> {
        tx.append(&self.topic(), kind, &self.event(kind, resource, tx.now())?)?;
        Ok(())
    }

    /// Returns the JSON of an event by this caller, which happens `at` a time by the database's clock.
    pub(crate) fn event(
        &self,
        kind: &str,
        resource: &impl Serialize,
        at: Timestamp,
    ) -> Result<String, ApiError> {
        Ok(serde_json::to_string(&Event {
            r#type: kind,
            project_id: self.project,
            at,
            actor: &self.user,
            trace_id: &self.trace,
            resource,
        })?)
    }
}
