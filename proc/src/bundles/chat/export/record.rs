//! Turns the lines of a project into the records of a Slack export.

use std::{collections::HashSet, io};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::time::Timestamp;

use super::line::{ChannelLine, MessageLine, PersonLine, ReactionLine};
use crate::bundles::chat::{
    names::{channel_id, exported, folder, is_login},
    slack::{Answered, KEPT_SUBTYPES, Own, OwnChannel, TOMBSTONE, Ts},
};

/// Answers that the first message of a thread lists, so that it stays within what an import takes for one record.
const MAX_LISTED_REPLIES: usize = 10_000;
const MAX_LISTED_USERS: usize = 100;

/// An entry of `users.json`.
#[derive(Serialize)]
pub(super) struct User<'a> {
    id: String,
    name: &'a str,
    deleted: bool,
    is_bot: bool,
    profile: Profile<'a>,
}

#[derive(Serialize)]
struct Profile<'a> {
    real_name: &'a str,
    display_name: &'a str,
}

impl User<'_> {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn is_login(&self) -> bool {
        is_login(&self.id)
    }
}

pub(super) fn user(PersonLine { id, name, is_bot }: &PersonLine) -> User<'_> {
    let profile = Profile { real_name: name, display_name: name };
    User { id: exported(id), name, deleted: false, is_bot: *is_bot, profile }
}

/// An entry of `channels.json`.
#[derive(Serialize)]
pub(super) struct Channel {
    id: String,
    name: String,
    created: i64,
    is_archived: bool,
    is_general: bool,
    members: [String; 0],
    topic: Described,
    purpose: Described,
    parley: OwnChannel,
}

#[derive(Default, Serialize)]
struct Described {
    value: String,
}

pub(super) fn channel(ChannelLine { name, topic, created_at }: &ChannelLine) -> Channel {
    let shown = folder(name);
    let parley = OwnChannel {
        name: (shown != *name).then(|| name.clone()),
        topic: topic.clone().filter(String::is_empty),
        created_ms: Some(created_at.as_ms()),
    };
    Channel {
        id: channel_id(name),
        name: shown,
        created: created_at.as_ms().div_euclid(1_000),
        is_archived: false,
        is_general: name == "general",
        members: [],
        topic: Described { value: escaped(topic.as_deref().unwrap_or_default()) },
        purpose: Described::default(),
        parley,
    }
}

/// A record of a day.
#[derive(Serialize)]
struct Message<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtype: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bot_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    text: String,
    ts: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_ts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited: Option<Edited>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reactions: Vec<Reaction<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parley: Option<Box<RawValue>>,
}

/// Summary of a thread in its first message.
#[derive(Serialize)]
pub(super) struct Thread<'a> {
    /// Only if the message does not name a thread itself.
    #[serde(rename = "thread_ts", skip_serializing_if = "Option::is_none")]
    root_ts: Option<String>,
    reply_count: usize,
    reply_users_count: usize,
    latest_reply: String,
    reply_users: Vec<&'a str>,
    replies: Vec<ReplyEntry<'a>>,
}

#[derive(Serialize)]
struct ReplyEntry<'a> {
    user: &'a str,
    ts: String,
}

/// An answer in a thread, under the id that its author has in the archive.
pub(super) struct Reply<'a> {
    pub(super) sent_at_us: i64,
    pub(super) user: &'a str,
}

/// Returns what a message with answers tells of them; those beyond [`MAX_LISTED_REPLIES`] are counted.
pub(super) fn thread<'a>(
    sent_at_us: i64,
    names_thread: bool,
    replies: &[Reply<'a>],
) -> io::Result<Thread<'a>> {
    let mut seen = HashSet::new();
    let users = replies.iter().map(|reply| reply.user).filter(|user| seen.insert(*user));
    let mut reply_users: Vec<&str> = users.collect();
    let reply_users_count = reply_users.len();
    reply_users.truncate(MAX_LISTED_USERS);
    let latest = replies.iter().map(|reply| reply.sent_at_us).max().unwrap_or(sent_at_us);
    let entry = |reply: &Reply<'a>| {
        Ok::<_, io::Error>(ReplyEntry { user: reply.user, ts: ts(reply.sent_at_us)?.to_string() })
    };
    Ok(Thread {
        root_ts: if names_thread { None } else { Some(ts(sent_at_us)?.to_string()) },
        reply_count: replies.len(),
        reply_users_count,
        latest_reply: ts(latest)?.to_string(),
        reply_users,
        replies: replies.iter().take(MAX_LISTED_REPLIES).map(entry).collect::<Result<_, _>>()?,
    })
}

fn ts(at: i64) -> io::Result<Ts> {
    Ts::from_micros(at).ok_or_else(|| io::Error::other("a time is before 1970"))
}

#[derive(Serialize)]
struct Edited {
    user: String,
    ts: String,
}

#[derive(Serialize)]
struct Reaction<'a> {
    name: &'a str,
    users: Vec<String>,
    count: usize,
}

/// What an import has kept of Slack's own in the metadata.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Kept {
    subtype: Option<String>,
    bot: bool,
}

pub(super) fn message<'a>(line: &'a MessageLine<'_>) -> io::Result<impl Serialize + use<'a>> {
    let of_ms = |at: Timestamp| ts(at.as_ms().saturating_mul(1_000));
    let deleted = line.deleted_at.map(of_ms).transpose()?;
    let thread = line.parent.as_ref().and_then(|parent| parent.thread.as_ref());
    let mut own = Own {
        metadata: line.metadata.map(|metadata| metadata.get().to_owned()),
        reply_to: None,
        deleted,
    };
    if let Some(parent) = &line.parent {
        // Slack's threads have no threads, are of one channel, and follow what they answer.
        let plain = parent.channel == line.channel
            && parent.sent_at_us < line.sent_at_us
            && thread.is_some_and(|thread| thread.sent_at_us == parent.sent_at_us);
        if !plain {
            let (channel, ts) = (folder(&parent.channel), ts(parent.sent_at_us)?);
            own.reply_to = Some(Answered { channel, ts });
        }
    }
    let kept = kept(line.metadata);
    let subtype = if deleted.is_some() {
        Some(TOMBSTONE)
    } else {
        KEPT_SUBTYPES.into_iter().find(|known| kept.subtype.as_deref() == Some(known))
    };
    let author = exported(&line.author);
    let bot = deleted.is_none() && (kept.bot || subtype == Some("bot_message"));
    let named = bot && line.author_name != line.author;
    let parley =
        if own.is_empty() { None } else { Some(serde_json::value::to_raw_value(&own.fields()?)?) };
    Ok(Message {
        r#type: "message",
        subtype,
        edited: line
            .updated_at
            .map(|at| {
                Ok::<_, io::Error>(Edited { user: author.clone(), ts: of_ms(at)?.to_string() })
            })
            .transpose()?,
        bot_id: bot.then(|| author.clone()),
        // Other readers find the replies of a thread by their users.
        user: Some(author),
        username: named.then_some(line.author_name.as_str()),
        text: if deleted.is_some() {
            "This message was deleted.".into()
        } else {
            escaped(&line.text)
        },
        ts: ts(line.sent_at_us)?.to_string(),
        thread_ts: thread.map(|thread| ts(thread.sent_at_us)).transpose()?.map(|ts| ts.to_string()),
        parent_user_id: thread.map(|thread| exported(&thread.author)),
        reactions: line
            .reactions
            .iter()
            .map(|ReactionLine { emoji, users, count }| Reaction {
                name: emoji,
                users: users.iter().map(|user| exported(user)).collect(),
                count: users.len().max(*count),
            })
            .collect(),
        parley,
    })
}

fn kept(metadata: Option<&RawValue>) -> Kept {
    #[derive(Deserialize)]
    struct Metadata {
        slack: Kept,
    }
    let kept = metadata.and_then(|metadata| serde_json::from_str::<Metadata>(metadata.get()).ok());
    kept.map(|metadata| metadata.slack).unwrap_or_default()
}

/// Returns plain text in Slack's markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use crate::bundles::chat::export::line::Line;

    #[test]
    fn others_find_slacks_own_fields() {
        let line = json!({
            "kind": "message", "channel": "general", "author": "slack:B1", "author_name": "Hal", "text": "1 < 2",
            "metadata": {"slack": {"bot": true, "subtype": "bot_message"}}, "created_at": "2020-09-13T12:26:41.000Z",
            "reactions": [{"emoji": "+1", "users": ["ada"]}], "sent_at_us": 1_600_000_001_000_100_i64,
            "updated_at": null, "deleted_at": null,
            "parent": {"channel": "general", "sent_at_us": 1_600_000_000_000_000_i64,
                "thread": {"sent_at_us": 1_600_000_000_000_000_i64, "author": "slack:U1"}},
        });
        let line = line.to_string();
        let Ok(Line::Message(message)) = Line::parse(line.as_bytes()) else { panic!("{line}") };
        let record = serde_json::to_value(super::message(&message).unwrap()).unwrap();
        let own = RawValue::from_string(message.metadata.unwrap().get().to_owned()).unwrap();
        assert_eq!(
            record,
            json!({
                "type": "message", "subtype": "bot_message", "user": "B1", "bot_id": "B1", "username": "Hal",
                "text": "1 &lt; 2", "ts": "1600000001.000100", "thread_ts": "1600000000.000000", "parent_user_id": "U1",
                "reactions": [{"name": "+1", "users": ["~ada"], "count": 1}], "parley": {"metadata": own},
            })
        );
    }
}
