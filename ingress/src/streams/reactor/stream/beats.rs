//! How a stream says that it is alive.

use super::{
    super::super::frame::{self, Frame},
    Stream,
};

impl Stream {
    /// Queues the heartbeat of an answer, which tells how far it is.
    pub(super) fn beat_of_answer(&mut self, now: u64) {
        let Some(answering) = &mut self.answering else { return };
        let text = answering.beat(now);
        if self.outbox.is_none() {
            self.say(&text, now);
        }
    }

    /// Queues the shared heartbeat, with the client's cursor where that has moved unseen.
    pub(super) fn beat(&mut self, beat: &Frame, now: u64) {
        if self.outbox.is_some() {
            // Nothing is silent here; what waits is the sign of life.
            self.times.last_sent = now;
            return;
        }
        if std::mem::take(&mut self.skipped) {
            let id = frame::end(Some(&self.cursor()));
            self.say(&id, now);
        }
        self.times.last_sent = now;
        self.queue(now, |wire| wire.frame(beat));
    }
}
