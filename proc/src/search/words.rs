//! The terms of a message in the index: the words of [`shared::words`], each behind the header of its build.

use shared::words;
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer};

/// The name that the index has for it: another way of cutting is another name, which makes the index another one.
pub(super) const NAME: &str = "words-2";
/// Bytes before the text of a message that name its build, as each of its words does.
pub(super) const HEADER_BYTES: usize = 27;

/// Returns what makes terms of a header and a text.
pub(super) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Scoped::default()).build()
}

/// Cuts what stands behind a header, which it puts before each term.
#[derive(Clone, Default)]
struct Scoped {
    token: Token,
}

struct Terms<'a> {
    header: &'a str,
    words: std::vec::IntoIter<words::Token>,
    token: &'a mut Token,
}

impl Tokenizer for Scoped {
    type TokenStream<'a> = Terms<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Terms<'a> {
        let (header, text) = text.split_at_checked(HEADER_BYTES).unwrap_or((text, ""));
        self.token.reset();
        Terms { header, words: words::index_tokens(text).into_iter(), token: &mut self.token }
    }
}

impl TokenStream for Terms<'_> {
    fn advance(&mut self) -> bool {
        let Some(words::Token { term, range, position, .. }) = self.words.next() else {
            return false;
        };
        self.token.offset_from = range.start + self.header.len();
        self.token.offset_to = range.end + self.header.len();
        self.token.position = position;
        self.token.text.clear();
        self.token.text.push_str(self.header);
        self.token.text.push_str(&term);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn every_term_begins_with_the_header() {
        let header = BASE64_URL_SAFE_NO_PAD.encode([7; 20]);
        assert_eq!(header.len(), HEADER_BYTES, "bytes of a header");
        let text = format!("{header}Häuser in C++ 日本 🎉");
        let mut analyzer = analyzer();
        let mut stream = analyzer.token_stream(&text);
        let mut terms = Vec::new();
        stream.process(&mut |token| terms.push(token.text.clone()));
        assert!(terms.len() > 6, "{terms:?}");
        assert!(terms.iter().all(|term| term.starts_with(&header)), "{terms:?}");
    }
}
