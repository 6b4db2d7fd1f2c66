//! Scores of messages, added up in an order that the question alone decides: the same messages have the same scores, bit for
//! bit, whatever segments they lie in.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashSet},
};

use shared::ids::MessageId;
use tantivy::{
    DocId, DocSet as _, Score, Searcher, SegmentReader, TERMINATED, Term,
    columnar::Column,
    fieldnorm::FieldNormReader,
    postings::{Postings as _, SegmentPostings},
    query::{Bm25Weight, EnableScoring, PhraseQuery, Query, Scorer, Weight},
    schema::IndexRecordOption,
};
use uuid::Uuid;

use super::{Hit, schema::Fields, statistics::Statistics};

/// Documents whose scores are added up at once.
const WINDOW_DOCUMENTS: DocId = 4_096;
const WINDOW: usize = WINDOW_DOCUMENTS as usize;

/// A word, or words together, by which a message may be found.
pub(super) enum Source {
    /// A term, which so many messages have.
    Word {
        term: Term,
        frequency: u64,
        weight: Score,
    },
    Together {
        phrase: PhraseQuery,
        weight: Score,
    },
}

/// Sources that mean the same, of which a message scores the best one.
pub(super) type Meaning = Vec<Source>;

/// The clauses of a search.
#[derive(Default)]
pub(super) struct Ranking {
    /// A message needs one of these at least, unless there are none.
    pub(super) meanings: Vec<Meaning>,
    /// A message has to match this too.
    pub(super) filter: Option<Box<dyn Query>>,
    /// A message must match none of these.
    pub(super) excluded: Vec<Box<dyn Query>>,
}

/// A message's score, and its id in two halves.
#[derive(Copy, Clone, Debug)]
struct Candidate {
    score: Score,
    high: u64,
    low: u64,
}

impl Ord for Candidate {
    /// The higher score first; of equal ones the later message.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.score.total_cmp(&other.score);
        by_score.then((self.high, self.low).cmp(&(other.high, other.low)))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// The best messages so far.
struct Best {
    heap: BinaryHeap<Reverse<Candidate>>,
    limit: usize,
}

impl Best {
    fn offer(&mut self, candidate: Candidate) {
        if self.heap.len() < self.limit {
            self.heap.push(Reverse(candidate));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && worst.0 < candidate
        {
            *worst = Reverse(candidate);
        }
    }

    fn into_hits(self) -> Vec<Hit> {
        let best = self.heap.into_sorted_vec().into_iter();
        best.map(|Reverse(Candidate { score, high, low })| Hit {
            message: MessageId(Uuid::from_u64_pair(high, low)),
            score,
        })
        .collect()
    }
}

/// A source within a segment.
enum Cursor {
    Word { postings: Box<SegmentPostings>, weight: Bm25Weight, lengths: FieldNormReader },
    Together(Box<dyn Scorer>),
}

impl Cursor {
    fn doc(&self) -> DocId {
        match self {
            Self::Word { postings, .. } => postings.doc(),
            Self::Together(scorer) => scorer.doc(),
        }
    }

    fn advance(&mut self) -> DocId {
        match self {
            Self::Word { postings, .. } => postings.advance(),
            Self::Together(scorer) => scorer.advance(),
        }
    }

    fn score(&mut self) -> Score {
        match self {
            Self::Word { postings, weight, lengths } => {
                weight.score(lengths.fieldnorm_id(postings.doc()), postings.term_freq())
            }
            Self::Together(scorer) => scorer.score(),
        }
    }
}

/// A source with what it weighs in the project.
enum Weighed {
    Word { term: Term, weight: Bm25Weight },
    Together { phrase: Box<dyn Weight>, weight: Score },
}

impl Weighed {
    fn new(
        source: Source,
        scoring: EnableScoring<'_>,
        statistics: &Statistics<'_>,
    ) -> tantivy::Result<Self> {
        Ok(match source {
            Source::Word { term, frequency, weight } => {
                let documents = statistics.documents();
                let bm25 = Bm25Weight::for_one_term_without_explain(
                    frequency.min(documents),
                    documents,
                    statistics.mean_tokens(),
                );
                Self::Word { term, weight: bm25.boost_by(weight) }
            }
            Source::Together { phrase, weight } => {
                Self::Together { phrase: phrase.weight(scoring)?, weight }
            }
        })
    }

    fn cursor(&self, segment: &SegmentReader, fields: Fields) -> tantivy::Result<Option<Cursor>> {
        Ok(match self {
            Self::Word { term, weight } => {
                let index = segment.inverted_index(fields.text)?;
                let postings = index.read_postings(term, IndexRecordOption::WithFreqs)?;
                let Some(postings) = postings else { return Ok(None) };
                let lengths = segment.get_fieldnorms_reader(fields.text)?;
                let (postings, weight) = (Box::new(postings), weight.clone());
                Some(Cursor::Word { postings, weight, lengths })
            }
            Self::Together { phrase, weight } => {
                Some(Cursor::Together(phrase.scorer(segment, *weight)?))
            }
        })
    }
}

/// The scores of the documents of one window.
struct Window {
    totals: Vec<Score>,
    best: Vec<Score>,
    touched: Vec<usize>,
}

impl Window {
    fn new() -> Self {
        Self { totals: vec![0.0; WINDOW], best: vec![0.0; WINDOW], touched: Vec::new() }
    }

    /// Adds the scores of a meaning for the documents from `start` on.
    fn add(&mut self, cursors: &mut [Cursor], start: usize) {
        for cursor in cursors {
            loop {
                let at = cursor.doc() as usize;
                if at >= start + WINDOW || cursor.doc() == TERMINATED {
                    break;
                }
                let (at, score) = (at - start, cursor.score());
                if self.best[at] == 0.0 {
                    self.touched.push(at);
                }
                self.best[at] = self.best[at].max(score);
                cursor.advance();
            }
        }
        for at in self.touched.drain(..) {
            self.totals[at] += self.best[at];
            self.best[at] = 0.0;
        }
    }
}

/// The columns of a segment that scores depend on.
struct Columns<'a> {
    segment: &'a SegmentReader,
    /// Documents that match what is excluded.
    excluded: HashSet<DocId>,
    high: Column<u64>,
    low: Column<u64>,
    asks: Column<bool>,
    lengths: FieldNormReader,
}

/// Properties of a document beside its words, by which its score is adjusted.
#[derive(Copy, Clone, Debug)]
pub(super) struct Nature {
    /// First half of the message's id, which begins with its time.
    pub(super) high: u64,
    pub(super) asks: bool,
    pub(super) length: u32,
}

impl<'a> Columns<'a> {
    fn open(
        segment: &'a SegmentReader,
        fields: Fields,
        excluded: HashSet<DocId>,
    ) -> tantivy::Result<Self> {
        let columns = segment.fast_fields();
        Ok(Self {
            segment,
            excluded,
            high: columns.u64("high")?,
            low: columns.u64("low")?,
            asks: columns.bool("asks")?,
            lengths: segment.get_fieldnorms_reader(fields.text)?,
        })
    }

    /// Offers a document that matches.
    fn offer(
        &self,
        document: DocId,
        score: Score,
        adjust: &impl Fn(Score, Nature) -> Score,
        best: &mut Best,
    ) {
        if self.segment.is_deleted(document) || self.excluded.contains(&document) {
            return;
        }
        let nature = Nature {
            high: self.high.first(document).unwrap_or(0),
            asks: self.asks.first(document).unwrap_or(false),
            length: self.lengths.fieldnorm(document),
        };
        let low = self.low.first(document).unwrap_or(0);
        best.offer(Candidate { score: adjust(score, nature), high: nature.high, low });
    }
}

impl Ranking {
    /// Returns the best messages, the best first; `adjust` turns the sum of a message's words into its score.
    pub(super) fn best(
        self,
        searcher: &Searcher,
        fields: Fields,
        statistics: &Statistics<'_>,
        limit: usize,
        adjust: impl Fn(Score, Nature) -> Score,
    ) -> tantivy::Result<Vec<Hit>> {
        let scoring = EnableScoring::enabled_from_statistics_provider(statistics, searcher);
        let weigh = |meaning: Meaning| {
            meaning.into_iter().map(|source| Weighed::new(source, scoring, statistics)).collect()
        };
        let meanings: tantivy::Result<Vec<Vec<Weighed>>> =
            self.meanings.into_iter().map(weigh).collect();
        let meanings = meanings?;
        let plain = EnableScoring::disabled_from_searcher(searcher);
        let filter = self.filter.map(|filter| filter.weight(plain)).transpose()?;
        let excluded: tantivy::Result<Vec<_>> =
            self.excluded.iter().map(|query| query.weight(plain)).collect();
        let excluded = excluded?;
        let mut best = Best { heap: BinaryHeap::new(), limit };
        let mut window = Window::new();
        for segment in searcher.segment_readers() {
            let mut cursors = Vec::new();
            for meaning in &meanings {
                let found =
                    meaning.iter().filter_map(|source| source.cursor(segment, fields).transpose());
                cursors.push(found.collect::<tantivy::Result<Vec<Cursor>>>()?);
            }
            let filter = filter.as_ref().map(|filter| filter.scorer(segment, 1.0)).transpose()?;
            let mut part = Part { cursors, filter, window: &mut window };
            if part.is_empty() {
                continue;
            }
            let columns = Columns::open(segment, fields, matching(&excluded, segment)?)?;
            let mut offer = |document, score| columns.offer(document, score, &adjust, &mut best);
            if meanings.is_empty() {
                part.each_filtered(&mut offer);
            } else {
                part.each_scored(&mut offer);
            }
        }
        Ok(best.into_hits())
    }
}

/// Returns the documents of a segment that match any of the conditions. They are read one after the other: a condition that is
/// excluded within a query of tantivy may be a phrase, whose scorer does not keep to the documents that it is asked for.
fn matching(
    conditions: &[Box<dyn Weight>],
    segment: &SegmentReader,
) -> tantivy::Result<HashSet<DocId>> {
    let mut found = HashSet::new();
    for condition in conditions {
        let mut scorer = condition.scorer(segment, 1.0)?;
        while scorer.doc() != TERMINATED {
            found.insert(scorer.doc());
            scorer.advance();
        }
    }
    Ok(found)
}

/// The search in one segment.
struct Part<'a> {
    /// The cursors of each meaning.
    cursors: Vec<Vec<Cursor>>,
    filter: Option<Box<dyn Scorer>>,
    window: &'a mut Window,
}

impl Part<'_> {
    /// Returns whether nothing matches.
    fn is_empty(&self) -> bool {
        let is_filter_empty = self.filter.as_ref().is_some_and(|filter| filter.doc() == TERMINATED);
        is_filter_empty
            || (self.first().is_none() && (self.filter.is_none() || !self.cursors.is_empty()))
    }

    /// Returns the first document that a cursor is at.
    fn first(&self) -> Option<DocId> {
        let documents = self.cursors.iter().flatten().map(Cursor::doc);
        documents.min().filter(|document| *document != TERMINATED)
    }

    /// Calls `offer` with each document that the filter lets pass.
    fn each_filtered(&mut self, offer: &mut impl FnMut(DocId, Score)) {
        let Some(filter) = &mut self.filter else { return };
        while filter.doc() != TERMINATED {
            offer(filter.doc(), 1.0);
            filter.advance();
        }
    }

    /// Calls `offer` with each document that has a score and that the filter lets pass.
    fn each_scored(&mut self, offer: &mut impl FnMut(DocId, Score)) {
        while let Some(start) = self.first() {
            let window = &mut *self.window;
            window.totals.fill(0.0);
            for meaning in &mut self.cursors {
                window.add(meaning, start as usize);
            }
            let end = start.saturating_add(WINDOW_DOCUMENTS).min(TERMINATED);
            let Some(filter) = &mut self.filter else {
                let scored = (start..end).zip(&window.totals).filter(|(_, score)| **score > 0.0);
                scored.for_each(|(document, score)| offer(document, *score));
                continue;
            };
            if filter.doc() < start {
                filter.seek(start);
            }
            while filter.doc() < end {
                let score = window.totals[(filter.doc() - start) as usize];
                if score > 0.0 {
                    offer(filter.doc(), score);
                }
                filter.advance();
            }
        }
    }
}
