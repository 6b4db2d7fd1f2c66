//! Event streams: the routes, and what every stream's answer has in common.

#[cfg_attr(not(test), expect(dead_code, reason = "no stream takes a slot yet"))]
mod command;
mod frame;
pub(crate) mod hub;
mod log;
mod session;
#[cfg_attr(not(test), expect(dead_code, reason = "no stream takes a slot yet"))]
pub(crate) mod slots;

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use shared::{
    auth::StreamUser,
    http::{Query, current_trace},
    ids::{ConnectionId, ProjectId, TraceId, UserId},
    journal::{Entry, Topic},
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::session::{Opening, Session};
use crate::{
    access::{Caller, Role},
    error::ApiError,
    state::AppState,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(project))
        .routes(routes!(jobs))
        .route("/api/persistent-chat/stream", axum::routing::get(project))
        .route("/sse/jobs", axum::routing::get(jobs))
}

#[derive(Deserialize, utoipa::IntoParams)]
struct ProjectStream {
    #[serde(alias = "projectId")]
    project_id: ProjectId,
}

#[derive(Deserialize, utoipa::IntoParams)]
struct JobsStream {
    /// `all` for everybody's jobs (role admin).
    scope: Option<Scope>,
}

#[derive(Copy, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Scope {
    All,
}

/// Where a stream goes on, if the header `Last-Event-ID` does not say so.
#[derive(Deserialize, utoipa::IntoParams)]
struct Resume {
    last_event_id: Option<String>,
    /// A cursor that history gave.
    since: Option<String>,
    /// Names the tab or leader that holds the stream.
    stream_id: Option<String>,
}

impl Resume {
    fn cursor(&self, headers: &HeaderMap) -> Option<String> {
        // Bytes that are no text are no cursor either, but they were meant as one.
        let header =
            headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?").to_owned());
        header.or_else(|| self.last_event_id.clone()).or_else(|| self.since.clone())
    }
}

#[utoipa::path(get, path = "/sse/stream", params(ProjectStream, Resume), responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn project(
    State(state): State<AppState>,
    method: Method,
    StreamUser(user): StreamUser,
    headers: HeaderMap,
    Query(query): Query<ProjectStream>,
    Query(resume): Query<Resume>,
) -> Result<Response, ApiError> {
    let project = query.project_id;
    let caller = Caller::new(project, &user);
    let checked = caller.clone();
    let topic = Topic::project(project);
    let log = topic.clone();
    let member_at = state.store.read(move |reader| {
        // The log's end comes first: a removal after it is seen by the check or by the stream.
        let end = reader.head(&log)?.map_or(0, |head| head.seq);
        checked.require(reader, Role::Viewer).map(|()| end)
    });
    let member_at = member_at.await?;
    enabled(&state, || format!("/api/chat/projects/{project}/events"))?;
    let connection = ConnectionId::mint();
    let head = head(connection, &state);
    if method == Method::HEAD {
        return Ok((head, unsized_body()).into_response());
    }
    let opening = Opening {
        topic,
        member_at,
        here: Some(state.presence.enter(caller)),
        ..opening(&state, &user, connection, &headers, resume)
    };
    let session = Session::open(opening).await?;
    Ok((head, Body::from_stream(session.frames(None))).into_response())
}

#[utoipa::path(get, path = "/api/jobs/stream", params(JobsStream, Resume), responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn jobs(
    State(state): State<AppState>,
    method: Method,
    StreamUser(user): StreamUser,
    headers: HeaderMap,
    Query(query): Query<JobsStream>,
    Query(resume): Query<Resume>,
) -> Result<Response, ApiError> {
    let everybody = query.scope == Some(Scope::All);
    if everybody && !user.roles.admin {
        return Err(ApiError::Forbidden("only an admin follows everybody's jobs"));
    }
    enabled(&state, || "/api/integrations/jobs".into())?;
    let connection = ConnectionId::mint();
    let head = head(connection, &state);
    if method == Method::HEAD {
        return Ok((head, unsized_body()).into_response());
    }
    let topic = if everybody { Topic::jobs() } else { Topic::user(&user.id) };
    let opening = Opening {
        topic,
        idle_timeout: Some(state.streams.sse_idle_timeout),
        ..opening(&state, &user, connection, &headers, resume)
    };
    // The place in the log is taken before the snapshot: what changes in between is told again, not left out.
    let session = Session::open(opening).await?;
    let snapshot = if session.is_resumed() {
        None
    } else {
        let owner = if everybody { None } else { Some(&user.id) };
        Some(snapshot(&state, owner, &user.id).await?)
    };
    Ok((head, Body::from_stream(session.frames(snapshot.as_deref()))).into_response())
}

/// Returns the event with all jobs that have not ended.
async fn snapshot(
    state: &AppState,
    owner: Option<&UserId>,
    actor: &UserId,
) -> Result<String, ApiError> {
    let trace = current_trace().unwrap_or_else(TraceId::mint);
    let jobs = state.jobs.unfinished(owner, &trace).await?;
    Ok(serde_json::to_string(&serde_json::json!({
        "type": "job.snapshot", "at": Timestamp::now(), "actor": actor, "trace_id": trace, "jobs": jobs,
    }))?)
}

fn enabled(state: &AppState, fallback: impl FnOnce() -> String) -> Result<(), ApiError> {
    if state.streams.enable_sse {
        Ok(())
    } else {
        Err(ApiError::SseDisabled { fallback: fallback() })
    }
}

fn opening(
    state: &AppState,
    user: &shared::auth::User,
    connection: ConnectionId,
    headers: &HeaderMap,
    resume: Resume,
) -> Opening {
    Opening {
        hub: state.hub.clone(),
        store: state.store.clone(),
        topic: Topic::user(&user.id),
        user: user.id.clone(),
        session: user.session.clone(),
        connection,
        cursor: resume.cursor(headers),
        stream_id: resume.stream_id.unwrap_or_else(|| connection.to_string()),
        keepalive: state.streams.keepalive_interval,
        idle_timeout: None,
        closing: state.lifecycle.closing(),
        _open: state.lifecycle.stream(),
        drain_spread: state.drain.drain_spread,
        member_at: 0,
        here: None,
    }
}

/// Returns a body whose length is not known, as a stream's is not: `HEAD` must not say that there is nothing.
fn unsized_body() -> Body {
    Body::from_stream(
        futures_util::stream::empty::<Result<bytes::Bytes, std::convert::Infallible>>(),
    )
}

/// Returns how long a client may hear nothing before it should come back: three heartbeats.
fn silence(keepalive: Duration) -> Duration {
    keepalive * 3
}

fn head(connection: ConnectionId, state: &AppState) -> HeaderMap {
    let keepalive = state.streams.keepalive_interval;
    let mut head = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        (HeaderName::from_static("x-heartbeat-interval"), keepalive.as_secs().into()),
        (HeaderName::from_static("x-silence-threshold"), silence(keepalive).as_secs().into()),
    ]);
    if let Ok(connection) = HeaderValue::from_str(&connection.to_string()) {
        head.insert("x-sse-connection-id", connection);
    }
    head
}

/// Says whether the entry is the word that `user` is out of the project.
fn removes(entry: &Entry, user: &UserId) -> bool {
    #[derive(Deserialize)]
    struct Removed {
        member: Member,
    }
    #[derive(Deserialize)]
    struct Member {
        user: UserId,
    }
    &*entry.kind == "member.removed"
        && serde_json::from_str::<Removed>(&entry.data)
            .is_ok_and(|removed| removed.member.user == *user)
}
