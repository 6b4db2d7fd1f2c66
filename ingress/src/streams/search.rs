//! `/stream/search`: a question, and its answer as it is written.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use shared::{
    answers::{ASKED, Asked as Question, Totals, is_end},
    auth::Refused,
    http::Query,
    ids::{AnswerId, ConnectionId, ProjectId, UserId},
    journal::{Cursor, ResetReason, Topic},
    store::{self, Reader},
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answering::Answering,
    control::{Hello, NOWHERE, Reset, final_cursor, retry_ms},
    filter::ChannelFilter,
    frame::{self, Control},
    open::{Asked, OfAnswer, Pace, Plan, Resume, head, open, unsized_body, verdict},
    slots::{Scope, Wanted},
};
use crate::{
    access::Caller,
    answers::{NewQuestion, Started},
    error::ApiError,
    search::is_question,
    state::AppState,
};

/// The longest answer, in tokens.
const MAX_TOKENS: u32 = 4_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(search)).route("/sse/search", axum::routing::get(search))
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Search {
    /// The question, 1 to 2,000 characters. Not needed to go on with an answer.
    query: Option<String>,
    /// What it is about. Not needed to go on with an answer.
    #[serde(alias = "projectId")]
    project_id: Option<ProjectId>,
    /// The caller.
    user_id: Option<UserId>,
    /// How long the answer may get, at most 4,000; 1,000 if not given.
    max_tokens: Option<u32>,
    /// How freely a language model may word it, 0 to 2; 0.2 if not given.
    temperature: Option<f32>,
}

/// Where in an answer a stream begins.
struct Begins {
    answer: AnswerId,
    question: Question,
    started_at: Timestamp,
    /// What the client has.
    totals: Totals,
    cursor: String,
}

/// What the caller's cursor says.
enum Place {
    /// There is more of this answer, or will be.
    Within(Begins),
    /// The client has all of it.
    AtEnd,
    /// There is no such answer for this caller.
    Nowhere(ResetReason),
}

#[utoipa::path(get, path = "/stream/search", params(Search, Resume), responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = 204, description = "the client has the whole answer")
))]
async fn search(
    State(state): State<AppState>,
    asked: Asked,
    Query(query): Query<Search>,
) -> Result<Response, ApiError> {
    if query.user_id.as_ref().is_some_and(|user| *user != asked.caller.user.id) {
        return Err(ApiError::Forbidden("user_id is somebody else's"));
    }
    match asked.cursor() {
        Some(cursor) => go_on(state, asked, cursor).await,
        None => ask(state, asked, query).await,
    }
}

/// Opens the stream of an answer that the caller has a part of.
async fn go_on(state: AppState, asked: Asked, cursor: String) -> Result<Response, ApiError> {
    let own = state.store.own(asked.caller.user.clone());
    let owner = asked.caller.user.id.clone();
    let place = own.read(move |reader| find(reader, &owner, &cursor)).await?;
    match place {
        Place::AtEnd => Ok(StatusCode::NO_CONTENT.into_response()),
        Place::Nowhere(reason) => Ok(nowhere(&state, &asked, reason)),
        Place::Within(begins) => {
            let plan = plan(&state, &asked, &begins.question.clone(), Some(begins))?;
            open(state, asked, plan).await
        }
    }
}

/// Begins an answer, or finds the one of the same name, and opens its stream from the beginning.
async fn ask(state: AppState, asked: Asked, query: Search) -> Result<Response, ApiError> {
    let refused = |field, message: &str| ApiError::Field { field, message: message.into() };
    let text = query.query.ok_or_else(|| refused("query", "what is the question?"))?;
    if !is_question(&text) {
        return Err(refused("query", "a question has 1 to 2,000 characters, and no NUL"));
    }
    let project_id =
        query.project_id.ok_or_else(|| refused("project_id", "it is about which project?"))?;
    let max_tokens = query.max_tokens.unwrap_or(1_000);
    if !(1..=MAX_TOKENS).contains(&max_tokens) {
        return Err(refused("max_tokens", "1 to 4,000"));
    }
    let temperature = query.temperature.unwrap_or(0.2);
    if !(0.0..=2.0).contains(&temperature) {
        return Err(refused("temperature", "0 to 2"));
    }
    let connection = ConnectionId::mint();
    let question = Question {
        owner: asked.caller.user.id.clone(),
        project_id,
        stream_id: asked.name(connection)?,
        trace_id: Caller::new(project_id, &asked.caller.user).trace,
        max_ms: u32::try_from(state.streams.stream_max_seconds.as_millis()).unwrap_or(u32::MAX),
    };
    // Whatever refuses the stream refuses the question, which is counted.
    let own = state.store.own(asked.caller.user.clone());
    let before = plan(&state, &asked, &question, None)?;
    verdict(&state, own.clone(), asked.name_of_answer(&question.stream_id), before).await?;
    let is_check = asked.method == Method::HEAD;
    let new = NewQuestion { asked: question.clone(), text, max_tokens, temperature, is_check };
    let Some(Started { id, is_new }) = state.answers.start(new).await? else {
        let compressed = state.streams.enable_compression && asked.accepts_gzip();
        let pace = Pace::of(&state.streams, true);
        let head = head(connection, &asked.caller.user.session, &state, pace, compressed);
        return Ok((head, unsized_body()).into_response());
    };
    let owner = question.owner.clone();
    let begins = own.read(move |reader| {
        let begins = beginning(reader, id, &owner)?;
        begins.ok_or_else(|| ApiError::from(store::Error::Gone))
    });
    let begins = begins.await?;
    // Its first request may have been another one, with another trace.
    let question = begins.question.clone();
    let plan = plan(&state, &asked, &question, Some(begins))?;
    let answers = state.answers.clone();
    let opened = open(state, asked, plan).await;
    if opened.is_err() && is_new {
        // Nobody has heard of it.
        let _ = answers.cancel(&question.owner, &question.stream_id, &question.trace_id).await;
    }
    opened
}

/// Returns what the stream of an answer needs; before that is begun, as far as it is known.
fn plan(
    state: &AppState,
    asked: &Asked,
    question: &Question,
    begins: Option<Begins>,
) -> Result<Plan, ApiError> {
    let user = &asked.caller.user;
    if asked.caller.only().is_some_and(|only| only != question.project_id) {
        return Err(Refused::Unauthenticated.into());
    }
    let logs = begins.iter().map(|begins| Topic::answer(begins.answer)).collect();
    let interval = state.streams.heartbeat_interval;
    let answer = begins.map(|Begins { started_at, totals, cursor, .. }| OfAnswer {
        answering: Answering::new(question, started_at, interval, totals),
        stream_id: question.stream_id.clone(),
        cursor,
    });
    let limit = state.streams.max_connections_per_user;
    Ok(Plan {
        member: Some(Caller::new(question.project_id, user)),
        logs,
        heeds_project: true,
        wanted: vec![Wanted { scope: Scope::Answers(user.id.clone()), limit }],
        filter: ChannelFilter::all(),
        idle_timeout: None,
        jobs_of: None,
        answer,
        fallback: format!("/api/chat/projects/{}/search", question.project_id),
    })
}

/// Returns the beginning of an answer, after the question; `None` for anybody but its owner.
fn beginning(
    reader: &Reader<'_>,
    answer: AnswerId,
    owner: &UserId,
) -> Result<Option<Begins>, store::Error> {
    let topic = Topic::answer(answer);
    let first = reader.entries(&topic, 0, 1)?;
    let Some(first) = first.first().filter(|first| &*first.kind == ASKED) else { return Ok(None) };
    let question: Option<Question> = serde_json::from_str(&first.data).ok();
    let question = question.filter(|question| question.owner == *owner);
    Ok(question.map(|question| Begins {
        answer,
        question,
        started_at: first.at,
        totals: Totals::default(),
        cursor: Cursor::at(&topic, first.position).to_string(),
    }))
}

/// Looks up what a cursor says.
fn find(reader: &Reader<'_>, owner: &UserId, shown: &str) -> Result<Place, store::Error> {
    let Ok(cursor) = shown.parse::<Cursor>() else {
        return Ok(Place::Nowhere(ResetReason::Malformed));
    };
    // One of another kind of stream is a cursor, but of no answer.
    let Some(answer) = cursor.answer() else {
        return Ok(Place::Nowhere(ResetReason::UnknownEpoch));
    };
    if answer == NOWHERE {
        return Ok(Place::AtEnd);
    }
    let topic = Topic::answer(answer);
    let begins = beginning(reader, answer, owner)?;
    let (Some(begins), Some(start)) = (begins, reader.start(&topic, Some(shown))?) else {
        return Ok(Place::Nowhere(ResetReason::UnknownEpoch));
    };
    if let Some(reason) = start.reset {
        return Ok(Place::Nowhere(reason));
    }
    // A place in the log is after an entry, and the first one is there.
    let at = reader.entries(&topic, start.position.seq - 1, 1)?;
    let last = at.first();
    if last.is_some_and(|entry| is_end(&entry.kind)) {
        return Ok(Place::AtEnd);
    }
    let totals = last.and_then(|entry| Totals::up_to(entry)).unwrap_or_default();
    Ok(Place::Within(Begins { totals, cursor: shown.to_owned(), ..begins }))
}

/// Tells a client that its answer cannot be continued, in a stream's own terms, and that there is nothing to come back for.
fn nowhere(state: &AppState, asked: &Asked, reason: ResetReason) -> Response {
    let user = &asked.caller.user;
    let connection = ConnectionId::mint();
    let pace = Pace::of(&state.streams, true);
    let head = head(connection, &user.session, state, pace, false);
    if asked.method == Method::HEAD {
        return (head, unsized_body()).into_response();
    }
    let cursor = final_cursor();
    let shown = cursor.to_string();
    let hello = Hello {
        r#type: "hello",
        connection_id: connection,
        stream_id: "",
        session_id: &user.session,
        user: &user.id,
        cursor: &shown,
        heartbeat_seconds: pace.heartbeat.as_secs(),
        silence_seconds: pace.silence().as_secs(),
        resumed: false,
    };
    let hello = serde_json::to_string(&hello).unwrap_or_default();
    let reset = Reset { reason, cursor: &shown };
    let body =
        frame::hello(retry_ms(), &hello, None) + &frame::control(Control::Reset, &reset, None);
    let error = json!({
        "stream_id": "",
        "trace_id": shared::http::current_trace(),
        "code": "unknown_answer",
        "message": "there is no such answer; ask again",
    });
    let body = body + &frame::named("error", &error.to_string(), Some(&cursor));
    (head, body).into_response()
}
