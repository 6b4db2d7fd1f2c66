//! The order of one topic, without I/O: entries come from notices, pages and polls in any order, and leave in order, once.
//!
//! A notice is only a hint. An entry of a notice leaves if it names the tag of the entry that left before it. A notice that fits
//! no known entry makes the sequencer doubt its last entry: a tail may have been lost, and its numbers are used again. Only a page
//! that begins with a proof of the last entry clears the doubt.

use std::{collections::BTreeMap, sync::Arc};

use shared::journal::{
    Entry, Position,
    tail::{Relation, Tail},
};

/// Entries held back while a gap before them is read; more are dropped and read too.
const MAX_HELD: usize = 1024;

/// What has left so far and what waits.
#[derive(Debug)]
pub(crate) struct Log {
    /// The last entries that left.
    tail: Tail,
    /// The highest entry known to exist.
    head: i64,
    held: BTreeMap<i64, Arc<Entry>>,
    /// The journal has to prove the last entry.
    in_doubt: bool,
    #[cfg(test)]
    sabotage: Option<tests::Sabotage>,
}

impl Log {
    /// Begins after `last`.
    pub(crate) fn after(last: Position) -> Self {
        Self {
            tail: Tail::at(last),
            head: last.seq,
            held: BTreeMap::new(),
            in_doubt: false,
            #[cfg(test)]
            sabotage: None,
        }
    }

    /// Returns the last entry that left.
    pub(crate) fn last(&self) -> Position {
        self.tail.last()
    }

    /// Returns whether the entry at `position` is known to be lost, or never to have been: another one left with its number.
    pub(crate) fn contradicts(&self, position: Position) -> bool {
        let other = self.tail.tag(position.seq).is_some_and(|tag| tag != position.tag);
        other || position.epoch != self.last().epoch
    }

    /// Takes an entry of a notice and returns what leaves now.
    pub(crate) fn notice(&mut self, entry: Arc<Entry>) -> Vec<Arc<Entry>> {
        #[cfg(test)]
        if let Some(sabotage) = self.sabotage
            && let Some(leaving) = sabotage.notice(self, &entry)
        {
            return leaving;
        }
        match self.tail.relation(&entry) {
            Relation::Known => return Vec::new(),
            Relation::Doubtful => {
                self.in_doubt = true;
                return Vec::new();
            }
            Relation::Next | Relation::Later => {}
        }
        let seq = entry.position.seq;
        self.head = self.head.max(seq);
        self.held.insert(seq, entry);
        let leaving = self.drain();
        while self.held.len() > MAX_HELD {
            self.held.pop_last();
        }
        leaving
    }

    /// Takes entries that the journal has proved to follow the entry at `after`, and returns what leaves now.
    pub(crate) fn page(&mut self, after: Position, entries: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
        if self.tail.has(after) {
            self.in_doubt = false;
        }
        let mut leaving = Vec::new();
        for entry in entries {
            match self.tail.relation(&entry) {
                Relation::Next => {
                    // A held entry of the same number may be one that was lost.
                    self.held.remove(&entry.position.seq);
                    self.tail.push(entry.position);
                    self.head = self.head.max(entry.position.seq);
                    leaving.push(entry);
                }
                // A notice was faster.
                Relation::Known => {}
                Relation::Later | Relation::Doubtful => {
                    self.in_doubt = true;
                    break;
                }
            }
        }
        leaving.extend(self.drain());
        leaving
    }

    /// Lets held entries go as far as they follow each other.
    fn drain(&mut self) -> Vec<Arc<Entry>> {
        let mut leaving = Vec::new();
        while let Some(entry) = self.held.remove(&(self.last().seq + 1)) {
            if self.tail.relation(&entry) != Relation::Next {
                self.in_doubt = true;
                break;
            }
            self.tail.push(entry.position);
            leaving.push(entry);
        }
        leaving
    }

    /// Takes word of where the topic ends, asked for when the last entry to have left was `known`.
    pub(crate) fn head(&mut self, head: Position, known: Position) {
        match self.tail.relation_of_head(head, known) {
            Relation::Known => {}
            Relation::Next | Relation::Later => self.head = self.head.max(head.seq),
            Relation::Doubtful => self.in_doubt = true,
        }
    }

    /// Has the last entry proved by the journal, and what follows it read.
    pub(crate) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Returns after which entry the journal must be read, `None` if nothing is missing.
    pub(crate) fn gap(&self) -> Option<Position> {
        (self.in_doubt || self.head > self.last().seq).then(|| self.last())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
    use shared::{ids::ProjectId, journal::Topic, time::Timestamp};

    use super::*;

    const EPOCH: i64 = 7;

    fn at(seq: i64, tag: u32) -> Position {
        Position { epoch: EPOCH, seq, tag }
    }

    fn entry(position: Position, previous: Option<u32>) -> Arc<Entry> {
        Arc::new(Entry {
            topic: Topic::project(ProjectId(uuid::Uuid::nil())),
            position,
            previous,
            kind: "test".into(),
            data: "{}".into(),
            at: Timestamp::from_ms(0),
        })
    }

    /// The world does this between two reads of the journal.
    #[derive(Clone, Debug)]
    enum Step {
        /// So many entries are committed.
        Commit(usize),
        /// A failover loses the last so many entries.
        LoseTail(usize),
        /// A notice of an entry arrives: late, early, or again, also of one that was lost. Notices that never arrive are lost.
        Notice(prop::sample::Index),
        /// A poll returns the head.
        Poll,
        /// The driver reads a page if the sequencer asks for one.
        Page(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..5usize).prop_map(Step::Commit),
            1 => (1..5usize).prop_map(Step::LoseTail),
            6 => any::<prop::sample::Index>().prop_map(Step::Notice),
            2 => Just(Step::Poll),
            3 => (1..8usize).prop_map(Step::Page),
        ]
    }

    /// Ways to be wrong that the property must notice.
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) enum Sabotage {
        /// An early entry leaves at once, over the gap.
        LeaveOverGaps,
        /// An entry that comes twice leaves twice.
        LeaveAgain,
        /// A reused number passes for a duplicate, and the next number for the next entry.
        NumbersProve,
    }

    impl Sabotage {
        /// Takes a notice in the wrong way, `None` if this one is taken as it should be.
        pub(super) fn notice(self, log: &mut Log, entry: &Arc<Entry>) -> Option<Vec<Arc<Entry>>> {
            let seq = entry.position.seq;
            let next = log.last().seq + 1;
            match self {
                Self::LeaveOverGaps if seq > next => {
                    log.tail = Tail::at(entry.position);
                    log.head = log.head.max(seq);
                    Some(vec![entry.clone()])
                }
                Self::LeaveAgain if seq < next => Some(vec![entry.clone()]),
                Self::NumbersProve if seq < next => Some(Vec::new()),
                Self::NumbersProve if seq == next => {
                    log.tail.push(entry.position);
                    log.head = log.head.max(seq);
                    Some(vec![entry.clone()])
                }
                _ => None,
            }
        }
    }

    /// A topic in a database that may lose its tail, and a hub's sequencer of it.
    struct World {
        journal: Vec<Arc<Entry>>,
        notices: Vec<Arc<Entry>>,
        tag: u32,
        log: Log,
        sabotage: Option<Sabotage>,
        /// The entries that left since the sequencer began, after the one where it began.
        left: Vec<Position>,
        began: Position,
        resets: usize,
    }

    impl World {
        fn new(sabotage: Option<Sabotage>) -> Self {
            let began = at(0, 0);
            let mut world = Self {
                journal: Vec::new(),
                notices: Vec::new(),
                tag: 0,
                log: Log::after(began),
                sabotage,
                left: Vec::new(),
                began,
                resets: 0,
            };
            world.log.sabotage = sabotage;
            world
        }

        fn head(&self) -> Position {
            self.journal.last().map_or(at(0, 0), |entry| entry.position)
        }

        fn take(&mut self, leaving: &[Arc<Entry>]) {
            self.left.extend(leaving.iter().map(|entry| entry.position));
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Commit(count) => {
                    for _ in 0..*count {
                        self.tag += 1;
                        let before = self.head();
                        let new = entry(at(before.seq + 1, self.tag), Some(before.tag));
                        self.journal.push(new.clone());
                        self.notices.push(new);
                    }
                }
                Step::LoseTail(count) => {
                    self.journal.truncate(self.journal.len().saturating_sub(*count));
                }
                Step::Notice(which) => {
                    if !self.notices.is_empty() {
                        let notice = self.notices[which.index(self.notices.len())].clone();
                        let leaving = self.log.notice(notice);
                        self.take(&leaving);
                    }
                }
                Step::Poll => self.log.head(self.head(), self.log.last()),
                Step::Page(size) => self.page(*size),
            }
        }

        /// Reads a page as the driver does: a sequencer whose last entry is not there is begun anew, with a reset.
        fn page(&mut self, size: usize) {
            let Some(after) = self.log.gap() else { return };
            let seq = usize::try_from(after.seq).unwrap();
            let is_there =
                seq == 0 || self.journal.get(seq - 1).is_some_and(|e| e.position == after);
            if is_there {
                let page = self.journal.iter().skip(seq).take(size).cloned().collect();
                let leaving = self.log.page(after, page);
                self.take(&leaving);
            } else {
                self.began = self.head();
                self.log = Log { sabotage: self.sabotage, ..Log::after(self.began) };
                self.left.clear();
                self.resets += 1;
            }
        }

        /// Returns whether the entries that left since the sequencer began are those of the journal, after a last poll.
        fn is_right(&mut self) -> bool {
            for _ in 0..1_000 {
                self.log.head(self.head(), self.log.last());
                if self.log.gap().is_none() {
                    break;
                }
                self.page(7);
            }
            let expected: Vec<Position> = self
                .journal
                .iter()
                .map(|e| e.position)
                .filter(|p| p.seq > self.began.seq)
                .collect();
            let began = usize::try_from(self.began.seq).unwrap();
            let goes_on =
                began == 0 || self.journal.get(began - 1).is_some_and(|e| e.position == self.began);
            goes_on && self.left == expected
        }
    }

    fn holds(steps: &[Step], sabotage: Option<Sabotage>) -> bool {
        let mut world = World::new(sabotage);
        for step in steps {
            world.step(step);
        }
        world.is_right()
    }

    proptest! {
        #[test]
        fn every_entry_leaves_once_and_in_order_or_there_is_a_reset(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            prop_assert!(holds(&steps, None));
        }

        #[test]
        fn nothing_is_reset_while_nothing_is_lost(steps in prop::collection::vec(step(), 0..200)) {
            let mut world = World::new(None);
            for step in steps.iter().filter(|step| !matches!(step, Step::LoseTail(_))) {
                world.step(step);
            }
            prop_assert!(world.is_right());
            prop_assert_eq!(world.resets, 0);
        }
    }

    #[test]
    fn the_property_notices_every_sabotage() {
        let mut runner = TestRunner::deterministic();
        let steps = prop::collection::vec(step(), 0..60);
        let cases: Vec<_> =
            (0..300).map(|_| steps.new_tree(&mut runner).unwrap().current()).collect();
        assert!(cases.iter().all(|steps| holds(steps, None)));
        for sabotage in [Sabotage::LeaveOverGaps, Sabotage::LeaveAgain, Sabotage::NumbersProve] {
            assert!(cases.iter().any(|steps| !holds(steps, Some(sabotage))), "{sabotage:?}");
        }
    }

    #[test]
    fn a_lost_tail_is_doubted_whether_the_head_is_below_at_or_above_it() {
        let known = at(5, 5);
        for (head, in_doubt) in [
            (at(4, 4), true),
            (at(5, 95), true),
            (at(5, 5), false),
            (Position { epoch: EPOCH + 1, ..known }, true),
        ] {
            let mut log = Log::after(known);
            log.head(head, known);
            assert_eq!(log.gap().is_some(), in_doubt, "{head:?}");
        }
        // A head above asks for a page, which has to prove the last entry.
        let mut log = Log::after(known);
        log.head(at(9, 9), known);
        assert_eq!(log.gap(), Some(known));
        // A head that was read before the last entry came says nothing.
        let mut log = Log::after(at(4, 4));
        assert_eq!(log.notice(entry(known, Some(4))).len(), 1);
        log.head(at(4, 4), at(4, 4));
        assert_eq!(log.gap(), None);
    }

    #[test]
    fn a_late_notice_of_a_lost_entry_causes_no_reset() {
        let mut log = Log::after(at(5, 5));
        assert!(log.notice(entry(at(5, 95), Some(4))).is_empty());
        assert_eq!(log.gap(), Some(at(5, 5)), "the journal has to prove the last entry");
        assert!(log.page(at(5, 5), Vec::new()).is_empty());
        assert_eq!(log.gap(), None, "the journal has proved it");
    }

    #[test]
    fn a_flood_beyond_a_gap_is_bounded_and_read_again() {
        let mut log = Log::after(at(0, 0));
        let numbered = |seq: u32| entry(at(seq.into(), seq), Some(seq - 1));
        for seq in 2..5_000 {
            assert!(log.notice(numbered(seq)).is_empty());
        }
        assert!(log.held.len() <= MAX_HELD);
        assert_eq!(log.notice(numbered(1)).len(), MAX_HELD + 1);
        let last = u32::try_from(MAX_HELD).unwrap() + 1;
        assert_eq!(log.gap(), Some(at(last.into(), last)));
    }
}
