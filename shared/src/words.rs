//! The words of a text, in every language, as the index has them and as a question is compared with them.
//!
//! A text is cut into words, parts of words, characters of scripts without spaces, emoji and symbols ([`cut`]); the index has stems
//! and segments besides ([`index_tokens`]). Both services cut alike: one finds the words, the other shows where they stand.

mod folding;
mod language;

use std::{ops::Range, sync::LazyLock};

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{ExtendedPictographic, GeneralCategory},
};
use icu_segmenter::{
    GraphemeClusterSegmenter, GraphemeClusterSegmenterBorrowed, WordSegmenter,
    WordSegmenterBorrowed, options::WordBreakInvariantOptions,
};

pub use self::{
    folding::{fold, keep_accents, without_ignorable},
    language::{Language, LanguageSet, of_question, stopwords},
};

/// Most characters of a term; of a longer word the first ones are one.
const MAX_TERM_CHARS: usize = 128;
/// Most characters of a word that is cut where its case changes: what is longer is a key or an encoded file.
const MAX_CAMEL_CHARS: usize = 48;
/// The first character of a script without spaces.
const FIRST_SOLID: char = '\u{e00}';
/// Most characters of a run of symbols that is a term.
const MAX_SYMBOLS: usize = 16;

static GRAPHEMES: GraphemeClusterSegmenterBorrowed<'static> = GraphemeClusterSegmenter::new();
static SEGMENTS: LazyLock<WordSegmenterBorrowed<'static>> =
    LazyLock::new(|| WordSegmenter::new_auto(WordBreakInvariantOptions::default()));

/// The role of a token in its text.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A run of letters and digits.
    Word,
    /// A part of a word: behind an apostrophe, or where the case changes.
    Part,
    /// Words that are joined without a space, at the position of the first.
    Whole,
    /// A word with the symbols that belong to its name, as in `C++`.
    Named,
    /// A character of a script without spaces, with its marks.
    Character,
    /// An emoji or a run of symbols; it has the position of the next word.
    Symbol,
    /// Characters that a dictionary takes for a word.
    Segment,
    /// A word without its ending.
    Stem,
    /// A fact about the whole text.
    Mark,
}

/// A term and the part of the text that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub term: String,
    /// Bytes of the text.
    pub range: Range<usize>,
    pub position: usize,
    pub kind: Kind,
}

/// Returns the term of a stem; `tag` names its language.
#[must_use]
pub fn stem_term(tag: char, stem: &str) -> String {
    format!("\u{1}{tag}{stem}")
}

/// Returns the term of characters that a dictionary takes for a word.
#[must_use]
pub fn segment_term(segment: &str) -> String {
    format!("\u{2}{segment}")
}

/// Returns the term of a text that has stems of a language.
#[must_use]
pub fn language_term(tag: char) -> String {
    format!("\u{3}{tag}")
}

/// Returns the term of a text with a link.
#[must_use]
pub fn link_term() -> String {
    "\u{4}link".to_owned()
}

/// Returns whether a term is what somebody wrote, and not a stem or a mark of ours.
#[must_use]
pub fn is_written(term: &str) -> bool {
    term.chars().next().is_some_and(|first| first >= ' ')
}

/// Returns whether a character is of a script that has no spaces between words: Chinese, Japanese, Korean, Thai, Lao, Khmer,
/// Burmese. Each of its characters is a token, and a word is found wherever its characters stand together.
#[must_use]
pub fn is_solid(char: char) -> bool {
    char >= FIRST_SOLID
        && matches!(char, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}'
        | '\u{1780}'..='\u{17ff}' | '\u{19e0}'..='\u{19ff}' | '\u{1a20}'..='\u{1aaf}'
        | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3031}'..='\u{3035}'
        | '\u{3041}'..='\u{3096}' | '\u{309d}'..='\u{30fa}' | '\u{30fc}'..='\u{31ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{a9e0}'..='\u{a9ff}' | '\u{aa60}'..='\u{aa7f}'
        | '\u{ac00}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ffdc}'
        | '\u{20000}'..='\u{3ffff}')
        && char != '\u{e3f}'
        && char != '\u{e4f}'
        && char != '\u{104a}'
        && char != '\u{104b}'
        && !('\u{17d4}'..='\u{17db}').contains(&char)
}

/// Returns whether a character is one of Chinese, of which one may be a word.
#[must_use]
pub fn is_ideograph(char: char) -> bool {
    matches!(char, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

fn is_letter(char: char) -> bool {
    char.is_alphanumeric() && !is_solid(char)
}

/// Returns whether a character changes the one before it, or shows nothing.
fn is_extending(char: char) -> bool {
    if char.is_ascii() {
        return false;
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(char);
    let is_mark = matches!(
        category,
        GeneralCategory::NonspacingMark
            | GeneralCategory::SpacingMark
            | GeneralCategory::EnclosingMark
    );
    is_mark || folding::is_ignorable(char)
}

fn is_apostrophe(char: char) -> bool {
    matches!(char, '\'' | '’' | '‘' | 'ʼ' | '＇')
}

fn is_joint(char: char) -> bool {
    matches!(char, '-' | '.' | '_' | '/' | '@' | '+' | '~' | '‐' | '‑')
}

fn is_pictograph(char: char) -> bool {
    !char.is_ascii()
        && (is_regional(char) || CodePointSetData::new::<ExtendedPictographic>().contains(char))
}

/// Returns whether a character is half of a flag.
fn is_regional(char: char) -> bool {
    matches!(char, '\u{1f1e6}'..='\u{1f1ff}')
}

fn is_skin_tone(char: char) -> bool {
    matches!(char, '\u{1f3fb}'..='\u{1f3ff}')
}

fn is_symbol(char: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(char);
    matches!(
        category,
        GeneralCategory::MathSymbol
            | GeneralCategory::CurrencySymbol
            | GeneralCategory::ModifierSymbol
            | GeneralCategory::OtherSymbol
    )
}

/// Cuts a text into the tokens that somebody wrote.
#[must_use]
pub fn cut(text: &str) -> Vec<Token> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let mut cutter = Cutter { text, chars: &chars, at: 0, position: 0, tokens: Vec::new() };
    while let Some(char) = cutter.peek(0) {
        if is_solid(char) {
            cutter.solid();
        } else if is_letter(char) {
            cutter.joined();
        } else if is_pictograph(char) {
            cutter.emoji();
        } else if char.is_whitespace() || char.is_control() || is_extending(char) {
            cutter.at += 1;
        } else {
            cutter.symbols();
        }
    }
    cutter.tokens
}

struct Cutter<'a> {
    text: &'a str,
    chars: &'a [(usize, char)],
    at: usize,
    position: usize,
    tokens: Vec<Token>,
}

impl Cutter<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).map(|(_, char)| *char)
    }

    /// Returns the bytes of a range of characters.
    fn bytes(&self, chars: &Range<usize>) -> Range<usize> {
        let byte = |at: usize| self.chars.get(at).map_or(self.text.len(), |(byte, _)| *byte);
        byte(chars.start)..byte(chars.end)
    }

    fn source(&self, chars: &Range<usize>) -> &str {
        &self.text[self.bytes(chars)]
    }

    fn add(&mut self, mut term: String, chars: &Range<usize>, position: usize, kind: Kind) {
        // Normal forms of a few characters have spaces.
        term.retain(|char| !char.is_whitespace());
        if term.is_empty() {
            return;
        }
        if let Some((end, _)) = term.char_indices().nth(MAX_TERM_CHARS) {
            term.truncate(end);
        }
        self.tokens.push(Token { term, range: self.bytes(chars), position, kind });
    }

    /// Cuts words that are joined without a space.
    fn joined(&mut self) {
        let start = self.at;
        let mut pieces: Vec<Range<usize>> = Vec::new();
        let mut piece = start;
        loop {
            while let Some(char) = self.peek(0) {
                let goes_on = is_letter(char)
                    || (is_extending(char) && !is_pictograph(char))
                    || (is_apostrophe(char) && self.peek(1).is_some_and(is_letter));
                if !goes_on {
                    break;
                }
                self.at += 1;
            }
            pieces.push(piece..self.at);
            let is_joined =
                self.peek(0).is_some_and(is_joint) && self.peek(1).is_some_and(is_letter);
            if !is_joined {
                break;
            }
            self.at += 1;
            piece = self.at;
        }
        let first = self.position;
        if self.has_leading_dot(start) {
            let whole = start - 1..pieces[0].end;
            self.add(format!(".{}", fold(self.source(&pieces[0]))), &whole, first, Kind::Whole);
        }
        if pieces.len() > 1 {
            let whole = start..self.at;
            self.add(fold(self.source(&whole)), &whole, first, Kind::Whole);
        }
        let last = pieces.len() - 1;
        for (index, piece) in pieces.iter().enumerate() {
            if index == last {
                self.name(piece);
            }
            self.piece(piece);
            self.position += 1;
        }
    }

    /// Returns whether a dot belongs to the word behind it, as in `.NET`.
    fn has_leading_dot(&self, start: usize) -> bool {
        let before = |back: usize| start.checked_sub(back).map(|at| self.chars[at].1);
        before(1) == Some('.')
            && before(2)
                .is_none_or(|char| char.is_whitespace() || matches!(char, '(' | '"' | '\'' | '`'))
    }

    /// Adds a word with the symbols that end its name.
    fn name(&mut self, piece: &Range<usize>) {
        let next = |ahead: usize| self.peek(ahead);
        let suffix = if next(0) == Some('+') && next(1) == Some('+') && next(2) != Some('+') {
            "++"
        } else if next(0) == Some('#') && next(1).is_none_or(|char| !is_letter(char) && char != '#')
        {
            "#"
        } else {
            return;
        };
        let whole = piece.start..self.at + suffix.len();
        let term = fold(self.source(piece)) + suffix;
        if !term.starts_with(|first: char| first.is_alphabetic()) {
            return;
        }
        self.add(term, &whole, self.position, Kind::Named);
        self.at = whole.end;
    }

    /// Adds a run of letters and its parts.
    fn piece(&mut self, piece: &Range<usize>) {
        let term = fold(self.source(piece));
        self.add(term.clone(), piece, self.position, Kind::Word);
        for part in self.behind_apostrophes(piece).into_iter().chain(self.camel(piece)) {
            let folded = fold(self.source(&part));
            if folded != term {
                self.add(folded, &part, self.position, Kind::Part);
            }
        }
    }

    /// Returns the parts of a word with apostrophes that are words themselves: `l'école`, `dell'acqua`, `Ubuntu's`.
    fn behind_apostrophes(&self, piece: &Range<usize>) -> Vec<Range<usize>> {
        let is_cut = |at: &usize| is_apostrophe(self.chars[*at].1);
        let cuts: Vec<usize> = piece.clone().filter(is_cut).collect();
        let Some(first) = cuts.first() else { return Vec::new() };
        let elided = fold(self.source(&(piece.start..*first)));
        let is_elision = language::is_elision(&elided);
        let starts = std::iter::once(piece.start).chain(cuts.iter().map(|cut| cut + 1));
        let ends = cuts.iter().copied().chain([piece.end]);
        let parts: Vec<Range<usize>> = starts.zip(ends).map(|(start, end)| start..end).collect();
        let behind = parts.len() - 1;
        // The word before the `'t` of a contraction is none.
        if self.source(&parts[behind]).eq_ignore_ascii_case("t") {
            return Vec::new();
        }
        let is_word = |(index, part): &(usize, Range<usize>)| {
            part.len() >= 3 || (*index == behind && is_elision && !part.is_empty())
        };
        parts.into_iter().enumerate().filter(is_word).map(|(_, part)| part).collect()
    }

    /// Returns the parts of a word whose case changes: `getUserName`, `HTTPServer`.
    fn camel(&self, piece: &Range<usize>) -> Vec<Range<usize>> {
        if piece.len() > MAX_CAMEL_CHARS {
            return Vec::new();
        }
        let upper = |at: usize| self.chars.get(at).is_some_and(|(_, char)| char.is_uppercase());
        let lower = |at: usize| self.chars.get(at).is_some_and(|(_, char)| char.is_lowercase());
        let begins = |at: &usize| {
            let at = *at;
            (upper(at) && !upper(at - 1))
                || (upper(at) && upper(at - 1) && at + 1 < piece.end && lower(at + 1))
        };
        let cuts: Vec<usize> = (piece.start + 1..piece.end).filter(begins).collect();
        if cuts.is_empty() || cuts.len() > piece.len() / 3 {
            return Vec::new();
        }
        let starts = std::iter::once(piece.start).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([piece.end]);
        starts.zip(ends).map(|(start, end)| start..end).filter(|part| part.len() > 1).collect()
    }

    /// Cuts a run of a script without spaces into its characters.
    fn solid(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(|char| is_solid(char) || is_extending(char)) {
            self.at += 1;
        }
        let run = self.bytes(&(start..self.at));
        let source = &self.text[run.clone()];
        let ends: Vec<usize> = GRAPHEMES.segment_str(source).collect();
        for ends in ends.windows(2) {
            let mut term = folding::fold_solid(&source[ends[0]..ends[1]]);
            term.retain(|char| !char.is_whitespace());
            if !term.is_empty() {
                let range = run.start + ends[0]..run.start + ends[1];
                let position = self.position;
                self.tokens.push(Token { term, range, position, kind: Kind::Character });
                self.position += 1;
            }
        }
    }

    /// Adds an emoji: the sequence as people see it, and each emoji in it.
    fn emoji(&mut self) {
        let start = self.at;
        let (mut sequence, mut bases) = (String::new(), Vec::new());
        while let Some(base) = self.peek(0) {
            let from = self.at;
            let mut single = String::from(base);
            self.at += 1;
            if is_regional(base)
                && let Some(half) = self.peek(0).filter(|half| is_regional(*half))
            {
                single.push(half);
                self.at += 1;
            }
            bases.push((single.clone(), from..self.at));
            sequence.push_str(&single);
            while let Some(char) = self.peek(0) {
                if is_skin_tone(char) {
                    sequence.push(char);
                } else if char == '\u{200d}' || !folding::is_ignorable(char) {
                    break;
                }
                self.at += 1;
            }
            let is_joined =
                self.peek(0) == Some('\u{200d}') && self.peek(1).is_some_and(is_pictograph);
            if !is_joined {
                break;
            }
            sequence.push('\u{200d}');
            self.at += 1;
        }
        let whole = start..self.at;
        let is_single = bases.len() == 1 && bases[0].0 == sequence;
        self.add(sequence, &whole, self.position, Kind::Symbol);
        if !is_single {
            for (base, range) in bases {
                self.add(base, &range, self.position, Kind::Symbol);
            }
        }
    }

    /// Adds what is a symbol in a run of marks: `<<<`, `=>`, `€`.
    fn symbols(&mut self) {
        let start = self.at;
        while let Some(char) = self.peek(0) {
            let ends =
                char.is_whitespace() || char.is_control() || is_letter(char) || is_solid(char);
            if ends || is_pictograph(char) {
                break;
            }
            self.at += 1;
        }
        // The step is one character at least.
        self.at = self.at.max(start + 1);
        for at in start..self.at {
            let char = self.chars[at].1;
            if !char.is_ascii() && is_symbol(char) {
                self.add(
                    folding::fold_solid(char.encode_utf8(&mut [0; 4])),
                    &(at..at + 1),
                    self.position,
                    Kind::Symbol,
                );
            }
        }
        let is_wrapping = |at: &usize| "()[]{}\"'`,;".contains(self.chars[*at].1);
        let from = (start..self.at).find(|at| !is_wrapping(at)).unwrap_or(self.at);
        let to = (from..self.at).rfind(|at| !is_wrapping(at)).map_or(from, |at| at + 1);
        let run = self.source(&(from..to));
        let is_term = (2..=MAX_SYMBOLS).contains(&run.len())
            && run.is_ascii()
            && run.contains(['<', '>', '=', '|', '+', '^', '&', '%', '$', '\\']);
        if is_term {
            self.add(run.to_owned(), &(from..to), self.position, Kind::Symbol);
        }
    }
}

/// Cuts a text into the tokens of the index: those that somebody wrote, stems, segments, and marks.
#[must_use]
pub fn index_tokens(text: &str) -> Vec<Token> {
    let tokens = cut(text);
    let languages = language::detect(text, &tokens);
    let mut all = Vec::with_capacity(tokens.len() * 3 / 2);
    let mut tags: Vec<char> = languages.language().map(Language::tag).into_iter().collect();
    if text.contains("http://") || text.contains("https://") {
        all.push(Token { term: link_term(), range: 0..0, position: 0, kind: Kind::Mark });
    }
    let segments = segments(&tokens);
    let mut segments = segments.into_iter().peekable();
    for token in tokens {
        while let Some(segment) = segments.next_if(|segment| segment.position <= token.position) {
            all.push(segment);
        }
        let stems = if matches!(token.kind, Kind::Word | Kind::Part) {
            languages.stems_of(&text[token.range.clone()], &token.term)
        } else {
            Vec::new()
        };
        let Token { ref range, position, .. } = token;
        let stems = stems.into_iter().map(|(tag, stem)| {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
            let term = stem_term(tag, &stem);
            Token { term, range: range.clone(), position, kind: Kind::Stem }
        });
        let stems: Vec<Token> = stems.collect();
        all.push(token);
        all.extend(stems);
    }
    all.extend(segments);
    let tags = tags.into_iter().filter(|tag| language::is_marked(*tag));
    let marks = tags.map(|tag| Token {
        term: language_term(tag),
        range: 0..0,
        position: 0,
        kind: Kind::Mark,
    });
    all.splice(0..0, marks);
    // Positions of a term never go back.
    all.sort_by_key(|token| token.position);
    all
}

/// Returns what a dictionary takes for words among characters that stand together; each has two characters at least.
#[must_use]
pub fn segments(tokens: &[Token]) -> Vec<Token> {
    let mut found = Vec::new();
    let characters = tokens.iter().filter(|token| token.kind == Kind::Character);
    let characters: Vec<&Token> = characters.collect();
    let is_one = |one: &&Token, next: &&Token| one.range.end == next.range.start;
    for run in characters.chunk_by(is_one) {
        for range in segment_run(run) {
            if range.len() < 2 {
                continue;
            }
            let part = &run[range];
            let text: String = part.iter().map(|token| &*token.term).collect();
            found.push(Token {
                term: segment_term(&text),
                range: part[0].range.start..part[part.len() - 1].range.end,
                position: part[0].position,
                kind: Kind::Segment,
            });
        }
    }
    found
}

/// Returns the words of a run of characters, as a dictionary cuts it.
fn segment_run(run: &[&Token]) -> Vec<Range<usize>> {
    let mut text = String::new();
    let mut starts = Vec::new();
    for token in run {
        starts.push(text.len());
        text.push_str(&token.term);
    }
    starts.push(text.len());
    // A boundary within a character is none.
    let cuts: Vec<usize> =
        SEGMENTS.segment_str(&text).filter_map(|at| starts.binary_search(&at).ok()).collect();
    cuts.windows(2).map(|cut| cut[0]..cut[1]).collect()
}

/// Returns the words of characters that stand together in a question: ranges of `tokens`, which are all characters.
#[must_use]
pub fn solid_words(tokens: &[Token]) -> Vec<Range<usize>> {
    let run: Vec<&Token> = tokens.iter().collect();
    segment_run(&run)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms(text: &str) -> Vec<String> {
        cut(text).into_iter().map(|token| token.term).collect()
    }

    fn places(text: &str) -> Vec<(String, usize)> {
        cut(text).into_iter().map(|token| (token.term, token.position)).collect()
    }

    #[test]
    fn joined_words_are_found_whole_and_by_their_parts() {
        let expected = [("use", 0), ("apt-get", 1), ("apt", 1), ("get", 2), ("now", 3)];
        assert_eq!(places("use apt-get now"), expected.map(|(word, at)| (word.to_owned(), at)));
        assert_eq!(terms("/etc/fstab"), ["etc/fstab", "etc", "fstab"]);
        assert_eq!(terms("Ubuntu 10.04."), ["ubuntu", "10.04", "10", "04"]);
        assert_eq!(terms("nick: hi..."), ["nick", "hi"]);
        assert_eq!(terms("parseHTTPResponse"), ["parsehttpresponse", "parse", "http", "response"]);
        assert_eq!(terms("l'école"), ["l'ecole", "ecole"]);
        assert_eq!(terms("don't"), ["don't"]);
        assert_eq!(terms("C++ and C#, .NET"), ["c++", "c", "and", "c#", "c", ".net", "net"]);
    }

    #[test]
    fn words_that_look_the_same_have_one_term() {
        for (one, other) in [
            ("CAFÉ", "cafe\u{301}"),
            ("İstanbul", "istanbul"),
            ("Straße", "STRASSE"),
            ("ΛΟΓΟΣ", "λόγος"),
            ("ёж", "еж"),
            ("za\u{200b}n\u{ad}zibar", "zanzibar"),
            ("ｆｕｌｌ", "full"),
            ("ﾌﾟﾘﾝﾀｰ", "プリンター"),
            ("كِتَابٌ", "كتاب"),
            ("أحمد", "احمد"),
            ("שָׁלוֹם", "שלום"),
            ("\u{1112}\u{1161}\u{11ab}", "한"),
            ("❤\u{fe0f}", "❤"),
        ] {
            assert_eq!(terms(one), terms(other), "{one} and {other}");
        }
        assert_ne!(terms("мой"), terms("мои"), "another letter");
        assert_ne!(terms("ガ"), terms("カ"), "another syllable");
    }

    #[test]
    fn a_long_word_counts_with_its_beginning() {
        let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(terms(digest), [digest]);
        assert_eq!(terms(&"x".repeat(500)), ["x".repeat(MAX_TERM_CHARS)]);
    }

    #[test]
    fn stems_are_of_the_language_of_the_text() {
        let stems = |text: &str| {
            let tokens = index_tokens(text).into_iter();
            tokens
                .filter(|token| token.kind == Kind::Stem)
                .map(|token| token.term)
                .collect::<Vec<_>>()
        };
        assert!(stems("die Häuser sind alt").contains(&stem_term('d', "haus")));
        assert!(stems("the partitions are old").contains(&stem_term('e', "partit")));
        assert!(stems("мои книги").contains(&stem_term('R', "книг")));
    }

    proptest! {
        #[test]
        fn any_text_has_tokens_in_order(text in "(\\PC|[-./a日ก👍🏽'’+#<Ab ]|\u{200d}|\u{301}){0,200}") {
            let mut last = 0;
            for token in index_tokens(&text) {
                prop_assert!(!token.term.is_empty() && !token.term.contains(char::is_whitespace), "{token:?}");
                prop_assert!(text.get(token.range.clone()).is_some(), "{token:?}");
                prop_assert!(last <= token.position, "{token:?}");
                last = token.position;
            }
        }
    }
}
