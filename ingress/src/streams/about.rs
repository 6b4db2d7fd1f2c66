//! What is known about an open stream, and what it holds until it is closed.

use std::{net::IpAddr, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use shared::{
    http::ConnectionGuard,
    ids::{ConnectionId, SessionId, UserId},
    journal::Position,
    time::Timestamp,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{slots::Lease, stats::Stats};
use crate::presence::Here;

/// Whose stream it is and where it comes from.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) connection: ConnectionId,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    /// Where the log of ended sessions was when the caller was let in: what it says from there on holds for them.
    pub(crate) let_in_at: Position,
    pub(crate) address: IpAddr,
    pub(crate) user_agent: Arc<str>,
    pub(crate) opened_at: Timestamp,
}

/// What an open stream holds; all of it is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) _count: Open,
    pub(crate) _lease: Lease,
    pub(crate) _here: Option<Here>,
    /// Keeps the listeners up until this stream is closed.
    pub(crate) _token: TaskTrackerToken,
    /// The stream's place among the listener's connections, once it has left the listener.
    pub(crate) _connection: Option<ConnectionGuard>,
}

/// A place among the streams of this replica, and from its admission to its close a stream in its counts.
#[derive(Debug)]
pub(crate) struct Open {
    stats: Arc<Stats>,
    admitted: Option<Instant>,
}

impl Open {
    /// Takes a place, `None` if `limit` are taken.
    pub(crate) fn enter(stats: &Arc<Stats>, limit: u64) -> Option<Self> {
        stats.enter(limit).then(|| Self { stats: stats.clone(), admitted: None })
    }

    /// Counts the stream as opened: nothing refuses it any more.
    pub(crate) fn admit(&mut self) {
        self.stats.opened();
        self.admitted = Some(Instant::now());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(admitted) = self.admitted {
            self.stats.closed(admitted.elapsed());
        }
        self.stats.leave();
    }
}

/// An open stream as consumers of the stats know it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    #[schema(value_type = String)]
    pub(crate) ip: IpAddr,
    #[schema(value_type = String)]
    pub(crate) user_agent: Arc<str>,
    /// Milliseconds since 1970.
    pub(crate) created_at: i64,
    /// `None` on another replica than the stream's, which alone knows.
    pub(crate) last_activity_at: Option<i64>,
    /// `None` on another replica than the stream's.
    pub(crate) messages_sent: Option<u64>,
    pub(crate) duration_ms: u64,
    pub(crate) closed: bool,
}

/// What other replicas can know of a stream.
#[derive(Serialize, Deserialize)]
struct Written {
    /// `None` in what a version before this field has written.
    session: Option<SessionId>,
    ip: IpAddr,
    user_agent: Arc<str>,
    created_at: i64,
}

impl About {
    /// Returns what other replicas are to know.
    pub(super) fn to_json(&self) -> String {
        let Self { session, address: ip, user_agent, opened_at, .. } = self;
        let written = Written {
            session: Some(session.clone()),
            ip: *ip,
            user_agent: user_agent.clone(),
            created_at: opened_at.as_ms(),
        };
        serde_json::to_string(&written).unwrap_or_default()
    }
}

impl Connection {
    /// Reads what [`About::to_json`] wrote.
    pub(super) fn from_json(id: ConnectionId, json: &str, now: Timestamp) -> Option<Self> {
        let Written { ip, user_agent, created_at, .. } = serde_json::from_str(json).ok()?;
        let lasted = now.since(Timestamp::from_ms(created_at)).as_millis();
        Some(Self {
            id,
            ip,
            user_agent,
            created_at,
            last_activity_at: None,
            messages_sent: None,
            duration_ms: u64::try_from(lasted).unwrap_or(u64::MAX),
            closed: false,
        })
    }
}

/// Returns the session of a stream by what [`About::to_json`] wrote.
pub(super) fn session_in(json: &str) -> Option<SessionId> {
    serde_json::from_str::<Written>(json).ok()?.session
}
