//! What streams have come to so far: counted once where it happens.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Names of clients that are remembered.
const USER_AGENTS: usize = 1_000;

/// Counts of one replica since its start.
#[derive(Debug)]
pub(crate) struct Stats {
    began: Instant,
    open: AtomicU64,
    opened: AtomicU64,
    closed: AtomicU64,
    closed_us: AtomicU64,
    broadcasts: AtomicU64,
    messages: AtomicU64,
    limits_rejected: AtomicU64,
    reconnects: AtomicU64,
    /// The process is stopping.
    draining: AtomicBool,
    /// What clients call themselves: few names, of which each stream would keep its own copy.
    user_agents: Mutex<HashSet<Arc<str>>>,
}

/// The counts as they are told to others and added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) open: u64,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    /// How long all closed streams were open, in microseconds.
    pub(crate) closed_us: u64,
    pub(crate) broadcasts: u64,
    pub(crate) messages: u64,
    pub(crate) limits_rejected: u64,
    pub(crate) reconnects: u64,
}

/// The figures since the start.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metrics {
    total_connections: u64,
    total_disconnections: u64,
    total_broadcasts: u64,
    total_messages_sent: u64,
    avg_connection_duration_ms: u64,
    uptime_ms: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            open: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            closed_us: AtomicU64::new(0),
            broadcasts: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            limits_rejected: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            user_agents: Mutex::default(),
        }
    }
}

impl Stats {
    /// Takes one of `limit` places for a stream.
    pub(super) fn enter(&self, limit: u64) -> bool {
        let more = |open| (open < limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self, lasted: Duration) {
        let us = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX);
        self.closed_us.fetch_add(us, Ordering::Relaxed);
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts events that went to `deliveries` streams in all.
    pub(super) fn broadcast(&self, events: u64, deliveries: u64) {
        self.broadcasts.fetch_add(events, Ordering::Relaxed);
        self.messages.fetch_add(deliveries, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.limits_rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the one copy of a client's name.
    pub(super) fn user_agent(&self, name: &str) -> Arc<str> {
        let mut known = self.user_agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name) {
            return known.clone();
        }
        if known.len() >= USER_AGENTS {
            known.clear();
        }
        let name: Arc<str> = name.into();
        known.insert(name.clone());
        name
    }

    /// Says whether `limit` streams are open.
    pub(super) fn is_full(&self, limit: u64) -> bool {
        self.open.load(Ordering::Relaxed) >= limit
    }

    pub(crate) fn sums(&self) -> Sums {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sums {
            open: read(&self.open),
            opened: read(&self.opened),
            closed: read(&self.closed),
            closed_us: read(&self.closed_us),
            broadcasts: read(&self.broadcasts),
            messages: read(&self.messages),
            limits_rejected: read(&self.limits_rejected),
            reconnects: read(&self.reconnects),
        }
    }

    /// Shows the counts to operators.
    pub(crate) fn tell(self: &Arc<Self>, metrics: &shared::metrics::Metrics) {
        let read = |count: fn(&Sums) -> u64| {
            let stats = self.clone();
            move || count(&stats.sums())
        };
        let open = read(|sums| sums.open);
        metrics.gauge("streams", "Open event streams", move || Some(open()));
        metrics.counter(
            "streams_opened",
            "Event streams that were opened",
            read(|sums| sums.opened),
        );
        metrics.counter("streams_resumed", "Openings with a cursor", read(|sums| sums.reconnects));
        metrics.counter(
            "streams_refused",
            "Openings beyond a limit",
            read(|sums| sums.limits_rejected),
        );
        metrics.counter(
            "stream_events",
            "Events for at least one stream",
            read(|sums| sums.broadcasts),
        );
        metrics.counter(
            "stream_deliveries",
            "Events times streams they went to",
            read(|sums| sums.messages),
        );
    }

    /// Tells other replicas that this one is stopping.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns the sums as other replicas read them.
    pub(crate) fn to_json(&self) -> String {
        let shown = Shown { sums: self.sums(), draining: self.draining.load(Ordering::Relaxed) };
        serde_json::to_string(&shown).unwrap_or_default()
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }
}

/// The counts in the row of a replica, with whether it is stopping.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    sums: Sums,
    draining: bool,
}

/// Returns whether the replica of a row serves, and is not about to stop.
pub(crate) fn serves(row: &str) -> bool {
    #[derive(Deserialize)]
    struct Row {
        #[serde(default)]
        draining: bool,
    }
    serde_json::from_str::<Row>(row).is_ok_and(|row| !row.draining)
}

impl std::ops::Add for Sums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            opened: self.opened + other.opened,
            closed: self.closed + other.closed,
            closed_us: self.closed_us + other.closed_us,
            broadcasts: self.broadcasts + other.broadcasts,
            messages: self.messages + other.messages,
            limits_rejected: self.limits_rejected + other.limits_rejected,
            reconnects: self.reconnects + other.reconnects,
        }
    }
}

impl Sums {
    pub(crate) fn metrics(&self, uptime: Duration) -> Metrics {
        // An average of nothing is nothing.
        let average_us = self.closed_us.checked_div(self.closed).unwrap_or(0);
        Metrics {
            total_connections: self.opened,
            total_disconnections: self.closed,
            total_broadcasts: self.broadcasts,
            total_messages_sent: self.messages,
            avg_connection_duration_ms: (average_us + 500) / 1000,
            uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
