//! How an answer ends, as clients see it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    answers::{CHUNK, COMPLETE, Chunk, ERROR, Totals},
    ids::{MessageId, ProjectId, TraceId, UserId},
    journal::Entry,
    time::Timestamp,
};

use super::{store::Answer, words::snippet};
use crate::search::Passage;

/// Why an answer is complete.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    Finished,
    DurationCap,
    Cancelled,
}

/// A message that an answer rests on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Source {
    message_id: MessageId,
    channel: String,
    author: String,
    created_at: Timestamp,
    snippet: String,
    score: f32,
}

/// The data of `complete`.
#[derive(Serialize)]
pub(super) struct Complete<'a> {
    stream_id: &'a str,
    trace_id: &'a TraceId,
    reason: Reason,
    /// Seconds since the question.
    duration: f64,
    #[serde(flatten)]
    totals: Totals,
    sources: &'a [Source],
}

/// The data of `error`.
#[derive(Serialize)]
pub(super) struct Failed<'a> {
    pub(super) stream_id: &'a str,
    pub(super) trace_id: &'a TraceId,
    pub(super) code: &'static str,
    pub(super) message: &'a str,
}

impl From<&Passage> for Source {
    fn from(passage: &Passage) -> Self {
        Self {
            message_id: passage.message_id,
            channel: passage.channel.clone(),
            author: passage.author.clone(),
            created_at: passage.created_at,
            snippet: snippet(&passage.text),
            score: passage.score,
        }
    }
}

impl<'a> Complete<'a> {
    pub(super) fn new(
        answer: &'a Answer,
        reason: Reason,
        totals: Totals,
        sources: &'a [Source],
        now: Timestamp,
    ) -> Self {
        let asked = &answer.question.asked;
        Self {
            stream_id: &asked.stream_id,
            trace_id: &asked.trace_id,
            reason,
            duration: now.since(answer.started_at).as_secs_f64(),
            totals,
            sources,
        }
    }
}

/// An answer as the API shows it.
#[derive(Serialize)]
pub(super) struct Whole<'a> {
    stream_id: &'a str,
    project_id: ProjectId,
    owner: &'a UserId,
    query: &'a str,
    state: &'a str,
    text: String,
    #[serde(flatten)]
    totals: Totals,
    sources: Box<RawValue>,
    error: Option<Box<RawValue>>,
    trace_id: &'a TraceId,
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
}

/// What is read out of the last entry.
#[derive(Deserialize)]
struct End {
    reason: Option<String>,
    sources: Option<Box<RawValue>>,
    /// A message that it rests on was deleted or edited since.
    #[serde(default)]
    redacted: bool,
}

impl<'a> Whole<'a> {
    /// Puts an answer together from its log.
    pub(super) fn json(
        answer: &'a Answer,
        entries: &'a [std::sync::Arc<Entry>],
    ) -> serde_json::Result<String> {
        let asked = &answer.question.asked;
        let (mut text, mut totals) = (String::new(), Totals::default());
        let (mut state, mut sources, mut error) = ("running".to_owned(), None, None);
        for entry in entries {
            match &*entry.kind {
                CHUNK => {
                    let chunk: Chunk = serde_json::from_str(&entry.data)?;
                    text.push_str(&chunk.text);
                    totals = Totals { chunks: chunk.index + 1, tokens: chunk.total_tokens };
                }
                COMPLETE => {
                    let end: End = serde_json::from_str(&entry.data)?;
                    state = if end.redacted {
                        "redacted".to_owned()
                    } else {
                        end.reason.unwrap_or_default()
                    };
                    sources = end.sources;
                }
                ERROR => {
                    "failed".clone_into(&mut state);
                    error = Some(RawValue::from_string(entry.data.to_string())?);
                }
                _ => {}
            }
        }
        let sources = match sources {
            Some(sources) => sources,
            None => RawValue::from_string("[]".into())?,
        };
        serde_json::to_string(&Whole {
            stream_id: &asked.stream_id,
            project_id: asked.project_id,
            owner: &asked.owner,
            query: &answer.question.text,
            state: &state,
            text,
            totals,
            sources,
            error,
            trace_id: &asked.trace_id,
            created_at: answer.started_at,
            ended_at: answer.ended_at,
        })
    }
}
