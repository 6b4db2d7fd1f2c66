//! The order of one topic, without I/O: entries come from hints, pages and polls in any order, and leave in order, once.

use std::{collections::BTreeMap, sync::Arc};

use shared::journal::{Entry, Position};

/// Entries held back while a gap before them is read; more are dropped and read too.
const MAX_HELD: usize = 1024;

/// What has left so far and what waits.
#[derive(Debug)]
pub(crate) struct Log {
    /// The last entry that left.
    last: Position,
    /// The highest entry known to exist.
    head: i64,
    held: BTreeMap<i64, Arc<Entry>>,
    #[cfg(test)]
    sabotage: Option<tests::Sabotage>,
}

/// The log under this name is another one than before: its store was replaced.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replaced;

impl Log {
    /// Begins after `last`.
    pub(crate) fn after(last: Position) -> Self {
        Self {
            last,
            head: last.seq,
            held: BTreeMap::new(),
            #[cfg(test)]
            sabotage: None,
        }
    }

    /// Returns the last entry that left.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// Takes an entry, from a hint or from the journal, and returns what leaves now.
    pub(crate) fn entry(&mut self, entry: Arc<Entry>) -> Result<Vec<Arc<Entry>>, Replaced> {
        if entry.position.epoch != self.last.epoch {
            return Err(Replaced);
        }
        #[cfg(test)]
        if let Some(sabotage) = self.sabotage {
            return Ok(sabotage.entry(self, entry));
        }
        let seq = entry.position.seq;
        self.head = self.head.max(seq);
        if seq > self.last.seq {
            self.held.insert(seq, entry);
        }
        let mut leaving = Vec::new();
        while let Some(entry) = self.held.remove(&(self.last.seq + 1)) {
            self.last = entry.position;
            leaving.push(entry);
        }
        while self.held.len() > MAX_HELD {
            self.held.pop_last();
        }
        Ok(leaving)
    }

    /// Takes word of where the log ends, asked for when the last entry to have left was `known`.
    pub(crate) fn head(&mut self, head: Position, known: Position) -> Result<(), Replaced> {
        // An end before what had left then: a tail was lost and its numbers will be used again.
        let same = head.seq != self.last.seq || head.tag == self.last.tag;
        if head.epoch != self.last.epoch || head.seq < known.seq || !same {
            return Err(Replaced);
        }
        self.head = self.head.max(head.seq);
        Ok(())
    }

    /// Returns after which entry the journal must be read, `None` if nothing is missing.
    pub(crate) fn gap(&self) -> Option<i64> {
        (self.head > self.last.seq).then_some(self.last.seq)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::{ids::ProjectId, journal::Topic, time::Timestamp};

    use super::*;

    const EPOCH: i64 = 7;

    fn entry(epoch: i64, seq: i64) -> Arc<Entry> {
        Arc::new(Entry {
            topic: Topic::project(ProjectId(uuid::Uuid::nil())),
            position: Position { epoch, seq, tag: 0 },
            kind: "test".into(),
            data: "{}".into(),
            at: Timestamp::from_ms(0),
        })
    }

    fn at(seq: i64) -> Position {
        Position { epoch: EPOCH, seq, tag: 0 }
    }

    /// What the world does to the log between two reads of the journal.
    #[derive(Clone, Debug)]
    enum Step {
        /// A hint of this entry arrives: late, early, or again. Entries that no hint names are the lost ones.
        Hint(i64),
        /// A poll says how far the journal was, some time ago.
        Poll(i64),
        /// The driver reads a page where the log says that something is missing.
        Page(i64),
    }

    fn step(length: i64) -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..=length).prop_map(Step::Hint),
            (1..=length).prop_map(Step::Poll),
            (1..20i64).prop_map(Step::Page)
        ]
    }

    /// Ways to be wrong that the property must notice.
    #[derive(Copy, Clone, Debug)]
    pub(super) enum Sabotage {
        /// What comes early leaves at once, over the gap.
        LeaveOverGaps,
        /// What comes twice leaves twice.
        LeaveAgain,
        /// What comes early is forgotten, and not known to be missing.
        ForgetEarly,
    }

    impl Sabotage {
        pub(super) fn entry(self, log: &mut Log, entry: Arc<Entry>) -> Vec<Arc<Entry>> {
            let next = log.last.seq + 1;
            let leaves = match self {
                Self::LeaveOverGaps => entry.position.seq >= next,
                Self::LeaveAgain => entry.position.seq <= next,
                Self::ForgetEarly => entry.position.seq == next,
            };
            if !leaves {
                return Vec::new();
            }
            log.last.seq = log.last.seq.max(entry.position.seq);
            log.head = if matches!(self, Self::ForgetEarly) {
                log.last.seq
            } else {
                log.head.max(log.last.seq)
            };
            vec![entry]
        }
    }

    const JOURNAL: i64 = 60;

    /// Returns what leaves a log that begins after `start` when the world does `steps` to it and then lets it catch up.
    fn leaves(mut log: Log, steps: &[Step]) -> Vec<i64> {
        let mut left = Vec::new();
        let mut take = |log: &mut Log, seq| {
            left.extend(log.entry(entry(EPOCH, seq)).unwrap().iter().map(|e| e.position.seq));
        };
        for step in steps {
            match *step {
                Step::Hint(seq) => take(&mut log, seq),
                Step::Poll(end) => {
                    // The answer to a question of any time before: never beyond what had left then.
                    let known = at(log.last().seq.min(end));
                    log.head(at(end), known).unwrap();
                }
                Step::Page(size) => {
                    let Some(after) = log.gap() else { continue };
                    for seq in after + 1..=(after + size).min(JOURNAL) {
                        take(&mut log, seq);
                    }
                }
            }
        }
        // One last poll and its pages: whatever was lost on the way, nothing is missing.
        log.head(at(JOURNAL), log.last()).unwrap();
        while let Some(after) = log.gap() {
            for seq in after + 1..=(after + 7).min(JOURNAL) {
                take(&mut log, seq);
            }
        }
        left
    }

    proptest! {
        #[test]
        fn every_entry_leaves_once_and_in_order(
            start in 0..20i64,
            steps in prop::collection::vec(step(JOURNAL), 0..200),
        ) {
            prop_assert_eq!(leaves(Log::after(at(start)), &steps), (start + 1..=JOURNAL).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_property_notices_every_sabotage() {
        let steps =
            [Step::Hint(1), Step::Hint(3), Step::Hint(1), Step::Poll(JOURNAL), Step::Page(10)];
        let expected: Vec<_> = (1..=JOURNAL).collect();
        assert_eq!(leaves(Log::after(at(0)), &steps), expected);
        for sabotage in [Sabotage::LeaveOverGaps, Sabotage::LeaveAgain, Sabotage::ForgetEarly] {
            let log = Log { sabotage: Some(sabotage), ..Log::after(at(0)) };
            assert_ne!(leaves(log, &steps), expected, "{sabotage:?}");
        }
    }

    #[test]
    fn a_replaced_store_is_noticed() {
        let mut log = Log::after(at(5));
        assert_eq!(log.entry(entry(EPOCH + 1, 6)), Err(Replaced));
        assert_eq!(log.head(at(4), at(5)), Err(Replaced));
        assert_eq!(log.head(at(4), at(3)), Ok(()));
        assert_eq!(log.head(Position { tag: 9, ..at(5) }, at(5)), Err(Replaced));
        assert_eq!(log.head(at(5), at(5)), Ok(()));
    }

    #[test]
    fn a_flood_beyond_a_gap_is_bounded_and_read_again() {
        let mut log = Log::after(at(0));
        for seq in 2..5_000 {
            assert!(log.entry(entry(EPOCH, seq)).unwrap().is_empty());
        }
        assert!(log.held.len() <= MAX_HELD);
        assert_eq!(log.entry(entry(EPOCH, 1)).unwrap().len(), MAX_HELD + 1);
        assert_eq!(log.gap(), Some(i64::try_from(MAX_HELD).unwrap() + 1));
    }
}
