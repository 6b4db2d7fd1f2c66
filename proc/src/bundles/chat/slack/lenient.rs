//! Reads JSON of which some values cannot be kept: halves of characters, and numbers that are too large.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, value::RawValue};

/// Levels of values that are read in a value that cannot be read as a whole.
const MAX_DEPTH: u32 = 64;

/// Returns a value as far as it can be read, with `null` in place of the others; `None` if it is not JSON.
pub(super) fn value(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json).ok().or_else(|| {
        let json = whole_characters(json);
        partly(serde_json::from_slice(&json).ok()?, MAX_DEPTH)
    })
}

/// Reads the parts of a value each for itself.
fn partly(json: &RawValue, depth: u32) -> Option<Value> {
    let whole = serde_json::from_str(json.get()).ok();
    if whole.is_some() || depth == 0 {
        return whole;
    }
    let part = |json: &RawValue| partly(json, depth - 1).unwrap_or_default();
    if json.get().starts_with('[') {
        let list: Vec<&RawValue> = serde_json::from_str(json.get()).ok()?;
        return Some(list.into_iter().map(part).collect());
    }
    let map: BTreeMap<String, &RawValue> = serde_json::from_str(json.get()).ok()?;
    Some(Value::Object(map.into_iter().map(|(key, json)| (key, part(json))).collect()))
}

/// Writes U+FFFD in place of escapes that are half of a character.
pub(super) fn whole_characters(json: &[u8]) -> Cow<'_, [u8]> {
    let mut whole = Cow::Borrowed(json);
    let mut at = 0;
    while let Some(found) = json.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\\')) {
        at += found;
        let (first, second) = (unit(json, at), unit(json, at + 6));
        at += match (first, second) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                whole.to_mut()[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            _ => 2,
        };
    }
    whole
}

/// Returns the number of the escape that begins here.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(br"\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_read_around_what_cannot_be_kept() {
        for (json, wanted) in [
            (r#"{"a":"x\ud83d","b":1}"#, json!({"a": "x\u{fffd}", "b": 1})),
            (r#"["\ude00\ud83d\ude00","\\ud83d"]"#, json!(["\u{fffd}\u{1f600}", "\\ud83d"])),
            (r#"[{"n":1e999,"text":"kept"}, 2]"#, json!([{"n": null, "text": "kept"}, 2])),
            (r#"{"\ud83d":"key"}"#, json!({"\u{fffd}": "key"})),
        ] {
            assert_eq!(value(json.as_bytes()), Some(wanted), "{json}");
        }
        for json in [r#"{"a":"#, "", "{]", r#"["\ud8"#] {
            assert_eq!(value(json.as_bytes()), None, "{json}");
        }
    }
}
