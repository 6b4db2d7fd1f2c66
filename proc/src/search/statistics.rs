//! Counts of one project's build, by which words are measured: no other project's messages count, no deleted ones, and the
//! same messages count the same however they are spread over segments.

use quick_cache::sync::Cache;
use tantivy::{
    DocSet as _, Opstamp, Searcher, SegmentReader, TERMINATED, Term,
    index::SegmentId,
    query::Bm25StatisticsProvider,
    schema::{Field, IndexRecordOption},
};

use super::schema::{Fields, Scope};

/// Most parts of builds whose totals are kept.
const MAX_CACHED_TOTALS: usize = 10_000;

/// Documents and tokens.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Totals {
    documents: u64,
    tokens: u64,
}

/// Totals of the parts of builds that lie in one segment; a segment with more deletions has another stamp.
#[derive(Debug)]
pub(super) struct TotalsCache(Cache<(SegmentId, Option<Opstamp>, Scope), Totals>);

impl Default for TotalsCache {
    fn default() -> Self {
        Self(Cache::new(MAX_CACHED_TOTALS))
    }
}

/// The statistics of one build of a project.
pub(super) struct Statistics<'a> {
    searcher: &'a Searcher,
    totals: Totals,
}

impl<'a> Statistics<'a> {
    /// Counts the build's messages and their tokens.
    pub(super) fn read(
        searcher: &'a Searcher,
        fields: Fields,
        scope: Scope,
        cache: &TotalsCache,
    ) -> tantivy::Result<Self> {
        let mut totals = Totals::default();
        for segment in searcher.segment_readers() {
            let key = (segment.segment_id(), segment.delete_opstamp(), scope);
            let part = cache.0.get_or_insert_with(&key, || count(segment, fields, scope))?;
            totals.documents += part.documents;
            totals.tokens += part.tokens;
        }
        Ok(Self { searcher, totals })
    }

    /// Returns the number of messages of the build.
    pub(super) fn documents(&self) -> u64 {
        self.totals.documents
    }

    /// Returns how much a word counts that so many messages have: its inverse document frequency.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rarity need not be exact, only always the same"
    )]
    pub(super) fn rarity(&self, frequency: u64) -> f32 {
        let documents = self.totals.documents;
        let frequency = frequency.min(documents);
        (1.0 + ((documents - frequency) as f32 + 0.5) / (frequency as f32 + 0.5)).ln()
    }

    /// Returns the mean number of tokens of a message.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a mean need not be exact, only always the same"
    )]
    pub(super) fn mean_tokens(&self) -> f32 {
        self.totals.tokens.max(1) as f32 / self.totals.documents.max(1) as f32
    }

    /// Returns the number of messages that have a term of the build.
    pub(super) fn frequency(&self, term: &Term) -> tantivy::Result<u64> {
        let mut frequency = 0;
        for segment in self.searcher.segment_readers() {
            frequency += frequency_in(segment, term)?;
        }
        Ok(frequency)
    }
}

impl Bm25StatisticsProvider for Statistics<'_> {
    fn total_num_tokens(&self, _field: Field) -> tantivy::Result<u64> {
        Ok(self.totals.tokens)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.totals.documents)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        self.frequency(term)
    }
}

/// Returns the number of messages of a segment, deleted ones left out, that have a term.
pub(super) fn frequency_in(segment: &SegmentReader, term: &Term) -> tantivy::Result<u64> {
    let index = segment.inverted_index(term.field())?;
    let Some(alive) = segment.alive_bitset() else { return Ok(index.doc_freq(term)?.into()) };
    let postings = index.read_postings(term, IndexRecordOption::Basic)?;
    Ok(postings.map_or(0, |postings| postings.doc_freq_given_deletes(alive).into()))
}

fn count(segment: &SegmentReader, fields: Fields, scope: Scope) -> tantivy::Result<Totals> {
    let mut totals = Totals::default();
    let index = segment.inverted_index(fields.scope)?;
    let postings = index.read_postings(&scope.term(fields), IndexRecordOption::Basic)?;
    let Some(mut postings) = postings else { return Ok(totals) };
    let lengths = segment.get_fieldnorms_reader(fields.text)?;
    while postings.doc() != TERMINATED {
        if !segment.is_deleted(postings.doc()) {
            totals.documents += 1;
            totals.tokens += u64::from(lengths.fieldnorm(postings.doc()));
        }
        postings.advance();
    }
    Ok(totals)
}
