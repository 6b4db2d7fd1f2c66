//! Cuts a text into words: `apt-get`, `/etc/fstab` and `10.04` are found whole and by their parts.

use tantivy::tokenizer::{
    AsciiFoldingFilter, BoxTokenStream, Language, LowerCaser, RemoveLongFilter, Stemmer,
    TextAnalyzer, Token, TokenStream, Tokenizer,
};

/// The name that the index has for it: another way of cutting is another name, which makes the index another one.
pub(super) const NAME: &str = "words-2";
/// Longer words, in bytes, are nobody's search: keys, encoded files.
const LONGEST: usize = 64;

/// Returns what makes words of a text: cut, lower case, without accents, without endings.
pub(super) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default())
        .filter(RemoveLongFilter::limit(LONGEST))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .filter(Stemmer::new(Language::English))
        .build()
}

/// Bytes before the text of a message that name its build, as each of its words does.
pub(super) const HEADER_BYTES: usize = 27;

/// Returns what makes terms of a header and a text.
pub(super) fn scoped() -> TextAnalyzer {
    TextAnalyzer::builder(Scoped { words: analyzer(), token: Token::default() }).build()
}

/// Puts the header of a text before each of its words.
#[derive(Clone)]
struct Scoped {
    words: TextAnalyzer,
    token: Token,
}

struct ScopedStream<'a> {
    header: &'a str,
    words: BoxTokenStream<'a>,
    token: &'a mut Token,
}

impl Tokenizer for Scoped {
    type TokenStream<'a> = ScopedStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> ScopedStream<'a> {
        let (header, text) = text.split_at_checked(HEADER_BYTES).unwrap_or((text, ""));
        self.token.reset();
        ScopedStream { header, words: self.words.token_stream(text), token: &mut self.token }
    }
}

impl TokenStream for ScopedStream<'_> {
    fn advance(&mut self) -> bool {
        if !self.words.advance() {
            return false;
        }
        let Token { offset_from, offset_to, position, ref text, .. } = *self.words.token();
        self.token.offset_from = offset_from + self.header.len();
        self.token.offset_to = offset_to + self.header.len();
        self.token.position = position;
        self.token.text.clear();
        self.token.text.push_str(self.header);
        self.token.text.push_str(text);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Where a word is, and which one it is.
type Place = (usize, usize, usize);

/// Cuts at whatever is no letter and no digit. What is joined without a space is also a word as a whole, at the place of
/// its first part.
#[derive(Clone, Default)]
struct Words {
    places: Vec<Place>,
    token: Token,
}

/// The words of one text.
struct Cut<'a> {
    text: &'a str,
    places: std::slice::Iter<'a, Place>,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = Cut<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Cut<'a> {
        self.token.reset();
        self.places.clear();
        cut(text, &mut self.places);
        Cut { text, places: self.places.iter(), token: &mut self.token }
    }
}

impl TokenStream for Cut<'_> {
    fn advance(&mut self) -> bool {
        let Some(&(from, to, position)) = self.places.next() else { return false };
        self.token.offset_from = from;
        self.token.offset_to = to;
        self.token.position = position;
        self.token.text.clear();
        self.token.text.push_str(&self.text[from..to]);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

fn cut(text: &str, places: &mut Vec<Place>) {
    let mut position = 0;
    let mut rest = text.char_indices().peekable();
    while let Some((from, first)) = rest.next() {
        if is_ideogram(first) {
            places.push((from, from + first.len_utf8(), position));
            position += 1;
        } else if first.is_alphanumeric() {
            let (whole, mut part, mut end) = (places.len(), from, from + first.len_utf8());
            places.push((from, end, position));
            let mut parts = 0;
            while let Some(&(at, next)) = rest.peek() {
                let after = at + next.len_utf8();
                if is_letter(next) {
                    end = after;
                } else if is_joint(next) && text[after..].chars().next().is_some_and(is_letter) {
                    places.push((part, end, position));
                    (part, end) = (after, after);
                    (position, parts) = (position + 1, parts + 1);
                } else {
                    break;
                }
                rest.next();
            }
            places[whole].1 = end;
            if parts > 0 {
                places.push((part, end, position));
            }
            position += 1;
        }
    }
}

/// Whether a word goes on with it. An apostrophe is part of a word, which the stemmer knows.
fn is_letter(char: char) -> bool {
    (char.is_alphanumeric() && !is_ideogram(char)) || matches!(char, '\'' | '’')
}

fn is_joint(char: char) -> bool {
    matches!(char, '-' | '.' | '_' | '/' | '@' | '+' | '~')
}

/// Scripts that have no spaces: each character is a word, and adjacent ones a phrase.
fn is_ideogram(char: char) -> bool {
    matches!(char, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<(String, usize)> {
        let mut analyzer = analyzer();
        let mut stream = analyzer.token_stream(text);
        let mut words = Vec::new();
        stream.process(&mut |token| words.push((token.text.clone(), token.position)));
        words
    }

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn what_is_joined_is_found_whole_and_by_its_parts() {
        assert_eq!(
            words("use apt-get now"),
            [("use", 0), ("apt-get", 1), ("apt", 1), ("get", 2), ("now", 3)]
                .map(|(word, at)| (word.to_owned(), at))
        );
        assert_eq!(texts("/etc/fstab"), ["etc/fstab", "etc", "fstab"]);
        assert_eq!(texts("Ubuntu 10.04."), ["ubuntu", "10.04", "10", "04"]);
        assert_eq!(texts("nick: hi..."), ["nick", "hi"]);
    }

    #[test]
    fn endings_accents_and_case_do_not_matter() {
        assert_eq!(texts("Installing PARTITIONS Café"), texts("install partition cafe"));
        assert_eq!(texts("ubuntu's"), ["ubuntu"]);
    }

    #[test]
    fn ideograms_are_words() {
        assert_eq!(texts("日本 go"), ["日", "本", "go"]);
    }

    proptest! {
        #[test]
        fn any_text_can_be_cut(text in "\\PC*|[-./a日'’ ]*") {
            let mut last = 0;
            for (_, position) in words(&text) {
                prop_assert!(position + 64 > last);
                last = last.max(position);
            }
        }
    }
}
