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

/// Returns whether a name shows anything: joiners and variation selectors alone do not.
#[must_use]
pub fn is_visible(name: &str) -> bool {
    name.chars().any(|c| !is_invisible(c) && !is_joiner(c) && !is_selector(c) && !c.is_whitespace())
}

/// Returns whether each character of a reaction is seen: it has no direction marks and nothing else that shows nothing.
/// Joiners between two characters, a variation selector behind one, and the tags of a flag are parts of emoji.
#[must_use]
pub fn is_visible_emoji(emoji: &str) -> bool {
    let mut before = None;
    let mut is_flag = false;
    for c in emoji.chars() {
        let follows_shown = before.is_some_and(|before| !is_joiner(before));
        let fits = match c {
            // Only the black flag has tags, of its region.
            '\u{e0020}'..='\u{e007f}' => is_flag,
            _ if is_joiner(c) => follows_shown,
            _ if is_selector(c) => {
                follows_shown && before.is_some_and(|before| !is_selector(before))
            }
            _ => !is_invisible(c),
        };
        if !fits {
            return false;
        }
        let is_tag = matches!(c, '\u{e0020}'..='\u{e007f}');
        is_flag = c == '\u{1f3f4}' || (is_flag && is_tag);
        before = Some(c);
    }
    before.is_some_and(|last| !is_joiner(last))
}

/// Returns whether a character joins or parts the ones beside it and shows nothing itself.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Returns whether a character chooses between forms of the one before it.
fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{e0100}'..='\u{e01ef}')
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
            | '\u{00ad}' | '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{3164}' | '\u{ffa0}'
            // Controls of shorthand and of music.
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            // Tags, which can hide a whole sentence in a name.
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaction_shows_each_of_its_characters() {
        for emoji in [
            "👍",
            "👍🏽",
            "❤\u{fe0f}",
            "✔\u{fe0e}",
            "1\u{fe0f}\u{20e3}",
            "🤷\u{200d}♂\u{fe0f}",
            "❤\u{fe0f}\u{200d}🔥",
            "👨\u{200d}👩\u{200d}👧",
            "🇩🇪",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "+1",
            "clap::skin-tone-3",
            "リハテスト",
            "\u{645}\u{6cc}\u{200c}\u{62e}",
            "\u{5d0}\u{5d3}\u{5d4}",
        ] {
            assert!(is_visible_emoji(emoji), "{emoji:?}");
        }
        for hidden in [
            "\u{202e}👍",
            "👍\u{200b}",
            "👍\u{200d}",
            "\u{200d}👍",
            "👍\u{200d}\u{200d}👍",
            "\u{200c}",
            "\u{fe0f}",
            "👍\u{fe0f}\u{fe0f}",
            "👍\u{200d}\u{fe0f}",
            "👍\u{e0067}\u{e007f}",
            "\u{2066}a\u{2069}",
            "a\u{feff}",
            "\u{3164}",
            "\u{ad}",
        ] {
            assert!(!is_visible_emoji(hidden), "{hidden:?}");
        }
        assert!(is_visible("a") && !is_visible("\u{200d}\u{fe0f} ") && !is_visible(""));
    }

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
