//! A question as words, phrases and exclusions. It is text: nothing in it is an error.

use std::{collections::HashSet, ops::Range, sync::LazyLock};

use shared::words::{self, Kind, Language, Token};

/// Characters that are looked at.
const MOST_CHARS: usize = 4_000;
/// Words that are looked at, and words of one phrase.
const MOST_WORDS: usize = 100;
const MOST_PHRASE_WORDS: usize = 16;
/// Phrases in quotation marks that are looked at, and words that must not be there.
const MOST_PHRASES: usize = 4;
const MOST_EXCLUDED: usize = 16;
/// The shortest beginning of a word that is completed.
const MIN_PREFIX_CHARS: usize = 2;
/// The shortest beginning of a commit's name.
const MIN_COMMIT_CHARS: usize = 7;

/// Words that say little about what a text is about, as people ask and answer.
const COMMON: &str = "a an the this that these those there here it its it's he she they them his her their i i'm i've i'd \
    i'll me my mine we us our you your you're yours is are was were be been being am isn't aren't wasn't do does did \
    doing done don't doesn't didn't have has had having haven't hasn't can can't cannot could couldn't will won't would \
    wouldn't shall should shouldn't may might must of to in on at by for from with without into onto as about after \
    before between over under than then so too very just only also again and or but not no nor if else when where \
    which who whom whose what why how while because until any some all both each few more most other such own same \
    get got getting want wants wanted need needs please thanks thank hi hello hey anyone anybody someone somebody \
    know tell help way possible like what's that's there's let lets ok okay yes yeah";

/// Characters of Chinese that say little, as a whole word.
const COMMON_CHARACTERS: &str = "的了是我你他她吗嗎和在有不";

static COMMON_WORDS: LazyLock<HashSet<String>> =
    LazyLock::new(|| words::cut(COMMON).into_iter().map(|token| token.term).collect());

/// Word of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Its term; of a word of a script without spaces, that of each of its characters.
    pub(super) terms: Vec<String>,
    /// The word as it was written.
    pub(super) source: String,
    pub(super) position: usize,
    pub(super) kind: Kind,
    /// It says what the text is about.
    pub(super) matters: bool,
    /// The word may be the beginning of another one.
    pub(super) is_prefix: bool,
}

impl Word {
    /// Returns the term of a word that has one.
    pub(super) fn term(&self) -> Option<&str> {
        if let [term] = &*self.terms { Some(term) } else { None }
    }
}

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Each word once, in the order of the text.
    pub(super) words: Vec<Word>,
    /// Phrases in quotation marks, to be found as they are: terms with their positions.
    pub(super) phrases: Vec<Phrase>,
    /// Phrases that a message must not have.
    pub(super) excluded: Vec<Phrase>,
}

/// Terms with their positions from the first on.
pub(super) type Phrase = Vec<(usize, String)>;

/// Kind of a text.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Words that somebody types to find messages: the last one may not be whole, and a minus excludes a word.
    Typed,
    /// The same beside operators: an excluded word need not stand beside others.
    Narrowed,
    /// A sentence.
    Question,
}

impl Asked {
    pub(super) fn read(text: &str, style: Style) -> Self {
        let end = text.char_indices().nth(MOST_CHARS).map_or(text.len(), |(at, _)| at);
        let text = text[..end].replace(['“', '”', '„'], "\"");
        let (rest, excluded) = match style {
            Style::Typed | Style::Narrowed => exclude(&text),
            Style::Question => (text.clone(), Vec::new()),
        };
        let asked = Self { excluded, ..Self::of(&rest, style) };
        // In a text that has excluded words alone, a minus is a minus.
        let is_alone = asked.words.is_empty() && style != Style::Narrowed;
        if is_alone { Self::of(&text, style) } else { asked }
    }

    fn of(text: &str, style: Style) -> Self {
        let pieces: Vec<&str> = text.split('"').collect();
        // Every second piece is quoted, but not one whose mark has no other.
        let quoted = |index: usize| index % 2 == 1 && index + 1 < pieces.len();
        let phrases = pieces.iter().enumerate().filter(|(index, _)| quoted(*index));
        let phrases = phrases.map(|(_, piece)| phrase(piece)).filter(|words| !words.is_empty());
        let phrases = phrases.take(MOST_PHRASES).collect();
        let plain = text.replace('"', " ");
        let mut words = read_words(&plain);
        if style != Style::Question {
            mark_prefixes(&mut words, text);
        }
        words.truncate(MOST_WORDS);
        let mut seen = HashSet::new();
        words.retain(|word| seen.insert(word.terms.clone()));
        if !words.iter().any(|word| word.matters) {
            for word in &mut words {
                word.matters = true;
            }
        }
        Self { words, phrases, excluded: Vec::new() }
    }
}

/// Takes words with a minus out of a text, and phrases with one.
fn exclude(text: &str) -> (String, Vec<Phrase>) {
    let (mut rest, mut excluded) = (String::new(), Vec::new());
    let mut at = 0;
    let mut is_quoted = false;
    while let Some(char) = text[at..].chars().next() {
        let is_start = rest.chars().next_back().is_none_or(char::is_whitespace);
        let behind = &text[at + char.len_utf8()..];
        let word = if char == '-' && is_start && !is_quoted { excluded_word(behind) } else { None };
        if let Some(word) = word.filter(|_| excluded.len() < MOST_EXCLUDED) {
            let terms = phrase(&behind[word.clone()]);
            if !terms.is_empty() {
                excluded.push(terms);
                at += 1 + word.end + usize::from(behind[word.end..].starts_with('"'));
                continue;
            }
        }
        is_quoted ^= char == '"';
        rest.push(char);
        at += char.len_utf8();
    }
    (rest, excluded)
}

/// Returns the bytes of the word, or of the phrase in quotation marks, behind a minus.
fn excluded_word(behind: &str) -> Option<Range<usize>> {
    if let Some(quoted) = behind.strip_prefix('"') {
        return quoted.find('"').map(|end| 1..1 + end);
    }
    behind.chars().next().filter(|first| !first.is_whitespace() && *first != '-')?;
    Some(0..behind.find(char::is_whitespace).unwrap_or(behind.len()))
}

/// Marks the last word if it may go on, and whatever may be the beginning of a commit's name.
fn mark_prefixes(words: &mut [Word], text: &str) {
    let is_open = text.chars().next_back().is_some_and(char::is_alphanumeric);
    let last = words.iter().map(|word| word.position).max().filter(|_| is_open);
    for word in words {
        let Some(term) = word.term() else { continue };
        let letters = term.chars().count();
        let is_commit = (MIN_COMMIT_CHARS..40).contains(&letters)
            && term.chars().all(|char| char.is_ascii_hexdigit())
            && term.chars().any(|char| char.is_ascii_digit());
        let is_word = matches!(word.kind, Kind::Word | Kind::Whole);
        let is_last = Some(word.position) == last
            || word.kind == Kind::Whole && is_open && text.ends_with(&word.source);
        word.is_prefix = is_commit || (is_word && is_last && letters >= MIN_PREFIX_CHARS);
    }
}

/// Returns the terms of a phrase, one for each position.
fn phrase(text: &str) -> Phrase {
    let tokens = words::cut(text);
    let is_symbols = tokens.iter().all(|token| token.kind == Kind::Symbol);
    let rank = |token: &Token| match token.kind {
        Kind::Named => 0,
        Kind::Word | Kind::Character => 1,
        Kind::Symbol if is_symbols => 1,
        _ => 2,
    };
    let mut phrase: Vec<(usize, usize, String)> = Vec::new();
    for token in tokens {
        let rank = rank(&token);
        if rank > 1 {
            continue;
        }
        match phrase.last_mut().filter(|(position, ..)| *position == token.position) {
            Some(last) if rank < last.1 => *last = (token.position, rank, token.term),
            Some(_) => {}
            None => phrase.push((token.position, rank, token.term)),
        }
    }
    phrase.truncate(MOST_PHRASE_WORDS);
    let first = phrase.first().map_or(0, |(position, ..)| *position);
    phrase.into_iter().map(|(position, _, term)| (position - first, term)).collect()
}

fn read_words(source: &str) -> Vec<Word> {
    let language = words::of_question(source);
    let tokens = words::cut(source);
    let named: HashSet<usize> = tokens
        .iter()
        .filter(|token| token.kind == Kind::Named)
        .map(|token| token.position)
        .collect();
    let mut found = Vec::new();
    let is_run = |one: &Token, next: &Token| {
        one.kind == Kind::Character
            && next.kind == Kind::Character
            && one.range.end == next.range.start
    };
    for run in tokens.chunk_by(is_run) {
        if run[0].kind == Kind::Character {
            found.extend(solid_words(run).into_iter().map(|range| solid(source, &run[range])));
            continue;
        }
        let token = &run[0];
        // A name with its symbols is another word than without them.
        let is_named = token.kind != Kind::Named
            && token.kind != Kind::Symbol
            && named.contains(&token.position);
        if is_named {
            continue;
        }
        found.push(Word {
            terms: vec![token.term.clone()],
            source: source[token.range.clone()].to_owned(),
            position: token.position,
            kind: token.kind,
            matters: !is_common(language, &token.term),
            is_prefix: false,
        });
    }
    found
}

fn is_common(language: Language, term: &str) -> bool {
    COMMON_WORDS.contains(term) && language == Language::English
        || language != Language::English && words::stopwords(language, term)
}

/// Returns the words of a run of characters. Characters that a dictionary leaves single, as in names, are one word.
fn solid_words(run: &[Token]) -> Vec<Range<usize>> {
    let is_single = |range: &Range<usize>| {
        let term = &*run[range.start].term;
        range.len() == 1
            && !COMMON_CHARACTERS.contains(term)
            && term.chars().all(words::is_ideograph)
    };
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut is_open = false;
    for range in words::solid_words(run) {
        let goes_on = is_open && is_single(&range);
        is_open = is_single(&range);
        match found.last_mut().filter(|_| goes_on) {
            Some(last) => last.end = range.end,
            None => found.push(range),
        }
    }
    found
}

/// Returns a word of a script without spaces.
fn solid(source: &str, characters: &[Token]) -> Word {
    let range = characters[0].range.start..characters[characters.len() - 1].range.end;
    let is_common = |term: &str| {
        let is_hiragana = term.chars().all(|char| ('\u{3041}'..='\u{309f}').contains(&char));
        is_hiragana || COMMON_CHARACTERS.contains(term)
    };
    Word {
        terms: characters.iter().map(|token| token.term.clone()).collect(),
        source: source[range].to_owned(),
        position: characters[0].position,
        kind: Kind::Character,
        matters: characters.len() > 1 || !is_common(&characters[0].term),
        is_prefix: false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matters(text: &str) -> Vec<String> {
        let asked = Asked::read(text, Style::Question);
        asked
            .words
            .into_iter()
            .filter(|word| word.matters)
            .map(|word| word.terms.concat())
            .collect()
    }

    fn terms(phrases: Vec<Phrase>) -> Vec<Vec<String>> {
        let terms = |phrase: Phrase| phrase.into_iter().map(|(_, term)| term).collect();
        phrases.into_iter().map(terms).collect()
    }

    #[test]
    fn a_question_is_about_its_rare_words() {
        assert_eq!(
            matters("How do I mount a windows partition?"),
            ["mount", "windows", "partition"]
        );
        assert_eq!(matters("how do i"), ["how", "do", "i"], "there is nothing else");
        assert_eq!(matters("Wie kann ich die Partition einbinden?"), ["partition", "einbinden"]);
        assert_eq!(matters("C++ or C#"), ["c++", "c#"], "names with their symbols");
        assert_eq!(matters("猫は日本語"), ["猫", "日本語"], "words of Japanese");
    }

    #[test]
    fn quotation_marks_make_a_phrase() {
        let phrases = |text: &str| terms(Asked::read(text, Style::Typed).phrases);
        assert_eq!(phrases("say \"sudo apt-get update\" now"), [["sudo", "apt", "get", "update"]]);
        assert_eq!(phrases("\"MySQL and C++\""), [["mysql", "and", "c++"]]);
        assert!(phrases("an \"open one").is_empty());
        assert!(phrases("\"\" \" \" \"...\"").is_empty());
    }

    #[test]
    fn a_minus_excludes_words_where_others_are_asked_for() {
        let asked = |text: &str| {
            let asked = Asked::read(text, Style::Typed);
            let words: Vec<String> = asked.words.iter().map(|word| word.terms.concat()).collect();
            (words.join(" "), terms(asked.excluded))
        };
        let excluded = |words: &[&[&str]]| -> Vec<Vec<String>> {
            words
                .iter()
                .map(|phrase| phrase.iter().map(|word| (*word).to_owned()).collect())
                .collect()
        };
        assert_eq!(asked("apple -pear"), ("apple".into(), excluded(&[&["pear"]])));
        assert_eq!(asked("-\"red pear\" apple"), ("apple".into(), excluded(&[&["red", "pear"]])));
        assert_eq!(asked("-pear"), ("pear".into(), vec![]), "nothing else is asked for");
        assert_eq!(asked("e-mail - now"), ("e-mail e mail now".into(), vec![]));
        let question = Asked::read("apple -pear", Style::Question);
        assert_eq!((question.words.len(), question.excluded.len()), (2, 0), "a sentence has none");
    }

    #[test]
    fn the_last_word_may_be_a_beginning() {
        let prefixes = |text: &str, style| {
            let words = Asked::read(text, style).words.into_iter();
            words.filter(|word| word.is_prefix).map(|word| word.terms.concat()).collect::<Vec<_>>()
        };
        assert_eq!(prefixes("mount parti", Style::Typed), ["parti"]);
        assert!(prefixes("mount parti ", Style::Typed).is_empty(), "the word has ended");
        assert!(prefixes("mount parti", Style::Question).is_empty(), "a sentence is whole");
        assert_eq!(prefixes("deadbe1 is broken ", Style::Typed), ["deadbe1"], "a commit");
    }

    proptest! {
        #[test]
        fn any_text_can_be_asked(text in any::<String>()) {
            for style in [Style::Typed, Style::Question] {
                let asked = Asked::read(&text, style);
                prop_assert!(asked.words.len() <= MOST_WORDS);
                prop_assert!(asked.words.is_empty() || asked.words.iter().any(|word| word.matters));
            }
        }

        #[test]
        fn marks_are_text(text in "[\"*:()\\[\\]^~ a-c+!-]*") {
            let asked = Asked::read(&text, Style::Typed);
            prop_assert!(asked.phrases.len() <= MOST_PHRASES);
            prop_assert!(asked.excluded.len() <= MOST_EXCLUDED);
        }
    }
}
