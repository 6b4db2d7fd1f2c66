//! `/api/auth/sessions`: where a user is signed in, and how they end that.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    auth::{Auth, Session, User, sessions_of},
    http::{Json, Limit, Path, Query},
    ids::SessionId,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::Own, error::ApiError, replica::Replica, state::AppState, streams::slots::Slots,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, end_others)).routes(routes!(end))
}

/// A session that was shown and not ended.
#[derive(Serialize, utoipa::ToSchema)]
struct OpenSession {
    id: SessionId,
    created_at: Timestamp,
    /// When it was last used, to a few minutes.
    seen_at: Timestamp,
    /// Whether it is that of this request.
    current: bool,
    /// Streams that are open in it, on all replicas.
    streams: usize,
}

/// A page of the caller's sessions, by id.
#[derive(Serialize, utoipa::ToSchema)]
struct Sessions {
    sessions: Vec<OpenSession>,
    next: Option<SessionId>,
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Page {
    #[serde(default)]
    #[param(value_type = Option<i64>)]
    limit: Limit,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<SessionId>,
}

#[utoipa::path(get, path = "/api/auth/sessions", params(Page), responses((status = 200, body = Sessions)))]
async fn list(
    State(slots): State<Slots>,
    State(replica): State<Replica>,
    own: Own,
    Query(Page { limit, after }): Query<Page>,
) -> Result<Json<Sessions>, ApiError> {
    let user = own.user.clone();
    own.read(move |reader| {
        let mut page = sessions_of(reader, &user.id, after.as_ref(), limit)?;
        let next = limit.cut(&mut page).map(|session| session.id.clone());
        let ids: Vec<SessionId> = page.iter().map(|session| session.id.clone()).collect();
        let open = slots.sessions_of(reader, &user.id, &ids, replica.oldest(reader.now()))?;
        let sessions = page.into_iter().map(|Session { id, created_at, seen_at }| {
            let streams = open.iter().filter(|session| **session == id).count();
            OpenSession { current: id == user.session, streams, id, created_at, seen_at }
        });
        Ok(Json(Sessions { sessions: sessions.collect(), next }))
    })
    .await
}

#[utoipa::path(delete, path = "/api/auth/sessions/{session}", responses((status = 204)))]
async fn end(
    State(auth): State<Auth>,
    user: User,
    Path(session): Path<SessionId>,
) -> Result<StatusCode, ApiError> {
    if auth.end_session(&user, session).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::NotFound("the session"))
    }
}

#[utoipa::path(delete, path = "/api/auth/sessions", responses((status = 204)))]
async fn end_others(State(auth): State<Auth>, user: User) -> Result<StatusCode, ApiError> {
    auth.end_other_sessions(&user).await?;
    Ok(StatusCode::NO_CONTENT)
}
