//! The recent frames of one topic, without I/O: what a stream that joins needs between its place and the present.

use std::{collections::VecDeque, sync::Arc};

use shared::journal::{Position, Redaction, Topic};

use super::frame::Frame;

/// Frames kept at most, and their bytes.
const MAX_FRAMES: usize = 256;
const MAX_BYTES: usize = 512 * 1024;
/// Bytes of frames that are written to streams in one pass: how far one may be behind is looked at between passes.
const MAX_PULL_BYTES: usize = 128 * 1024;

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

    /// Takes the text of a message out of its frames: a stream that is behind, or joins, gets them without.
    pub(super) fn redact(&mut self, topic: &Topic, redaction: Redaction) {
        let of_message = |frame: &&mut Arc<Frame>| frame.message == Some(redaction.message);
        for frame in self.frames.iter_mut().filter(of_message) {
            if let Some(redacted) = frame.redacted(topic, redaction) {
                self.bytes = self.bytes - frame.text().len() + redacted.text().len();
                *frame = redacted;
            }
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

    /// Returns at most `limit` frames from index `at` on, which have at most [`MAX_PULL_BYTES`] together, or one frame.
    pub(super) fn from(&self, at: u64, limit: usize) -> Result<Vec<Arc<Frame>>, Behind> {
        let skip = at.checked_sub(self.first).and_then(|skip| usize::try_from(skip).ok());
        let mut bytes = 0;
        let fits = |frame: &&Arc<Frame>| {
            let is_first = bytes == 0;
            bytes += frame.text().len();
            is_first || bytes <= MAX_PULL_BYTES
        };
        let frames = self.frames.iter().skip(skip.ok_or(Behind)?).take(limit);
        Ok(frames.take_while(fits).cloned().collect())
    }

    /// Returns the entries after `place` that come before index `at`, when `last` is the last entry of all, and what has no
    /// place in the log and came from index `heard` on. A stream that gets these, and then every frame from `at` on that
    /// its place [`takes`], misses nothing and gets nothing twice.
    pub(super) fn since(
        &self,
        place: Position,
        heard: u64,
        last: Position,
        at: u64,
    ) -> Result<Vec<Arc<Frame>>, Behind> {
        let is_after = |frame: &Arc<Frame>| frame.position.is_some_and(|p| p.seq > place.seq);
        if place.seq < last.seq {
            let first = self.frames.iter().find(|frame| is_after(frame)).ok_or(Behind)?;
            if !first.follows(place) {
                return Err(Behind);
            }
        } else if place.seq == last.seq && place != last {
            return Err(Behind);
        }
        let indexed = (self.first..at).zip(&self.frames);
        let between = indexed.filter(|(index, frame)| {
            if frame.position.is_some() { is_after(frame) } else { *index >= heard }
        });
        Ok(between.map(|(_, frame)| frame.clone()).collect())
    }
}

/// Decision of a stream about a frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The stream is to have it.
    Yes,
    /// The stream has had it.
    No,
    /// The frame does not follow the stream's place: only the journal can say how the stream goes on.
    Astray,
}

/// Moves a stream's place over a frame that follows it.
pub(super) fn takes(place: &mut Position, frame: &Frame) -> Taken {
    let Some(position) = frame.position else { return Taken::Yes };
    if frame.follows(*place) {
        *place = position;
        Taken::Yes
    } else if position.seq < place.seq || position == *place {
        Taken::No
    } else {
        Taken::Astray
    }
}

#[cfg(test)]
mod tests;
