//! Text in pieces: what counts as a token, where a chunk may end.

/// The longest chunk in bytes.
const CHUNK_BYTES: usize = 4 * 1024;
/// How much of a message stands for it, in characters.
const SNIPPET: usize = 200;

/// Returns how many tokens a text has: words, and single marks between them. No model counts quite so, and each in its own
/// way; limits need one measure for all.
pub(super) fn tokens(text: &str) -> u64 {
    starts(text).count() as u64
}

/// Returns the beginning of a text that has at most so many tokens.
pub(super) fn first_tokens(text: &str, most: u64) -> &str {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    starts(text).nth(most).map_or(text, |end| &text[..end])
}

/// Returns where tokens begin.
fn starts(text: &str) -> impl Iterator<Item = usize> {
    let mut within = false;
    text.char_indices().filter_map(move |(at, c)| {
        let goes_on = within && c.is_alphanumeric();
        within = c.is_alphanumeric();
        (!c.is_whitespace() && !goes_on).then_some(at)
    })
}

/// Cuts a text into pieces of about `words` words, each with the space behind it, and none too long for a chunk.
pub(super) fn pieces(text: &str, words: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut seen) = (0, 0);
    let mut spaces = false;
    for (at, c) in text.char_indices() {
        if spaces && !c.is_whitespace() {
            seen += 1;
        }
        if at > start && (seen == words || at - start + c.len_utf8() > CHUNK_BYTES) {
            pieces.push(&text[start..at]);
            (start, seen) = (at, 0);
        }
        spaces = c.is_whitespace();
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

/// Returns the beginning of a text on one line.
pub(super) fn snippet(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SNIPPET) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_the_text_and_none_is_empty_or_long(text in "(\\PC|[ \n\t]|\u{1f600}){0,300}", words in 1..9usize) {
            let pieces = pieces(&text, words);
            prop_assert_eq!(pieces.concat(), &*text);
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= CHUNK_BYTES));
        }

        #[test]
        fn the_first_tokens_are_as_many_as_asked_for(text in "(\\PC|[ \n]){0,200}", most in 0..50u64) {
            let first = first_tokens(&text, most);
            prop_assert!(text.starts_with(first));
            prop_assert_eq!(tokens(first), most.min(tokens(&text)));
        }
    }

    #[test]
    fn words_and_marks_are_tokens() {
        assert_eq!(tokens("Use apt-get, please: it's 10.04"), 15 - 2);
        assert_eq!(pieces("one two  three four", 2), ["one two  ", "three four"]);
        assert_eq!(pieces(&"x".repeat(9000), 4).len(), 3);
    }
}
