//! Emoji as people see them: what looks the same is one kind of reaction.

use icu_normalizer::{ComposingNormalizer, ComposingNormalizerBorrowed};

use crate::ids::Emoji;

const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizer::new_nfc();

/// Short names that Slack has and GitHub has not, or has for another emoji.
const SLACK_NAMES: &[(&str, &str)] = &[
    ("simple_smile", "🙂"),
    ("thinking_face", "🤔"),
    ("hugging_face", "🤗"),
    ("face_with_rolling_eyes", "🙄"),
    ("rolling_on_the_floor_laughing", "🤣"),
    ("star-struck", "🤩"),
    ("the_horns", "🤘"),
    ("sign_of_the_horns", "🤘"),
    ("shrug", "🤷"),
    ("man-shrugging", "🤷\u{200d}♂"),
    ("woman-shrugging", "🤷\u{200d}♀"),
    ("face_palm", "🤦"),
    ("man-facepalming", "🤦\u{200d}♂"),
    ("woman-facepalming", "🤦\u{200d}♀"),
    ("zany_face", "🤪"),
    ("smiling_face_with_3_hearts", "🥰"),
    ("face_with_monocle", "🧐"),
    ("face_with_raised_eyebrow", "🤨"),
    ("shushing_face", "🤫"),
    ("exploding_head", "🤯"),
    ("partying_face", "🥳"),
    ("hot_face", "🥵"),
    ("saluting_face", "🫡"),
    ("melting_face", "🫠"),
    ("upside_down_face", "🙃"),
    ("white_frowning_face", "☹"),
    ("heavy_heart_exclamation_mark_ornament", "❣"),
];

impl Emoji {
    /// Returns the text by which kinds of reaction are compared: without variation selectors, the emoji itself for its short
    /// name, and one normal form for names of custom emoji. Skin tones are kinds of their own.
    #[must_use]
    pub fn key(&self) -> String {
        let text = self.as_str();
        if !text.is_ascii() {
            return NFC.normalize(&unselected(text)).trim_matches(':').to_owned();
        }
        let text = text.strip_prefix(':').and_then(|name| name.strip_suffix(':')).unwrap_or(text);
        // Slack writes a skin tone as a second name.
        let (name, tone) = match text.split_once("::skin-tone-") {
            Some((name, tone)) => (name, skin_tone(tone)),
            None => (text, Some("")),
        };
        let name = name.to_ascii_lowercase();
        match (of_name(&name), tone) {
            (Some(emoji), Some(tone)) => with_tone(&emoji, tone),
            _ => text.to_ascii_lowercase(),
        }
    }
}

/// Returns an emoji without variation selectors.
fn unselected(text: &str) -> String {
    text.chars().filter(|char| !matches!(char, '\u{fe0e}' | '\u{fe0f}')).collect()
}

fn of_name(name: &str) -> Option<String> {
    let slack = SLACK_NAMES.iter().find(|(known, _)| *known == name).map(|(_, emoji)| *emoji);
    let emoji = slack.or_else(|| emojis::get_by_shortcode(name).map(emojis::Emoji::as_str))?;
    Some(unselected(emoji))
}

fn skin_tone(number: &str) -> Option<&'static str> {
    Some(match number {
        "2" => "\u{1f3fb}",
        "3" => "\u{1f3fc}",
        "4" => "\u{1f3fd}",
        "5" => "\u{1f3fe}",
        "6" => "\u{1f3ff}",
        _ => return None,
    })
}

/// Puts a skin tone behind the first character of an emoji.
fn with_tone(emoji: &str, tone: &str) -> String {
    let mut chars = emoji.chars();
    let first: String = chars.next().into_iter().collect();
    format!("{first}{tone}{}", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        text.parse::<Emoji>().expect("an emoji").key()
    }

    #[test]
    fn what_looks_the_same_is_one_kind() {
        for (one, other) in [
            ("👍", "👍\u{fe0f}"),
            ("❤", "❤\u{fe0f}"),
            ("👍", "+1"),
            ("👍", ":+1:"),
            ("👍", "thumbsup"),
            ("❤\u{fe0f}", "heart"),
            ("🎉", "tada"),
            ("✔\u{fe0e}", "✔\u{fe0f}"),
            ("👏🏼", "clap::skin-tone-3"),
            ("👏🏼", ":clap::skin-tone-3:"),
            ("🤔", "thinking_face"),
            ("🤔", "thinking"),
            ("🤷\u{200d}♂\u{fe0f}", "man-shrugging"),
            ("party_parrot", ":party_parrot:"),
            ("リハテスト", "リハテスト"),
            ("カ\u{3099}", "ガ"),
        ] {
            assert_eq!(key(one), key(other), "{one} and {other}");
        }
    }

    #[test]
    fn what_looks_different_stays_apart() {
        for (one, other) in [
            ("👍", "👎"),
            ("👍", "👍🏽"),
            ("👍🏻", "👍🏽"),
            ("+1", "-1"),
            ("clap", "clap::skin-tone-3"),
            ("clap::skin-tone-2", "clap::skin-tone-3"),
            ("party_parrot", "parrot"),
            ("👨\u{200d}👩", "👨"),
        ] {
            assert_ne!(key(one), key(other), "{one} and {other}");
        }
    }
}
