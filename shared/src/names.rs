//! Names for people to read: of users, projects, channels, and topics.

/// Returns a name without the characters that show nothing and change how the text around them is read.
///
/// Direction marks would reorder the text that follows the name, so that `\u{202e}` makes a file or a person look like
/// another. Joiners (`U+200C`, `U+200D`) stay: Persian, the scripts of India and many emoji need them.
#[must_use]
pub fn without_invisible(name: &str) -> String {
    name.chars().filter(|c| !is_invisible(*c)).collect()
}

/// Returns whether a name holds a character that [`without_invisible`] would take out.
#[must_use]
pub fn has_invisible(name: &str) -> bool {
    name.chars().any(is_invisible)
}

/// Returns whether a character is a control, a direction mark, or another one that no font draws.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Direction: marks, embeddings, overrides, isolates, and the shaping controls before them in the block.
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            // Spaces and operators of no width, separators of lines, the byte order mark, annotations.
            | '\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2065}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Hyphens, fillers and joiners that are drawn as nothing.
            | '\u{00ad}' | '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{ffa0}'
            // Tags, which can hide a whole sentence in a name.
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_shows_nothing() {
        for (name, shown) in [
            ("Ada Lovelace", "Ada Lovelace"),
            ("\u{202e}evil", "evil"),
            ("a\u{2066}d\u{2069}a\u{200e}\u{200f}\u{61c}", "ada"),
            ("A\u{200b}d\u{feff}a\u{0}\n", "Ada"),
            ("ada\u{e0041}\u{e007f}", "ada"),
            ("\u{3164}\u{115f}", ""),
            // Text in Hebrew, Arabic and Persian is read as it is; the last needs its joiner.
            ("\u{5d0}\u{5d3}\u{5d4} \u{639}\u{627}", "\u{5d0}\u{5d3}\u{5d4} \u{639}\u{627}"),
            ("\u{645}\u{6cc}\u{200c}\u{62e}", "\u{645}\u{6cc}\u{200c}\u{62e}"),
            // An emoji of three people, and a heart in colour.
            (
                "\u{1f468}\u{200d}\u{1f467}\u{200d}\u{1f466} \u{2764}\u{fe0f}",
                "\u{1f468}\u{200d}\u{1f467}\u{200d}\u{1f466} \u{2764}\u{fe0f}",
            ),
        ] {
            assert_eq!(without_invisible(name), shown, "{name:?}");
            assert_eq!(has_invisible(name), name != shown, "{name:?}");
        }
    }
}
