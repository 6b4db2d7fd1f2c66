//! `parley.v1.Answers`: what ingress asks about answers.

use proto::{
    AnswerRequest, AnswerStarted, Principal, StartAnswerRequest, StartAnswerResponse,
    TooManyAnswers,
    answers_server::{self, AnswersServer},
    start_answer_response::Outcome as Told,
};
use shared::{
    answers::Asked,
    grpc::MAX_MESSAGE_BYTES,
    ids::{TraceId, UserId},
    store::Error,
};
use tonic::{Request, Response, Status};

use super::{
    Answers, Busy, Shown,
    store::{Outcome, Question},
};

/// Returns the service.
pub(crate) fn service(answers: Answers) -> AnswersServer<Service> {
    AnswersServer::new(Service { answers })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

pub(crate) struct Service {
    answers: Answers,
}

#[tonic::async_trait]
impl answers_server::Answers for Service {
    async fn start_answer(
        &self,
        request: Request<StartAnswerRequest>,
    ) -> Result<Response<StartAnswerResponse>, Status> {
        let request = request.into_inner();
        let only_check = request.only_check;
        let question = question(request)?;
        let outcome = if only_check {
            self.answers.check(question).await.map_err(Busy::from)
        } else {
            self.answers.start(question).await
        };
        let outcome = outcome.map_err(|busy| match busy {
            Busy::Here => Status::unavailable(busy.to_string()),
            Busy::Store(error) => internal(&error),
        })?;
        let started = |id: String, is_new| Told::Started(AnswerStarted { id, is_new });
        let outcome = match outcome {
            Outcome::Allowed => started(String::new(), true),
            Outcome::Started(id) => started(id.to_string(), true),
            Outcome::Known(id) => started(id.to_string(), false),
            Outcome::OtherQuestion => Told::OtherQuestion(true),
            Outcome::TooMany { running, limit } => Told::TooMany(TooManyAnswers { running, limit }),
            Outcome::TooOften { retry_after } => {
                Told::RetryAfterMs(u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX))
            }
        };
        Ok(Response::new(StartAnswerResponse { outcome: Some(outcome) }))
    }

    async fn cancel_answer(
        &self,
        request: Request<AnswerRequest>,
    ) -> Result<Response<proto::Answer>, Status> {
        let (owner, stream_id) = named(request.into_inner())?;
        found(self.answers.cancel(&owner, &stream_id).await)
    }

    async fn get_answer(
        &self,
        request: Request<AnswerRequest>,
    ) -> Result<Response<proto::Answer>, Status> {
        let (owner, stream_id) = named(request.into_inner())?;
        found(self.answers.whole(&owner, &stream_id).await)
    }
}

fn question(request: StartAnswerRequest) -> Result<Question, Status> {
    let invalid = |what: &str| Status::invalid_argument(format!("{what} is not valid"));
    let Principal { user, project_id, trace_id } =
        request.principal.ok_or_else(|| invalid("principal"))?;
    let asked = Asked {
        owner: user.parse().map_err(|_| invalid("user"))?,
        project_id: project_id.parse().map_err(|_| invalid("project_id"))?,
        stream_id: request.stream_id,
        trace_id: trace_id.parse().unwrap_or_else(|_| TraceId::mint()),
        max_ms: request.max_ms,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped, and what is not a number is 0"
    )]
    let temperature = (request.temperature.clamp(0.0, 2.0) * 1000.0).round() as u32;
    let max_tokens = request.max_tokens;
    Ok(Question { asked, text: request.question, max_tokens, temperature })
}

fn named(request: AnswerRequest) -> Result<(UserId, String), Status> {
    let owner = request.owner.parse();
    let owner = owner.map_err(|_| Status::invalid_argument("owner is not valid"))?;
    Ok((owner, request.stream_id))
}

fn found(answer: Result<Option<Shown>, Error>) -> Result<Response<proto::Answer>, Status> {
    let answer = answer.map_err(|error| internal(&error))?;
    let Shown { json, project } =
        answer.ok_or_else(|| Status::not_found("there is no such answer"))?;
    Ok(Response::new(proto::Answer { json, project_id: project.to_string() }))
}

fn internal(error: &Error) -> Status {
    if error.is_temporary() {
        return Status::unavailable("the database is not available");
    }
    tracing::error!(%error, "a call about an answer failed");
    Status::internal("internal error")
}
