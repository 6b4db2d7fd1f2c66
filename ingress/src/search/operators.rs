//! Operators in what somebody types: `from:`, `in:`, `before:`, `after:`, `has:link`. Whatever is none of these is text.

use jiff::{civil::Date, tz::TimeZone};
use shared::{
    ids::{ProjectId, UserId},
    store::{Error, Reader},
};

/// Most values of one operator.
const MAX_VALUES: usize = 16;
/// Most users whom one name means.
const MAX_AUTHORS: i64 = 100;

/// A search, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// The text without its operators.
    pub(super) text: String,
    /// Names or ids of authors.
    pub(super) from: Vec<String>,
    pub(super) channels: Vec<String>,
    pub(super) before_ms: Option<i64>,
    pub(super) after_ms: Option<i64>,
    pub(super) has_link: bool,
}

impl Typed {
    pub(super) fn read(text: &str) -> Self {
        let mut typed = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let word = &rest[..word_end(rest)];
            // Text in quotation marks has no operators, nor has text behind a mark that is not closed.
            if !typed.take(word) {
                typed.text.push_str(word);
            }
            rest = &rest[word.len()..];
            let spaces = rest.len() - rest.trim_start().len();
            typed.text.push_str(&rest[..spaces]);
            rest = &rest[spaces..];
        }
        typed
    }

    /// Takes an operator; returns whether the word is one.
    fn take(&mut self, word: &str) -> bool {
        let Some((name, value)) = word.split_once(':') else { return false };
        let value = value.trim_matches(['"', '“', '”']).trim();
        if value.is_empty() {
            return false;
        }
        match &*name.to_ascii_lowercase() {
            "from" if self.from.len() < MAX_VALUES => {
                self.from.push(value.strip_prefix('@').unwrap_or(value).to_owned());
            }
            "in" if self.channels.len() < MAX_VALUES => {
                self.channels.push(value.strip_prefix('#').unwrap_or(value).to_lowercase());
            }
            "before" => {
                let Some(ms) = start_ms(value) else { return false };
                self.before_ms = Some(self.before_ms.map_or(ms, |before| before.min(ms)));
            }
            "after" => {
                let Some(ms) = start_ms(value) else { return false };
                self.after_ms = Some(self.after_ms.map_or(ms, |after| after.max(ms)));
            }
            "has" if value.eq_ignore_ascii_case("link") => self.has_link = true,
            _ => return false,
        }
        true
    }

    /// Returns the filter of the search; `caller` is who `from:me` means.
    pub(super) fn filter(
        &self,
        reader: &Reader<'_>,
        project: ProjectId,
        caller: &UserId,
    ) -> Result<proto::Filter, Error> {
        let mut authors = Vec::new();
        for name in &self.from {
            if name.eq_ignore_ascii_case("me") {
                authors.push(caller.to_string());
            }
            authors.extend(authors_named(reader, project, name)?);
            // An id of somebody without a name, or of nobody.
            authors.push(name.clone());
        }
        Ok(proto::Filter {
            authors,
            channels: self.channels.clone(),
            before_ms: self.before_ms,
            after_ms: self.after_ms,
            has_link: self.has_link,
        })
    }
}

/// Returns the bytes of the first word, in which quotation marks hold spaces together.
fn word_end(text: &str) -> usize {
    let mut is_quoted = false;
    for (at, char) in text.char_indices() {
        if char == '"' {
            is_quoted = !is_quoted && text[at + 1..].contains('"');
        } else if char.is_whitespace() && !is_quoted {
            return at;
        }
    }
    text.len()
}

/// Returns when a time, day, month or year begins, in UTC.
fn start_ms(value: &str) -> Option<i64> {
    if let Ok(time) = value.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    let parts: Vec<&str> = value.split('-').collect();
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() > 3 || parts[0].len() != 4 || !parts.iter().all(is_number) {
        return None;
    }
    let number = |index: usize| parts.get(index).map_or(Some(1), |part| part.parse::<i8>().ok());
    let date = Date::new(parts[0].parse().ok()?, number(1)?, number(2)?).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

/// Returns the ids of those in a project who have an id or a name, or whose name begins with it as a word.
fn authors_named(
    reader: &Reader<'_>,
    project: ProjectId,
    name: &str,
) -> Result<Vec<String>, Error> {
    let begins: String = name
        .chars()
        .flat_map(|char| matches!(char, '%' | '_' | '!').then_some('!').into_iter().chain([char]))
        .collect();
    let sql = format!(
        "SELECT id FROM people WHERE project_id = $1 AND (LOWER(id) = LOWER($2) OR LOWER(name) = LOWER($2) \
         OR name = $2 OR LOWER(name) LIKE LOWER($3) ESCAPE '!') ORDER BY id LIMIT {MAX_AUTHORS}"
    );
    let begins = format!("{begins} %");
    reader
        .query(&sql, &[project.into(), name.into(), (&*begins).into()], |row| row.get::<String>(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn operators_are_taken_out_of_the_text() {
        let typed = Typed::read("mount From:@ada in:#General from:\"Ada Lovelace\" has:LINK disk");
        assert_eq!(typed.text.split_whitespace().collect::<Vec<_>>(), ["mount", "disk"]);
        assert_eq!(typed.from, ["ada", "Ada Lovelace"], "authors");
        assert_eq!((typed.channels, typed.has_link), (vec!["general".to_owned()], true));
    }

    #[test]
    fn days_months_and_years_are_times() {
        let ms = |text: &str| {
            let typed = Typed::read(text);
            (typed.after_ms, typed.before_ms)
        };
        assert_eq!(ms("after:1970-01-02"), (Some(86_400_000), None), "a day");
        assert_eq!(ms("before:1970-02"), (None, Some(31 * 86_400_000)), "a month");
        assert_eq!(ms("before:1971 before:1970"), (None, Some(0)), "the narrower one");
        assert_eq!(ms("after:1970-01-01T00:00:01Z"), (Some(1_000), None), "a time");
    }

    #[test]
    fn unknown_operators_are_text() {
        for text in [
            "is:open",
            "has:money",
            "before:tomorrow",
            "after:2024-13-01",
            "from:",
            "http://a.b/from:x",
            "\"from:ada in:general\"",
            "say \"x from:ada\" now",
            "time:12",
        ] {
            assert_eq!(
                Typed::read(text),
                Typed { text: text.into(), ..Typed::default() },
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_taken_apart(text in any::<String>()) {
            prop_assert!(Typed::read(&text).text.len() <= text.len());
        }
    }
}
