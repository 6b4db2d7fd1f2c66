//! Which stream has something due next.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Keys by the time at which they are due. A key may be in here several times; its owner knows which time counts.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(u64, usize)>>);

impl Deadlines {
    pub(super) fn push(&mut self, due: u64, key: usize) {
        self.0.push(Reverse((due, key)));
    }

    /// Returns when the next one is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes out the next one that is due at `now`.
    pub(super) fn pop(&mut self, now: u64) -> Option<(u64, usize)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}
