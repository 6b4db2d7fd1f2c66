//! How a stream is opened: everything that may refuse it, then the greeting, then the socket goes to the reactor.

mod asked;
mod greeting;
mod head;

use std::{slice, time::Duration};

use axum::response::{IntoResponse, Response};
use http::Method;
use shared::{
    ids::{ConnectionId, UserId},
    journal::{Cursor, Position, ResetReason, Start, Topic},
    store::{Error, Reader},
};

use self::greeting::{greeting, snapshot};
pub(super) use self::{
    asked::{Asked, Resume},
    head::{Pace, head, unsized_body},
};
use super::{
    about::{About, Held, Open},
    answering::Answering,
    filter::ChannelFilter,
    hub::{Follower, Hub},
    job_view::JobView,
    reactor::Parked,
    slots::{Holder, Lease, Wanted, release},
    wire::Wire,
};
use crate::{
    access::{Caller, Own, Viewer},
    error::ApiError,
    state::AppState,
};

/// Whose jobs a stream is about.
pub(super) enum Owners {
    All,
    One(UserId),
}

/// What a stream is to be, and what it needs.
pub(super) struct Plan {
    /// Who must be a member of the project.
    pub(super) member: Option<Caller>,
    pub(super) logs: Vec<Topic>,
    /// The member's project is no log of it: only what ends the stream is heeded there.
    pub(super) heeds_project: bool,
    pub(super) wanted: Vec<Wanted>,
    pub(super) filter: ChannelFilter,
    pub(super) idle_timeout: Option<Duration>,
    /// Whose unfinished jobs it begins with. Their log is the last one.
    pub(super) jobs_of: Option<Owners>,
    /// The answer that it is the stream of.
    pub(super) answer: Option<OfAnswer>,
    /// Where to go while streams are switched off.
    pub(super) fallback: String,
}

/// What the stream of an answer has besides.
pub(super) struct OfAnswer {
    pub(super) answering: Answering,
    /// The owner's name for it.
    pub(super) stream_id: String,
    /// Where it begins, whatever the request says.
    pub(super) cursor: String,
}

impl Plan {
    /// Returns the stream's name among its user's.
    fn name(&self, asked: &Asked, connection: ConnectionId) -> Result<String, ApiError> {
        match &self.answer {
            Some(answer) => Ok(asked.name_of_answer(&answer.stream_id)),
            None => asked.name(connection),
        }
    }
}

/// Opens a stream, or says to `HEAD` what an opening would be answered.
pub(super) async fn open(state: AppState, asked: Asked, plan: Plan) -> Result<Response, ApiError> {
    let connection = ConnectionId::mint();
    let user = asked.caller.user.clone();
    let own = state.store.own(user.clone());
    let name = plan.name(&asked, connection)?;
    let compressed = state.streams.enable_compression && asked.accepts_gzip();
    let pace = Pace::of(&state.streams, plan.answer.is_some());
    let head = head(connection, &user.session, &state, pace, compressed);
    if asked.method == Method::HEAD || !state.streams.enable_sse {
        verdict(&state, own, name, plan).await?;
        return Ok((head, unsized_body()).into_response());
    }
    let mut count =
        Open::enter(&state.stats, state.streams.max_connections).ok_or(ApiError::Full)?;
    // The hub listens before the logs are read: between the two nothing is lost, and what comes twice is dropped.
    let followers = follow(&state.hub, &plan).await?;
    let mut about = asked.about(connection, &state);
    let holder = holder(&about, &name, &plan.filter);
    let (slots, replica) = (state.slots.clone(), state.replica.clone());
    let (member, logs, wanted) = (plan.member.clone(), plan.logs.clone(), plan.wanted);
    let resuming = asked.cursor().is_some();
    let cursor = plan.answer.as_ref().map(|answer| answer.cursor.clone());
    let seen = cursor.or_else(|| asked.cursor());
    // Before the session is looked at: what ends it later finds the stream, and what has ended it is seen.
    let announced = state.reactor.announce(connection, &user.id, &user.session);
    let caller = asked.caller.clone();
    let heeds_project = plan.heeds_project;
    let jobs_reader = plan.jobs_of.as_ref().map(|_| user.clone());
    let opened = own.write(move |tx| {
        let let_in_at = caller.enter(tx, tx.now())?;
        let member_at = require(tx, member.as_ref())?;
        let mut begins = begins(tx, &logs, seen.as_deref())?;
        if let Some(member) = member.as_ref().filter(|_| heeds_project) {
            begins.heeded = tx.head(&Topic::project(member.project))?;
        }
        let view = JobView::of(tx, jobs_reader.as_ref())?;
        let lease = slots.take(tx, &wanted, &holder, replica.oldest(tx.now()))?;
        Ok::<_, ApiError>((let_in_at, member_at, begins, view, lease))
    });
    let (let_in_at, member_at, begins, view, lease) = opened.await.inspect_err(|error| {
        if matches!(error, ApiError::TooManyConnections { .. }) {
            state.stats.rejected();
        }
    })?;
    about.let_in_at = let_in_at;
    let resumed = resuming && begins.reset.is_none();
    // The place in the log was taken before the snapshot: what changes in between is told again, not left out.
    let jobs_of = plan.jobs_of.filter(|_| begins.is_new);
    let cursor = begins.cursor(&plan.logs);
    let first = first(&state, jobs_of.zip(view.as_ref()), &own, &lease, &cursor).await?;
    count.admit();
    if resuming {
        state.stats.reconnected();
    }
    let here = plan.member.map(|caller| state.presence.enter(caller));
    let held = Held {
        _count: count,
        _lease: lease,
        _here: here,
        _token: state.lifecycle.stream(),
        _connection: None,
    };
    let mut wire = Wire::new(asked.version, compressed);
    let stream_id = plan.answer.as_ref().map_or(&name, |answer| &answer.stream_id);
    let greeting =
        greeting(pace, &about, stream_id, &begins, &plan.logs, resumed, !first.is_empty());
    let greeting = wire.first(&greeting);
    let reactor = state.reactor.clone();
    let places = begins.positions.into_iter().chain(begins.heeded);
    // From its greeting on it is told everything, though its socket is not parked yet.
    let followers = followers.into_iter().map(Follower::hearing_from_now);
    let places: Vec<(Follower, Position)> = followers.zip(places).collect();
    let told = plan.logs.len();
    let answering = plan.answer.map(|answer| Box::new(answer.answering));
    let body = asked.detach.body(greeting, move |detached| async move {
        let socket = match detached.socket.into_std() {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%error, "a socket was not taken over"),
        };
        let parked = Parked {
            socket,
            wire,
            about: Box::new(about),
            held: Held { _connection: Some(detached.connection), ..held },
            places,
            told,
            answering,
            first,
            jobs: view.map(Box::new),
            filter: plan.filter,
            member_at,
            idle_timeout: plan.idle_timeout,
            expires_at: user.expires_at,
        };
        reactor.park(announced, parked);
    });
    Ok((head, body).into_response())
}

fn holder(about: &About, stream: &str, filter: &ChannelFilter) -> Holder {
    Holder {
        connection: about.connection,
        user: about.user.clone(),
        stream: stream.to_owned(),
        about: about.to_json(),
        channels: filter.to_json(),
    }
}

/// Returns what a stream of jobs begins with. If that is not to be had, its place is given back before it is refused: who
/// comes again at once is not to meet it.
async fn first(
    state: &AppState,
    jobs_of: Option<(Owners, &JobView)>,
    own: &Own,
    lease: &Lease,
    cursor: &Cursor,
) -> Result<Vec<String>, ApiError> {
    let Some((owners, view)) = jobs_of else { return Ok(Vec::new()) };
    let snapshot = snapshot(state, &owners, view, &own.user.id, cursor).await;
    if snapshot.is_err() {
        let freed = lease.freed();
        let free = own.write(move |tx| Ok::<_, ApiError>(release(tx, slice::from_ref(&freed))?));
        // If it fails, it is freed a little later.
        let _ = free.await;
    }
    snapshot
}

/// Gives the verdict of an opening, and takes nothing.
pub(super) async fn verdict(
    state: &AppState,
    own: Own,
    name: String,
    plan: Plan,
) -> Result<(), ApiError> {
    let enabled = state.streams.enable_sse;
    if enabled && state.stats.is_full(state.streams.max_connections) {
        return Err(ApiError::Full);
    }
    let (slots, replica, user) = (state.slots.clone(), state.replica.clone(), own.user.clone());
    let Plan { member, wanted, fallback, .. } = plan;
    let check = move |reader: &Reader<'_>| {
        user.require(reader, reader.now())?;
        require(reader, member.as_ref())?;
        if enabled {
            slots.check(reader, &wanted, &user.id, &name, replica.oldest(reader.now()))?;
        }
        Ok::<_, ApiError>(())
    };
    own.read(check).await?;
    if enabled { Ok(()) } else { Err(ApiError::SseDisabled { fallback }) }
}

/// Follows every log of the plan. The project's is not made if it is not there: nobody has been seen to be a member yet.
async fn follow(hub: &Hub, plan: &Plan) -> Result<Vec<Follower>, ApiError> {
    let project = plan.member.as_ref().map(|caller| Topic::project(caller.project));
    let mut followers = Vec::with_capacity(plan.logs.len());
    for log in &plan.logs {
        followers.push(if project.as_ref() == Some(log) {
            hub.find(log).await?.ok_or(ApiError::NotFound("the project"))?
        } else {
            hub.follow(log).await?
        });
    }
    if let Some(project) = project.filter(|_| plan.heeds_project) {
        followers.push(hub.find(&project).await?.ok_or(ApiError::NotFound("the project"))?);
    }
    Ok(followers)
}

/// Lets members pass; returns where the project's log was then: a removal before it is over.
fn require(reader: &Reader<'_>, member: Option<&Caller>) -> Result<i64, ApiError> {
    let Some(caller) = member else { return Ok(0) };
    let end = reader.head(&Topic::project(caller.project))?.map_or(0, |head| head.seq);
    caller.granted::<Viewer>(reader)?;
    Ok(end)
}

/// Where a stream begins in each of its logs.
struct Begins {
    positions: Vec<Position>,
    /// Where the log was of which only the stream's end is heeded.
    heeded: Option<Position>,
    reset: Option<ResetReason>,
    /// The cursor said nothing about the last log.
    is_new: bool,
}

impl Begins {
    /// Returns the cursor of where the stream begins.
    fn cursor(&self, logs: &[Topic]) -> Cursor {
        Cursor::of(logs.iter().zip(self.positions.iter().copied()))
    }
}

/// A log that the cursor does not name begins at its end; a reset is one of all logs.
fn begins(reader: &Reader<'_>, logs: &[Topic], cursor: Option<&str>) -> Result<Begins, Error> {
    let named = cursor.and_then(|cursor| cursor.parse::<Cursor>().ok());
    let names = |log: &Topic| named.as_ref().is_some_and(|cursor| cursor.position(log).is_some());
    let names_any = logs.iter().any(names);
    let mut starts = Vec::with_capacity(logs.len());
    for log in logs {
        // One that names none of them is not a cursor of this stream, and is told so.
        let cursor = cursor.filter(|_| names(log) || !names_any);
        starts.push(reader.start(log, cursor)?.ok_or(Error::Gone)?);
    }
    let reset = starts.iter().find_map(|start| start.reset);
    let is_new = reset.is_some() || !logs.last().is_some_and(names);
    let mut positions = Vec::with_capacity(logs.len());
    for (log, Start { position, .. }) in logs.iter().zip(starts) {
        let end = if reset.is_some() { reader.head(log)? } else { None };
        positions.push(end.unwrap_or(position));
    }
    Ok(Begins { positions, heeded: None, reset, is_new })
}
