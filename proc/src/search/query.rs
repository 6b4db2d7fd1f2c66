//! From what was asked to what the index looks up: words by their rarity, neighbours together, misspelt words too, and of two
//! equal messages the newer one.

use std::collections::HashMap;

use shared::{ids::MessageId, time::Timestamp};
use tantivy::{
    DocId, Score, Searcher, SegmentReader, Term,
    collector::TopDocs,
    query::{
        BooleanQuery, BoostQuery, ConstScoreQuery, FuzzyTermQuery, Occur, PhraseQuery, Query,
        TermQuery,
    },
    schema::IndexRecordOption,
};
use uuid::Uuid;

use super::{
    Hit,
    schema::{Fields, Scope},
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
const MONTH_MS: f32 = 30.0 * 86_400_000.0;

/// Returns the best messages of a scope for what was asked.
pub(super) fn find(
    searcher: &Searcher,
    fields: Fields,
    scope: Scope,
    channel: Option<&str>,
    asked: &Asked,
    limit: usize,
    now: Timestamp,
) -> tantivy::Result<Vec<Hit>> {
    let Some(relevance) = relevance(searcher, fields, asked)? else { return Ok(Vec::new()) };
    let filter = |term| -> Box<dyn Query> {
        let query = TermQuery::new(term, IndexRecordOption::Basic);
        Box::new(ConstScoreQuery::new(Box::new(query), 0.0))
    };
    let mut clauses = vec![(Occur::Must, filter(scope.term(fields))), (Occur::Must, relevance)];
    if let Some(channel) = channel {
        clauses.push((Occur::Must, filter(Term::from_field_text(fields.channel, channel))));
    }
    for phrase in &asked.phrases {
        clauses.push((Occur::Must, together(fields, phrase, 0)));
    }
    let ranked = TopDocs::with_limit(limit).tweak_score(move |segment: &SegmentReader| {
        let high = segment.fast_fields().u64("high").ok();
        let asks = segment.fast_fields().bool("asks").ok();
        let lengths = segment.get_fieldnorms_reader(fields.text).ok();
        move |document: DocId, score: Score| {
            let high = high.as_ref().and_then(|high| high.first(document)).unwrap_or(0);
            let asks = asks.as_ref().and_then(|asks| asks.first(document)).unwrap_or(false);
            let length = lengths.as_ref().map_or(1, |lengths| lengths.fieldnorm(document));
            let asking = if asks { ASKING } else { 1.0 };
            // Of equal ones the newer is the first.
            (score * asking * weight(length) / ageing(high, now), high)
        }
    });
    let found = searcher.search(&BooleanQuery::new(clauses), &ranked)?;
    let hits = found.into_iter().map(|((score, _), address)| {
        let columns = searcher.segment_reader(address.segment_ord).fast_fields();
        let half = |name| -> tantivy::Result<u64> {
            Ok(columns.u64(name)?.first(address.doc_id).unwrap_or(0))
        };
        let id = Uuid::from_u64_pair(half("high")?, half("low")?);
        Ok(Hit { message: MessageId(id), score })
    });
    hits.collect()
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

/// Returns what ranks messages, `None` if nothing was asked.
fn relevance(
    searcher: &Searcher,
    fields: Fields,
    asked: &Asked,
) -> tantivy::Result<Option<Box<dyn Query>>> {
    let mut known = Vec::new();
    for word in asked.words.iter().filter(|word| word.matters) {
        known.push((searcher.doc_freq(&term(fields, &word.text))?, word));
    }
    known.sort_by_key(|(frequency, word)| (*frequency, word.position));
    known.truncate(MOST_WORDS);
    let mut clauses: Vec<Box<dyn Query>> = Vec::new();
    let mut typos = 0;
    for (frequency, word) in &known {
        if *frequency > 0 {
            clauses.push(single(fields, &word.text, 1.0));
        }
        let may_be_wrong = *frequency < RARE && typos < MOST_TYPOS;
        if let Some(distance) = tolerance(word).filter(|_| may_be_wrong) {
            typos += 1;
            clauses.extend(meanings(searcher, fields, &word.text, distance, *frequency)?);
        }
    }
    known.retain(|(frequency, _)| *frequency > 0);
    known.sort_by_key(|(_, word)| word.position);
    let pairs = known.windows(2).filter_map(|pair| {
        let [(_, one), (_, next)] = pair else { return None };
        (1..=2).contains(&next.position.saturating_sub(one.position)).then_some([one, next])
    });
    for [one, next] in pairs.take(MOST_PAIRS) {
        let pair = together(fields, &[(*one).clone(), (*next).clone()], 1);
        clauses.push(Box::new(BoostQuery::new(pair, PAIR)));
    }
    // What is only a phrase ranks by its words, common as they may be.
    Ok((!clauses.is_empty()).then(|| Box::new(BooleanQuery::union(clauses)) as Box<dyn Query>))
}

fn term(fields: Fields, word: &str) -> Term {
    Term::from_field_text(fields.text, word)
}

fn single(fields: Fields, word: &str, weight: Score) -> Box<dyn Query> {
    let query = TermQuery::new(term(fields, word), IndexRecordOption::WithFreqs);
    Box::new(BoostQuery::new(Box::new(query), weight))
}

/// Finds words as far from each other as they are in the question, or `slop` more.
fn together(fields: Fields, words: &[Word], slop: u32) -> Box<dyn Query> {
    match words {
        [word] => single(fields, &word.text, 1.0),
        words => {
            let first = words.first().map_or(0, |word| word.position);
            let terms = words.iter().map(|word| (word.position - first, term(fields, &word.text)));
            Box::new(PhraseQuery::new_with_offset_and_slop(terms.collect(), slop))
        }
    }
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

/// Returns the words of the index that a misspelt one may stand for.
fn meanings(
    searcher: &Searcher,
    fields: Fields,
    word: &str,
    distance: u8,
    frequency: u64,
) -> tantivy::Result<Vec<Box<dyn Query>>> {
    let mut found: HashMap<String, (u64, Score)> = HashMap::new();
    for distance in 1..=distance {
        let weight = if distance == 1 { NEAR } else { FAR };
        let near = FuzzyTermQuery::new(term(fields, word), distance, true);
        for segment in searcher.segment_readers() {
            let index = segment.inverted_index(fields.text)?;
            let mut terms = index.terms().search(near.automaton()?).into_stream()?;
            let mut compared = 0;
            while terms.advance() && compared < MOST_COMPARED {
                compared += 1;
                let Ok(other) = std::str::from_utf8(terms.key()) else { continue };
                if other != word {
                    let entry = found.entry(other.to_owned()).or_insert((0, weight));
                    // The nearer ones were counted in the round before.
                    if entry.1.total_cmp(&weight).is_eq() {
                        entry.0 += u64::from(terms.value().doc_freq);
                    }
                }
            }
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.retain(|(_, (often, _))| *often >= (OFTENER * frequency).max(1));
    found.sort_by(|(_, (often, weight)), (_, (other_often, other_weight))| {
        other_weight.total_cmp(weight).then(other_often.cmp(often))
    });
    found.truncate(MOST_MEANINGS);
    Ok(found.into_iter().map(|(other, (_, weight))| single(fields, &other, weight)).collect())
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
