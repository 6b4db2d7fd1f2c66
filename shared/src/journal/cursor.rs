//! The `id:` of an event: where its reader is in each log of the stream. Opaque to clients, at most 128 bytes.

use std::{fmt, str::FromStr};

use super::Topic;

/// A place in one log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which life of the log: a replaced store has another.
    pub epoch: i64,
    /// The entry's number; the first is 1, and 0 is before it.
    pub seq: i64,
    /// Some bytes of the entry itself, 0 before the first: a failover that lost a tail uses numbers again.
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
pub struct Cursor(Vec<(u32, Position)>);

impl Cursor {
    /// Returns the cursor of one place in one log.
    #[must_use]
    pub fn at(topic: &Topic, position: Position) -> Self {
        Self(vec![(key(topic), position)])
    }

    /// Returns the cursor of places in several logs.
    #[must_use]
    pub fn of<'a>(places: impl IntoIterator<Item = (&'a Topic, Position)>) -> Self {
        Self(places.into_iter().map(|(topic, position)| (key(topic), position)).collect())
    }

    /// Returns the place in `topic`, `None` if the cursor is of other logs.
    #[must_use]
    pub fn position(&self, topic: &Topic) -> Option<Position> {
        let key = key(topic);
        self.0.iter().find(|(of, _)| *of == key).map(|(_, position)| *position)
    }
}

/// A log's short name in a cursor.
fn key(topic: &Topic) -> u32 {
    crc32fast::hash(topic.as_str().as_bytes())
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("v1")?;
        for (index, (key, position)) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "." } else { "-" })?;
            let Position { epoch, seq, tag } = *position;
            for (index, number) in
                [i64::from(*key), epoch, seq, i64::from(tag)].into_iter().enumerate()
            {
                if index > 0 {
                    f.write_str(".")?;
                }
                base36(f, number)?;
            }
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
        parts.map(part).collect::<Result<_, _>>().map(Self)
    }
}

fn part(text: &str) -> Result<(u32, Position), Malformed> {
    let numbers = text.split('.').map(number).collect::<Result<Vec<i64>, _>>()?;
    let [key, epoch, seq, tag] = numbers[..] else { return Err(Malformed) };
    let narrow = |number: i64| u32::try_from(number).map_err(|_| Malformed);
    Ok((narrow(key)?, Position { epoch, seq, tag: narrow(tag)? }))
}

fn number(text: &str) -> Result<i64, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    if plain { i64::from_str_radix(text, 36).map_err(|_| Malformed) } else { Err(Malformed) }
}

fn base36(f: &mut fmt::Formatter<'_>, number: i64) -> fmt::Result {
    let mut rest = number.unsigned_abs();
    let mut digits = [0u8; 13];
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
        fn junk_is_malformed_and_never_a_panic(text in ".{0,200}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
            }
        }
    }
}
