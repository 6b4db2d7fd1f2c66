//! Parts of a long text: each is a message of its own here.

/// Bytes of a message's text at most.
const MAX_PART_BYTES: usize = 64 << 10;
/// Characters that are one for a reader at most.
const MAX_CLUSTER_CHARS: usize = 32;

/// Cuts a text into parts that chat takes: where a line ends, else behind a space, else between two characters. The parts
/// together are the text.
pub(super) fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while rest.len() > MAX_PART_BYTES {
        let end = rest.floor_char_boundary(MAX_PART_BYTES);
        // The cut may cost a quarter of the part.
        let tail = rest.floor_char_boundary(MAX_PART_BYTES / 4 * 3);
        let at = |ends: fn(char) -> bool| {
            let (at, c) = rest[tail..end].char_indices().rfind(|(_, c)| ends(*c))?;
            Some(tail + at + c.len_utf8())
        };
        let cut = at(|c| c == '\n').or_else(|| at(char::is_whitespace));
        let cut = cut.unwrap_or_else(|| whole_character(rest, end));
        let (part, after) = rest.split_at(cut);
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

/// Moves a cut before a character that goes on behind it: marks, skin tones and joined emoji belong to what is before them.
fn whole_character(text: &str, end: usize) -> usize {
    let goes_on = |c: char| {
        matches!(c, '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{20d0}'..='\u{20ff}' | '\u{3099}' | '\u{309a}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
    };
    let mut cut = end;
    for (at, before) in text[..end].char_indices().rev().take(MAX_CLUSTER_CHARS) {
        let next = text[cut..].chars().next();
        if !next.is_some_and(goes_on) && before != '\u{200d}' {
            return cut;
        }
        cut = at;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_into_parts_that_are_the_text() {
        let lines = format!("{}\n", "a".repeat(9_999)).repeat(20);
        let words = "語 ".repeat(40_000);
        let family = "👩\u{200d}👩\u{200d}👧🏽".repeat(8_000);
        for text in
            ["", "short", &"語".repeat(40_000), &lines, &words, &family, &"\u{300}".repeat(90_000)]
        {
            let parts = split(text);
            assert_eq!(parts.concat(), text);
            assert!(
                parts.iter().all(|part| part.len() <= MAX_PART_BYTES),
                "parts are short enough"
            );
            assert!(
                text.is_empty() || parts.iter().all(|part| !part.is_empty()),
                "parts have text"
            );
        }
        assert!(
            split(&lines)[..3].iter().all(|part| part.ends_with('\n')),
            "parts end with a line"
        );
        assert!(split(&words)[..1].iter().all(|part| part.ends_with(' ')), "parts end with a word");
        assert!(split(&family).iter().all(|part| part.starts_with('👩')), "no emoji is cut");
    }
}
