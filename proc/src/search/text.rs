//! What a user wrote, as words and phrases. It is text: nothing in it is an operator, and nothing in it is an error.

use std::{collections::HashSet, ops::Range, sync::LazyLock};

use tantivy::tokenizer::{Token, TokenStream as _};

use super::words;

/// Characters that are looked at.
const MOST_CHARS: usize = 4_000;
/// Words that are looked at, and words of one phrase.
const MOST_WORDS: usize = 100;
const MOST_PHRASE_WORDS: usize = 16;
/// Phrases in quotation marks that are looked at.
const MOST_PHRASES: usize = 4;

/// Words that say little about what a text is about, as people ask and answer.
const COMMON: &str = "a an the this that these those there here it its it's he she they them his her their i i'm i've i'd \
    i'll me my mine we us our you your you're yours is are was were be been being am isn't aren't wasn't do does did \
    doing done don't doesn't didn't have has had having haven't hasn't can can't cannot could couldn't will won't would \
    wouldn't shall should shouldn't may might must of to in on at by for from with without into onto as about after \
    before between over under than then so too very just only also again and or but not no nor if else when where \
    which who whom whose what why how while because until any some all both each few more most other such own same \
    get got getting want wants wanted need needs please thanks thank hi hello hey anyone anybody someone somebody \
    know tell help way possible like what's that's there's let lets ok okay yes yeah";

static COMMON_WORDS: LazyLock<HashSet<String>> =
    LazyLock::new(|| cut(COMMON).map(|(text, ..)| text).collect());

/// One word, as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) position: usize,
    /// Letters as it was written, with its ending.
    pub(super) letters: usize,
    /// It says what the text is about.
    pub(super) matters: bool,
}

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Each word once, in the order of the text.
    pub(super) words: Vec<Word>,
    /// What stands in quotation marks, to be found as it is.
    pub(super) phrases: Vec<Vec<Word>>,
}

impl Asked {
    pub(super) fn read(text: &str) -> Self {
        let end = text.char_indices().nth(MOST_CHARS).map_or(text.len(), |(at, _)| at);
        let text = text[..end].replace(['“', '”', '„'], "\"");
        let pieces: Vec<&str> = text.split('"').collect();
        // Every second piece is quoted, but not one whose mark has no other.
        let quoted = |index: usize| index % 2 == 1 && index + 1 < pieces.len();
        let phrases = pieces.iter().enumerate().filter(|(index, _)| quoted(*index));
        let phrases = phrases.map(|(_, piece)| phrase(piece)).filter(|words| !words.is_empty());
        let phrases = phrases.take(MOST_PHRASES).collect();
        let mut words = analyze(&text.replace('"', " "));
        words.truncate(MOST_WORDS);
        let mut seen = HashSet::new();
        words.retain(|word| seen.insert(word.text.clone()));
        if !words.iter().any(|word| word.matters) {
            for word in &mut words {
                word.matters = true;
            }
        }
        Self { words, phrases }
    }
}

/// Returns the words of a phrase without those that stand in another one.
fn phrase(text: &str) -> Vec<Word> {
    let mut words = analyze(text);
    let mut next = 0;
    // What is joined comes as a whole first and then in parts, of which the first is at the same place.
    words.reverse();
    words.retain(|word| {
        let is_new = next == 0 || word.position < next - 1;
        next = if is_new { word.position + 1 } else { next };
        is_new
    });
    words.reverse();
    words.truncate(MOST_PHRASE_WORDS);
    words
}

fn analyze(source: &str) -> Vec<Word> {
    let word = |(text, Range { start, end }, position): (String, Range<usize>, usize)| Word {
        matters: !COMMON_WORDS.contains(&text),
        letters: source[start..end].chars().count(),
        text,
        position,
    };
    cut(source).map(word).collect()
}

fn cut(text: &str) -> impl Iterator<Item = (String, Range<usize>, usize)> {
    let mut words = Vec::new();
    let mut add = |token: &Token| {
        words.push((token.text.clone(), token.offset_from..token.offset_to, token.position));
    };
    words::analyzer().token_stream(text).process(&mut add);
    words.into_iter()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matters(text: &str) -> Vec<String> {
        let asked = Asked::read(text);
        asked.words.into_iter().filter(|word| word.matters).map(|word| word.text).collect()
    }

    #[test]
    fn a_question_is_about_its_rare_words() {
        assert_eq!(matters("How do I mount a windows partition?"), ["mount", "window", "partit"]);
        assert_eq!(matters("how do i"), ["how", "do", "i"], "there is nothing else");
    }

    #[test]
    fn quotation_marks_make_a_phrase() {
        let phrases = |text: &str| {
            let words = |phrase: Vec<Word>| phrase.into_iter().map(|word| word.text).collect();
            Asked::read(text).phrases.into_iter().map(words).collect::<Vec<Vec<String>>>()
        };
        assert_eq!(phrases("say \"sudo apt-get update\" now"), [["sudo", "apt", "get", "updat"]]);
        assert!(phrases("an \"open one").is_empty());
        assert!(phrases("\"\" \" \" \"...\"").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_can_be_asked(text in any::<String>()) {
            let asked = Asked::read(&text);
            prop_assert!(asked.words.len() <= MOST_WORDS);
            prop_assert!(asked.words.is_empty() || asked.words.iter().any(|word| word.matters));
        }

        #[test]
        fn syntax_is_text(text in "[\"*:()\\[\\]^~ a-c+!-]*") {
            let asked = Asked::read(&text);
            prop_assert!(asked.phrases.len() <= MOST_PHRASES);
            let is_word = |word: &Word| word.text.chars().any(char::is_alphanumeric);
            prop_assert!(asked.words.iter().all(is_word));
        }
    }
}
