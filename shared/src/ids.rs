//! Typed ids, parsed at the edge.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An id that Parley mints: a `UUIDv7`, so that ids sort by the time of their making.
macro_rules! minted {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Mints a new id.
            #[must_use]
            pub fn mint() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl crate::store::Column for $name {
            fn from_value(value: crate::store::ColumnValue<'_>) -> Option<Self> {
                Uuid::from_value(value).map(Self)
            }
        }

        impl From<$name> for crate::store::Value<'static> {
            fn from(id: $name) -> Self {
                Self::Uuid(id.0)
            }
        }
    )*};
}

minted! {
    /// A project: the room that has members, channels and one log.
    ProjectId
    /// A channel of a project.
    ChannelId
    /// A message.
    MessageId
    /// A job of proc.
    JobId
    /// An answer to a question.
    AnswerId
    /// A call of an operation that is repeated.
    ScheduleId
    /// An uploaded file that a job may read.
    UploadId
    /// An open stream's connection.
    ConnectionId
    /// A subscription of a URL to the events of a project.
    WebhookId
    /// A process that serves streams.
    ReplicaId
}

/// A string that is checked when it is made: length, characters.
macro_rules! checked {
    ($($(#[$doc:meta])* $name:ident: $rule:literal, $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// Returns the text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(Invalid($rule)) }
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::try_from(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl crate::store::Column for $name {
            fn from_value(value: crate::store::ColumnValue<'_>) -> Option<Self> {
                String::from_value(value).map(Self)
            }
        }

        impl<'a> From<&'a $name> for crate::store::Value<'a> {
            fn from(id: &'a $name) -> Self {
                Self::Text(&id.0)
            }
        }
    )*};
}

/// Why a checked string was refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(&'static str);

fn is_word(text: &str, longest: usize, also: &str) -> bool {
    (1..=longest).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

checked! {
    /// A user: the name in `simple` mode, the token's `sub` with OIDC, `<source>:<id>` for an imported author.
    UserId: "a user id has 1 to 128 characters of A-Z a-z 0-9 . _ @ | : + -",
        |text| is_word(text, 128, "._@|:+-");
    /// A session that the client names, bound to the first user who shows it.
    SessionId: "a session id has 1 to 128 characters of A-Z a-z 0-9 . _ -",
        |text| is_word(text, 128, "._-");
    /// A request's trace.
    TraceId: "a trace id has 1 to 64 characters of A-Z a-z 0-9 . _ -",
        |text| is_word(text, 64, "._-");
    /// A channel's name, which is how messages name it.
    ChannelName: "a channel name has 1 to 80 characters, none of them blank, a control, upper case, or one of , / # @ ? & \"",
        |text| (1..=80).contains(&text.chars().count())
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c.is_uppercase() || ",/#@?&\"".contains(c));
    /// A reaction: an emoji or the short name of one.
    Emoji: "an emoji has 1 to 64 bytes, none of them blank or a control",
        |text| (1..=64).contains(&text.len())
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || "/<>\"".contains(c));
    /// What makes a retried request the same request.
    IdempotencyKey: "an idempotency key has 1 to 128 visible ASCII characters",
        |text| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
}

impl TraceId {
    /// Mints a new trace id.
    #[must_use]
    pub fn mint() -> Self {
        Self(Uuid::now_v7().simple().to_string())
    }
}

impl SessionId {
    /// Mints a new session id.
    #[must_use]
    pub fn mint() -> Self {
        Self(Uuid::now_v7().to_string())
    }
}
