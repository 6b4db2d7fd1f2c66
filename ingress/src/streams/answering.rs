//! What a stream says of the answer that it carries, besides what the answer's log has.

use std::time::Duration;

use serde::Serialize;
use shared::{
    answers::{Asked, ERROR, Totals},
    ids::TraceId,
    time::Timestamp,
};

use super::frame;

/// How much earlier than its interval says a heartbeat comes, as some readers give up after exactly that. Intervals of less
/// than two seconds are for tests.
const EARLY: Duration = Duration::from_millis(500);
const SHORT_INTERVAL: Duration = Duration::from_secs(2);
/// How long an answer is waited for beyond its time: it may be taken over by another process and ended by that.
const GRACE: Duration = Duration::from_secs(15);

/// An answer that a stream carries.
#[derive(Debug)]
pub(crate) struct Answering {
    stream_id: String,
    trace_id: TraceId,
    started_at: Timestamp,
    max: Duration,
    interval: Duration,
    /// How much of it the stream has had.
    pub(crate) totals: Totals,
    /// When the next heartbeat is due, in the milliseconds of the shard that has the stream.
    pub(crate) beats_at: u64,
    /// When the stream waits no more for the answer to end.
    pub(crate) given_up_at: u64,
    /// The database's time at the shard's millisecond 0.
    epoch_ms: i64,
}

/// The data of its heartbeat.
#[derive(Serialize)]
struct Heartbeat<'a> {
    stream_id: &'a str,
    trace_id: &'a TraceId,
    timestamp: Timestamp,
    uptime_seconds: f64,
    #[serde(flatten)]
    totals: Totals,
    #[serde(rename = "heartbeat_count")]
    count: u64,
    remaining_seconds: f64,
    max_duration: f64,
}

#[derive(Serialize)]
struct GivenUp<'a> {
    stream_id: &'a str,
    trace_id: &'a TraceId,
    code: &'static str,
    message: &'static str,
}

impl Answering {
    /// Begins where `totals` are there already.
    pub(super) fn new(
        asked: &Asked,
        started_at: Timestamp,
        interval: Duration,
        totals: Totals,
    ) -> Self {
        Self {
            stream_id: asked.stream_id.clone(),
            trace_id: asked.trace_id.clone(),
            started_at,
            max: Duration::from_millis(asked.max_ms.into()),
            interval: if interval < SHORT_INTERVAL {
                interval
            } else {
                interval.saturating_sub(EARLY)
            },
            totals,
            beats_at: 0,
            given_up_at: 0,
            epoch_ms: 0,
        }
    }

    /// Sets what is due when, `now_ms` being the shard's time: the next heartbeat whichever replica had the ones before.
    pub(super) fn park(&mut self, now_ms: u64, now: Timestamp) {
        self.epoch_ms = now.as_ms().saturating_sub_unsigned(now_ms);
        let (interval, uptime) = (self.interval_ms(), now.since(self.started_at));
        self.beats_at = now_ms + interval - ms(uptime) % interval;
        self.given_up_at = now_ms.saturating_add(ms(self.max.saturating_sub(uptime) + GRACE));
    }

    /// Returns the heartbeat that is due, and makes the one after it the next.
    pub(super) fn beat(&mut self, now_ms: u64) -> String {
        while self.beats_at <= now_ms {
            self.beats_at += self.interval_ms();
        }
        self.heartbeat(Timestamp::from_ms(self.epoch_ms.saturating_add_unsigned(now_ms)))
    }

    /// Returns the event that says that the answer is alive: a comment for proxies is in it, as in every heartbeat.
    pub(super) fn heartbeat(&self, now: Timestamp) -> String {
        let uptime = now.since(self.started_at);
        let beats = uptime.as_secs_f64() / self.interval.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few seconds through a few seconds"
        )]
        let count = beats.round() as u64;
        let beat = Heartbeat {
            stream_id: &self.stream_id,
            trace_id: &self.trace_id,
            timestamp: now,
            uptime_seconds: uptime.as_secs_f64(),
            totals: self.totals,
            count,
            remaining_seconds: self.max.saturating_sub(uptime).as_secs_f64(),
            max_duration: self.max.as_secs_f64(),
        };
        let json = serde_json::to_string(&beat).unwrap_or_default();
        format!(": keepalive\n{}", frame::named("heartbeat", &json, None))
    }

    /// Returns the event that ends the stream of an answer that nobody writes any more. It is in no log: should the answer
    /// go on after all, whoever comes back gets the rest.
    pub(super) fn given_up(&self) -> String {
        let Self { stream_id, trace_id, .. } = self;
        let message = "nobody writes this answer any more";
        let given_up = GivenUp { stream_id, trace_id, code: "unavailable", message };
        frame::named(ERROR, &serde_json::to_string(&given_up).unwrap_or_default(), None)
    }

    fn interval_ms(&self) -> u64 {
        ms(self.interval).max(1)
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
