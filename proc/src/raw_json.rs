//! JSON that stays as its writer wrote it: a number keeps all its digits.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

/// A JSON value as text on one line.
#[derive(Clone)]
pub(crate) struct RawJson(Arc<RawValue>);

impl RawJson {
    /// Takes a text that is JSON. A line break can only be a blank there, and is made one.
    pub(crate) fn from_text(text: String) -> serde_json::Result<Self> {
        let text = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text };
        RawValue::from_string(text).map(|raw| Self(raw.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Two are the same if their texts are.
impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl From<Value> for RawJson {
    fn from(value: Value) -> Self {
        // A value has text keys alone, so it can be written.
        Self(to_raw_value(&value).unwrap_or_default().into())
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

/// Reads what another JSON reader can read too: not nested too deep, and no number beyond the largest 64-bit float.
impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::from(Box::<str>::from(Box::<RawValue>::deserialize(from)?));
        // Within a list, since a result is never the whole of what a client reads.
        serde_json::from_str::<Value>(&format!("[{text}]")).map_err(serde::de::Error::custom)?;
        Self::from_text(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_digits_and_is_one_line() {
        for (text, kept) in [
            ("12345678901234567890123", "12345678901234567890123"),
            (r#"{"a": 1.10, "b": 1E0, "c": -0}"#, r#"{"a": 1.10, "b": 1E0, "c": -0}"#),
            ("{\n\t\"a\":\r\n1}", "{ \t\"a\":  1}"),
            ("null", "null"),
        ] {
            let read: RawJson = serde_json::from_str(text).unwrap();
            assert_eq!(read.as_str(), kept);
            assert_eq!(serde_json::to_string(&read).unwrap(), kept);
        }
    }

    #[test]
    fn what_other_readers_cannot_read_is_refused() {
        for text in ["1e400".to_owned(), "9".repeat(400), "[".repeat(200) + &"]".repeat(200)] {
            assert!(serde_json::from_str::<RawJson>(&text).is_err(), "{text}");
        }
    }
}
