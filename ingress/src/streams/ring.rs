//! The recent frames of one topic, without I/O: what a stream that joins needs between its place and the present.

use std::{collections::VecDeque, sync::Arc};

use shared::journal::Position;

use super::frame::Frame;

/// Frames kept at most, and their bytes.
const MAX_FRAMES: usize = 256;
const MAX_BYTES: usize = 512 * 1024;

/// Frames in the order in which they leave the log, each with an index that is never used again.
#[derive(Debug, Default)]
pub(super) struct Ring {
    frames: VecDeque<Arc<Frame>>,
    /// The index of the first frame.
    first: u64,
    bytes: usize,
    /// Where the ring ended when it was last aged.
    aged: u64,
}

/// The frames that are asked for are gone: the journal has them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind;

impl Ring {
    pub(super) fn push(&mut self, frame: Arc<Frame>) {
        self.bytes += frame.text().len();
        self.frames.push_back(frame);
        while self.frames.len() > MAX_FRAMES || (self.bytes > MAX_BYTES && self.frames.len() > 1) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.text().len();
            self.first += 1;
        }
    }

    /// Returns the index of the next frame to come.
    pub(super) fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Drops what was there at the last call: a quiet topic keeps nothing.
    pub(super) fn age(&mut self) {
        while self.first < self.aged {
            self.drop_first();
        }
        self.aged = self.end();
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    /// Returns at most `limit` frames from index `at` on.
    pub(super) fn from(&self, at: u64, limit: usize) -> Result<Vec<Arc<Frame>>, Behind> {
        let skip = at.checked_sub(self.first).and_then(|skip| usize::try_from(skip).ok());
        Ok(self.frames.iter().skip(skip.ok_or(Behind)?).take(limit).cloned().collect())
    }

    /// Returns the entries after `place` that come before index `at`, when `last` is the last entry of all. A stream that
    /// gets these, and then every frame from `at` on that its place [`takes`], misses nothing and gets nothing twice.
    pub(super) fn since(
        &self,
        place: Position,
        last: i64,
        at: u64,
    ) -> Result<Vec<Arc<Frame>>, Behind> {
        if place.seq >= last {
            return Ok(Vec::new());
        }
        let is_next = |frame: &Arc<Frame>| frame.position.is_some_and(|p| p.seq == place.seq + 1);
        let next = self.frames.iter().position(is_next).ok_or(Behind)?;
        let known = usize::try_from(at.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let between = self.frames.iter().take(known).skip(next);
        Ok(between.filter(|frame| frame.position.is_some()).cloned().collect())
    }
}

/// Moves a stream's place over a frame; says whether the stream is to have it.
pub(super) fn takes(place: &mut Position, frame: &Frame) -> bool {
    let Some(position) = frame.position else { return true };
    if position.seq <= place.seq {
        return false;
    }
    *place = position;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::{
        ids::ProjectId,
        journal::{Entry, Topic},
        time::Timestamp,
    };

    use super::*;

    fn at(seq: i64) -> Position {
        Position { epoch: 1, seq, tag: 0 }
    }

    fn entry(seq: i64) -> Arc<Frame> {
        Frame::entry(&Entry {
            topic: Topic::project(ProjectId(uuid::Uuid::nil())),
            position: at(seq),
            kind: "test".into(),
            data: "{}".into(),
            at: Timestamp::from_ms(0),
        })
    }

    /// What happens around a stream that is being parked.
    #[derive(Clone, Debug)]
    enum Step {
        /// The log lets its next entry out.
        Publish,
        /// An event without a place in the log.
        Ephemeral,
        /// The reactor takes what is new.
        Pull(usize),
        /// A stream joins whose place is this far before the journal's end, which may be ahead of the hub.
        Join {
            behind: i64,
        },
        Age,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Publish),
            1 => Just(Step::Ephemeral),
            3 => (1..8usize).prop_map(Step::Pull),
            2 => (0..8i64).prop_map(|behind| Step::Join { behind }),
            1 => Just(Step::Age),
        ];
        prop::collection::vec(step, 0..120)
    }

    /// A deliberate bug that the property must notice.
    #[derive(Copy, Clone, Debug, PartialEq)]
    enum Sabotage {
        /// A joining stream is given nothing of what is between its place and the present.
        ForgetBacklog,
        /// A stream takes every frame, whatever its place.
        TakeAll,
        /// A stream joins though the ring has lost what it needs.
        JoinBehind,
    }

    /// Runs the steps; returns whether every stream got every entry after its place once, in order.
    fn holds(steps: &[Step], sabotage: Option<Sabotage>) -> bool {
        // The journal is up to two entries ahead of what the hub has heard.
        const AHEAD: i64 = 2;
        let (mut ring, mut last, mut pulled) = (Ring::default(), 0, 0);
        let mut streams: Vec<(Position, Vec<i64>, i64)> = Vec::new();
        let give = |stream: &mut (Position, Vec<i64>, i64), frames: &[Arc<Frame>]| {
            for frame in frames {
                let takes = takes(&mut stream.0, frame) || sabotage == Some(Sabotage::TakeAll);
                stream.1.extend(frame.position.filter(|_| takes).map(|position| position.seq));
            }
        };
        let all = [steps, &[Step::Pull(usize::MAX)]].concat();
        for step in &all {
            match *step {
                Step::Publish => {
                    last += 1;
                    ring.push(entry(last));
                }
                Step::Ephemeral => ring.push(Frame::ephemeral("{}")),
                Step::Age => ring.age(),
                Step::Pull(limit) => {
                    if let Ok(frames) = ring.from(pulled, limit) {
                        pulled += frames.len() as u64;
                        for stream in &mut streams {
                            give(stream, &frames);
                        }
                    } else {
                        // The reactor was too slow: its streams read the journal, up to its end, and join again.
                        pulled = ring.end();
                        for (place, got, _) in &mut streams {
                            got.extend(place.seq + 1..=last);
                            *place = at(place.seq.max(last));
                        }
                    }
                }
                Step::Join { behind } => {
                    let from = (last + AHEAD - behind).max(0);
                    let mut stream = (at(from), Vec::new(), from);
                    match ring.since(stream.0, last, pulled) {
                        Ok(_) if sabotage == Some(Sabotage::ForgetBacklog) => {}
                        Ok(frames) => give(&mut stream, &frames),
                        Err(Behind) if sabotage == Some(Sabotage::JoinBehind) => {}
                        // It reads the journal and tries again with a later place.
                        Err(Behind) => continue,
                    }
                    streams.push(stream);
                }
            }
        }
        streams.iter().all(|(_, got, from)| got.iter().copied().eq(from + 1..=last))
    }

    proptest! {
        #[test]
        fn whoever_joins_misses_nothing_and_gets_nothing_twice(steps in steps()) {
            prop_assert!(holds(&steps, None));
        }
    }

    #[test]
    fn the_property_notices_every_sabotage() {
        use Step::{Age, Join, Publish, Pull};
        let steps = [
            Publish,
            Publish,
            Publish,
            Age,
            Pull(2),
            Join { behind: 4 },
            Pull(9),
            Age,
            Age,
            Join { behind: 5 },
            Join { behind: 1 },
            Publish,
            Publish,
            Pull(9),
        ];
        assert!(holds(&steps, None));
        for sabotage in [Sabotage::ForgetBacklog, Sabotage::TakeAll, Sabotage::JoinBehind] {
            assert!(!holds(&steps, Some(sabotage)), "{sabotage:?}");
        }
    }

    #[test]
    fn the_ring_is_bounded_and_forgets_when_quiet() {
        let mut ring = Ring::default();
        for seq in 1..=10_000 {
            ring.push(entry(seq));
        }
        assert_eq!(ring.frames.len(), MAX_FRAMES);
        assert_eq!(ring.from(0, 1).unwrap_err(), Behind);
        assert_eq!(ring.since(at(9_999), 10_000, ring.end()).unwrap().len(), 1);
        ring.age();
        assert_eq!(ring.frames.len(), MAX_FRAMES);
        ring.age();
        assert_eq!((ring.frames.len(), ring.bytes, ring.end()), (0, 0, 10_000));
    }
}
