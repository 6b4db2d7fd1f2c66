//! What a bundle says: lines of JSON, each of one thing, bounded in every way.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::jobs::{JobError, Progress};

/// The longest line, which is also the largest result.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;
/// The most that a bundle may say in one answer.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The longest text for people, in characters.
const MAX_MESSAGE_CHARS: usize = 1_000;

/// One line of an answer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    Progress(Told),
    Log(Log),
    /// The last one: the job's result.
    Result(Value),
    /// The last one: why there is none.
    Error(Failed),
}

/// How far the bundle has come.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    fraction: Option<f64>,
    done: u64,
    total: Option<u64>,
    unit: Option<String>,
    message: Option<String>,
}

/// Something for the job's log.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Log {
    Text(String),
    Levelled {
        #[serde(default)]
        level: Level,
        message: String,
    },
}

#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    #[default]
    Info,
    Warn,
    Error,
}

/// Why the bundle did not do it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
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
    #[error("the bundle answered something that is not a line of progress, log, result or error")]
    Garbage,
    #[error("the bundle's answer is too large")]
    TooLarge,
}

impl From<Unreadable> for JobError {
    fn from(unreadable: Unreadable) -> Self {
        let code = match unreadable {
            Unreadable::Garbage => "invalid_answer",
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
        let line = std::mem::take(&mut self.begun);
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(line).map(Some).map_err(|_| Unreadable::Garbage)
    }
}

#[cfg(test)]
mod tests;
