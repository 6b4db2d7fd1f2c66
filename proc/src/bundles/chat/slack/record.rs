//! Judges one element of a day file: a message to keep, one to skip, or a broken record.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Deletion, Message, Outcome, Own, Reaction, Ts,
    content::{Content, TooLong},
    index::{self, Place},
    lenient,
};

/// Author of messages of which Slack did not record who wrote them.
const UNKNOWN_AUTHOR: &str = "unknown";
const UNKNOWN_NAME: &str = "Unknown author";
/// What Slack says in place of a deleted message that has answers.
pub const TOMBSTONE: &str = "tombstone";
/// What Slack's events say of a message that was deleted.
const MESSAGE_DELETED: &str = "message_deleted";
/// Kinds of records that say that a message was deleted.
pub(super) const DELETIONS: [&str; 2] = [TOMBSTONE, MESSAGE_DELETED];
/// Author of Slack's own texts, also of those in place of deleted messages.
const SLACKBOT: &str = "USLACKBOT";
const MAX_KIND_CHARS: usize = 64;

/// Subtypes whose text somebody said; all others are Slack's own notices.
pub const KEPT_SUBTYPES: [&str; 6] = [
    "me_message",
    "bot_message",
    "thread_broadcast",
    "reply_broadcast",
    "file_share",
    "file_comment",
];

/// Holds the fields that matter, of any type, so that a wrong one can be named.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    r#type: Value,
    subtype: Value,
    ts: Value,
    thread_ts: Value,
    text: Value,
    user: Value,
    bot_id: Value,
    app_id: Value,
    username: Value,
    user_profile: Value,
    bot_profile: Value,
    comment: Value,
    edited: Value,
    reactions: Value,
    file: Value,
    files: Value,
    parent_user_id: Value,
    deleted_ts: Value,
    previous_message: Value,
    #[serde(borrow)]
    blocks: Option<&'a RawValue>,
    #[serde(borrow)]
    attachments: Option<&'a RawValue>,
    #[serde(borrow)]
    parley: Option<&'a RawValue>,
}

/// Holds why there is no message to keep: a kind or a reason.
enum Rejected {
    Deleted(Deletion),
    Skipped(String),
    Failed(String),
}

/// Judges the element `json` of a file of the channel of `place`.
pub(super) fn outcome(json: &[u8], place: Place<'_>) -> Outcome {
    match judge(json, place) {
        Ok(message) => Outcome::Message(message),
        Err(Rejected::Deleted(deletion)) => Outcome::Deleted(deletion),
        Err(Rejected::Skipped(kind)) => Outcome::Skipped(kind),
        Err(Rejected::Failed(reason)) => Outcome::Failed(reason),
    }
}

fn judge(json: &[u8], place: Place<'_>) -> Result<Message, Rejected> {
    // Checked first because serde would also take an array for the fields in order.
    if !json.starts_with(b"{") {
        return Err(failed("record is not a JSON object"));
    }
    let whole;
    let mut fields = serde_json::from_slice(json);
    if fields.is_err() {
        whole = lenient::whole_characters(json);
        fields = serde_json::from_slice(&whole);
    }
    let fields: Fields<'_> = fields.map_err(|error| {
        // The error's own text can quote the message.
        Rejected::Failed(format!(
            "record is not valid JSON at line {} column {}",
            error.line(),
            error.column()
        ))
    })?;
    let kind = optional_str(&fields.r#type).map_err(|()| failed("type is not a string"))?;
    if let Some(kind) = kind.filter(|&kind| kind != "message") {
        return Err(skipped(kind));
    }
    let subtype = optional_str(&fields.subtype).map_err(|()| failed("subtype is not a string"))?;
    let own = fields.parley.map(|own| Own::parse(own).ok_or_else(|| failed("parley is not sound")));
    let own = own.transpose()?;
    let deleted = own.as_ref().is_some_and(|own| own.deleted.is_some());
    let kept = |kind: &&str| KEPT_SUBTYPES.contains(kind) || (deleted && *kind == TOMBSTONE);
    if let Some(kind) = subtype.filter(|kind| !kept(kind)) {
        return Err(deletion(&fields, kind, place).map_or_else(|| skipped(kind), Rejected::Deleted));
    }

    let text = optional_str(&fields.text).map_err(|()| failed("text is not a string"))?;
    let text = text.unwrap_or_default();
    if text.contains('\0') {
        return Err(failed("text holds a NUL character"));
    }
    let is_bot = subtype == Some("bot_message")
        || fields.bot_id.is_string()
        || fields.bot_profile.is_object();
    let text = if deleted {
        String::new()
    } else {
        let (blocks, attachments, files) = (fields.blocks, fields.attachments, &fields.files);
        let content = Content { text, blocks, attachments, files, is_bot };
        content.plain(place.names()).map_err(|TooLong| failed("text is longer than 1 MiB"))?
    };
    if text.trim().is_empty() && !deleted {
        let has_file = fields.file.is_object()
            || fields.files.as_array().is_some_and(|files| !files.is_empty())
            || subtype == Some("file_share");
        return Err(skipped(if has_file { "file_without_text" } else { "empty" }));
    }

    let ts = fields.ts.as_str().ok_or_else(|| failed("ts is missing or not a string"))?;
    let ts = Ts::parse(ts).ok_or_else(|| failed("ts is not a timestamp"))?;
    let thread = optional_str(&fields.thread_ts)
        .and_then(|thread| thread.map(|text| Ts::parse(text).ok_or(())).transpose())
        .map_err(|()| failed("thread_ts is not a timestamp"))?;
    let author = author(&fields);
    if author.contains('\0') {
        return Err(failed("author holds a NUL character"));
    }
    let own_name =
        Some(&fields.username).filter(|_| is_bot).and_then(|name| index::name(Some(name)));
    let (reactions, reactions_left_out) = reactions(&fields.reactions);
    Ok(Message {
        channel: place.channel().id.clone(),
        ts,
        occurrence: 0,
        same_time: None,
        thread_same_time: None,
        author: author.to_owned(),
        author_name: if author == UNKNOWN_AUTHOR {
            Some(UNKNOWN_NAME.to_owned())
        } else {
            author_name(&fields)
        },
        own_name,
        is_bot,
        is_edited: fields.edited.is_object(),
        text,
        subtype: subtype.map(str::to_owned),
        thread: thread.filter(|parent| *parent != ts),
        thread_author: fields.parent_user_id.as_str().map(str::to_owned),
        edited: fields.edited.get("ts").and_then(Value::as_str).and_then(Ts::parse),
        reactions,
        reactions_left_out,
        own: own.map(|own| Box::new(own.in_place(|name| place.id_of(name)))),
    })
}

/// Returns which message a record of Slack's says was deleted, if it says so.
fn deletion(fields: &Fields<'_>, kind: &str, place: Place<'_>) -> Option<Deletion> {
    let kind = DELETIONS.into_iter().find(|known| *known == kind)?;
    let before = &fields.previous_message;
    let (ts, author) = if kind == TOMBSTONE {
        (Some(&fields.ts), Some(&fields.user))
    } else {
        let ts = Some(&fields.deleted_ts).filter(|ts| ts.is_string());
        (ts.or_else(|| before.get("ts")), before.get("user"))
    };
    let author = author.and_then(Value::as_str);
    let is_author = |id: &&str| !id.is_empty() && *id != SLACKBOT && !id.contains('\0');
    Some(Deletion {
        channel: place.channel().id.clone(),
        ts: Ts::parse(ts?.as_str()?)?,
        author: author.filter(is_author).map(str::to_owned),
        kind,
    })
}

/// Returns the id of who wrote a record: a person, an app, or the bare name that an app gave itself.
fn author<'a>(fields: &'a Fields<'_>) -> &'a str {
    let places = [
        Some(&fields.user),
        fields.comment.get("user"),
        Some(&fields.bot_id),
        fields.bot_profile.get("id"),
        Some(&fields.username),
        Some(&fields.app_id),
    ];
    let id = |value: &'a Value| value.as_str().filter(|id| !id.is_empty());
    places.into_iter().flatten().find_map(id).unwrap_or(UNKNOWN_AUTHOR)
}

fn failed(reason: &str) -> Rejected {
    Rejected::Failed(reason.to_owned())
}

fn skipped(kind: &str) -> Rejected {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let fits = (1..=MAX_KIND_CHARS).contains(&kind.len()) && kind.chars().all(is_plain);
    Rejected::Skipped(if fits { kind } else { "other" }.to_owned())
}

fn optional_str(value: &Value) -> Result<Option<&str>, ()> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(()),
    }
}

fn author_name(fields: &Fields<'_>) -> Option<String> {
    let profile = |key| fields.user_profile.get(key);
    let places = [
        Some(&fields.username),
        fields.bot_profile.get("name"),
        profile("display_name"),
        profile("real_name"),
        profile("name"),
    ];
    places.into_iter().find_map(index::name)
}

/// Reads what is sound of the reactions, and counts the others: a message is not lost for one of them.
fn reactions(list: &Value) -> (Vec<Reaction>, u64) {
    let text = |value: &Value| {
        value.as_str().filter(|text| !text.is_empty() && !text.contains('\0')).map(str::to_owned)
    };
    let reaction = |value: &Value| {
        let users: Vec<String> = value.get("users")?.as_array()?.iter().filter_map(text).collect();
        let count = value.get("count").and_then(Value::as_u64).unwrap_or(0);
        let count = count.max(users.len().try_into().unwrap_or(0));
        let name = text(value.get("name")?)?;
        if users.is_empty() { None } else { Some(Reaction { name, users, count }) }
    };
    let (mut found, mut left_out) = (Vec::new(), 0);
    for value in list.as_array().into_iter().flatten() {
        match reaction(value) {
            Some(reaction) => found.push(reaction),
            None => left_out += 1,
        }
    }
    (found, left_out)
}
