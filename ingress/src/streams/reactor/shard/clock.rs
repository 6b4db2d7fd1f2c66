//! What a shard does because of the time.

use std::sync::Arc;

use rand::RngExt as _;

use super::{
    super::{
        super::frame::Frame,
        Parked,
        stream::{NEVER, Times},
    },
    Shard,
};

/// A heartbeat's time is as old as this at most.
const BEAT_MS: u64 = 50;

impl Shard {
    pub(super) fn times(&self, parked: &Parked) -> Times {
        let mut random = rand::rng();
        let now = self.now;
        let at = |after: u64| now.saturating_add(after);
        let expires = parked.expires_at.map_or(NEVER, |expires| {
            let left = expires.since(self.clock.now()).as_millis();
            at(u64::try_from(left).unwrap_or(NEVER))
        });
        let idle_after = parked
            .idle_timeout
            .map_or(NEVER, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(NEVER));
        // Streams that opened together are not to come back together.
        let rotates = self
            .limits
            .max_age_ms
            .map_or(NEVER, |age| at(random.random_range(age - age / 5..=age)));
        let spread = self.limits.drain_spread_ms;
        Times {
            opened: now,
            last_sent: now,
            early: random.random_range(0..=self.limits.keepalive_ms / 4),
            idle_after,
            idle: if idle_after == NEVER { NEVER } else { at(idle_after) },
            rotates,
            expires,
            goes: if self.draining { at(random.random_range(0..=spread)) } else { NEVER },
            cut: NEVER,
            due: NEVER,
        }
    }

    /// Does what is due.
    pub(super) fn attend(&mut self) {
        while let Some((due, key)) = self.deadlines.pop(self.now) {
            let beat = self.beat();
            let Some(stream) = self.streams.get_mut(key) else { continue };
            if stream.times.due == due {
                stream.times.due = NEVER;
                let outcome = stream.attend(&self.limits, self.now, &beat);
                self.settle(key, outcome);
            }
        }
    }

    /// Returns the heartbeat that all streams share which beat about now.
    pub(super) fn beat(&mut self) -> Arc<Frame> {
        if self.now >= self.beat.0 + BEAT_MS {
            self.beat = (self.now, Frame::heartbeat(self.clock.now()));
        }
        self.beat.1.clone()
    }

    /// Gives every stream its own time to go, evenly over the spread. Where nobody else serves them, clients are told at
    /// once for how long, in case their connection breaks off before it is their turn.
    pub(super) fn drain(&mut self, rest_ms: u64) {
        self.draining = true;
        if rest_ms > 0 {
            self.limits.refuses_until = self.now.saturating_add(rest_ms);
        }
        let beat = self.beat();
        let keys: Vec<usize> = self.streams.iter().map(|(key, _)| key).collect();
        let count = keys.len().max(1) as u64;
        for (number, key) in (0u64..).zip(keys) {
            let place = number * self.limits.drain_spread_ms / count;
            let within = rand::rng().random_range(0..=self.limits.drain_spread_ms / count);
            let stream = &mut self.streams[key];
            stream.times.goes = self.now + place + within;
            let outcome = if rest_ms > 0 && self.limits.drain_spread_ms > 0 {
                stream.say_retry(&self.limits, &beat, self.now)
            } else {
                Ok(())
            };
            self.settle(key, outcome);
        }
    }
}
