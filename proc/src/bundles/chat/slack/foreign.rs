//! Recognises exports of other systems, and files that are nearly a Slack export, so that an error can say what to do.

use std::io::{BufRead, Read};

use serde::Deserialize;
use serde_json::Value;

use super::{Error, entries::Entries};

/// Bytes at the start of a file that are looked at.
const HEAD_BYTES: usize = 64 << 10;
/// Files of an archive that are looked into.
const MAX_PEEKED: usize = 20;
/// Lines of a text that are looked at.
const MAX_LINES: usize = 20;

const CONVERT: &str = "only Slack exports are imported, so convert it into the layout that docs/import.md describes \
                       (users.json, channels.json, a folder of JSON files for each channel) and upload the ZIP file of that";

const DISCORD: (&str, &str) = ("an export of Discord", CONVERT);
const TELEGRAM: (&str, &str) = ("an export of Telegram", CONVERT);
const WHATSAPP: (&str, &str) = ("an export of WhatsApp", CONVERT);
const MATTERMOST: (&str, &str) = ("an export of Mattermost", CONVERT);
const MATRIX: (&str, &str) = ("an export of Matrix", CONVERT);
const ROCKET_CHAT: (&str, &str) = ("an export of Rocket.Chat", CONVERT);
const ZULIP: (&str, &str) = ("an export of Zulip", CONVERT);
const GOOGLE_CHAT: (&str, &str) = ("an export of Google Chat", CONVERT);
const TEAMS: (&str, &str) = ("an export of Microsoft Teams", CONVERT);
const PARLEY: (&str, &str) = (
    "an export of Parley as NDJSON",
    "export the project with the format `slack` and upload that ZIP file",
);
const SLACK_TEXT: (&str, &str) =
    ("a Slack export as text", "export the workspace as JSON and upload the ZIP file as it is");
const SLACK_DUMP: (&str, &str) =
    ("a dump of slackdump", "make an archive with `slackdump export` and upload its ZIP file");
const TAR: (&str, &str) = (
    "a packed tar or gzip file",
    "unpack it, and if it holds a Slack export, upload the ZIP file that Slack made",
);
const OTHER_ARCHIVE: (&str, &str) =
    ("a RAR or 7z archive", "upload the ZIP file that Slack made, as it is");

fn error((what, advice): (&'static str, &'static str)) -> Error {
    Error::Foreign { what, advice }
}

/// Returns what a file is that is no ZIP archive, if it can be told from its first bytes.
pub(super) fn of_file(file: impl Read) -> Option<Error> {
    let mut head = Vec::new();
    file.take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    if head.starts_with(&[0x1f, 0x8b]) || head.get(257..262) == Some(b"ustar") {
        return Some(error(TAR));
    }
    if head.starts_with(b"7z\xBC\xAF\x27\x1C") || head.starts_with(b"Rar!") {
        return Some(error(OTHER_ARCHIVE));
    }
    of_text(&head).map(error)
}

/// Returns what an archive is that has no list of members, if it can be told from its files.
pub(super) fn of_archive(entries: &mut Entries) -> Option<Error> {
    let names: Vec<String> =
        entries.list().iter().map(|entry| entry.name.to_ascii_lowercase()).collect();
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let has = |wanted: &str| names.iter().any(|name| last(name) == wanted);
    let within = |folder: &str| {
        names.iter().any(|name| name.starts_with(folder) || name.contains(&format!("/{folder}")))
    };
    let is_named = |start: &str, end: &str| {
        names.iter().any(|name| last(name).starts_with(start) && name.ends_with(end))
    };
    if has("_chat.txt") || is_named("whatsapp chat", ".txt") {
        return Some(error(WHATSAPP));
    }
    if within("google chat/") {
        return Some(error(GOOGLE_CHAT));
    }
    if has("realm.json") {
        return Some(error(ZULIP));
    }
    if names.iter().any(|name| name.ends_with("messages/index.json"))
        || within("servers/index.json")
    {
        return Some(error(DISCORD));
    }
    if within("chats/chat_") || has("export_results.html") {
        return Some(error(TELEGRAM));
    }
    if has("rocketchat_message.bson") {
        return Some(error(ROCKET_CHAT));
    }
    let is_text =
        |name: &str| [".json", ".jsonl", ".txt", ".html"].iter().any(|end| name.ends_with(end));
    let peeked = names
        .iter()
        .enumerate()
        .filter(|(_, name)| is_text(name) && !name.starts_with("__macosx/"));
    let peeked: Vec<usize> = peeked.map(|(number, _)| number).take(MAX_PEEKED).collect();
    for number in peeked {
        let mut head = Vec::new();
        // A file that is damaged tells nothing.
        if let Ok(reader) = entries.reader(number) {
            let _ = reader.take(HEAD_BYTES as u64).read_to_end(&mut head);
        }
        let is_channel = is_channel_id(&last(&names[number]));
        if let Some(found) = of_text(&head) {
            return Some(error(found));
        }
        if is_channel {
            return Some(error(SLACK_DUMP));
        }
    }
    None
}

/// Returns whether a file is named by a conversation of Slack, as slackdump names it.
fn is_channel_id(name: &str) -> bool {
    let id = name.strip_suffix(".json").unwrap_or_default();
    (9..=12).contains(&id.len())
        && id.starts_with(['c', 'd', 'g'])
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && id.bytes().any(|byte| byte.is_ascii_digit())
}

/// Keys of an object whose rest may be cut off.
#[derive(Default)]
struct Keys(Vec<String>);

impl Keys {
    /// Returns the keys of the object that `json` begins, as far as it goes.
    fn of(json: &str) -> Self {
        let mut keys = Self::default();
        let (mut depth, mut rest) = (0_u32, json);
        while let Some(at) = rest.find(['"', '{', '[', '}', ']']) {
            let found = rest.as_bytes()[at];
            rest = &rest[at..];
            match found {
                b'"' => {
                    let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
                    let Some(Ok(Value::String(text))) = strings.next() else { break };
                    rest = &rest[strings.byte_offset()..];
                    if depth == 1 && rest.trim_start().starts_with(':') {
                        keys.0.push(text);
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                _ => depth = depth.saturating_sub(1),
            }
            rest = &rest[1..];
        }
        keys
    }

    fn have(&self, wanted: &[&str]) -> bool {
        wanted.iter().all(|key| self.0.iter().any(|have| have == key))
    }
}

fn of_text(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut off.
        Err(error) if head.len() - error.valid_up_to() < 4 => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('{') {
        let first = text.lines().next().unwrap_or_default();
        if let Ok(line) = serde_json::from_str::<Line>(first) {
            match (line.kind.as_deref(), line.r#type.as_deref(), line.version) {
                (Some("project" | "member" | "channel" | "person" | "message"), ..) => {
                    return Some(PARLEY);
                }
                (_, Some("version"), Some(_)) => return Some(MATTERMOST),
                _ => {}
            }
        }
        let keys = Keys::of(text);
        let known: [(&[&str], _); 9] = [
            (&["guild", "channel"], DISCORD),
            (&["room_name", "messages"], MATRIX),
            (&["room_name", "exported_by"], MATRIX),
            (&["room_id", "timeline"], MATRIX),
            (&["name", "type", "id", "messages"], TELEGRAM),
            (&["about", "chats"], TELEGRAM),
            (&["about", "personal_information"], TELEGRAM),
            (&["userId", "conversations"], TEAMS),
            (&["channel_id", "messages"], SLACK_DUMP),
        ];
        return known.into_iter().find_map(|(wanted, system)| keys.have(wanted).then_some(system));
    }
    if text.starts_with("<!DOCTYPE html") || text.starts_with("<html") {
        let lower = text.to_ascii_lowercase();
        let known =
            [("discord", DISCORD), ("telegram", TELEGRAM), ("element", MATRIX), ("matrix", MATRIX)];
        return known.into_iter().find_map(|(word, system)| lower.contains(word).then_some(system));
    }
    if let Some(elements) = text.strip_prefix('[') {
        let first = serde_json::Deserializer::from_str(elements).into_iter::<Value>().next();
        let has = |key: &str| matches!(&first, Some(Ok(first)) if first.get(key).is_some());
        if has("event_id") && has("sender") && has("origin_server_ts") {
            return Some(MATRIX);
        }
    }
    let lines = || text.as_bytes().lines().map_while(Result::ok).take(MAX_LINES);
    if lines().any(|line| is_slack_text(&line)) {
        return Some(SLACK_TEXT);
    }
    lines().any(|line| is_whatsapp(&line)).then_some(WHATSAPP)
}

/// The first line of exports that have a record a line.
#[derive(Deserialize)]
struct Line {
    kind: Option<String>,
    r#type: Option<String>,
    version: Option<Value>,
}

/// Returns whether a line is like `[31.12.20, 10:15:30] Anna: hi` or `12/31/20, 10:15 PM - Anna: hi`.
fn is_whatsapp(line: &str) -> bool {
    let line = line.trim_start_matches(['\u{200e}', '\u{200f}', '[']);
    let Some((date, rest)) = line.split_once(", ").or_else(|| line.split_once(' ')) else {
        return false;
    };
    let is_date = (6..=10).contains(&date.len())
        && date.bytes().all(|byte| byte.is_ascii_digit() || b"./-".contains(&byte))
        && date.bytes().filter(|byte| !byte.is_ascii_digit()).count() == 2;
    let is_time =
        rest.get(..3).is_some_and(|hour| hour.contains(':')) || rest.get(2..3) == Some(":");
    is_date && is_time && (rest.contains("] ") || rest.contains(" - "))
}

/// Returns whether a line is like `[2020-12-31 10:15:30 UTC] <anna> hi`.
fn is_slack_text(line: &str) -> bool {
    line.starts_with('[') && line.contains(" UTC] <")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_systems_are_named() {
        for (text, what) in [
            (
                r#"{"guild":{"id":"1","name":"G"},"channel":{"id":"2"},"dateRange":{},"messages":[{"id":"3""#,
                "Discord",
            ),
            (
                r#"{"name":"Chat","type":"private_supergroup","id":1,"messages":[{"id":1"#,
                "Telegram",
            ),
            (r#"{"about":"Here is the data","chats":{"list":["#, "Telegram"),
            ("[31.12.20, 10:15:30] Anna: hi\n", "WhatsApp"),
            ("\u{200e}[12/31/20, 10:15:30 PM] Anna: \u{200e}hi", "WhatsApp"),
            ("12/31/20, 10:15 PM - Anna: hi", "WhatsApp"),
            ("31/12/2020, 22:15 - Messages are encrypted", "WhatsApp"),
            ("{\"type\":\"version\",\"version\":1}\n{\"type\":\"team\"}", "Mattermost"),
            (
                r#"{"room_name":"R","room_creator":"@a:b","topic":"","exported_by":"@a:b","messages":[]}"#,
                "Matrix",
            ),
            (
                r#"[{"type":"m.room.message","event_id":"$1","sender":"@a:b","origin_server_ts":1},{"#,
                "Matrix",
            ),
            (r#"{"kind":"project","id":"x"}"#, "Parley"),
            (r#"{"channel_id":"C1","messages":[]}"#, "slackdump"),
            ("[2020-12-31 10:15:30 UTC] <anna> hi", "Slack export as text"),
            ("\u{feff}<!DOCTYPE html><title>Exported Data</title><a>Telegram", "Telegram"),
        ] {
            let found = of_file(text.as_bytes()).map(|error| error.to_string()).unwrap_or_default();
            assert!(found.contains(what), "{text}: {found}");
        }
        assert!(of_file(&[0x1f, 0x8b, 8][..]).unwrap().to_string().contains("tar"));
    }

    #[test]
    fn other_files_are_not_taken_for_one() {
        for text in [
            "",
            "hello",
            "{",
            "{}",
            "[",
            "[1]",
            "\"",
            "{\"a",
            r#"{"messages":[]}"#,
            "1, 2",
            "a: b, 10:1",
        ] {
            assert!(of_file(text.as_bytes()).is_none(), "{text}");
        }
        assert!(of_file(&[0xff; 100][..]).is_none());
    }
}
