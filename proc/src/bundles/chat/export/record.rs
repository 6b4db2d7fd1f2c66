//! Turns the lines of a project into the records of a Slack export.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::time::Timestamp;

use crate::bundles::chat::{
    names::{channel_id, exported, folder},
    slack::{Answered, KEPT_SUBTYPES, Own, OwnChannel, TOMBSTONE, Ts},
};

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
    /// Returns the day it was sent on.
    pub(super) fn day(&self) -> String {
        self.created_at.to_string().chars().take("2004-11-15".len()).collect()
    }

    /// Returns those who said something here and have a login, as the archive names them.
    pub(super) fn logins(&self) -> impl Iterator<Item = String> {
        let users = self.reactions.iter().flat_map(|reaction| &reaction.users);
        let users = users.chain([&self.author]).map(|user| exported(user));
        users.filter(|user| is_login(user))
    }
}

fn is_login(exported: &str) -> bool {
    exported.starts_with('~')
}

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
    let ts = |at: i64| Ts::from_micros(at).ok_or_else(|| io::Error::other("a time is before 1970"));
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
        user: (!bot).then_some(author),
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
            .map(|ReactionLine { emoji, users }| Reaction {
                name: emoji,
                users: users.iter().map(|user| exported(user)).collect(),
                count: users.len(),
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
