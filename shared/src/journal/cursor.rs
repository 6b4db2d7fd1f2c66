//! The `id:` of an event: where its reader is in each log of the stream. Opaque to clients, at most 128 bytes.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use super::Topic;
use crate::ids::AnswerId;

/// A place in one log.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Which life of the log: a replaced store has another.
    pub epoch: i64,
    /// The entry's number; the first is 1, and 0 is before it.
    pub seq: i64,
    /// Random bytes that were stored with the entry, 0 before the first. They tell two entries with the same number apart: a
    /// failover that lost a tail uses numbers again. Entries from before stored tags have the CRC-32 of their data.
    pub tag: u32,
}

/// The longest cursor in bytes: beyond it `Last-Event-ID` would need a CORS preflight.
pub const MAX_BYTES: usize = 128;

/// The text is no cursor of this version.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct Malformed;

/// Places in one or more logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    places: Vec<(u32, Position)>,
    /// Whose log it is: what a client asks for says which project or user, but not which answer.
    answer: Option<AnswerId>,
}

impl Cursor {
    /// Returns the cursor of one place in one log.
    #[must_use]
    pub fn at(topic: &Topic, position: Position) -> Self {
        Self::of([(topic, position)])
    }

    /// Returns the cursor of places in several logs.
    #[must_use]
    pub fn of<'a>(places: impl IntoIterator<Item = (&'a Topic, Position)>) -> Self {
        let mut cursor = Self { places: Vec::new(), answer: None };
        for (topic, position) in places {
            cursor.places.push((key(topic), position));
            cursor.answer = cursor.answer.or_else(|| topic.answer_id());
        }
        cursor
    }

    /// Returns the answer that the cursor is a place in, if it is one's.
    #[must_use]
    pub fn answer(&self) -> Option<AnswerId> {
        self.answer
    }

    /// Returns the place in `topic`, `None` if the cursor is of other logs.
    #[must_use]
    pub fn position(&self, topic: &Topic) -> Option<Position> {
        let key = key(topic);
        self.places.iter().find(|(of, _)| *of == key).map(|(_, position)| *position)
    }
}

/// A log's short name in a cursor.
fn key(topic: &Topic) -> u32 {
    crc32fast::hash(topic.as_str().as_bytes())
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("v1")?;
        for (index, (key, position)) in self.places.iter().enumerate() {
            f.write_str(if index == 0 { "." } else { "-" })?;
            let Position { epoch, seq, tag } = *position;
            for (index, number) in
                [i64::from(*key), epoch, seq, i64::from(tag)].into_iter().enumerate()
            {
                if index > 0 {
                    f.write_str(".")?;
                }
                base36(f, number.unsigned_abs().into())?;
            }
        }
        if let Some(AnswerId(id)) = self.answer {
            f.write_str("-")?;
            base36(f, id.as_u128())?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_BYTES {
            return Err(Malformed);
        }
        let parts = text.strip_prefix("v1.").ok_or(Malformed)?.split('-');
        let mut cursor = Self { places: Vec::new(), answer: None };
        for text in parts {
            if cursor.answer.is_some() {
                // The answer is the last part.
                return Err(Malformed);
            } else if text.contains('.') {
                cursor.places.push(part(text)?);
            } else {
                let id = digits(text).ok().and_then(|id| u128::from_str_radix(id, 36).ok());
                cursor.answer = Some(AnswerId(Uuid::from_u128(id.ok_or(Malformed)?)));
            }
        }
        if cursor.places.is_empty() { Err(Malformed) } else { Ok(cursor) }
    }
}

fn part(text: &str) -> Result<(u32, Position), Malformed> {
    let numbers = text.split('.').map(number).collect::<Result<Vec<i64>, _>>()?;
    let [key, epoch, seq, tag] = numbers[..] else { return Err(Malformed) };
    let narrow = |number: i64| u32::try_from(number).map_err(|_| Malformed);
    Ok((narrow(key)?, Position { epoch, seq, tag: narrow(tag)? }))
}

fn number(text: &str) -> Result<i64, Malformed> {
    i64::from_str_radix(digits(text)?, 36).map_err(|_| Malformed)
}

/// Lets pass what is written as we write it: no sign, no capital letters, no zero in front.
fn digits(text: &str) -> Result<&str, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    let is_padded = text.len() > 1 && text.starts_with('0');
    if is_plain && !is_padded { Ok(text) } else { Err(Malformed) }
}

fn base36(f: &mut fmt::Formatter<'_>, number: u128) -> fmt::Result {
    let mut rest = number;
    let mut digits = [0u8; 25];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] =
            b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(rest % 36).unwrap_or(0)];
        rest /= 36;
        if rest == 0 {
            return f.write_str(std::str::from_utf8(&digits[start..]).map_err(|_| fmt::Error)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::ProjectId;

    #[test]
    fn a_cursor_has_one_text() {
        for text in ["v1.a.0.c.d", "v1.a.b.c.d-e.f.g.h-k"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in
            ["v1.a.00.c.d", "v1.0a.b.c.d", "v1.k-a.b.c.d", "v1.a.b.c.d-k-e.f.g.h", "v1.a.b.c.d-0k"]
        {
            assert_eq!(text.parse::<Cursor>(), Err(Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back(epoch in 0..1i64 << 40, seq in 0..i64::MAX, tag: u32) {
            let topic = Topic::project(ProjectId::mint());
            let position = Position { epoch, seq, tag };
            let text = Cursor::at(&topic, position).to_string();
            prop_assert!(text.len() <= MAX_BYTES);
            prop_assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.'));
            prop_assert_eq!(text.parse::<Cursor>().unwrap().position(&topic), Some(position));
            prop_assert_eq!(text.parse::<Cursor>().unwrap().position(&Topic::jobs()), None);
        }

        #[test]
        fn a_cursor_in_an_answer_says_which(epoch in 0..1i64 << 40, seq in 0..i64::MAX, tag: u32, id: u128) {
            let answer = AnswerId(Uuid::from_u128(id));
            let position = Position { epoch, seq, tag };
            let text = Cursor::at(&Topic::answer(answer), position).to_string();
            prop_assert!(text.len() <= MAX_BYTES);
            let cursor = text.parse::<Cursor>().unwrap();
            prop_assert_eq!(cursor.answer(), Some(answer));
            prop_assert_eq!(cursor.position(&Topic::answer(answer)), Some(position));
        }

        #[test]
        fn junk_is_malformed_and_never_a_panic(text in ".{0,200}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
