//! What a request for a stream says.

use axum::extract::FromRequestParts;
use http::{HeaderMap, Method, StatusCode, Version, header, request::Parts};
use serde::Deserialize;
use shared::{
    auth::StreamUser,
    http::{ClientAddress, Detach, Query},
    ids::ConnectionId,
    journal::Position,
};

use super::super::{about::About, control::is_final};
use crate::{error::ApiError, state::AppState};

/// The longest `stream_id` and the longest user agent that is kept, in bytes.
const MAX_STREAM_ID_BYTES: usize = 128;
const MAX_USER_AGENT_BYTES: usize = 256;

/// What every request for a stream says.
#[derive(FromRequestParts)]
#[from_request(state(AppState))]
pub(in super::super) struct Asked {
    _not_final: NotFinal,
    pub(in super::super) caller: StreamUser,
    pub(in super::super) address: ClientAddress,
    pub(in super::super) method: Method,
    pub(in super::super) version: Version,
    pub(in super::super) headers: HeaderMap,
    #[from_request(via(Query))]
    pub(in super::super) resume: Resume,
    pub(in super::super) detach: Detach,
}

/// Where a stream goes on, if the header `Last-Event-ID` does not say so.
#[derive(Deserialize, utoipa::IntoParams)]
pub(in super::super) struct Resume {
    last_event_id: Option<String>,
    /// A cursor that history gave.
    since: Option<String>,
    /// Names the tab or leader that holds the stream; who opens it again takes it over.
    stream_id: Option<String>,
}

impl Resume {
    fn cursor(&self, headers: &HeaderMap) -> Option<String> {
        // Empty is none: some readers send the header always. Bytes that are no text were meant as a cursor, and are none.
        let header = headers.get("last-event-id").filter(|value| !value.is_empty());
        let header = header.map(|value| value.to_str().unwrap_or("?").to_owned());
        header.or_else(|| self.last_event_id.clone()).or_else(|| self.since.clone())
    }
}

/// Answers 204 to a client whose stream has ended for good.
///
/// This comes before the credential is verified: the session of a user who signed out is refused with 401, at which some
/// readers try again for ever.
struct NotFinal;

impl FromRequestParts<AppState> for NotFinal {
    type Rejection = StatusCode;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<Self, Self::Rejection> {
        // A query that cannot be read is refused by the extractor whose it is.
        let resume = Query::<Resume>::from_request_parts(parts, state).await;
        let cursor = resume.ok().and_then(|Query(resume)| resume.cursor(&parts.headers));
        match cursor {
            Some(cursor) if is_final(&cursor) => Err(StatusCode::NO_CONTENT),
            _ => Ok(Self),
        }
    }
}

impl Asked {
    pub(in super::super) fn cursor(&self) -> Option<String> {
        self.resume.cursor(&self.headers)
    }

    /// Describes the connection; when its caller was let in is not known yet.
    pub(super) fn about(&self, connection: ConnectionId, state: &AppState) -> About {
        let user = &self.caller.user;
        About {
            connection,
            user: user.id.clone(),
            session: user.session.clone(),
            let_in_at: Position { epoch: 0, seq: 0, tag: 0 },
            address: self.address.ip(),
            user_agent: state.stats.user_agent(self.user_agent()),
            opened_at: state.store.now(),
        }
    }

    pub(in super::super) fn accepts_gzip(&self) -> bool {
        let lines = self.headers.get_all(header::ACCEPT_ENCODING).iter();
        lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let refused = weight.trim().strip_prefix("q=").is_some_and(|weight| {
                weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0)
            });
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
    }

    pub(in super::super) fn user_agent(&self) -> &str {
        let value = self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let value = value.unwrap_or("unknown");
        value.get(..MAX_USER_AGENT_BYTES).unwrap_or(value)
    }

    /// Returns the name of the stream, which is the connection's id if the client gave none.
    pub(in super::super) fn name(&self, connection: ConnectionId) -> Result<String, ApiError> {
        match &self.resume.stream_id {
            Some(id) if id.len() > MAX_STREAM_ID_BYTES || id.contains('\0') => {
                Err(ApiError::Invalid("stream_id has at most 128 bytes"))
            }
            Some(id) if !id.is_empty() => Ok(id.clone()),
            _ => Ok(connection.to_string()),
        }
    }

    /// Returns the name of an answer's stream: of each answer a session has one, which the next one replaces.
    pub(in super::super) fn name_of_answer(&self, stream_id: &str) -> String {
        format!("{stream_id}/{}", self.caller.user.session)
    }
}
