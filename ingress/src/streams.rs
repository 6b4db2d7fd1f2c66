//! Event streams: the routes, and what each kind of stream follows.

mod about;
mod answering;
pub(crate) mod command;
mod control;
mod filter;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gzip;
pub(crate) mod hub;
mod inspect;
pub(crate) mod job_view;
mod log;
mod open;
pub(crate) mod reactor;
pub(crate) mod refill;
pub(crate) mod relief;
mod ring;
mod search;
pub(crate) mod slots;
pub(crate) mod stats;
mod ticket;
mod wire;

use axum::{extract::State, response::Response};
use serde::Deserialize;
use shared::{
    auth::Refused,
    http::{Json, Path, Query},
    ids::{ChannelName, ProjectId},
    journal::Topic,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    command::{Order, What},
    filter::{ChannelFilter, MAX_CHANNELS, TooLong},
    open::{Asked, Owners, Plan, Resume, open},
    slots::{Scope, Slots, Wanted},
};
use crate::{
    access::{Caller, Own},
    error::ApiError,
    replica::Replica,
    state::AppState,
};

pub(crate) use self::{
    frame::{json_bytes, one_line},
    inspect::internal,
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(project))
        .routes(routes!(jobs))
        .routes(routes!(channels))
        .route("/api/persistent-chat/stream", axum::routing::get(project))
        .route("/sse/jobs", axum::routing::get(jobs))
        .merge(search::routes())
        .merge(ticket::routes())
        .merge(inspect::routes())
}

#[derive(Deserialize, utoipa::IntoParams)]
struct ProjectStream {
    #[serde(alias = "projectId")]
    project_id: ProjectId,
    /// `jobs` adds the caller's jobs.
    include: Option<Include>,
    /// Names of the channels to carry, `a,b`; without it every channel.
    channels: Option<String>,
}

#[derive(Copy, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Include {
    Jobs,
}

#[derive(Deserialize, utoipa::IntoParams)]
struct JobsStream {
    /// `all` for everybody's jobs (role admin).
    scope: Option<Whose>,
}

#[derive(Copy, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Whose {
    All,
}

#[utoipa::path(get, path = "/sse/stream", params(ProjectStream, Resume), responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn project(
    State(state): State<AppState>,
    asked: Asked,
    Query(query): Query<ProjectStream>,
) -> Result<Response, ApiError> {
    let user = &asked.caller.user;
    let filter = query.channels.as_deref().map_or(Ok(ChannelFilter::all()), |names| {
        names
            .parse()
            .map_err(|_| ApiError::Invalid("channels is a list of channel names, as in a,b"))
    })?;
    if filter.is_too_long() {
        return Err(ApiError::Invalid("channels names 200 channels at most"));
    }
    let mut logs = vec![Topic::project(query.project_id)];
    let jobs = query.include.is_some();
    if jobs {
        logs.push(Topic::user(&user.id));
    }
    let scope = Scope::Project(query.project_id, user.id.clone());
    let plan = Plan {
        member: Some(Caller::new(query.project_id, user)),
        logs,
        wanted: vec![Wanted { scope, limit: state.streams.max_connections_per_user }],
        filter,
        idle_timeout: None,
        jobs_of: jobs.then(|| Owners::One(user.id.clone())),
        heeds_project: false,
        answer: None,
        fallback: format!("/api/chat/projects/{}/events", query.project_id),
    };
    open(state, asked, plan).await
}

#[utoipa::path(get, path = "/api/jobs/stream", params(JobsStream, Resume), responses((status = 200, content_type = "text/event-stream", body = String)))]
async fn jobs(
    State(state): State<AppState>,
    asked: Asked,
    Query(query): Query<JobsStream>,
) -> Result<Response, ApiError> {
    let user = &asked.caller.user;
    // Whatever project the query named.
    if asked.caller.only().is_some() {
        return Err(Refused::Unauthenticated.into());
    }
    let everybody = query.scope == Some(Whose::All);
    if everybody && !user.roles.admin {
        return Err(ApiError::Forbidden("only an admin follows everybody's jobs"));
    }
    let wanted = |scope, limit| Wanted { scope, limit };
    let plan = Plan {
        member: None,
        logs: vec![if everybody { Topic::jobs() } else { Topic::user(&user.id) }],
        wanted: vec![
            wanted(Scope::Session(user.session.clone()), state.streams.sse_max_conn_per_session),
            wanted(Scope::Address(asked.address.key()), state.streams.sse_max_conn_per_ip),
        ],
        filter: ChannelFilter::all(),
        idle_timeout: Some(state.streams.sse_idle_timeout),
        jobs_of: Some(if everybody { Owners::All } else { Owners::One(user.id.clone()) }),
        heeds_project: false,
        answer: None,
        fallback: "/api/integrations/jobs".into(),
    };
    open(state, asked, plan).await
}

/// What a stream is to carry from now on, and what no more.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChannelChange {
    #[serde(default)]
    add: Vec<ChannelName>,
    #[serde(default)]
    remove: Vec<ChannelName>,
    /// The project of the stream; needed where the caller has streams of this name in several projects.
    #[serde(default, alias = "projectId")]
    project_id: Option<ProjectId>,
}

/// Project of a stream, as the query may name it instead of the body.
#[derive(Deserialize, utoipa::IntoParams)]
struct OfProject {
    /// The project of the stream; needed where the caller has streams of this name in several projects.
    #[serde(alias = "projectId")]
    project_id: Option<ProjectId>,
}

#[utoipa::path(post, path = "/sse/streams/{stream_id}/channels", params(OfProject), request_body = ChannelChange, responses((status = 204)))]
async fn channels(
    State(slots): State<Slots>,
    State(replica): State<Replica>,
    own: Own,
    Path(stream): Path<String>,
    Query(query): Query<OfProject>,
    Json(ChannelChange { add, remove, project_id }): Json<ChannelChange>,
) -> Result<http::StatusCode, ApiError> {
    let wrong_project =
        |message: &str| ApiError::Field { field: "project_id", message: message.to_owned() };
    if let (Some(body), Some(query)) = (project_id, query.project_id)
        && body != query
    {
        return Err(wrong_project("the query and the body name different projects"));
    }
    let project = project_id.or(query.project_id);
    for (field, names) in [("add", &add), ("remove", &remove)] {
        if names.len() > MAX_CHANNELS {
            let message = format!("at most {MAX_CHANNELS} channels");
            return Err(ApiError::Field { field, message });
        }
    }
    let user = own.user.id.clone();
    own.write(move |tx| {
        let oldest = replica.oldest(tx.now());
        let mut open = slots.find_stream(tx, &user, &stream, project, oldest)?;
        let Some(first) = open.first() else { return Err(ApiError::NotFound("the stream")) };
        // Names of channels mean something in one project alone.
        if open.iter().any(|open| open.scope != first.scope) {
            return Err(wrong_project(
                "streams of this name are open in several projects: say in which one",
            ));
        }
        // In one order by everybody, so that two changes do not wait for each other's replicas.
        open.sort_unstable_by_key(|open| open.replica);
        for open in open {
            let what = What::Channels { add: add.clone(), remove: remove.clone() };
            // Holds the replica's log, so that of two changes the second reads what the first has written.
            Order { connection: open.connection, what }.give(tx, open.replica)?;
            let channels = Slots::channels(tx, &open)?;
            let mut filter = ChannelFilter::from_json(channels.as_deref())?;
            filter.change(&add, &remove).map_err(|TooLong| {
                ApiError::Conflict("a stream names at most 200 channels; give some up first")
            })?;
            Slots::set_channels(tx, &open, filter.to_json().as_ref())?;
        }
        Ok(http::StatusCode::NO_CONTENT)
    })
    .await
}
