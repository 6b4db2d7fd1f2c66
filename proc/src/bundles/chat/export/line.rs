//! The lines of an export by channel, as ingress writes them.

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::time::Timestamp;

use crate::bundles::chat::names::{exported, is_login};

/// What a line tells.
pub(super) enum Line<'a> {
    Channel(ChannelLine),
    Person(PersonLine),
    Message(MessageLine<'a>),
    Other,
}

#[derive(Deserialize)]
pub(super) struct ChannelLine {
    pub(super) name: String,
    pub(super) topic: Option<String>,
    pub(super) created_at: Timestamp,
}

#[derive(Deserialize)]
pub(super) struct PersonLine {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) is_bot: bool,
}

#[derive(Deserialize)]
pub(super) struct MessageLine<'a> {
    pub(super) channel: String,
    pub(super) author: String,
    pub(super) author_name: String,
    pub(super) text: String,
    #[serde(borrow)]
    pub(super) metadata: Option<&'a RawValue>,
    pub(super) reactions: Vec<ReactionLine>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Option<Timestamp>,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) sent_at_us: i64,
    pub(super) parent: Option<ParentLine>,
}

#[derive(Deserialize)]
pub(super) struct ReactionLine {
    pub(super) emoji: String,
    pub(super) users: Vec<String>,
    /// Users who reacted so, of whom not all may be named.
    #[serde(default)]
    pub(super) count: usize,
}

#[derive(Deserialize)]
pub(super) struct ParentLine {
    pub(super) channel: String,
    pub(super) sent_at_us: i64,
    pub(super) thread: Option<ThreadLine>,
}

#[derive(Deserialize)]
pub(super) struct ThreadLine {
    pub(super) sent_at_us: i64,
    pub(super) author: String,
}

impl<'a> Line<'a> {
    /// Reads a line of an export by channel.
    pub(super) fn parse(line: &'a [u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            kind: &'a str,
        }
        let Kind { kind } = serde_json::from_slice(line)?;
        Ok(match kind {
            "channel" => Self::Channel(serde_json::from_slice(line)?),
            "person" => Self::Person(serde_json::from_slice(line)?),
            "message" => Self::Message(serde_json::from_slice(line)?),
            _ => Self::Other,
        })
    }
}

impl MessageLine<'_> {
    /// Returns those who said something here and have a login, as the archive names them.
    pub(super) fn logins(&self) -> impl Iterator<Item = String> {
        let users = self.reactions.iter().flat_map(|reaction| &reaction.users);
        let users = users.chain([&self.author]).map(|user| exported(user));
        users.filter(|user| is_login(user))
    }
}
