//! The part of a message that shows why it was found.

use std::ops::Range;

/// The longest snippet in characters.
const LONGEST: usize = 200;
/// How much of it stands before the first word that was looked for.
const BEFORE: usize = 40;
/// Letters that decide whether two words are forms of one.
const STEM: usize = 5;

/// Returns at most 200 characters of the text: the part with the most of the words that were looked for, in one line.
pub(super) fn snippet(text: &str, asked: &str) -> String {
    let text: Vec<char> = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    let text: Vec<char> = text.into_iter().filter(|char| !char.is_control()).collect();
    if text.len() <= LONGEST {
        return text.into_iter().collect();
    }
    let asked: Vec<char> = asked.chars().collect();
    let wanted: Vec<String> = words(&asked).into_iter().map(|word| stem(&asked[word])).collect();
    let matches = words(&text).into_iter().filter_map(|word| {
        let stem = stem(&text[word.clone()]);
        Some((word.start, wanted.iter().position(|wanted| *wanted == stem)?))
    });
    let matches: Vec<(usize, usize)> = matches.collect();
    let best = matches.iter().enumerate().max_by_key(|(index, (at, _))| {
        let near = matches[*index..].iter().take_while(|(other, _)| other - at < LONGEST - BEFORE);
        let mut different: Vec<usize> = near.map(|(_, which)| *which).collect();
        different.sort_unstable();
        different.dedup();
        // Of equal ones the first.
        (different.len(), usize::MAX - index)
    });
    let start = best.map_or(0, |(_, (at, _))| at.saturating_sub(BEFORE));
    cut(&text, start.min(text.len() - (LONGEST - 2)))
}

/// Cuts a snippet out, between words if there are some.
fn cut(text: &[char], start: usize) -> String {
    let is_space = |at: &usize| text[*at] == ' ';
    let from =
        if start == 0 { 0 } else { (start..start + BEFORE / 2).find(is_space).unwrap_or(start) };
    let end = (from + LONGEST - 2).min(text.len());
    let to = if end == text.len() {
        end
    } else {
        (end - BEFORE / 2..end).rfind(is_space).unwrap_or(end)
    };
    let part: String = text[from..to].iter().collect();
    let (before, after) = (if from > 0 { "…" } else { "" }, if to < text.len() { "…" } else { "" });
    format!("{before}{}{after}", part.trim())
}

fn words(text: &[char]) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.iter().enumerate().filter(|(_, char)| char.is_alphanumeric()) {
        match words.last_mut() {
            Some(word) if word.end == at => word.end = at + 1,
            _ => words.push(at..at + 1),
        }
    }
    words
}

fn stem(word: &[char]) -> String {
    word.iter().take(STEM).flat_map(|char| char.to_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_shows_what_was_looked_for() {
        let far =
            format!("{} then mount the partition by hand {}", "a ".repeat(300), "z ".repeat(300));
        let shown = snippet(&far, "mounting partitions");
        assert!(shown.contains("mount the partition"), "{shown}");
        assert!(shown.starts_with('…') && shown.ends_with('…'));
        assert_eq!(snippet("short\n\ttext", "anything"), "short text");
    }

    proptest! {
        #[test]
        fn it_is_short_whatever_the_text(text in "\\PC{0,900}", asked in any::<String>()) {
            prop_assert!(snippet(&text, &asked).chars().count() <= LONGEST);
        }
    }
}
