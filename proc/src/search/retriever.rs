//! Passages for a question: the index says in which order, ingress says what they are and who may read them now.

use std::collections::HashSet;

use proto::GetMessagesRequest;
use shared::{
    ids::{MessageId, ProjectId, TraceId, UserId},
    time::Timestamp,
};
use tonic::{Code, Status};

use super::{Hit, Search};
use crate::ingress::{Ingress, principal};

/// Messages asked of ingress besides: some say the same, as bots do, and some were deleted a moment ago.
const SPARE: usize = 20;
/// Passages at most.
const MOST: usize = 150;

/// Why there are no passages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// For the asker there is no such project.
    #[error("the project does not exist")]
    NotAMember,
    /// Ingress does not answer.
    #[error("a part of the service that this needs is not available")]
    Unavailable,
    /// Our fault.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::NotFound | Code::PermissionDenied => Self::NotAMember,
            Code::Internal | Code::InvalidArgument | Code::Unimplemented => {
                Self::Internal(status.into())
            }
            code => {
                tracing::warn!(?code, message = status.message(), "ingress did not read messages");
                Self::Unavailable
            }
        }
    }
}

/// A message that may answer a question, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Passage {
    pub(crate) message_id: MessageId,
    pub(crate) channel: String,
    pub(crate) author: String,
    /// The author's name to show.
    pub(crate) author_name: String,
    pub(crate) created_at: Timestamp,
    pub(crate) text: String,
    /// Comparable with the others' of the same question.
    pub(crate) score: f32,
}

impl From<&Passage> for Hit {
    fn from(passage: &Passage) -> Self {
        Self { message: passage.message_id, score: passage.score }
    }
}

/// Finds passages; a clone asks the same index.
#[derive(Clone, Debug)]
pub(crate) struct Retriever {
    search: Search,
    ingress: Ingress,
}

impl Retriever {
    pub(crate) fn new(search: Search, ingress: Ingress) -> Self {
        Self { search, ingress }
    }

    /// Returns at most `limit` messages that the user may read now, best first; of those that say the same, one.
    pub(crate) async fn passages(
        &self,
        user: &UserId,
        project: ProjectId,
        trace: &TraceId,
        question: &str,
        limit: usize,
    ) -> Result<Vec<Passage>, Error> {
        let limit = limit.min(MOST);
        let hits = self.search.answers(project, question, limit + SPARE).await?;
        let mut passages = self.read(user, project, trace, &hits).await?;
        let mut said = HashSet::new();
        passages.retain(|passage| said.insert(passage.text.clone()));
        passages.truncate(limit);
        Ok(passages)
    }

    /// Returns those of the messages that the user may read now, as they are now.
    pub(crate) async fn read(
        &self,
        user: &UserId,
        project: ProjectId,
        trace: &TraceId,
        hits: &[Hit],
    ) -> Result<Vec<Passage>, Error> {
        let request = GetMessagesRequest {
            principal: Some(principal(user, project, trace)),
            ids: hits.iter().map(|hit| hit.message.to_string()).collect(),
        };
        // Asked also when nothing was found: who may not read the project is to hear that.
        let found = self.ingress.get_messages(request).await?.messages.into_iter();
        let passages = found.filter_map(|message| {
            let message_id = message.id.parse().ok()?;
            let score = hits.iter().find(|hit| hit.message == message_id)?.score;
            Some(Passage {
                message_id,
                channel: message.channel,
                author: message.author,
                author_name: message.author_name,
                created_at: Timestamp::from_ms(message.created_at_ms),
                text: message.text,
                score,
            })
        });
        Ok(passages.collect())
    }
}
