//! The end of a topic as one consumer knows it, without I/O.
//!
//! A failover or a restore may lose the last entries of a topic. The numbers of lost entries are then used again, so a number
//! alone never proves that an entry is a duplicate. A consumer keeps the tags of the last entries that it has read. It compares
//! each notice with them, and each new entry names the tag of the entry before it. A notice that does not fit proves nothing by
//! itself, as it may be late: the consumer then reads the journal, see [`Reader::follow`](crate::store::Reader::follow), and
//! the journal decides.

use std::{collections::VecDeque, sync::Arc};

use super::{Entry, Position};

/// Tags that a consumer keeps by default.
const KEPT_TAGS: usize = 64;
/// Tags that a consumer keeps which has to find the last entry that was not lost.
pub const MANY_TAGS: u32 = 256;

/// The last entries that a consumer has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    last: Position,
    /// Tags of the last entries, the newest at the back; that of `last` is among them.
    tags: VecDeque<u32>,
    kept: usize,
}

/// Why a consumer cannot go on behind its last entry.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The topic was made anew, or is gone.
    #[error("the topic is another one")]
    EpochChanged,
    /// The database lost the last entry that the consumer has read.
    #[error("the topic lost its tail")]
    Diverged,
    /// Retention deleted entries that the consumer has not read.
    #[error("the entries are no longer kept")]
    Expired,
}

/// How an entry stands to a tail.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The entry follows the last one.
    Next,
    /// Entries between the last one and this one are missing.
    Later,
    /// The consumer has read the entry.
    Known,
    /// The journal has to be read: the entry is late, or a tail was lost.
    Doubtful,
}

impl Tail {
    /// Returns the tail of a consumer that has read everything up to `last`.
    #[must_use]
    pub fn at(last: Position) -> Self {
        Self::keeping(KEPT_TAGS, last)
    }

    /// Returns a tail that keeps at most `kept` tags.
    #[must_use]
    pub fn keeping(kept: usize, last: Position) -> Self {
        Self { last, tags: VecDeque::from([last.tag]), kept }
    }

    /// Returns the position of the last entry.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// Returns the number of the oldest entry whose tag is kept.
    #[must_use]
    pub fn oldest(&self) -> i64 {
        let before = i64::try_from(self.tags.len()).unwrap_or(i64::MAX).saturating_sub(1);
        self.last.seq.saturating_sub(before)
    }

    /// Returns the tag of an entry, if it is kept.
    #[must_use]
    pub fn tag(&self, seq: i64) -> Option<u32> {
        let back = usize::try_from(self.last.seq.checked_sub(seq)?).ok()?;
        self.tags.get(self.tags.len().checked_sub(back + 1)?).copied()
    }

    /// Returns whether the entry at `position` is one of those that are kept.
    #[must_use]
    pub fn has(&self, position: Position) -> bool {
        position.epoch == self.last.epoch && self.tag(position.seq) == Some(position.tag)
    }

    /// Returns how an entry of a notice stands to the tail.
    #[must_use]
    pub fn relation(&self, entry: &Entry) -> Relation {
        let position = entry.position;
        if position.epoch != self.last.epoch {
            return Relation::Doubtful;
        }
        match position.seq.saturating_sub(self.last.seq) {
            1 if entry.previous == Some(self.last.tag) => Relation::Next,
            2.. => Relation::Later,
            ..=0 if self.has(position) => Relation::Known,
            _ => Relation::Doubtful,
        }
    }

    /// Returns how the head of the topic, as it was read after the consumer had read up to `known`, stands to the tail.
    #[must_use]
    pub fn relation_of_head(&self, head: Position, known: Position) -> Relation {
        if head.epoch != self.last.epoch || head.seq < known.seq {
            // Entries that were there when the head was read are missing.
            Relation::Doubtful
        } else if head.seq > self.last.seq {
            Relation::Later
        } else if self.has(head) {
            Relation::Known
        } else {
            Relation::Doubtful
        }
    }

    /// Adds the entry that follows the last one.
    pub fn push(&mut self, position: Position) {
        debug_assert_eq!(position.seq, self.last.seq + 1, "entries come in order");
        self.last = position;
        if self.tags.len() >= self.kept {
            self.tags.pop_front();
        }
        self.tags.push_back(position.tag);
    }

    /// Adds the entries that follow the last one.
    pub fn extend(&mut self, entries: &[Arc<Entry>]) {
        for entry in entries {
            self.push(entry.position);
        }
    }

    /// Goes back to the last entry that the journal still has. `journal` are its entries from [`Tail::oldest`] on, in order.
    /// Returns whether there is such an entry among those that are kept; if not, the tail is as before.
    pub fn rewind(&mut self, journal: &[Arc<Entry>]) -> bool {
        let beginning = Position { epoch: self.last.epoch, seq: 0, tag: 0 };
        let positions = journal.iter().rev().map(|entry| entry.position).chain([beginning]);
        let Some(fork) = positions.into_iter().find(|position| self.has(*position)) else {
            return false;
        };
        let lost = usize::try_from(self.last.seq - fork.seq).unwrap_or(usize::MAX);
        self.tags.truncate(self.tags.len().saturating_sub(lost));
        self.last = fork;
        true
    }
}

/// Returns the entries that follow `last`, if the journal proves that they do. `read` are the journal's entries from that of
/// `last` on, in order; `head` is the topic's head where there are none, `None` for a topic that is gone.
pub(super) fn prove(
    last: Position,
    head: Option<Position>,
    mut read: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, Error> {
    let Some(first) = read.first().map(|entry| entry.position) else {
        return match head {
            Some(head) if head.epoch == last.epoch && head.seq == last.seq => Ok(read),
            Some(head) if head.epoch == last.epoch && head.seq < last.seq => Err(Error::Diverged),
            Some(head) if head.epoch == last.epoch => Err(Error::Expired),
            _ => Err(Error::EpochChanged),
        };
    };
    if first.epoch != last.epoch {
        return Err(Error::EpochChanged);
    }
    if first.seq > last.seq {
        // The beginning has no entry to compare with.
        return if last.seq == 0 && first.seq == 1 { Ok(read) } else { Err(Error::Expired) };
    }
    if first != last {
        return Err(Error::Diverged);
    }
    read.remove(0);
    // Numbers have no holes.
    let is_next = read.first().is_none_or(|next| next.position.seq == last.seq + 1);
    if is_next { Ok(read) } else { Err(Error::Expired) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{journal::Topic, time::Timestamp};

    const EPOCH: i64 = 7;

    fn at(seq: i64, tag: u32) -> Position {
        Position { epoch: EPOCH, seq, tag }
    }

    fn entry(position: Position, previous: Option<u32>) -> Arc<Entry> {
        let entry = Entry::new(&Topic::jobs(), position, "test", "{}", Timestamp::from_ms(0));
        Arc::new(Entry { previous, ..entry })
    }

    fn tail(tags: impl IntoIterator<Item = u32>) -> Tail {
        let mut tail = Tail::keeping(4, at(0, 0));
        for (seq, tag) in (1..).zip(tags) {
            tail.push(at(seq, tag));
        }
        tail
    }

    #[test]
    fn an_entry_is_next_only_if_it_names_the_tag_of_the_last_one() {
        let tail = tail([11, 12]);
        assert_eq!(tail.relation(&entry(at(3, 13), Some(12))), Relation::Next);
        assert_eq!(tail.relation(&entry(at(3, 13), Some(99))), Relation::Doubtful, "a lost tail");
        assert_eq!(tail.relation(&entry(at(3, 13), None)), Relation::Doubtful, "nothing is proved");
        assert_eq!(tail.relation(&entry(at(4, 14), Some(13))), Relation::Later);
    }

    #[test]
    fn an_entry_is_a_duplicate_only_if_its_tag_is_the_known_one() {
        let tail = tail([11, 12, 13, 14, 15, 16]);
        assert_eq!(tail.oldest(), 3);
        assert_eq!(tail.relation(&entry(at(5, 15), Some(14))), Relation::Known);
        assert_eq!(
            tail.relation(&entry(at(5, 99), Some(14))),
            Relation::Doubtful,
            "a reused number"
        );
        assert_eq!(tail.relation(&entry(at(2, 12), Some(11))), Relation::Doubtful, "too long ago");
        let other = Position { epoch: EPOCH + 1, ..at(5, 15) };
        assert_eq!(tail.relation(&entry(other, Some(14))), Relation::Doubtful, "another epoch");
    }

    #[test]
    fn a_head_is_known_later_or_doubtful() {
        let tail = tail([11, 12, 13]);
        for (head, known, relation, why) in [
            (at(3, 13), at(3, 13), Relation::Known, "the same"),
            (at(2, 12), at(2, 12), Relation::Known, "read before the last entry came"),
            (at(2, 12), at(3, 13), Relation::Doubtful, "an entry is missing"),
            (at(3, 99), at(3, 13), Relation::Doubtful, "a reused number"),
            (at(4, 14), at(3, 13), Relation::Later, "a new entry"),
            (Position { epoch: 8, ..at(3, 13) }, at(3, 13), Relation::Doubtful, "another epoch"),
        ] {
            assert_eq!(tail.relation_of_head(head, known), relation, "{why}");
        }
    }

    #[test]
    fn the_journal_proves_the_last_entry_or_says_why_not() {
        let page = |positions: &[Position]| -> Vec<Arc<Entry>> {
            positions.iter().map(|position| entry(*position, None)).collect()
        };
        let last = at(5, 15);
        for (head, read, outcome, why) in [
            (None, page(&[last, at(6, 16)]), Ok(1), "it goes on"),
            (None, page(&[last]), Ok(0), "nothing is new"),
            (None, page(&[at(5, 99), at(6, 16)]), Err(Error::Diverged), "a reused number"),
            (Some(at(4, 14)), page(&[]), Err(Error::Diverged), "the head is below"),
            (None, page(&[at(6, 16)]), Err(Error::Expired), "retention was faster"),
            (None, page(&[last, at(7, 17)]), Err(Error::Expired), "entries are missing"),
            (None, page(&[]), Err(Error::EpochChanged), "the topic is gone"),
            (
                Some(Position { epoch: 8, ..at(1, 1) }),
                page(&[]),
                Err(Error::EpochChanged),
                "made anew",
            ),
            (None, page(&[Position { epoch: 8, ..last }]), Err(Error::EpochChanged), "made anew"),
        ] {
            assert_eq!(prove(last, head, read).map(|entries| entries.len()), outcome, "{why}");
        }
        assert_eq!(prove(at(0, 0), None, page(&[at(1, 11)])).map(|entries| entries.len()), Ok(1));
        assert_eq!(prove(at(0, 0), Some(at(0, 0)), page(&[])), Ok(vec![]));
        assert_eq!(prove(at(0, 0), None, page(&[at(2, 12)])), Err(Error::Expired));
    }

    #[test]
    fn a_tail_goes_back_to_the_last_entry_that_was_not_lost() {
        let journal = |tags: &[(i64, u32)]| -> Vec<Arc<Entry>> {
            tags.iter().map(|(seq, tag)| entry(at(*seq, *tag), None)).collect()
        };
        let mut known = tail([11, 12, 13, 14]);
        assert!(known.rewind(&journal(&[(1, 11), (2, 12), (3, 99), (4, 98)])));
        assert_eq!((known.last(), known.oldest()), (at(2, 12), 1));
        assert_eq!(known.relation(&entry(at(3, 99), Some(12))), Relation::Next);
        let mut all_lost = tail([11, 12]);
        assert!(all_lost.rewind(&[]), "the beginning is still kept");
        assert_eq!(all_lost.last(), at(0, 0));
        let mut too_many = tail([11, 12, 13, 14, 15, 16]);
        assert!(!too_many.rewind(&journal(&[(3, 93), (4, 94)])), "more were lost than are kept");
        assert_eq!(too_many.last(), at(6, 16));
    }
}
