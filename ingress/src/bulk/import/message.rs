//! Holds an imported message to chat's rules and gives it its id.

use proto::ImportMessage;
use serde_json::value::RawValue;
use shared::{
    ids::{ChannelName, Emoji, MessageId, ProjectId, UserId},
    names::{is_visible_emoji, without_invisible},
    time::Timestamp,
};

use crate::{bulk::identity::Identity, reactions::store::Imported};

/// The longest imported text in bytes; other systems allow more characters than ours.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// The longest imported metadata in bytes.
const MAX_METADATA_BYTES: usize = 4 * 1024;
/// The longest name of a message's own for its author, in characters.
const MAX_NAME_CHARS: usize = 200;

/// Author of a message of which nothing tells who wrote it.
pub(super) const UNKNOWN_AUTHOR: &str = "slack:unknown";
/// Author whom Slack names for the place of a deleted message.
const SLACKBOT: &str = "slack:USLACKBOT";

/// The latest time that can be shown, in microseconds: near the end of the year 9999.
pub(super) const LATEST_US: i64 = 253_402_207_200_000_000;

/// A message that chat's rules allow.
pub(super) struct Checked {
    /// Number of the message in the request.
    pub(super) index: u32,
    pub(super) id: MessageId,
    pub(super) channel: ChannelName,
    pub(super) author: UserId,
    /// The name that the message shows for its author.
    pub(super) author_name: Option<String>,
    pub(super) text: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Option<Timestamp>,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) reply_to: Option<Root>,
    pub(super) metadata: Option<String>,
    pub(super) reactions: Imported,
    /// Kinds of reaction with a name that none here can have.
    pub(super) reactions_refused: u64,
    /// True for a record, false for a further part of one.
    pub(super) is_counted: bool,
    pub(super) sent_at_us: i64,
    pub(super) occurrence: u32,
    part: u32,
    parts: u32,
}

/// The message that another one answers.
pub(super) struct Root {
    pub(super) id: MessageId,
    pub(super) channel: ChannelName,
    pub(super) sent_at: Timestamp,
    pub(super) sent_at_us: i64,
    pub(super) author: UserId,
}

impl Checked {
    /// Returns the message as chat takes it, or why it does not.
    pub(super) fn new(
        project: ProjectId,
        source: &str,
        index: u32,
        message: ImportMessage,
    ) -> Result<Self, &'static str> {
        let channel: ChannelName =
            message.channel.parse().map_err(|_| "the project has no such channel")?;
        let author = imported(&message.author).ok_or("the author has no valid id")?;
        let deleted = message.deleted_at_us.is_some();
        if message.text.is_empty() != deleted {
            return Err("the text is empty");
        }
        if message.text.len() > MAX_TEXT_BYTES || message.text.contains('\0') {
            return Err("the text is longer than 64 KiB or holds a NUL character");
        }
        let metadata = Some(message.metadata).filter(|metadata| !metadata.is_empty());
        let object = metadata.as_ref().is_none_or(|metadata| {
            metadata.starts_with('{')
                && metadata.len() <= MAX_METADATA_BYTES
                && !metadata.contains("\\u0000")
                && serde_json::from_str::<&RawValue>(metadata).is_ok()
        });
        if !object {
            return Err("the metadata is not a JSON object of at most 4 KiB");
        }
        if deleted && !(message.reactions.is_empty() && metadata.is_none()) {
            return Err("a deleted message has metadata or reactions");
        }
        let times = [Some(message.sent_at_us), message.edited_at_us, message.deleted_at_us];
        if !times.iter().flatten().all(|at| (0..LATEST_US).contains(at)) {
            return Err("a time is before 1970 or after 9999");
        }
        let identity = Identity {
            project,
            source,
            channel: &channel,
            sent_at_us: message.sent_at_us,
            occurrence: message.occurrence,
            part: message.part,
        };
        let id = identity.id().ok_or("there are too many messages of its time")?;
        let of = message.reply_to_channel.as_deref().map(str::parse::<ChannelName>);
        let of = of.transpose().map_err(|_| "the message that it answers has no valid channel")?;
        let root = message.reply_to_sent_at_us.and_then(|at| {
            let of = of.unwrap_or_else(|| channel.clone());
            let sent_at_us = Some(at).filter(|at| (0..LATEST_US).contains(at))?;
            let root =
                Identity { channel: &of, sent_at_us, occurrence: 0, part: 0, ..identity }.id()?;
            let author =
                imported(&message.reply_to_author).filter(|author| author.as_str() != SLACKBOT);
            let author = author.or_else(|| imported(UNKNOWN_AUTHOR))?;
            let sent_at = Timestamp::from_ms(sent_at_us / 1000);
            Some(Root { id: root, sent_at, sent_at_us, author, channel: of })
        });
        let mut reactions_refused = 0;
        let reactions = message.reactions.into_iter().filter_map(|reaction| {
            let emoji = reaction.emoji.parse::<Emoji>().ok();
            let Some(emoji) = emoji.filter(|emoji| is_visible_emoji(emoji.as_str())) else {
                reactions_refused += 1;
                return None;
            };
            let users = reaction.users.into_iter().filter_map(|user| imported(&user));
            Some((emoji, users.collect(), reaction.count))
        });
        let reactions = Imported::new(reactions);
        let author_name: String = message.author_name.chars().take(MAX_NAME_CHARS).collect();
        let author_name = without_invisible(&author_name).trim().to_owned();
        Ok(Self {
            index,
            id,
            author,
            author_name: Some(author_name).filter(|name| !name.is_empty()),
            text: message.text,
            created_at: Timestamp::from_ms(message.sent_at_us / 1000),
            updated_at: message.edited_at_us.map(|at| Timestamp::from_ms(at / 1000)),
            deleted_at: message.deleted_at_us.map(|at| Timestamp::from_ms(at / 1000)),
            reply_to: root.filter(|root| root.id != id),
            metadata,
            reactions,
            reactions_refused,
            is_counted: message.part == 0,
            sent_at_us: message.sent_at_us,
            occurrence: message.occurrence,
            part: message.part,
            parts: message.parts.max(1),
            channel,
        })
    }

    /// Gives the message another number among those of its time; false if there is no such number.
    pub(super) fn set_occurrence(
        &mut self,
        project: ProjectId,
        source: &str,
        occurrence: u32,
    ) -> bool {
        let (sent_at_us, part) = (self.sent_at_us, self.part);
        let channel = &self.channel;
        let id = Identity { project, source, channel, sent_at_us, occurrence, part }.id();
        let Some(id) = id else { return false };
        self.id = id;
        self.occurrence = occurrence;
        true
    }

    /// Returns the ids of parts that the text does not have any more, if it had them before.
    pub(super) fn parts_beyond<'a>(
        &'a self,
        project: ProjectId,
        source: &'a str,
    ) -> impl Iterator<Item = MessageId> + use<'a> {
        let (sent_at_us, occurrence) = (self.sent_at_us, self.occurrence);
        let identity =
            Identity { project, source, channel: &self.channel, sent_at_us, occurrence, part: 0 };
        let first = if self.is_counted { self.parts } else { u32::MAX };
        (first..).map_while(move |part| Identity { part, ..identity }.id())
    }
}

/// An imported id names its source before a colon, which keeps it apart from every login.
pub(super) fn imported(id: &str) -> Option<UserId> {
    id.parse().ok().filter(UserId::is_imported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imported_author_is_never_a_login() {
        assert!(imported("slack:U0055C244").is_some());
        for login in ["ada", "oidc:ada", "f:4711:ada", "auth0|ada", "slack:"] {
            assert!(imported(login).is_none(), "{login}");
        }
        assert!(imported(UNKNOWN_AUTHOR).is_some());
    }
}
