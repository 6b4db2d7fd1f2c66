//! What a client is told about its stream itself: its beginning, a new place in the log, its end.

use rand::RngExt as _;
use serde::Serialize;
use shared::{
    ids::{AnswerId, ConnectionId, SessionId, UserId},
    journal::{Cursor, Position, ResetReason, Topic},
};
use uuid::Uuid;

/// The answer that no client ever has: a cursor in it is the last one of a stream that is not to be opened again.
pub(super) const NOWHERE: AnswerId = AnswerId(Uuid::nil());

/// Returns the cursor of a stream to which its client is not to come back. Readers that know no `bye` come back with it
/// all the same, to any replica, and are answered 204, at which `EventSource` stops.
pub(super) fn final_cursor() -> Cursor {
    Cursor::at(&Topic::answer(NOWHERE), Position { epoch: 0, seq: 0, tag: 0 })
}

/// Returns whether the client has been told not to come back.
pub(super) fn is_final(cursor: &str) -> bool {
    cursor.parse::<Cursor>().is_ok_and(|cursor| cursor.answer() == Some(NOWHERE))
}

/// The data of the greeting.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hello<'a> {
    pub(super) r#type: &'static str,
    pub(super) connection_id: ConnectionId,
    pub(super) stream_id: &'a str,
    pub(super) session_id: &'a SessionId,
    pub(super) user: &'a UserId,
    pub(super) cursor: &'a str,
    #[serde(rename = "heartbeat_seconds")]
    pub(super) heartbeat_seconds: u64,
    #[serde(rename = "silence_seconds")]
    pub(super) silence_seconds: u64,
    pub(super) resumed: bool,
}

/// The data of `reset`.
#[derive(Serialize)]
pub(super) struct Reset<'a> {
    pub(super) reason: ResetReason,
    pub(super) cursor: &'a str,
}

/// Why a stream ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    IdleTimeout,
    Replaced,
    SlowConsumer,
    TokenExpired,
    Revoked,
    MaxAge,
    ClosedByAdmin,
    ServerShutdown,
}

impl Reason {
    /// Says whether the client should come back: not where another has taken its place or it would be refused.
    pub(super) fn reconnect(self) -> bool {
        !matches!(self, Self::Replaced | Self::Revoked | Self::ClosedByAdmin)
    }
}

/// The data of `bye`.
#[derive(Serialize)]
pub(super) struct Bye {
    pub(super) reason: Reason,
    pub(super) reconnect: bool,
    pub(super) retry_after_ms: u64,
}

/// The data of `server_shutdown`.
#[derive(Serialize)]
pub(super) struct ServerShutdown {
    pub(super) reason: &'static str,
    pub(super) retry_after_ms: u64,
}

/// Returns when to come back, for each client another time.
pub(super) fn retry_ms() -> u64 {
    rand::rng().random_range(1_000..3_000)
}
