//! Splits a JSON array into its elements as it streams by, so one bad element spoils no other.

use std::io::{self, BufRead, Read};

/// Bytes of a file with nothing but `null` and space.
const MAX_NULL_BYTES: u64 = 64;

/// Holds one element of the array, or what stands in its place.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Item<'a> {
    /// The bytes of one element without the space around it; not yet known to be JSON.
    Element(&'a [u8]),
    /// An element with more bytes than allowed.
    TooLong,
    /// The rest of the file, which is no part of a sound array; always the last item.
    Broken(&'static str),
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Place {
    Start,
    FirstElement,
    LaterElement,
    After,
    Done,
}

/// Gives the elements of the array that `source` holds, keeping at most one in memory.
pub(super) struct Splitter<R> {
    source: R,
    max_element_bytes: usize,
    element: Vec<u8>,
    place: Place,
}

impl<R: BufRead> Splitter<R> {
    /// Returns a splitter that hands out elements of up to `max_element_bytes`.
    pub(super) fn new(source: R, max_element_bytes: usize) -> Self {
        Self { source, max_element_bytes, element: Vec::new(), place: Place::Start }
    }

    /// Returns the source with whatever was not looked at.
    pub(super) fn into_source(self) -> R {
        self.source
    }

    /// Returns the source, as far as it was read.
    pub(super) fn source(&self) -> &R {
        &self.source
    }

    /// Returns the next item, or `None` at the end; fails only if the source does.
    pub(super) fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        if self.place == Place::Start {
            let first = self.next_visible()?;
            // Slack writes an empty list so.
            if first == Some(b'n') && self.is_null()? {
                self.place = Place::Done;
                return Ok(None);
            }
            if first != Some(b'[') {
                return Ok(Some(self.broken("the file is not a JSON array")));
            }
            self.source.consume(1);
            self.place = Place::FirstElement;
        }
        if matches!(self.place, Place::FirstElement | Place::LaterElement) {
            let Some((fits, end)) = self.take_element()? else {
                return Ok(Some(self.broken("the array never ends")));
            };
            let only_space = fits && self.element.trim_ascii().is_empty();
            let no_element = only_space && self.place == Place::FirstElement && end == b']';
            self.place = if end == b']' { Place::After } else { Place::LaterElement };
            if !no_element {
                return Ok(Some(if fits {
                    Item::Element(self.element.trim_ascii())
                } else {
                    Item::TooLong
                }));
            }
        }
        if self.place == Place::After && self.next_visible()?.is_some() {
            return Ok(Some(self.broken("there is data after the end of the array")));
        }
        self.place = Place::Done;
        Ok(None)
    }

    /// Returns whether the file holds `null` and nothing else; takes it if so.
    fn is_null(&mut self) -> io::Result<bool> {
        let mut rest = Vec::new();
        self.source.by_ref().take(MAX_NULL_BYTES).read_to_end(&mut rest)?;
        Ok(rest.trim_ascii_end() == b"null")
    }

    fn broken(&mut self, reason: &'static str) -> Item<'static> {
        self.place = Place::Done;
        Item::Broken(reason)
    }

    /// Skips space, and the byte order mark that some editors put before the array.
    fn next_visible(&mut self) -> io::Result<Option<u8>> {
        loop {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let mark: &[u8] = if self.place == Place::Start { b"\xEF\xBB\xBF" } else { b"" };
            let visible = |byte: &u8| !byte.is_ascii_whitespace() && !mark.contains(byte);
            if let Some(at) = chunk.iter().position(visible) {
                let byte = chunk[at];
                self.source.consume(at);
                return Ok(Some(byte));
            }
            let blank_bytes = chunk.len();
            self.source.consume(blank_bytes);
        }
    }

    /// Fills `element` up to its `,` or `]` and returns whether it fit, and that byte.
    fn take_element(&mut self) -> io::Result<Option<(bool, u8)>> {
        self.element.clear();
        let mut fits = true;
        let mut scan = Scan::default();
        loop {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = scan.element_end(chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            fits &= part.len() <= self.max_element_bytes - self.element.len();
            if fits {
                self.element.extend_from_slice(part);
            } else {
                self.element.clear();
            }
            let end_byte = end.map(|at| chunk[at]);
            let used_bytes = part.len() + usize::from(end.is_some());
            self.source.consume(used_bytes);
            if let Some(byte) = end_byte {
                return Ok(Some((fits, byte)));
            }
        }
    }
}

#[derive(Default)]
struct Scan {
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Finds the byte that ends the element, going on where the last chunk ended.
    fn element_end(&mut self, chunk: &[u8]) -> Option<usize> {
        for (at, byte) in chunk.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'[' | b'{' => self.depth += 1,
                b',' | b']' if self.depth == 0 => return Some(at),
                // Kinds of brackets are not matched up: a mix-up inside one element then stays
                // inside it, and the JSON parser reports it.
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Item, Splitter};
    use proptest::prelude::*;
    use serde_json::Value;
    use std::io::BufReader;

    /// Elements as text, `~` for one that is too long, `!reason` for a broken rest.
    fn split(json: &[u8], chunk_bytes: usize, max_element_bytes: usize) -> Vec<String> {
        let source = BufReader::with_capacity(chunk_bytes, json);
        let mut splitter = Splitter::new(source, max_element_bytes);
        let mut found = Vec::new();
        while let Some(item) = splitter.next().unwrap() {
            found.push(match item {
                Item::Element(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Item::TooLong => "~".to_owned(),
                Item::Broken(reason) => format!("!{reason}"),
            });
        }
        assert_eq!(splitter.next().unwrap(), None);
        found
    }

    #[test]
    fn splits_at_every_chunk_size() {
        let json = br#" [ {"a":"],\"}"} ,[1,[2]],"x,y" , {"b":1]] , 5 ] "#;
        let wanted = [r#"{"a":"],\"}"}"#, "[1,[2]]", r#""x,y""#, r#"{"b":1]"#];
        for chunk_bytes in 1..json.len() {
            let found = split(json, chunk_bytes, 100);
            assert_eq!(found[..4], wanted);
            assert_eq!(found[4], "!there is data after the end of the array");
        }
    }

    #[test]
    fn handles_empty_and_broken_files() {
        let never = "!the array never ends";
        let none = "!the file is not a JSON array";
        for (json, wanted) in [
            ("[]", vec![]),
            ("\u{feff}[ \n]\n", vec![]),
            ("", vec![none]),
            ("{}", vec![none]),
            (" null\n", vec![]),
            ("nul", vec![none]),
            ("nullx", vec![none]),
            ("[", vec![never]),
            ("[1", vec![never]),
            ("[1,", vec!["1", never]),
            ("[1,]", vec!["1", ""]),
            ("[,1]", vec!["", "1"]),
            (r#"[1,{"a":{},2]"#, vec!["1", never]),
            (r#"[1,"a,2]"#, vec!["1", never]),
            ("[1}}},2]", vec!["1}}}", "2"]),
        ] {
            assert_eq!(split(json.as_bytes(), 4, 100), wanted, "{json}");
        }
    }

    #[test]
    fn skips_a_long_element_without_keeping_it() {
        let json = format!(r#"[1,"{}",2,1234]"#, "x".repeat(100_000));
        let mut splitter = Splitter::new(BufReader::with_capacity(64, json.as_bytes()), 4);
        assert_eq!(split(json.as_bytes(), 64, 4), ["1", "~", "2", "1234"]);
        while splitter.next().unwrap().is_some() {
            assert!(splitter.element.capacity() <= 64);
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            r#"[\[\]{},"\\ a\n€]{0,8}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map(r#"[\]{,"\\a]{0,4}"#, inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(super::super::tests::seeded())]

        #[test]
        fn never_panics(
            json in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                r#"[\[\]{},"\\ a]{0,60}"#.prop_map(String::into_bytes),
                r#"\[[\[\]{},"\\ a]{0,60}"#.prop_map(String::into_bytes),
            ],
            chunk_bytes in 1_usize..50,
            max_element_bytes in 0_usize..50,
        ) {
            let found = split(&json, chunk_bytes, max_element_bytes);
            prop_assert_eq!(found, split(&json, 1000, max_element_bytes));
        }

        #[test]
        fn agrees_with_serde_json(
            values in prop::collection::vec(json_value(), 0..8),
            chunk_bytes in 1_usize..50,
            pretty in any::<bool>(),
        ) {
            let to_bytes =
                if pretty { serde_json::to_vec_pretty } else { serde_json::to_vec::<Vec<Value>> };
            let found: Vec<Value> = split(&to_bytes(&values).unwrap(), chunk_bytes, 100_000)
                .iter()
                .map(|element| serde_json::from_str(element).unwrap())
                .collect();
            prop_assert_eq!(found, values);
        }
    }
}
