//! Answers as they are: whole, and ended early. How they stream is in `streams/search`.

use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use proto::{
    AnswerRequest, AnswerStarted, Principal, StartAnswerRequest, TooManyAnswers,
    answers_client::AnswersClient, start_answer_response::Outcome,
};
use shared::{
    answers::Asked,
    grpc::{Calls, MAX_MESSAGE_BYTES, Peer},
    http::{Path, current_trace},
    ids::{AnswerId, TraceId, UserId},
};
use tonic::{Code, Status};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{Caller, Own, Viewer},
    error::ApiError,
    state::AppState,
    streams::slots::Kind,
};

/// How long proc may take to answer: its absence is told within two seconds.
const DEADLINE: Duration = Duration::from_millis(1_800);

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(cancel))
}

#[utoipa::path(get, path = "/api/chat/answers/{stream_id}", responses((status = 200, content_type = "application/json", body = Object)))]
async fn show(
    State(answers): State<Answers>,
    own: Own,
    Path(stream_id): Path<String>,
) -> Result<Response, ApiError> {
    let answer = answers.get(&own.user.id, &stream_id, &trace()).await?;
    readable(&own, &answer).await?;
    Ok(json(answer))
}

#[utoipa::path(post, path = "/api/chat/answers/{stream_id}/cancel", responses((status = 200, content_type = "application/json", body = Object)))]
async fn cancel(
    State(answers): State<Answers>,
    own: Own,
    Path(stream_id): Path<String>,
) -> Result<Response, ApiError> {
    let answer = answers.cancel(&own.user.id, &stream_id, &trace()).await?;
    readable(&own, &answer).await?;
    Ok(json(answer))
}

/// Lets pass who may still read the project that the answer is about.
async fn readable(own: &Own, answer: &proto::Answer) -> Result<(), ApiError> {
    let project = answer.project_id.parse().map_err(anyhow::Error::from)?;
    let caller = Caller::new(project, &own.user);
    own.read(move |reader| match caller.granted::<Viewer>(reader) {
        Err(ApiError::NotFound(_)) => Err(ApiError::NotFound("the answer")),
        granted => granted.map(drop),
    })
    .await
}

fn json(answer: proto::Answer) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], answer.json).into_response()
}

fn trace() -> TraceId {
    current_trace().unwrap_or_else(TraceId::mint)
}

/// A question to be answered.
pub(crate) struct NewQuestion {
    pub(crate) asked: Asked,
    pub(crate) text: String,
    pub(crate) max_tokens: u32,
    pub(crate) temperature: f32,
    /// Only whether it would be is wanted.
    pub(crate) is_check: bool,
}

/// An answer that is being written, or was.
pub(crate) struct Started {
    pub(crate) id: AnswerId,
    pub(crate) is_new: bool,
}

/// Asks proc about answers.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    calls: Calls,
}

impl Answers {
    pub(crate) fn new(proc: &Peer) -> Self {
        Self { calls: proc.calls(DEADLINE).repeatable() }
    }

    /// Begins an answer or finds the one of the same name; `None` if that was only checked.
    pub(crate) async fn start(&self, question: NewQuestion) -> Result<Option<Started>, ApiError> {
        let NewQuestion { asked, text, max_tokens, temperature, is_check } = question;
        let request = StartAnswerRequest {
            principal: Some(Principal {
                user: asked.owner.to_string(),
                project_id: asked.project_id.to_string(),
                trace_id: asked.trace_id.to_string(),
            }),
            stream_id: asked.stream_id,
            question: text,
            max_tokens,
            temperature,
            max_ms: asked.max_ms,
            only_check: is_check,
        };
        let answer =
            self.client().start_answer(request).await.map_err(|status| refused(&status))?;
        match answer.into_inner().outcome {
            Some(Outcome::Started(_)) if is_check => Ok(None),
            Some(Outcome::Started(AnswerStarted { id, is_new })) => {
                let id = id.parse().map_err(anyhow::Error::from)?;
                Ok(Some(Started { id, is_new }))
            }
            Some(Outcome::TooMany(TooManyAnswers { running, limit })) => {
                let (current, limit) = (running.into(), limit.into());
                Err(ApiError::TooManyConnections { scope: Kind::Answers, current, limit })
            }
            Some(Outcome::RetryAfterMs(ms)) => {
                let retry_after = Duration::from_millis(ms.into());
                Err(ApiError::TooManyQuestions { retry_after })
            }
            Some(Outcome::OtherQuestion(_)) => Err(ApiError::IdempotencyConflict),
            None => Err(ApiError::Internal(anyhow::anyhow!("proc said nothing about a question"))),
        }
    }

    /// Ends the owner's answer of this name, if it is still being written, and returns it.
    pub(crate) async fn cancel(
        &self,
        owner: &UserId,
        stream_id: &str,
        trace: &TraceId,
    ) -> Result<proto::Answer, ApiError> {
        let answer = self.client().cancel_answer(request(owner, stream_id, trace)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
    }

    /// Returns the owner's answer of this name.
    async fn get(
        &self,
        owner: &UserId,
        stream_id: &str,
        trace: &TraceId,
    ) -> Result<proto::Answer, ApiError> {
        let answer = self.client().get_answer(request(owner, stream_id, trace)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
    }

    fn client(&self) -> AnswersClient<Calls> {
        AnswersClient::new(self.calls.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

fn request(owner: &UserId, stream_id: &str, trace: &TraceId) -> AnswerRequest {
    AnswerRequest {
        owner: owner.to_string(),
        stream_id: stream_id.to_owned(),
        trace_id: trace.to_string(),
    }
}

fn refused(status: &Status) -> ApiError {
    match status.code() {
        Code::NotFound => ApiError::NotFound("the answer"),
        Code::Unauthenticated => {
            tracing::error!("proc does not know us: SERVICE_TOKEN or the clock is not its");
            ApiError::Unavailable
        }
        code => {
            tracing::warn!(?code, message = status.message(), "proc did not say about an answer");
            ApiError::Unavailable
        }
    }
}
