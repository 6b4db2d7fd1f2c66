//! The index of an earlier version, searched until that of this version is whole. Its scores compare nothing with other
//! projects: a message has one point for each word.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use shared::{
    ids::{MessageId, ProjectId},
    words as current,
};
use tantivy::{
    DocId, Index, ReloadPolicy, Score, Searcher, SegmentReader, TantivyDocument, Term,
    collector::{DocSetCollector, TopDocs},
    query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery, TermSetQuery},
    schema::{Field, FieldType, IndexRecordOption, Value as _},
    tokenizer::{
        AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, Stemmer, TextAnalyzer, Token,
        TokenStream, Tokenizer,
    },
};
use uuid::Uuid;

use super::{
    Hit, Results,
    schema::{PLACES, Place, Scope},
};

/// The analyzer of the only earlier version.
const NAME: &str = "words-1";
/// Longer words, in bytes, are not in the index.
const LONGEST: usize = 64;
/// Words that are looked up.
const MOST_WORDS: usize = 24;

/// An index that is only read.
pub(super) struct Earlier {
    searcher: Searcher,
    folder: PathBuf,
    scope: Field,
    channel: Field,
    text: Field,
    places: HashMap<ProjectId, Place>,
}

impl Earlier {
    /// Opens the index in `folder`, `None` if there is none that this version can read.
    pub(super) fn open(folder: &Path) -> Option<Self> {
        if !folder.exists() {
            return None;
        }
        let opened = Self::read(folder);
        if let Err(error) = &opened {
            tracing::warn!(%error, "the index of an earlier version cannot be read");
            Self::drop_folder(folder);
        }
        opened.ok()
    }

    fn read(folder: &Path) -> anyhow::Result<Self> {
        let index = Index::open_in_dir(folder)?;
        let schema = index.schema();
        let [scope, channel, text, place] =
            ["scope", "channel", "text", "place"].map(|name| schema.get_field(name));
        let (scope, channel, text, place) = (scope?, channel?, text?, place?);
        let FieldType::Str(options) = schema.get_field_entry(text).field_type() else {
            anyhow::bail!("the texts of the index are no texts");
        };
        let name = options.get_indexing_options().map(|options| options.tokenizer().to_owned());
        anyhow::ensure!(name.as_deref() == Some(NAME), "the index is of an unknown version");
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into();
        let reader: tantivy::IndexReader = reader.context("failed to read the index")?;
        let searcher = reader.searcher();
        let term = Term::from_field_bytes(scope, PLACES);
        let logs = TermQuery::new(term, IndexRecordOption::Basic);
        let mut places = HashMap::new();
        for address in searcher.search(&logs, &DocSetCollector)? {
            let document: TantivyDocument = searcher.doc(address)?;
            let value =
                document.get_first(place).and_then(|value| value.as_str().map(ToOwned::to_owned));
            let (log, place): (String, Place) = serde_json::from_str(&value.unwrap_or_default())?;
            let project = log.strip_prefix("project/").and_then(|id| id.parse().ok());
            places.extend(project.filter(|_| place.build > 0).map(|project| (project, place)));
        }
        Ok(Self { searcher, folder: folder.to_owned(), scope, channel, text, places })
    }

    fn drop_folder(folder: &Path) {
        if let Err(error) = fs::remove_dir_all(folder) {
            tracing::warn!(%error, "the index of an earlier version was not removed");
        }
    }

    /// Removes the index.
    pub(super) fn remove(&self) {
        Self::drop_folder(&self.folder);
    }

    /// Returns the projects of the index.
    pub(super) fn projects(&self) -> impl Iterator<Item = (ProjectId, Place)> {
        self.places.iter().map(|(project, place)| (*project, *place))
    }

    /// Returns at most `limit` messages with the most of the words, of equal ones the later ones first. A filter that the index
    /// has nothing for leaves no message.
    pub(super) fn find(
        &self,
        project: ProjectId,
        text: &str,
        filter: &proto::Filter,
        limit: usize,
    ) -> tantivy::Result<Results> {
        let Some(place) = self.places.get(&project) else { return Ok(Results::default()) };
        let known = proto::Filter { channels: filter.channels.clone(), ..Default::default() };
        if *filter != known {
            return Ok(Results::default());
        }
        let scope = Scope { project, build: place.build };
        let all = TermQuery::new(
            Term::from_field_bytes(self.scope, &scope.bytes()),
            IndexRecordOption::Basic,
        );
        let constant = |query: Box<dyn Query>, score: Score| -> Box<dyn Query> {
            Box::new(ConstScoreQuery::new(query, score))
        };
        let mut words = BTreeSet::new();
        let mut analyzer = analyzer();
        let mut stream = analyzer.token_stream(text);
        stream.process(&mut |token| {
            if words.len() < MOST_WORDS {
                words.insert(token.text.clone());
            }
        });
        let words = words.iter().map(|word| {
            let term = Term::from_field_text(self.text, word);
            constant(Box::new(TermQuery::new(term, IndexRecordOption::Basic)), 1.0)
        });
        let mut clauses = vec![
            (Occur::Must, constant(Box::new(all), 0.0)),
            (Occur::Must, Box::new(BooleanQuery::union(words.collect())) as Box<dyn Query>),
        ];
        if !filter.channels.is_empty() {
            let terms =
                filter.channels.iter().map(|name| Term::from_field_text(self.channel, name));
            clauses.push((Occur::Must, constant(Box::new(TermSetQuery::new(terms)), 0.0)));
        }
        let ranked = TopDocs::with_limit(limit).tweak_score(|segment: &SegmentReader| {
            let columns = ["high", "low"].map(|name| segment.fast_fields().u64(name).ok());
            move |document: DocId, score: Score| {
                let [high, low] = columns
                    .each_ref()
                    .map(|column| column.as_ref().and_then(|column| column.first(document)));
                (score, high.unwrap_or(0), low.unwrap_or(0))
            }
        });
        let found = self.searcher.search(&BooleanQuery::new(clauses), &ranked)?;
        let hits = found.into_iter().map(|((score, high, low), _)| Hit {
            message: MessageId(Uuid::from_u64_pair(high, low)),
            score,
        });
        let words = current::cut(text).into_iter().map(|token| token.term).collect();
        Ok(Results { hits: hits.collect(), words, strength: f32::INFINITY })
    }
}

/// Returns what made words of a text: cut, lower case, without accents, without endings.
fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default())
        .filter(RemoveLongFilter::limit(LONGEST))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .filter(Stemmer::new(Language::English))
        .build()
}

/// Beginning, end and position of a word.
type Span = (usize, usize, usize);

/// Cuts at each character that is no letter and no digit. Words that are joined without a space are also a word as a whole,
/// at the position of the first.
#[derive(Clone, Default)]
struct Words {
    places: Vec<Span>,
    token: Token,
}

/// The words of one text.
struct Cut<'a> {
    text: &'a str,
    places: std::slice::Iter<'a, Span>,
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

fn cut(text: &str, places: &mut Vec<Span>) {
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

/// Returns whether a character is part of a word. An apostrophe is, as the stemmer knows it.
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
