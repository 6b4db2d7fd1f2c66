//! Holds an imported message to chat's rules and gives it its id.

use proto::ImportMessage;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use shared::{
    ids::{ChannelName, Emoji, MessageId, ProjectId, UserId},
    time::Timestamp,
};

use crate::reactions::store::Imported;

/// The longest imported text in bytes; other systems allow more characters than ours.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// The longest imported metadata in bytes.
const MAX_METADATA_BYTES: usize = 4 * 1024;

/// The latest time that can be shown, in microseconds: near the end of the year 9999.
pub(super) const LATEST_US: i64 = 253_402_207_200_000_000;

/// A message that chat's rules allow.
pub(super) struct Checked {
    pub(super) id: MessageId,
    pub(super) channel: ChannelName,
    pub(super) author: UserId,
    pub(super) text: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Option<Timestamp>,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) reply_to: Option<MessageId>,
    /// Whether the message that this one answers need not be here yet.
    pub(super) reply_to_any: bool,
    pub(super) metadata: Option<String>,
    pub(super) reactions: Imported,
}

impl Checked {
    pub(super) fn new(project: ProjectId, source: &str, message: ImportMessage) -> Option<Self> {
        let channel: ChannelName = message.channel.parse().ok()?;
        let author = imported(&message.author)?;
        let deleted = message.deleted_at_us.is_some();
        let fits = message.text.is_empty() == deleted
            && message.text.len() <= MAX_TEXT_BYTES
            && !message.text.contains('\0');
        let metadata = Some(message.metadata).filter(|metadata| !metadata.is_empty());
        let object = metadata.as_ref().is_none_or(|metadata| {
            metadata.starts_with('{')
                && metadata.len() <= MAX_METADATA_BYTES
                && !metadata.contains("\\u0000")
                && serde_json::from_str::<&RawValue>(metadata).is_ok()
        });
        let bare = message.reactions.is_empty() && metadata.is_none();
        let times = [Some(message.sent_at_us), message.edited_at_us, message.deleted_at_us];
        let shown = times.iter().flatten().all(|at| (0..LATEST_US).contains(at));
        if !fits || !object || !shown || (deleted && !bare) {
            return None;
        }
        let answers = message.reply_to_channel.as_deref().map(str::parse::<ChannelName>);
        let answers = answers.transpose().ok()?;
        let parents = answers.as_ref().unwrap_or(&channel);
        let reply_to =
            message.reply_to_sent_at_us.and_then(|at| identity(project, source, parents, at));
        let reactions = message.reactions.into_iter().filter_map(|reaction| {
            let emoji = reaction.emoji.parse::<Emoji>().ok()?;
            let users = reaction.users.into_iter().filter_map(|user| imported(&user));
            Some((emoji, users.collect()))
        });
        Some(Self {
            id: identity(project, source, &channel, message.sent_at_us)?,
            author,
            text: message.text,
            created_at: Timestamp::from_ms(message.sent_at_us / 1000),
            updated_at: message.edited_at_us.map(|at| Timestamp::from_ms(at / 1000)),
            deleted_at: message.deleted_at_us.map(|at| Timestamp::from_ms(at / 1000)),
            reply_to,
            reply_to_any: answers.is_some(),
            metadata,
            reactions: Imported::new(reactions),
            channel,
        })
    }
}

/// An imported id names its source before a colon, which keeps it apart from every login.
pub(super) fn imported(id: &str) -> Option<UserId> {
    id.parse().ok().filter(UserId::is_imported)
}

/// Returns the id that a message of another system has here: the same each time it is imported into the project, and in
/// the order of time like every other. The microseconds within the millisecond stand where RFC 9562 (§6.2, method 3) has
/// them.
fn identity(
    project: ProjectId,
    source: &str,
    channel: &ChannelName,
    sent_at_us: i64,
) -> Option<MessageId> {
    let sent_at_us = u64::try_from(sent_at_us).ok()?;
    let mut digest = Sha256::new();
    digest.update(project.0.as_bytes());
    for part in [source, channel.as_str()] {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.update(sent_at_us.to_be_bytes());
    let digest = digest.finalize();
    let mut low = [0; 10];
    low.copy_from_slice(&digest[..10]);
    let fraction = u16::try_from(sent_at_us % 1000 * 4096 / 1000).ok()?;
    low[..2].copy_from_slice(&fraction.to_be_bytes());
    Some(MessageId(uuid::Builder::from_unix_timestamp_millis(sent_at_us / 1000, &low).into_uuid()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_identity_is_stable_and_sorts_by_time() {
        let project = ProjectId(Uuid::nil());
        let channel: ChannelName = "general".parse().unwrap();
        let id = |at| identity(project, "slack", &channel, at).unwrap();
        assert_eq!(id(1_107_856_560_000_001), id(1_107_856_560_000_001));
        let times = [0, 1, 2, 999, 1000, 1001, 1_107_856_560_000_000, 1_107_856_560_000_001];
        assert!(times.windows(2).all(|pair| id(pair[0]) < id(pair[1])));
        assert_eq!(id(5).0.get_version_num(), 7);
        assert_ne!(id(5), identity(project, "other", &channel, 5).unwrap());
    }

    #[test]
    fn an_imported_author_is_never_a_login() {
        assert!(imported("slack:U0055C244").is_some());
        for login in ["ada", "oidc:ada", "f:4711:ada", "auth0|ada", "slack:"] {
            assert!(imported(login).is_none(), "{login}");
        }
    }
}
