//! What the index has of a message, and of a log.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use shared::{
    ids::{MessageId, ProjectId},
    journal::Position,
};
use tantivy::{
    Term,
    schema::{
        BytesOptions, FAST, Field, IndexRecordOption, STORED, Schema, TextFieldIndexing,
        TextOptions,
    },
};

use super::words;

/// What a document has.
#[derive(Copy, Clone, Debug)]
pub(super) struct Fields {
    /// Which message, or which log.
    pub(super) id: Field,
    /// Which build of which project, or [`PLACES`].
    pub(super) scope: Field,
    pub(super) channel: Field,
    pub(super) author: Field,
    /// Words, each behind the header of its build.
    pub(super) text: Field,
    /// The two halves of the message's id, of which the first begins with its time.
    pub(super) high: Field,
    pub(super) low: Field,
    /// Whether the message is a question itself.
    pub(super) asks: Field,
    /// How far a log is in the index, as JSON.
    pub(super) place: Field,
}

/// The scope of documents that say how far the logs are.
pub(super) const PLACES: &[u8] = b"places";

impl Fields {
    pub(super) fn schema() -> (Schema, Self) {
        let mut schema = Schema::builder();
        let words = TextFieldIndexing::default()
            .set_tokenizer(words::NAME)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let indexed = || BytesOptions::default().set_indexed();
        let name = || {
            let indexing = TextFieldIndexing::default()
                .set_tokenizer("raw")
                .set_fieldnorms(false)
                .set_index_option(IndexRecordOption::Basic);
            TextOptions::default().set_indexing_options(indexing)
        };
        let fields = Self {
            id: schema.add_bytes_field("id", indexed()),
            scope: schema.add_bytes_field("scope", indexed()),
            channel: schema.add_text_field("channel", name()),
            author: schema.add_text_field("author", name()),
            text: schema.add_text_field("text", TextOptions::default().set_indexing_options(words)),
            high: schema.add_u64_field("high", FAST),
            low: schema.add_u64_field("low", FAST),
            asks: schema.add_bool_field("asks", FAST),
            place: schema.add_text_field("place", STORED),
        };
        (schema.build(), fields)
    }
}

/// Which build of a project a document is of: what is being built is not found until it is whole.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) project: ProjectId,
    pub(super) build: u32,
}

impl Scope {
    pub(super) fn term(self, fields: Fields) -> Term {
        Term::from_field_bytes(fields.scope, &self.bytes())
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        [self.project.0.as_bytes().as_slice(), &self.build.to_be_bytes()].concat()
    }

    /// Returns the [`words::HEADER_BYTES`] bytes with which each term of the build begins, so that no two builds share a term.
    pub(super) fn header(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.bytes())
    }

    /// Returns the term of a word.
    pub(super) fn word(self, fields: Fields, word: &str) -> Term {
        Term::from_field_text(fields.text, &(self.header() + word))
    }
}

/// How far a log is in the index.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Everything up to here is in the index; `None` if the project has to be built anew.
    pub(super) position: Option<Position>,
    /// Which build of the project is searched, 0 if there is none yet.
    pub(super) build: u32,
    /// The last entry of the log of wishes that this build fulfils.
    pub(super) wish: i64,
}

/// A message as the index is told of it.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) id: MessageId,
    pub(super) channel: String,
    pub(super) author: String,
    pub(super) text: String,
}

impl Told {
    /// Says whether somebody wants to know something, as far as a mark tells.
    pub(super) fn asks(&self) -> bool {
        let ends = |rest: &str| rest.chars().next().is_none_or(char::is_whitespace);
        self.text.split('?').skip(1).any(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_at_the_end_of_a_sentence_asks() {
        let asks = |text: &str| {
            let (channel, author) = (String::new(), String::new());
            Told { id: MessageId::mint(), channel, author, text: text.into() }.asks()
        };
        assert!(asks("how?") && asks("how? by hand") && asks("what???"));
        assert!(!asks("by hand") && !asks("see http://example.org/?q=1"));
    }
}
