//! What limits of streams count over.

use shared::ids::{ProjectId, SessionId, UserId};

/// What a limit counts over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// A user's streams of a project.
    Project(ProjectId, UserId),
    /// A user's streams of answers.
    Answers(UserId),
    /// A session's.
    Session(SessionId),
    /// A client address's, by its limit key.
    Address(String),
}

/// What a scope is called.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Answers,
    Session,
    Ip,
}

impl Scope {
    /// Returns the key. A user's scopes are side by side, which is how their streams are found without an index.
    pub(crate) fn key(&self) -> Box<str> {
        match self {
            Self::Project(project, user) => format!("user/{user}/{project}"),
            Self::Answers(user) => format!("user/{user}/answers"),
            Self::Session(session) => format!("session/{session}"),
            Self::Address(address) => format!("ip/{address}"),
        }
        .into()
    }

    /// Returns what it is called.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Project(..) => Kind::User,
            Self::Answers(_) => Kind::Answers,
            Self::Session(_) => Kind::Session,
            Self::Address(_) => Kind::Ip,
        }
    }
}

impl Kind {
    /// Returns the name that programs read.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User | Self::Answers => "user",
            Self::Session => "session",
            Self::Ip => "ip",
        }
    }

    /// Returns the name that people read.
    pub(crate) fn for_people(self) -> &'static str {
        match self {
            Self::User => "user/project",
            Self::Answers => "user",
            Self::Session => "session",
            Self::Ip => "IP",
        }
    }
}

/// A slot that a stream needs.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) scope: Scope,
    /// How many the scope has; 0 refuses all.
    pub(crate) limit: i64,
}
