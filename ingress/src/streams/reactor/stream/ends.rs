//! How a stream ends, and what is due on it until then.

use super::{
    super::{
        super::{
            control::{Bye, Reason, ServerShutdown, final_cursor, retry_ms},
            frame::{self, Control, Frame},
        },
        Limits,
    },
    Gone, NEVER, Stream, Times,
};

/// Returns when a client is to come back: for each another time, and not before it is let in.
fn retry_after_ms(limits: &Limits, now: u64) -> u64 {
    limits.refuses_until.saturating_sub(now) + retry_ms()
}

impl Stream {
    /// Ends the stream on the server's word.
    pub(in super::super) fn end(
        &mut self,
        reason: Reason,
        limits: &Limits,
        now: u64,
    ) -> Result<(), Gone> {
        if self.ending {
            return Ok(());
        }
        if reason == Reason::SlowConsumer
            && let Some(sum) = self.outbox.as_mut().and_then(|outbox| outbox.cut())
        {
            self.wire.rewind(sum);
        }
        self.say_bye(reason, limits, now);
        self.flush(now)
    }

    pub(super) fn say_bye(&mut self, reason: Reason, limits: &Limits, now: u64) {
        let retry_after_ms = retry_after_ms(limits, now);
        if reason == Reason::ServerShutdown {
            let going = ServerShutdown { reason: "draining", retry_after_ms };
            self.say(
                &frame::retry(
                    retry_after_ms,
                    &frame::control(Control::ServerShutdown, &going, None),
                ),
                now,
            );
        }
        let bye = Bye { reason, reconnect: reason.reconnect(), retry_after_ms };
        let id = (!bye.reconnect).then(final_cursor);
        let text = frame::control(Control::Bye, &bye, id.as_ref());
        let text = if bye.reconnect { frame::retry(retry_after_ms, &text) } else { text };
        self.say(&text, now);
        self.close(limits, now);
        tracing::debug!(connection.id = %self.about.connection, ?reason, "stream ended");
    }

    /// Tells the client not to come back while the process stops, with a heartbeat so that no reader gets an empty event.
    pub(in super::super) fn say_retry(
        &mut self,
        limits: &Limits,
        beat: &Frame,
        now: u64,
    ) -> Result<(), Gone> {
        if !self.ending && self.outbox.is_none() {
            let beat = match &mut self.answering {
                Some(answering) => answering.beat(now),
                None => String::from_utf8_lossy(beat.text()).into_owned(),
            };
            self.say(&frame::retry(retry_after_ms(limits, now), &beat), now);
        }
        self.flush(now)
    }

    /// Queues the end of the bytes.
    pub(super) fn close(&mut self, limits: &Limits, now: u64) {
        self.queue(now, |wire| wire.end());
        self.ending = true;
        self.times.cut = now + limits.end_grace_ms;
    }

    /// Does what is due at `now`; `beat` is the heartbeat of the hour.
    pub(in super::super) fn attend(
        &mut self,
        limits: &Limits,
        now: u64,
        beat: &Frame,
    ) -> Result<(), Gone> {
        if now >= self.times.cut {
            return Err(Gone);
        }
        if let Some(outbox) = &self.outbox
            && now >= outbox.moved_at_ms + limits.write_timeout_ms
        {
            return Err(Gone);
        }
        if self.ending {
            return Ok(());
        }
        let times = &self.times;
        if let Some(answering) = &self.answering
            && now >= answering.given_up_at
        {
            let text = answering.given_up();
            self.say(&text, now);
            self.close(limits, now);
            return self.flush(now);
        }
        let reason = if now >= times.expires {
            Reason::TokenExpired
        } else if now >= times.goes {
            Reason::ServerShutdown
        } else if now >= times.idle {
            Reason::IdleTimeout
        } else if now >= times.rotates {
            Reason::MaxAge
        } else {
            if now >= self.beats_at(limits) {
                if self.answering.is_some() {
                    self.beat_of_answer(now);
                } else {
                    self.beat(beat, now);
                }
                return self.flush(now);
            }
            return Ok(());
        };
        self.end(reason, limits, now)
    }

    fn beats_at(&self, limits: &Limits) -> u64 {
        if let Some(answering) = &self.answering {
            return answering.beats_at;
        }
        self.times.last_sent + limits.keepalive_ms.saturating_sub(self.times.early)
    }

    /// Returns when something is due next.
    pub(in super::super) fn next_due(&self, limits: &Limits) -> u64 {
        let Times { idle, rotates, expires, goes, cut, .. } = self.times;
        let stuck = self
            .outbox
            .as_ref()
            .map_or(NEVER, |outbox| outbox.moved_at_ms + limits.write_timeout_ms);
        if self.ending {
            return stuck.min(cut);
        }
        let given_up = self.answering.as_ref().map_or(NEVER, |answering| answering.given_up_at);
        self.beats_at(limits).min(stuck).min(given_up).min(idle).min(rotates).min(expires).min(goes)
    }
}
