//! From what was asked to what the index looks up: words by their rarity and in all forms, neighbours together, misspelt words
//! too, and of two equal messages the newer one.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use proto::Filter;
use shared::{
    time::Timestamp,
    words::{self, Kind, LanguageSet},
};
use tantivy::{
    Score, Searcher, TantivyError, Term,
    query::{
        BooleanQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, RangeQuery, TermQuery,
        TermSetQuery,
    },
    schema::IndexRecordOption,
};
use tantivy_fst::Automaton;

use super::{
    Hit,
    ranking::{Meaning, Nature, Ranking, Source},
    schema::{Fields, Scope},
    statistics::Statistics,
    text::{Asked, Phrase, Word},
};

/// Words that are looked up: the rarest.
const MOST_WORDS: usize = 24;
/// Neighbours that are looked up.
const MOST_PAIRS: usize = 12;
/// How much it counts that two words stand together as in the question.
const PAIR: Score = 0.5;
/// Misspelt words that are looked up, and what each may stand for.
const MOST_TYPOS: usize = 4;
const MOST_MEANINGS: usize = 3;
/// A word in fewer messages may be a misspelt one; what it stands for is in this many times more.
const RARE: u64 = 3;
const OFTENER: u64 = 4;
/// How much a message counts that has the word with one letter or two changed.
const NEAR: Score = 0.5;
const FAR: Score = 0.3;
/// Weight of a message that has the word in another form, or a longer word.
const FORM: Score = 0.8;
const COMPLETED: Score = 0.5;
/// Longer words that are looked up for the beginning of one.
const MOST_COMPLETED: usize = 16;
/// Words of a question, the rarest, that a good answer has.
const MOST_EXPECTED: usize = 6;
/// Factor for a word of a script without spaces that a dictionary takes for a word.
const SEGMENT: Score = 0.3;
/// Terms of the index compared with one word.
const MOST_COMPARED: usize = 200;
/// What a message keeps of its score that is a question itself, and more likely the same one than its answer.
const ASKING: Score = 0.7;
/// Of how many words a message keeps half of its score: by its words alone a fragment would be the best answer to anything.
const FRAGMENT: Score = 8.0;
/// How much of its score a message loses each time that its age doubles, from a month on.
const AGEING: f32 = 0.02;
const DAY_MS: i64 = 86_400_000;
const MONTH_MS: f32 = 30.0 * 86_400_000.0;

/// The build of a project that is searched.
pub(super) struct Searched<'a> {
    pub(super) searcher: &'a Searcher,
    pub(super) fields: Fields,
    pub(super) scope: Scope,
    pub(super) statistics: &'a Statistics<'a>,
}

/// Parameters of BM25 as tantivy has them.
const BM25_K1: Score = 1.2;
const BM25_B: Score = 0.75;
/// Mean tokens of a message up to which a project's messages are unusually short.
const USUAL_TOKENS: f32 = 16.0;

/// Result of a search.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The best messages, the best first.
    pub(super) hits: Vec<Hit>,
    /// The terms that were looked up; those that stand together are joined by spaces.
    pub(super) words: BTreeSet<String>,
    /// The share of the question's words, by their rarity, that the best message has: 1 and more for a good answer.
    pub(super) strength: Score,
}

/// Terms to look up, as they are put together.
#[derive(Default)]
struct Plan {
    meanings: Vec<Meaning>,
    words: BTreeSet<String>,
    /// The score of a message of average length with each word once.
    expected: Score,
}

impl Plan {
    /// Adds a meaning unless it is empty.
    fn push(&mut self, meaning: Meaning) {
        if !meaning.is_empty() {
            self.meanings.push(meaning);
        }
    }
}

/// A word of the question with what the project has of it.
struct Known<'a> {
    word: &'a Word,
    /// Terms of the word in its forms.
    terms: Vec<Form>,
    /// Messages with any of them.
    frequency: u64,
}

/// A term of a word, which so many messages have.
#[derive(Clone, Debug, PartialEq)]
struct Form {
    term: String,
    weight: Score,
    frequency: u64,
}

impl Known<'_> {
    /// Returns the term that is closest to what was written.
    fn first(&self) -> Option<&Form> {
        self.terms.first()
    }

    /// Returns the term that most messages have: a stem stands for all forms that have one.
    fn broadest(&self) -> Option<&Form> {
        self.terms.iter().max_by_key(|form| form.frequency)
    }
}

impl Searched<'_> {
    /// Returns the best messages for what was asked, of those that the filter lets pass.
    pub(super) fn find(
        &self,
        filter: &Filter,
        asked: &Asked,
        limit: usize,
        now: Timestamp,
    ) -> tantivy::Result<Found> {
        let mut plan = self.plan(asked)?;
        if plan.meanings.is_empty() && (*filter == Filter::default() || !asked.words.is_empty()) {
            return Ok(Found::default());
        }
        let mut filters = self.filters(filter);
        for phrase in &asked.phrases {
            plan.words.insert(joined(phrase));
            plan.meanings.push(vec![self.together(phrase, 0, 1.0)?]);
            filters.push((Occur::Must, self.matches(phrase)));
        }
        let excluded = asked.excluded.iter().map(|phrase| self.matches(phrase)).collect();
        let is_narrowed_only = plan.meanings.is_empty();
        if is_narrowed_only {
            filters.push((Occur::Must, self.all()));
        }
        let filter =
            (!filters.is_empty()).then(|| Box::new(BooleanQuery::new(filters)) as Box<dyn Query>);
        // A day is exact enough, and a search that is repeated has the same scores.
        let today = Timestamp::from_ms(now.as_ms() / DAY_MS * DAY_MS);
        let strongest = Cell::new(0.0_f32);
        let mean_tokens = self.statistics.mean_tokens();
        let adjust = |score: Score, nature: Nature| {
            if is_narrowed_only {
                // All are equally good, so that the newest are first.
                return score;
            }
            strongest.set(strongest.get().max(score * lengthiness(nature.length, mean_tokens)));
            let asking = if nature.asks { ASKING } else { 1.0 };
            score * asking * weight(nature.length) / ageing(nature.high, today)
        };
        let ranking = Ranking { meanings: plan.meanings, filter, excluded };
        let hits = ranking.best(self.searcher, self.fields, self.statistics, limit, adjust)?;
        let strength = strongest.get() / plan.expected.max(f32::MIN_POSITIVE);
        Ok(Found { hits, words: plan.words, strength })
    }

    /// Returns the conditions of a filter.
    fn filters(&self, filter: &Filter) -> Vec<(Occur, Box<dyn Query>)> {
        let any = |field, values: &[String]| -> Box<dyn Query> {
            let terms = values.iter().map(|value| Term::from_field_text(field, value));
            Box::new(TermSetQuery::new(terms))
        };
        let mut filters: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for (field, values) in
            [(self.fields.channel, &filter.channels), (self.fields.author, &filter.authors)]
        {
            if !values.is_empty() {
                filters.push((Occur::Must, any(field, values)));
            }
        }
        if filter.has_link {
            let term = self.term(&words::link_term());
            filters.push((Occur::Must, Box::new(TermQuery::new(term, IndexRecordOption::Basic))));
        }
        if filter.after_ms.is_some() || filter.before_ms.is_some() {
            let term = |ms: i64| {
                let high = u64::try_from(ms).unwrap_or(0).min(u64::MAX >> 16) << 16;
                Term::from_field_u64(self.fields.high, high)
            };
            let after = filter.after_ms.map_or(Bound::Unbounded, |ms| Bound::Included(term(ms)));
            let before = filter.before_ms.map_or(Bound::Unbounded, |ms| Bound::Excluded(term(ms)));
            filters.push((Occur::Must, Box::new(RangeQuery::new(after, before))));
        }
        if !filters.is_empty() {
            filters.push((Occur::Must, self.all()));
        }
        filters
    }

    /// Returns the condition that a message is of the build.
    fn all(&self) -> Box<dyn Query> {
        Box::new(TermQuery::new(self.scope.term(self.fields), IndexRecordOption::Basic))
    }

    /// Returns what is looked up: the rarest words, and neighbours among them.
    fn plan(&self, asked: &Asked) -> tantivy::Result<Plan> {
        let question: Vec<&str> = asked.words.iter().map(|word| &*word.source).collect();
        let languages = LanguageSet::new(&question.join(" "), |term: &str| {
            Ok::<_, TantivyError>(self.statistics.frequency(&self.term(term))? > 0)
        })?;
        let mut known = Vec::new();
        for word in asked.words.iter().filter(|word| word.matters) {
            known.push(self.know(word, &languages)?);
        }
        known.sort_by_key(|known| (known.frequency, known.word.position));
        known.truncate(MOST_WORDS);
        let mut plan = Plan::default();
        let mut typos = 0;
        let mut expected = 0;
        for known in &known {
            if !matches!(known.word.kind, Kind::Whole | Kind::Part) && expected < MOST_EXPECTED {
                expected += 1;
                plan.expected += self.statistics.rarity(known.frequency);
            }
            if known.word.terms.len() > 1 {
                self.look_up_characters(known, &mut plan)?;
            } else {
                self.look_up(known, &mut typos, &mut plan)?;
            }
        }
        known.retain(|known| known.frequency > 0 && known.word.terms.len() == 1);
        known.sort_by_key(|known| known.word.position);
        let pairs = known.windows(2).filter_map(|pair| {
            let [one, next] = pair else { return None };
            let distance = next.word.position.saturating_sub(one.word.position);
            (1..=2).contains(&distance).then_some((one, next, distance))
        });
        for (one, next, distance) in pairs.take(MOST_PAIRS) {
            let mut meaning = Meaning::new();
            let exact = (one.first(), next.first());
            let broad = (one.broadest(), next.broadest());
            for (one, next) in std::iter::once(exact).chain((broad != exact).then_some(broad)) {
                let (Some(one), Some(next)) = (one, next) else { continue };
                let phrase = [(0, one.term.clone()), (distance, next.term.clone())];
                meaning.push(self.together(&phrase, 1, PAIR * one.weight * next.weight)?);
            }
            plan.push(meaning);
        }
        Ok(plan)
    }

    /// Returns what the project has of a word: as it was written, and in other forms.
    fn know<'a>(&self, word: &'a Word, languages: &LanguageSet) -> tantivy::Result<Known<'a>> {
        let Some(term) = word.term() else {
            let mut frequency = u64::MAX;
            for term in &word.terms {
                frequency = frequency.min(self.statistics.frequency(&self.term(term))?);
            }
            return Ok(Known { word, terms: Vec::new(), frequency });
        };
        let forms = match word.kind {
            Kind::Word | Kind::Part => languages.forms(&word.source),
            _ => Vec::new(),
        };
        let mut terms = Vec::new();
        let mut frequency = 0;
        let weighed = forms.iter().map(|form| (&**form, FORM));
        for (term, weight) in std::iter::once((term, 1.0)).chain(weighed) {
            let often = self.statistics.frequency(&self.term(term))?;
            if often > 0 {
                frequency += often;
                terms.push(Form { term: term.to_owned(), weight, frequency: often });
            }
        }
        Ok(Known { word, terms, frequency: frequency.min(self.statistics.documents()) })
    }

    /// Looks up a word: in its forms, completed, and corrected if it is rare.
    fn look_up(
        &self,
        known: &Known<'_>,
        typos: &mut usize,
        plan: &mut Plan,
    ) -> tantivy::Result<()> {
        let Known { word, terms, frequency } = known;
        let mut meaning = Meaning::new();
        for Form { term, weight, .. } in terms {
            plan.words.insert(term.clone());
            meaning.push(self.single(term, *frequency, *weight));
        }
        let Some(term) = word.term() else { return Ok(()) };
        let mut others: Vec<(String, u64, Score)> = Vec::new();
        if word.is_prefix {
            let mut found: Vec<_> = self.beginning_with(term)?.into_iter().collect();
            found.sort_by(|(one, often), (other, other_often)| {
                other_often.cmp(often).then(one.cmp(other))
            });
            let found = found.into_iter().take(MOST_COMPLETED);
            others.extend(found.map(|(other, often)| (other, frequency + often, COMPLETED)));
        }
        let may_be_wrong = *frequency < RARE && *typos < MOST_TYPOS;
        if let Some(distance) = tolerance(word).filter(|_| may_be_wrong) {
            *typos += 1;
            others.extend(self.corrections(term, distance, *frequency)?);
        }
        for (other, often, weight) in others {
            plan.words.insert(other.clone());
            meaning.push(self.single(&other, often, weight));
        }
        plan.push(meaning);
        Ok(())
    }

    /// Looks up a word of a script without spaces: its characters together, or parts of it, and more so where a dictionary
    /// takes them for a word.
    fn look_up_characters(&self, known: &Known<'_>, plan: &mut Plan) -> tantivy::Result<()> {
        let phrase: Phrase = known.word.terms.iter().cloned().enumerate().collect();
        let mut meaning = Meaning::new();
        if known.frequency > 0 {
            plan.words.insert(joined(&phrase));
            meaning.push(self.together(&phrase, 0, 1.0)?);
        }
        for pair in phrase.windows(2).filter(|_| phrase.len() > 2) {
            let is_content = pair.iter().any(|(_, term)| term.chars().any(words::is_ideograph));
            if is_content {
                let pair = [(0, pair[0].1.clone()), (1, pair[1].1.clone())];
                plan.words.insert(joined(&pair));
                meaning.push(self.together(&pair, 0, FAR)?);
            }
        }
        plan.push(meaning);
        let segment = words::segment_term(&known.word.terms.concat());
        let often = self.statistics.frequency(&self.term(&segment))?;
        if often > 0 {
            plan.push(vec![self.single(&segment, often, SEGMENT)]);
        }
        Ok(())
    }

    fn term(&self, word: &str) -> Term {
        self.scope.word(self.fields, word)
    }

    fn single(&self, word: &str, frequency: u64, weight: Score) -> Source {
        Source::Word { term: self.term(word), frequency, weight }
    }

    /// Returns words as far from each other as they are in the question, or `slop` more.
    fn together(
        &self,
        words: &[(usize, String)],
        slop: u32,
        weight: Score,
    ) -> tantivy::Result<Source> {
        Ok(match words {
            [(_, word)] => self.single(word, self.statistics.frequency(&self.term(word))?, weight),
            words => Source::Together { phrase: self.phrase(words, slop), weight },
        })
    }

    fn phrase(&self, words: &[(usize, String)], slop: u32) -> PhraseQuery {
        let terms = words.iter().map(|(position, word)| (*position, self.term(word)));
        PhraseQuery::new_with_offset_and_slop(terms.collect(), slop)
    }

    /// Returns a condition that a message has words as they stand.
    fn matches(&self, words: &[(usize, String)]) -> Box<dyn Query> {
        match words {
            [(_, word)] => Box::new(TermQuery::new(self.term(word), IndexRecordOption::Basic)),
            words => Box::new(self.phrase(words, 0)),
        }
    }

    /// Returns the words of the project that a misspelt one may stand for, with their frequencies and weights.
    fn corrections(
        &self,
        word: &str,
        distance: u8,
        frequency: u64,
    ) -> tantivy::Result<Vec<(String, u64, Score)>> {
        let mut found: Vec<(String, u64, Score)> = Vec::new();
        for distance in 1..=distance {
            let weight = if distance == 1 { NEAR } else { FAR };
            let near =
                FuzzyTermQuery::new(Term::from_field_text(self.fields.text, word), distance, true);
            for (other, often) in self.compare(|| near.automaton())? {
                let is_new = other != word && found.iter().all(|(known, ..)| *known != other);
                if is_new && often >= (OFTENER * frequency).max(1) {
                    found.push((other, often, weight));
                }
            }
        }
        found.sort_by(|(word, often, weight), (other, other_often, other_weight)| {
            other_weight.total_cmp(weight).then(other_often.cmp(often)).then(word.cmp(other))
        });
        found.truncate(MOST_MEANINGS);
        Ok(found)
    }

    /// Returns longer words of the project that begin with one.
    fn beginning_with(&self, word: &str) -> tantivy::Result<BTreeMap<String, u64>> {
        let mut found = self.compare(|| Ok(StartsWith(word.to_owned())))?;
        found.remove(word);
        Ok(found)
    }

    /// Returns words of the project that an automaton matches, with the number of messages that have them: the first
    /// [`MOST_COMPARED`] by their letters, in whatever segments they lie.
    fn compare<A>(
        &self,
        automaton: impl Fn() -> tantivy::Result<A>,
    ) -> tantivy::Result<BTreeMap<String, u64>>
    where
        A: Automaton,
        A::State: Clone,
    {
        let mut found = BTreeMap::new();
        for segment in self.searcher.segment_readers() {
            let index = segment.inverted_index(self.fields.text)?;
            let automaton = Behind { header: self.scope.header(), word: automaton()? };
            let header = automaton.header.len();
            let mut terms = index.terms().search(automaton).into_stream()?;
            let mut compared = 0;
            while terms.advance() && compared < MOST_COMPARED {
                let Ok(other) = std::str::from_utf8(&terms.key()[header..]) else { continue };
                if !words::is_written(other) {
                    continue;
                }
                let often = match segment.alive_bitset() {
                    None => terms.value().doc_freq,
                    Some(alive) => index
                        .read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?
                        .doc_freq_given_deletes(alive),
                };
                if often > 0 {
                    compared += 1;
                    *found.entry(other.to_owned()).or_insert(0) += u64::from(often);
                }
            }
        }
        while found.len() > MOST_COMPARED {
            found.pop_last();
        }
        Ok(found)
    }
}

/// Returns terms that stand together as one text.
fn joined(phrase: &[(usize, String)]) -> String {
    phrase.iter().map(|(_, term)| &**term).collect::<Vec<_>>().join(" ")
}

/// Matches what begins with a text.
struct StartsWith(String);

impl Automaton for StartsWith {
    /// Bytes that match, `None` after a mismatch.
    type State = Option<usize>;

    fn start(&self) -> Self::State {
        Some(0)
    }

    fn is_match(&self, state: &Self::State) -> bool {
        *state == Some(self.0.len())
    }

    fn can_match(&self, state: &Self::State) -> bool {
        state.is_some()
    }

    fn accept(&self, state: &Self::State, byte: u8) -> Self::State {
        match self.0.as_bytes().get((*state)?) {
            None => *state,
            Some(next) => (*next == byte).then_some((*state)? + 1),
        }
    }
}

/// Matches the terms of one build whose words an automaton matches.
struct Behind<A> {
    header: String,
    word: A,
}

/// State of reading a stored term.
#[derive(Clone)]
enum Read<S> {
    /// So many bytes of the header.
    Header(usize),
    Word(S),
    Mismatch,
}

impl<A: Automaton> Automaton for Behind<A>
where
    A::State: Clone,
{
    type State = Read<A::State>;

    fn start(&self) -> Self::State {
        Read::Header(0)
    }

    fn is_match(&self, state: &Self::State) -> bool {
        matches!(state, Read::Word(state) if self.word.is_match(state))
    }

    fn can_match(&self, state: &Self::State) -> bool {
        match state {
            Read::Header(_) => true,
            Read::Word(state) => self.word.can_match(state),
            Read::Mismatch => false,
        }
    }

    fn accept(&self, state: &Self::State, byte: u8) -> Self::State {
        match state {
            Read::Header(at) if self.header.as_bytes().get(*at) != Some(&byte) => Read::Mismatch,
            Read::Header(at) if at + 1 == self.header.len() => Read::Word(self.word.start()),
            Read::Header(at) => Read::Header(at + 1),
            Read::Word(state) => Read::Word(self.word.accept(state, byte)),
            Read::Mismatch => Read::Mismatch,
        }
    }
}

/// Returns by what a score has to be multiplied to be that of a project whose messages are of usual length. Where nearly all
/// are of a word or two, a sentence that answers a question would count as too long to be about it.
#[expect(clippy::cast_precision_loss, reason = "a length need not be exact")]
fn lengthiness(tokens: u32, mean_tokens: f32) -> Score {
    let norm = |mean: f32| 1.0 + BM25_K1 * (1.0 - BM25_B + BM25_B * tokens as Score / mean);
    norm(mean_tokens) / norm(mean_tokens.max(USUAL_TOKENS))
}

/// Returns what a message of so many words keeps of its score.
#[expect(clippy::cast_precision_loss, reason = "a length need not be exact")]
fn weight(length: u32) -> Score {
    let length = length as Score;
    length / (length + FRAGMENT)
}

/// Returns by what a message's score is divided, from the half of its id that begins with its time.
#[expect(clippy::cast_precision_loss, reason = "an age need not be exact")]
fn ageing(high: u64, now: Timestamp) -> f32 {
    let sent = Timestamp::from_ms(i64::try_from(high >> 16).unwrap_or(0));
    let age = now.since(sent).as_millis() as f32;
    1.0 + AGEING * (age / MONTH_MS).max(1.0).log2()
}

/// Returns how many letters of a word may be wrong, `None` if it is too short, or no word at all, to tell.
fn tolerance(word: &Word) -> Option<u8> {
    if word.kind != Kind::Word || !word.source.chars().all(char::is_alphabetic) {
        return None;
    }
    match word.source.chars().count() {
        0..=4 => None,
        5..=8 => Some(1),
        _ => Some(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::text::Style;

    #[test]
    fn age_never_drowns_relevance() {
        let now = Timestamp::from_ms(1_800_000_000_000);
        let at = |ms: u64| ageing(ms << 16, now);
        assert!(at(1_800_000_000_000) < at(1_700_000_000_000));
        assert!(at(1_700_000_000_000) < at(1_000_000_000_000));
        assert!(at(0) < 1.25);
        assert!(at(u64::MAX >> 16) <= 1.0, "what comes from the future is new");
    }

    #[test]
    fn short_words_and_numbers_are_taken_as_they_are() {
        let tolerance = |text: &str| tolerance(&Asked::read(text, Style::Typed).words[0]);
        assert_eq!(tolerance("kernl"), Some(1));
        assert_eq!(tolerance("partitoning"), Some(2), "as it is written, not as it is looked up");
        assert_eq!([tolerance("grub"), tolerance("10.04.01"), tolerance("sda123")], [None; 3]);
    }
}
