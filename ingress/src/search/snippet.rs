//! The part of a message that shows why it was found, with the words that were looked for.

use std::{collections::HashSet, ops::Range};

use serde::Serialize;
use shared::words::{self, Kind, Token};

/// The longest snippet in characters.
const LONGEST: usize = 200;
/// How much of it stands before the first word that was looked for.
const BEFORE: usize = 40;

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snippet {
    pub(super) text: String,
    pub(super) highlights: Vec<Highlight>,
}

/// A word in a snippet that was looked for: its first character, and the one behind its last. Characters are Unicode code
/// points.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(super) struct Highlight {
    start: usize,
    end: usize,
}

/// Terms that were looked up for a question, and those that stand together.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    terms: HashSet<String>,
    phrases: Vec<Vec<String>>,
}

impl Wanted {
    pub(super) fn new(words: Vec<String>) -> Self {
        let mut wanted = Self::default();
        for word in words {
            if word.contains(' ') {
                wanted.phrases.push(word.split(' ').map(ToOwned::to_owned).collect());
            } else {
                wanted.terms.insert(word);
            }
        }
        wanted
    }

    /// Returns the bytes of a text where terms stand, in order and apart from each other.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let tokens = words::index_tokens(text);
        let mut found: Vec<Range<usize>> = Vec::new();
        let is_wanted =
            |token: &&Token| token.kind != Kind::Mark && self.terms.contains(&token.term);
        found.extend(tokens.iter().filter(is_wanted).map(|token| token.range.clone()));
        let written: Vec<&Token> = tokens
            .iter()
            .filter(|token| matches!(token.kind, Kind::Word | Kind::Character | Kind::Named))
            .collect();
        for phrase in &self.phrases {
            for part in written.windows(phrase.len()) {
                if part.iter().zip(phrase).all(|(token, term)| token.term == *term) {
                    found.push(part[0].range.start..part[part.len() - 1].range.end);
                }
            }
        }
        found.sort_by_key(|range| (range.start, range.end));
        let mut apart: Vec<Range<usize>> = Vec::new();
        for range in found.into_iter().filter(|range| !range.is_empty()) {
            match apart.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => apart.push(range),
            }
        }
        apart
    }
}

/// Returns at most 200 characters of the text, in one line: the part with the most of what was looked for.
pub(super) fn snippet(text: &str, wanted: &Wanted) -> Snippet {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: Vec<char> = line.chars().filter(|char| !char.is_control()).collect();
    let text: String = line.iter().collect();
    let found = characters(&text, wanted.find(&text));
    let (from, to) = if line.len() <= LONGEST { (0, line.len()) } else { part(&line, &found) };
    let (before, after) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
    let shown: String = line[from..to].iter().collect();
    // Characters that are cut off here count for the places of words.
    let trimmed = shown.trim_start();
    let from = from + shown.chars().count() - trimmed.chars().count();
    let trimmed = trimmed.trim_end();
    let to = from + trimmed.chars().count();
    let shift = before.chars().count();
    let highlights = found.into_iter().filter(|range| range.start < to && range.end > from);
    let highlights = highlights.map(|range| Highlight {
        start: range.start.max(from) - from + shift,
        end: range.end.min(to) - from + shift,
    });
    Snippet { highlights: highlights.collect(), text: format!("{before}{trimmed}{after}") }
}

/// Turns ranges of bytes into ranges of characters.
fn characters(text: &str, ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut at = (0, 0);
    let mut count = |byte: usize| {
        let (known, characters) = at;
        at = (byte, characters + text[known..byte].chars().count());
        at.1
    };
    ranges.into_iter().map(|range| count(range.start)..count(range.end)).collect()
}

/// Returns the characters of a long text with the most different words that were looked for.
fn part(text: &[char], found: &[Range<usize>]) -> (usize, usize) {
    let different = |index: usize| {
        let start = found[index].start;
        let near = found[index..].iter().take_while(|range| range.start - start < LONGEST - BEFORE);
        let mut words: Vec<&[char]> = near.map(|range| &text[range.clone()]).collect();
        words.sort_unstable();
        words.dedup();
        words.len()
    };
    // The first of equal windows wins.
    let best = (0..found.len()).max_by_key(|index| (different(*index), usize::MAX - index));
    let start = best.map_or(0, |index| found[index].start.saturating_sub(BEFORE));
    let start = start.min(text.len() - (LONGEST - 2));
    let is_space = |at: &usize| text[*at] == ' ';
    let from =
        if start == 0 { 0 } else { (start..start + BEFORE / 2).find(is_space).unwrap_or(start) };
    let end = (from + LONGEST - 2).min(text.len());
    let to = if end == text.len() {
        end
    } else {
        (end - BEFORE / 2..end).rfind(is_space).unwrap_or(end)
    };
    (from, to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(words: &[&str]) -> Wanted {
        Wanted::new(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn marked(text: &str, words: &[&str]) -> Vec<String> {
        let Snippet { text, highlights } = snippet(text, &wanted(words));
        let chars: Vec<char> = text.chars().collect();
        highlights.iter().map(|mark| chars[mark.start..mark.end].iter().collect()).collect()
    }

    #[test]
    fn the_part_with_the_words_is_shown() {
        let far =
            format!("{} then mount the partition by hand {}", "a ".repeat(300), "z ".repeat(300));
        let Snippet { text, highlights } = snippet(&far, &wanted(&["mount", "partition"]));
        assert!(text.contains("mount the partition"), "{text}");
        assert!(text.starts_with('…') && text.ends_with('…'), "{text}");
        assert_eq!(highlights.len(), 2, "{text}: {highlights:?}");
        assert_eq!(snippet("short\n\ttext", &wanted(&["anything"])).text, "short text");
    }

    #[test]
    fn words_are_marked_in_the_form_in_which_they_stand() {
        assert_eq!(marked("Das Café ist offen", &["cafe"]), ["Café"]);
        assert_eq!(marked("mounting it", &[&words::stem_term('e', "mount")]), ["mounting"]);
        assert_eq!(
            marked("私は東京に住む。京は東", &["東 京"]),
            ["東京"],
            "characters that stand together"
        );
        assert_eq!(marked("use apt-get now", &["apt-get", "apt"]), ["apt-get"], "once");
        let far = format!("{} cafe\u{301} au lait", "x ".repeat(300));
        assert_eq!(marked(&far, &["cafe"]), ["cafe\u{301}"], "a decomposed accent");
    }

    proptest! {
        #[test]
        fn a_snippet_is_short_and_its_marks_are_in_it(
            text in "(\\PC|walnut |日本 ){0,600}", word in "walnut|日 本|a",
        ) {
            let Snippet { text, highlights } = snippet(&text, &wanted(&[&word]));
            let length = text.chars().count();
            prop_assert!(length <= LONGEST);
            let mut last = 0;
            for Highlight { start, end } in highlights {
                prop_assert!(last <= start && start < end && end <= length, "{start} {end} {length}");
                last = end;
            }
        }
    }
}
