//! From what was asked to what the index looks up: words by their rarity, neighbours together, misspelt words too, and of two
//! equal messages the newer one.

use std::collections::BTreeMap;

use shared::time::Timestamp;
use tantivy::{
    Score, Searcher, Term,
    query::{BooleanQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, TermQuery},
    schema::IndexRecordOption,
};
use tantivy_fst::Automaton;

use super::{
    Hit,
    ranking::{Meaning, Nature, Ranking, Source},
    schema::{Fields, Scope},
    statistics::Statistics,
    text::{Asked, Word},
};

/// Words that are looked up: the rarest.
const MOST_WORDS: usize = 24;
/// Neighbours that are looked up.
const MOST_PAIRS: usize = 12;
/// How much it counts that two words stand together as in the question.
const PAIR: Score = 0.6;
/// Misspelt words that are looked up, and what each may stand for.
const MOST_TYPOS: usize = 4;
const MOST_MEANINGS: usize = 3;
/// A word in fewer messages may be a misspelt one; what it stands for is in this many times more.
const RARE: u64 = 3;
const OFTENER: u64 = 4;
/// How much a message counts that has the word with one letter or two changed.
const NEAR: Score = 0.5;
const FAR: Score = 0.3;
/// Terms of the index compared with one misspelt word.
const MOST_COMPARED: usize = 200;
/// What a message keeps of its score that is a question itself, and more likely the same one than its answer.
const ASKING: Score = 0.75;
/// Of how many words a message keeps half of its score: by its words alone a fragment would be the best answer to anything.
const FRAGMENT: Score = 6.0;
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

impl Searched<'_> {
    /// Returns the best messages for what was asked, only of `channel` if there is one.
    pub(super) fn find(
        &self,
        channel: Option<&str>,
        asked: &Asked,
        limit: usize,
        now: Timestamp,
    ) -> tantivy::Result<Vec<Hit>> {
        let mut meanings = self.meanings(asked)?;
        if meanings.is_empty() {
            return Ok(Vec::new());
        }
        let mut filters: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        if let Some(channel) = channel {
            let term = Term::from_field_text(self.fields.channel, channel);
            filters.push((Occur::Must, Box::new(TermQuery::new(term, IndexRecordOption::Basic))));
        }
        for phrase in &asked.phrases {
            meanings.push(vec![self.together(phrase, 0, 1.0)?]);
            filters.push((Occur::Must, self.matches(phrase)));
        }
        let filter =
            (!filters.is_empty()).then(|| Box::new(BooleanQuery::new(filters)) as Box<dyn Query>);
        // A day is exact enough, and a search that is repeated has the same scores.
        let today = Timestamp::from_ms(now.as_ms() / DAY_MS * DAY_MS);
        let adjust = |score: Score, nature: Nature| {
            let asking = if nature.asks { ASKING } else { 1.0 };
            score * asking * weight(nature.length) / ageing(nature.high, today)
        };
        let ranking = Ranking { meanings, filter };
        ranking.best(self.searcher, self.fields, self.statistics, limit, adjust)
    }

    /// Returns the meanings of the rarest words, and of neighbours among them.
    fn meanings(&self, asked: &Asked) -> tantivy::Result<Vec<Meaning>> {
        let mut known = Vec::new();
        for word in asked.words.iter().filter(|word| word.matters) {
            known.push((self.statistics.frequency(&self.term(&word.text))?, word));
        }
        known.sort_by_key(|(frequency, word)| (*frequency, word.position));
        known.truncate(MOST_WORDS);
        let mut meanings = Vec::new();
        let mut typos = 0;
        for (frequency, word) in &known {
            let mut meaning = Meaning::new();
            if *frequency > 0 {
                meaning.push(self.single(&word.text, *frequency, 1.0));
            }
            let may_be_wrong = *frequency < RARE && typos < MOST_TYPOS;
            if let Some(distance) = tolerance(word).filter(|_| may_be_wrong) {
                typos += 1;
                meaning.extend(self.corrections(&word.text, distance, *frequency)?);
            }
            if !meaning.is_empty() {
                meanings.push(meaning);
            }
        }
        known.retain(|(frequency, _)| *frequency > 0);
        known.sort_by_key(|(_, word)| word.position);
        let pairs = known.windows(2).filter_map(|pair| {
            let [(_, one), (_, next)] = pair else { return None };
            (1..=2).contains(&next.position.saturating_sub(one.position)).then_some([one, next])
        });
        for [one, next] in pairs.take(MOST_PAIRS) {
            meanings.push(vec![self.together(&[(*one).clone(), (*next).clone()], 1, PAIR)?]);
        }
        Ok(meanings)
    }

    fn term(&self, word: &str) -> Term {
        self.scope.word(self.fields, word)
    }

    fn single(&self, word: &str, frequency: u64, weight: Score) -> Source {
        Source::Word { term: self.term(word), frequency, weight }
    }

    /// Returns words as far from each other as they are in the question, or `slop` more.
    fn together(&self, words: &[Word], slop: u32, weight: Score) -> tantivy::Result<Source> {
        Ok(match words {
            [word] => {
                self.single(&word.text, self.statistics.frequency(&self.term(&word.text))?, weight)
            }
            words => Source::Together { phrase: self.phrase(words, slop), weight },
        })
    }

    fn phrase(&self, words: &[Word], slop: u32) -> PhraseQuery {
        let first = words.first().map_or(0, |word| word.position);
        let terms = words.iter().map(|word| (word.position - first, self.term(&word.text)));
        PhraseQuery::new_with_offset_and_slop(terms.collect(), slop)
    }

    /// Returns a condition that a message has words as they stand.
    fn matches(&self, words: &[Word]) -> Box<dyn Query> {
        match words {
            [word] => Box::new(TermQuery::new(self.term(&word.text), IndexRecordOption::Basic)),
            words => Box::new(self.phrase(words, 0)),
        }
    }

    /// Returns the words of the project that a misspelt one may stand for.
    fn corrections(&self, word: &str, distance: u8, frequency: u64) -> tantivy::Result<Meaning> {
        let mut found: Vec<(String, u64, Score)> = Vec::new();
        for distance in 1..=distance {
            let weight = if distance == 1 { NEAR } else { FAR };
            for (other, often) in self.near(word, distance)? {
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
        let sources =
            found.iter().map(|(other, often, weight)| self.single(other, *often, *weight));
        Ok(sources.collect())
    }

    /// Returns words of the project so many letters away, with the number of messages that have them: the first
    /// [`MOST_COMPARED`] by their letters, in whatever segments they lie.
    fn near(&self, word: &str, distance: u8) -> tantivy::Result<BTreeMap<String, u64>> {
        let mut found = BTreeMap::new();
        let term = Term::from_field_text(self.fields.text, word);
        let near = FuzzyTermQuery::new(term, distance, true);
        for segment in self.searcher.segment_readers() {
            let index = segment.inverted_index(self.fields.text)?;
            let automaton = Behind { header: self.scope.header(), word: near.automaton()? };
            let header = automaton.header.len();
            let mut terms = index.terms().search(automaton).into_stream()?;
            let mut compared = 0;
            while terms.advance() && compared < MOST_COMPARED {
                let Ok(other) = std::str::from_utf8(&terms.key()[header..]) else { continue };
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

/// Matches the terms of one build whose words an automaton matches.
struct Behind<A> {
    header: String,
    word: A,
}

/// How far a term was read.
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
    match word.letters {
        _ if !word.text.chars().all(char::is_alphabetic) => None,
        0..=4 => None,
        5..=8 => Some(1),
        _ => Some(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let tolerance = |text: &str| tolerance(&Asked::read(text).words[0]);
        assert_eq!(tolerance("kernl"), Some(1));
        assert_eq!(tolerance("partitoning"), Some(2), "as it is written, not as it is looked up");
        assert_eq!([tolerance("grub"), tolerance("10.04.01"), tolerance("sda123")], [None; 3]);
    }
}
