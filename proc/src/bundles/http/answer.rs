//! What a bundle says: lines of JSON, each of one thing, bounded in every way.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{
    jobs::{JobError, Progress},
    raw_json::RawJson,
};

/// The longest line, which is also the largest result.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;
/// The most that a bundle may say in one answer.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The longest text for people, in characters.
const MAX_MESSAGE_CHARS: usize = 1_000;

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    Progress(Told),
    Log(Log),
    /// The last one: the job's result.
    Result(RawJson),
    /// The last one: why there is none.
    Error(Failed),
}

/// How far the bundle has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    fraction: Option<f64>,
    #[serde(deserialize_with = "count_or_zero")]
    done: u64,
    #[serde(deserialize_with = "count")]
    total: Option<u64>,
    unit: Option<String>,
    message: Option<String>,
}

/// Something for the job's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Log {
    Text(String),
    Levelled {
        #[serde(default)]
        level: Level,
        message: String,
    },
}

/// Severity of a log line. The levels of other logging libraries are read too; an unknown one is `Info`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "Value")]
pub(super) enum Level {
    #[default]
    Info,
    Warn,
    Error,
}

impl From<Value> for Level {
    fn from(named: Value) -> Self {
        match named.as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
            "warn" | "warning" => Self::Warn,
            "err" | "error" | "severe" | "critical" | "crit" | "fatal" | "alert" | "emergency"
            | "emerg" | "panic" => Self::Error,
            _ => Self::Info,
        }
    }
}

/// Reads a count as any JSON writer has it: `3.0` is 3, as for JSON Schema, and `null` is none.
pub(super) fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Real(f64),
    }
    Ok(match Option::deserialize(from)? {
        None => None,
        Some(Number::Whole(count)) => Some(count),
        Some(Number::Real(real)) if real.fract() == 0.0 && (0.0..TWO_TO_53).contains(&real) =>
        {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a whole number, not negative and below 2^53"
            )]
            Some(real as u64)
        }
        Some(Number::Real(real)) => {
            let message = format!("{real} is no count");
            return Err(serde::de::Error::custom(message));
        }
    })
}

fn count_or_zero<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    count(from).map(Option::unwrap_or_default)
}

/// Numbers from here on are not all exact as a 64-bit float.
const TWO_TO_53: f64 = 9_007_199_254_740_992.0;

/// Why the bundle did not do it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Failed {
    code: String,
    message: String,
    #[serde(default)]
    retryable: bool,
}

impl Line {
    /// Says whether nothing comes after it.
    pub(super) fn is_last(&self) -> bool {
        matches!(self, Self::Result(_) | Self::Error(_))
    }
}

impl From<Told> for Progress {
    #[expect(clippy::cast_precision_loss, reason = "a fraction for a progress bar")]
    fn from(told: Told) -> Self {
        let counted = told.total.filter(|total| *total > 0);
        let counted = counted.map(|total| told.done as f64 / total as f64);
        Self {
            fraction: told.fraction.or(counted).map(|fraction| fraction.clamp(0.0, 1.0)),
            done: told.done,
            total: told.total,
            unit: told.unit.as_deref().map(short),
            message: told.message.as_deref().map(short),
        }
    }
}

impl Log {
    /// Returns the level and the message.
    pub(super) fn parts(self) -> (&'static str, String) {
        let (level, message) = match self {
            Self::Text(message) => (Level::Info, message),
            Self::Levelled { level, message } => (level, message),
        };
        let level = match level {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        (level, short(&message))
    }
}

impl From<Failed> for JobError {
    fn from(failed: Failed) -> Self {
        let Failed { code, message, retryable } = failed;
        let is_code = |code: &str| {
            (1..=64).contains(&code.len())
                && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let code = if is_code(&code) { code } else { "bundle_failed".into() };
        Self { retryable, ..Self::permanent(&code, short(&message)) }
    }
}

/// Cuts a text to what is shown, and takes out what PostgreSQL has no text for.
fn short(text: &str) -> String {
    let shown = text.chars().filter(|c| *c != '\0').take(MAX_MESSAGE_CHARS);
    shown.collect()
}

/// Why what a bundle says cannot be followed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(
        "line {line} of the bundle's answer is no JSON object with progress, log, result or error"
    )]
    Garbage { line: usize },
    #[error("the bundle's answer is too large")]
    TooLarge,
}

impl From<Unreadable> for JobError {
    fn from(unreadable: Unreadable) -> Self {
        let code = match unreadable {
            Unreadable::Garbage { .. } => "invalid_answer",
            Unreadable::TooLarge => "answer_too_large",
        };
        Self::permanent(code, unreadable.to_string())
    }
}

/// Puts the parts of an answer together to lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// A line whose end has not come.
    begun: Vec<u8>,
    bytes: usize,
    /// Lines that have ended, empty ones too.
    ended: usize,
}

impl Lines {
    /// Takes the next part and returns the lines that it ends, none after the last one.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<Vec<Line>, Unreadable> {
        self.bytes += part.len();
        if self.bytes > MAX_ANSWER_BYTES {
            return Err(Unreadable::TooLarge);
        }
        let mut lines = Vec::new();
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            if self.begun.len() + piece.len() > MAX_LINE_BYTES + 1 {
                return Err(Unreadable::TooLarge);
            }
            self.begun.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                break;
            }
            lines.extend(self.line()?);
            if lines.last().is_some_and(Line::is_last) {
                break;
            }
        }
        Ok(lines)
    }

    /// Returns the last line, if it came without its end.
    pub(super) fn finish(mut self) -> Option<Line> {
        self.line().ok().flatten()
    }

    /// Blank lines keep the connection alive and say nothing.
    fn line(&mut self) -> Result<Option<Line>, Unreadable> {
        self.ended += 1;
        let line = std::mem::take(&mut self.begun);
        let line = readable(&line);
        if line.is_empty() {
            return Ok(None);
        }
        let garbage = Unreadable::Garbage { line: self.ended };
        serde_json::from_slice(&line).map(Some).map_err(|_| garbage)
    }
}

/// Returns JSON without what common writers of other languages add and ours refuses: a byte order mark in front, blanks
/// around, and escapes of half a character (`\ud83d` alone), which become the replacement character.
pub(super) fn readable(json: &[u8]) -> Cow<'_, [u8]> {
    let json = json.strip_prefix("\u{feff}".as_bytes()).unwrap_or(json).trim_ascii();
    let mut mended = Cow::Borrowed(json);
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let backslash = |from: usize| {
        let rest = json.get(from..)?;
        rest.iter().position(|byte| *byte == b'\\').map(|next| from + next)
    };
    let mut next = backslash(0);
    while let Some(at) = next {
        let length = match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                mended.to_mut()[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            // Another escape, such as that of a backslash.
            _ => 2,
        };
        next = backslash(at + length);
    }
    mended
}

#[cfg(test)]
mod tests;
