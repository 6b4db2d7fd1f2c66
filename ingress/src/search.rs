//! Search in a project: proc's index says what fits best, and the caller reads what they may of it.

mod operators;
mod snippet;

use std::collections::HashMap;

use axum::extract::State;
use proto::{Filter, FindRequest, FindResponse, search_client::SearchClient};
use serde::{Deserialize, Serialize};
use shared::{
    grpc::{Calls, Peer},
    http::{Json, Query},
    ids::{ChannelName, MessageId, ProjectId},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    operators::Typed,
    snippet::{Highlight, Snippet, Wanted, snippet},
};
use crate::{
    access::{As, Viewer},
    error::ApiError,
    messages::{Message, store},
    state::{AppState, DEADLINE, unanswered},
};

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(search))
}

/// The longest question in characters.
const MAX_CHARS: usize = 2_000;
/// Messages found at most, and if nobody says how many.
const MOST: u32 = 50;
const DEFAULT: u32 = 20;
/// Messages asked for besides, since some may have been deleted a moment ago.
const SPARE: u32 = 10;

/// Asks proc's index.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    calls: Calls,
}

#[derive(Deserialize, utoipa::IntoParams)]
struct Asked {
    /// Words, 1 to 2,000 characters. `"…"` is found as it is, and `-word` is not to be there. `from:`, `in:`, `before:`,
    /// `after:` and `has:link` narrow the search; other operators are text.
    #[param(required = true)]
    q: Option<String>,
    /// How many messages: 1 to 50, 20 if nobody says.
    limit: Option<u32>,
    /// Only this channel's.
    #[param(value_type = Option<String>)]
    channel: Option<ChannelName>,
}

impl Asked {
    /// Returns what is looked for, and how many messages are wanted.
    fn checked(&self) -> Result<(&str, u32), ApiError> {
        let refused = |field, message: &str| ApiError::Field { field, message: message.into() };
        let text = self.q.as_deref().unwrap_or_default();
        if !is_question(text) {
            return Err(refused("q", "what is looked for has 1 to 2,000 characters and no NUL"));
        }
        let limit = self.limit.unwrap_or(DEFAULT);
        if !(1..=MOST).contains(&limit) {
            return Err(refused("limit", "1 to 50"));
        }
        Ok((text, limit))
    }
}

/// Says whether a text can be asked about.
pub(crate) fn is_question(text: &str) -> bool {
    let length = text.chars().take(MAX_CHARS + 1).count();
    !text.trim().is_empty() && !text.contains('\0') && length <= MAX_CHARS
}

/// The messages that fit best, the best first.
#[derive(Serialize, utoipa::ToSchema)]
struct FoundMessages {
    messages: Vec<Found>,
    /// There is no page after the first.
    next: Option<MessageId>,
}

/// A message that was found.
#[derive(Serialize, utoipa::ToSchema)]
struct Found {
    #[serde(flatten)]
    message: Message,
    /// How well it fits, in comparison with the others of this answer.
    score: f32,
    /// At most 200 characters of its text, around what was looked for.
    snippet: String,
    /// The words of the snippet that were looked for, in order.
    highlights: Vec<Highlight>,
}

#[utoipa::path(get, path = "/{project}/search", params(Asked), responses((status = 200, body = FoundMessages)))]
async fn search(
    State(finder): State<Finder>,
    viewer: As<Viewer>,
    Query(asked): Query<Asked>,
) -> Result<Json<FoundMessages>, ApiError> {
    let (text, limit) = match asked.checked() {
        Ok(checked) => checked,
        Err(error) => {
            // A stranger hears that there is no such project, whatever the request.
            viewer.read(|_, _| Ok(())).await?;
            return Err(error);
        }
    };
    let typed = Typed::read(text);
    let text = typed.text.trim().to_owned();
    // No search runs on behalf of strangers.
    let project = viewer.project;
    let filter =
        viewer.read(move |reader, caller| Ok(typed.filter(reader, project, &caller.user)?)).await?;
    let found = finder.find(project, &text, filter, asked.channel.as_ref(), limit + SPARE).await?;
    let ids: Vec<MessageId> = found.scores.iter().map(|(id, _)| *id).collect();
    let messages =
        viewer.read(move |reader, caller| store::many::whole(reader, caller, &ids)).await?;
    let scores: HashMap<MessageId, f32> = found.scores.into_iter().collect();
    let wanted = Wanted::new(found.words);
    let messages = messages.into_iter().take(usize::try_from(limit).unwrap_or(0)).map(|message| {
        let score = scores.get(&message.id).copied().unwrap_or_default();
        let Snippet { text: snippet, highlights } = snippet(&message.text, &wanted);
        Found { message, score, snippet, highlights }
    });
    Ok(Json(FoundMessages { messages: messages.collect(), next: None }))
}

/// Messages that proc's index found.
struct Matches {
    scores: Vec<(MessageId, f32)>,
    /// The terms that were looked up.
    words: Vec<String>,
}

impl Finder {
    pub(crate) fn new(proc: &Peer) -> Self {
        Self { calls: proc.calls(DEADLINE).repeatable() }
    }

    /// Returns the messages that fit best, with their scores.
    async fn find(
        &self,
        project: ProjectId,
        text: &str,
        filter: Filter,
        channel: Option<&ChannelName>,
        limit: u32,
    ) -> Result<Matches, ApiError> {
        let request = FindRequest {
            project_id: project.to_string(),
            text: text.to_owned(),
            limit,
            channel: channel.map(ToString::to_string),
            filter: Some(filter),
        };
        let answer = SearchClient::new(self.calls.clone()).find(request).await;
        let FindResponse { hits, words } =
            answer.map_err(|status| unanswered(&status))?.into_inner();
        let scores = hits.into_iter();
        let scores = scores.filter_map(|hit| Some((hit.message_id.parse().ok()?, hit.score)));
        Ok(Matches { scores: scores.collect(), words })
    }
}
