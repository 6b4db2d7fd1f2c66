//! Inputs of operations as callers send them, and their numbers.
//!
//! A number of JSON has any length, and a reader keeps 64 bits of it. An input whose integer would lose digits on the way to
//! its operation is refused with its field.

use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value, value::RawValue};

use crate::error::ApiError;

/// An input as a caller has sent it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GivenInput {
    value: Value,
    /// The first number that is beyond 64 bits, and its path.
    unfit: Option<(String, String)>,
}

impl GivenInput {
    /// Returns the input, which [`super::Declared::check_given`] has let pass.
    pub(crate) fn into_value(self) -> Value {
        self.value
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// Refuses numbers beyond 64 bits. `place` is where in the body the input is.
    pub(super) fn check_numbers(&self, place: &str) -> Result<(), ApiError> {
        let Some((path, number)) = &self.unfit else { return Ok(()) };
        let field = if path.is_empty() { place.to_owned() } else { format!("{place}.{path}") };
        let short: String = number.chars().take(40).collect();
        Err(ApiError::Field { field, message: format!("the number {short} is beyond 64 bits") })
    }
}

impl From<Value> for GivenInput {
    fn from(value: Value) -> Self {
        Self { value, unfit: None }
    }
}

impl<'de> Deserialize<'de> for GivenInput {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        let unfit = unfit_number(raw.get());
        match serde_json::from_str(raw.get()) {
            Ok(value) => Ok(Self { value, unfit }),
            // The number is what serde cannot read.
            Err(_) if unfit.is_some() => Ok(Self { value: Value::Null, unfit }),
            Err(error) => Err(serde::de::Error::custom(error)),
        }
    }
}

/// Place of a reader in a JSON text: behind a key of an object, or at an element of a list.
enum Level<'a> {
    Key(&'a str),
    Element(usize),
}

/// Returns the path and the text of the first number of a JSON text that 64 bits do not hold: an integer that is neither
/// `i64` nor `u64`, or another number beyond the largest `f64`.
fn unfit_number(json: &str) -> Option<(String, String)> {
    let (bytes, mut levels, mut at) = (json.as_bytes(), Vec::<Level<'_>>::new(), 0);
    let mut is_key_next = false;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => {
                while let Some(byte) = bytes.get(at)
                    && *byte != b'"'
                {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
                if is_key_next && let Some(Level::Key(key)) = levels.last_mut() {
                    *key = json.get(start..at).unwrap_or_default();
                    is_key_next = false;
                }
            }
            b'{' => {
                levels.push(Level::Key(""));
                is_key_next = true;
            }
            b'[' => {
                levels.push(Level::Element(0));
                is_key_next = false;
            }
            b'}' | b']' => {
                levels.pop();
                is_key_next = false;
            }
            b',' => match levels.last_mut() {
                Some(Level::Element(number)) => *number += 1,
                _ => is_key_next = true,
            },
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                at += bytes.get(at..).unwrap_or_default().iter().take_while(is_part).count();
                let number = json.get(start..at).unwrap_or_default();
                if !is_fit(number) {
                    return Some((path(&levels), number.to_owned()));
                }
            }
            _ => {}
        }
    }
    None
}

fn is_fit(number: &str) -> bool {
    if number.contains(['.', 'e', 'E']) {
        number.parse().is_ok_and(f64::is_finite)
    } else {
        number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok()
    }
}

fn path(levels: &[Level<'_>]) -> String {
    let name = |level: &Level<'_>| match level {
        Level::Key(key) => serde_json::from_str(key).unwrap_or_else(|_| (*key).to_owned()),
        Level::Element(number) => number.to_string(),
    };
    levels.iter().map(name).collect::<Vec<_>>().join(".")
}

/// Makes integers of the numbers that are whole, such as `1.0` and `1E0`: to a JSON Schema they are, and to serde they are not.
pub(super) fn make_whole_numbers(input: &mut Value) {
    match input {
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(make_whole_numbers),
        _ => {}
    }
}

/// Returns the integer that a number with a fraction of zero is, as far as 64 bits hold it.
fn whole(number: &Number) -> Option<Number> {
    let real = number.as_f64().filter(|real| number.is_f64() && real.fract() == 0.0)?;
    // Digits alone, which only an integer of 64 bits can be read from.
    let digits = format!("{:.0}", real + 0.0);
    digits
        .parse::<u64>()
        .map(Number::from)
        .or_else(|_| digits.parse::<i64>().map(Number::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_beyond_64_bits_is_found_by_its_path() {
        for (text, expected) in [
            (r#"{"a": 12345678901234567890123}"#, Some("a")),
            (r#"{"a": [1, {"b c": -9223372036854775809}]}"#, Some("a.1.b c")),
            (r#"{"a": {"x": 1}, "b": 18446744073709551616}"#, Some("b")),
            (r#"{"a": "12345678901234567890123", "b": 1e400}"#, Some("b")),
            (r#"{"a\"\u00e4\\": [[], [{}, -1e999]]}"#, Some("a\"ä\\.1.1")),
            ("123456789012345678901", Some("")),
            (
                r#"{"a": 18446744073709551615, "b": -9223372036854775808, "c": 1e308, "d": -0}"#,
                None,
            ),
            (r#"{"a": 1.2345678901234567890123, "b": 1e22, "12345678901234567890123": 0}"#, None),
            (r#"{"a": "\\\" 12345678901234567890123", "b": [true, null]}"#, None),
        ] {
            let found = unfit_number(text).map(|(path, _)| path);
            assert_eq!(found.as_deref(), expected, "{text}");
        }
        let given: GivenInput = serde_json::from_str(r#"{"n": 1e400}"#).unwrap();
        let refused = given.check_numbers("data").unwrap_err();
        assert!(matches!(refused, ApiError::Field { field, .. } if field == "data.n"));
    }

    #[test]
    fn whole_numbers_become_integers_and_no_others() {
        let read = |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            make_whole_numbers(&mut value);
            value.to_string()
        };
        for (text, expected) in [
            ("[1.0,1E0,-0,-0.0,10e-1,-3.0]", "[1,1,0,0,1,-3]"),
            (r#"{"a":{"b":2.0}}"#, r#"{"a":{"b":2}}"#),
            ("[1.5,1e300,\"1.0\",null]", "[1.5,1e+300,\"1.0\",null]"),
            ("[9007199254740993,18446744073709551615]", "[9007199254740993,18446744073709551615]"),
            ("[1e19]", "[10000000000000000000]"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_input_of_small_numbers_is_as_it_was_sent(
            texts in prop::collection::vec("\\PC{0,20}", 0..8), numbers in prop::collection::vec(any::<i64>(), 0..8),
            reals in prop::collection::vec(any::<f64>().prop_filter("JSON has it", |real| real.is_finite()), 0..8),
        ) {
            let sent = json!({"texts": texts, "numbers": [numbers], "more": {"reals": reals}});
            let given: GivenInput = serde_json::from_str(&sent.to_string()).unwrap();
            prop_assert!(given.check_numbers("data").is_ok());
            prop_assert_eq!(given.into_value(), sent);
        }
    }
}
