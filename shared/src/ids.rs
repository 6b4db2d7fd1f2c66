//! Typed ids, parsed at the edge.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Why a text is no id.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is a UUID in lower case with hyphens, as in 0199c0de-0000-7000-8000-000000000000")]
pub struct NotCanonical;

/// Reads a UUID in its one spelling: proxies, logs and caches compare ids as text.
fn canonical(text: &str) -> Result<Uuid, NotCanonical> {
    let id = Uuid::try_parse(text).map_err(|_| NotCanonical)?;
    let mut buffer = Uuid::encode_buffer();
    let is_canonical = text == id.hyphenated().encode_lower(&mut buffer);
    if is_canonical { Ok(id) } else { Err(NotCanonical) }
}

/// An id that Parley mints: a `UUIDv7`, so that ids sort by the time of their making.
macro_rules! minted {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
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
            type Err = NotCanonical;

            fn from_str(text: &str) -> Result<Self, NotCanonical> {
                canonical(text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                canonical(&text).map(Self).map_err(serde::de::Error::custom)
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
    /// A user: the name in `simple` mode, the token's user claim or a derived id with OIDC, `<source>:<id>` for an imported author.
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
    Emoji: "an emoji has 1 to 100 characters and then a skin tone at most, none of them blank or a control",
        |text| (1..=100).contains(&without_skin_tone(text).chars().count())
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || "/<>\"".contains(c));
    /// What makes a retried request the same request.
    IdempotencyKey: "an idempotency key has 1 to 128 visible ASCII characters",
        |text| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
}

/// Returns the name of an emoji without the skin tone that Slack puts behind it, as in `clap::skin-tone-3`.
fn without_skin_tone(emoji: &str) -> &str {
    let tone = |&(_, tone): &(&str, &str)| matches!(tone, "2" | "3" | "4" | "5" | "6");
    emoji.rsplit_once("::skin-tone-").filter(tone).map_or(emoji, |(name, _)| name)
}

/// Prefixes of the ids of imported people, one for each source of an import.
const IMPORT_PREFIXES: &[&str] = &["slack:"];
/// Prefix of ids that are derived from a claim which is no valid id itself.
const DERIVED_PREFIX: &str = "oidc:";
/// Prefix kept for users whose account was deleted.
const DELETED_PREFIX: &str = "deleted:";

impl UserId {
    /// Returns whether no login may have this id by itself. Upper case counts too, since people would not see the difference.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let reserved = IMPORT_PREFIXES.iter().chain([&DERIVED_PREFIX, &DELETED_PREFIX]);
        let begins = |prefix: &&str| {
            self.0.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        reserved.into_iter().any(begins)
    }

    /// Returns whether the id is of a person whom an import brought, and so of no login.
    #[must_use]
    pub fn is_imported(&self) -> bool {
        IMPORT_PREFIXES
            .iter()
            .any(|prefix| self.0.len() > prefix.len() && self.0.starts_with(prefix))
    }

    /// Derives the id of a login whose claim cannot be one, always the same for the same issuer and claim.
    pub(crate) fn derive(issuer: &str, claim: &str) -> Self {
        // No issuer has a NUL in its name, so two different pairs are never the same bytes.
        let digest =
            Sha256::new().chain_update(issuer).chain_update([0]).chain_update(claim).finalize();
        let text = BASE32_NOPAD.encode(&digest).to_ascii_lowercase();
        Self(format!("{DERIVED_PREFIX}{text}"))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_imports_and_derived_ids_are_reserved() {
        for (id, is_reserved, is_imported) in [
            ("ada", false, false),
            ("auth0|ada", false, false),
            ("f:4711:ada", false, false),
            ("slack", false, false),
            ("slackers:ada", false, false),
            ("slack:", true, false),
            ("slack:U1", true, true),
            ("Slack:U1", true, false),
            ("oidc:ada", true, false),
            ("deleted:ada", true, false),
        ] {
            let user: UserId = id.parse().unwrap();
            assert_eq!(
                (user.is_reserved(), user.is_imported()),
                (is_reserved, is_imported),
                "{id}"
            );
        }
    }

    #[test]
    fn an_emoji_has_up_to_100_characters_in_any_script_and_a_skin_tone() {
        for (emoji, is_valid) in [
            ("+1".to_owned(), true),
            ("a".repeat(100), true),
            ("a".repeat(101), false),
            ("語".repeat(100), true),
            ("語".repeat(101), false),
            (format!("{}::skin-tone-6", "a".repeat(100)), true),
            (format!("{}::skin-tone-7", "a".repeat(100)), false),
            ("::skin-tone-2".to_owned(), false),
            (String::new(), false),
            ("a b".to_owned(), false),
        ] {
            assert_eq!(emoji.parse::<Emoji>().is_ok(), is_valid, "{emoji}");
        }
    }

    #[test]
    fn a_derived_id_is_valid_and_stable() {
        let derived = UserId::derive("https://auth.example", "DOM\\ada");
        // Members and authors are stored by this text, so it may never change.
        assert_eq!(derived.as_str(), "oidc:vqlsinmx5cwdrnqgxe4wpdudxm3q5z3wsjkow7s2uhs7htga5d6a");
        assert_eq!(derived.as_str().parse(), Ok(derived.clone()));
        assert!(derived.is_reserved() && !derived.is_imported());
        assert_ne!(derived, UserId::derive("https://auth.example/", "DOM\\ada"));
        assert_ne!(derived, UserId::derive("https://auth.example", "DOM\\Ada"));
    }
}
