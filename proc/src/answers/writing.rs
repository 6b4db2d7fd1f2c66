//! One answer: from the question through its passages to the last entry of its log.

use std::time::Duration;

use futures_util::StreamExt;
use shared::{
    answers::{Asked, CHUNK, COMPLETE, Chunk, ERROR, Totals},
    journal::{Lease, Topic},
    store::{self, Store},
};
use tokio_util::sync::CancellationToken;

use super::{
    events::{Complete, Failed, Reason, Source},
    figures::Figures,
    store::{Answer, Pen, append, end, entries, may_write, written},
    words::{first_tokens, tokens},
    writer::{Task, WriteError, Writer},
};
use crate::search::{self, Hit, Passage, Retriever};

/// Passages that a writer is given.
const PASSAGES: usize = 8;
/// Pieces of text that are written in one go.
const GROUP: usize = 64;
/// How often an answer is taken over before it is given up: it may be what its writers die of.
const WRITERS: i64 = 4;
/// Pause after a failure to write the end of an answer.
const END_RETRY: Duration = Duration::from_secs(1);
/// Said where nothing was found.
const NOTHING: &str = "Nothing was found about this in what was said here.";

/// What is needed to write.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) lease: Lease,
    pub(super) retriever: Retriever,
    pub(super) writer: Writer,
    pub(super) figures: Figures,
}

/// How the writing ends.
#[derive(Clone)]
enum Ending {
    Finished,
    DurationCap,
    Failed {
        code: &'static str,
        message: String,
    },
    /// Somebody else has ended or taken it.
    NotOurs,
}

/// What has become of an answer so far.
#[derive(Default)]
struct Progress {
    text: String,
    totals: Totals,
    passages: Vec<Passage>,
}

impl From<store::Error> for Ending {
    fn from(error: store::Error) -> Self {
        tracing::warn!(%error, "an answer could not be written down");
        Self::failed("unavailable", "the answer could not be written down")
    }
}

impl From<search::Error> for Ending {
    fn from(error: search::Error) -> Self {
        match error {
            search::Error::NotAMember => Self::failed("not_found", "the project does not exist"),
            search::Error::Unavailable => Self::failed(
                "unavailable",
                "a part of the service that this needs is not available",
            ),
            search::Error::Internal(error) => {
                tracing::error!(?error, "a question could not be looked up");
                Self::failed("internal", "internal error")
            }
        }
    }
}

impl From<WriteError> for Ending {
    fn from(error: WriteError) -> Self {
        Self::Failed { code: error.code(), message: error.to_string() }
    }
}

impl Ending {
    fn failed(code: &'static str, message: &str) -> Self {
        Self::Failed { code, message: message.into() }
    }
}

impl Desk {
    /// Writes an answer to its end, until somebody else has it, or until `stop`, which leaves it as it is.
    pub(super) async fn write(&self, answer: &Answer, pen: Pen, stop: &CancellationToken) {
        let mut progress = Progress::default();
        let over =
            answer.started_at.after(Duration::from_millis(answer.question.asked.max_ms.into()));
        let left = over.since(self.store.now());
        let ending = tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(left) => Ending::DurationCap,
            // While the lease is not held, the answer may be another writer's: nothing is composed.
            composed = self.lease.hold(self.compose(answer, pen, &mut progress)) => {
                composed.err().unwrap_or(Ending::Finished)
            }
        };
        // Again and again if need be: without an end the answer would look as if it were written for ever.
        while let Err(error) = self.end(answer, pen, &ending, &progress).await {
            tracing::warn!(%error, answer.id = %answer.id, "failed to write the end of an answer");
            if stop.run_until_cancelled(tokio::time::sleep(END_RETRY)).await.is_none() {
                return;
            }
        }
    }

    /// Finds passages and writes the text, continuing what is there.
    async fn compose(
        &self,
        answer: &Answer,
        pen: Pen,
        progress: &mut Progress,
    ) -> Result<(), Ending> {
        let id = answer.id;
        if pen.writers > 1 {
            let before = self.store.read(move |reader| entries(reader, id)).await;
            for entry in before? {
                if let Ok(chunk) = serde_json::from_str::<Chunk>(&entry.data) {
                    progress.totals =
                        Totals { chunks: chunk.index + 1, tokens: chunk.total_tokens };
                    progress.text.push_str(&chunk.text);
                }
            }
        }
        if pen.writers > WRITERS {
            return Err(WriteError::Interrupted.into());
        }
        let question = &answer.question;
        let Asked { owner, project_id, trace_id, .. } = &question.asked;
        let retriever = &self.retriever;
        // What has been said since would make it another answer.
        progress.passages = if let Some(hits) = &answer.passages {
            retriever.read(owner, *project_id, trace_id, hits).await?
        } else {
            let text = &question.text;
            retriever.passages(owner, *project_id, trace_id, text, PASSAGES).await?
        };
        if progress.passages.is_empty() {
            let rest = NOTHING.strip_prefix(&*progress.text);
            let rest = rest.ok_or(WriteError::Interrupted)?;
            return self.add(answer, pen, vec![rest.to_owned()], progress).await;
        }
        let passages = progress.passages.clone();
        let before = progress.text.clone();
        let task = Task {
            question: &question.text,
            passages: &passages,
            max_tokens: question.max_tokens,
            #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
            temperature: question.temperature as f32 / 1000.0,
            written: &before,
        };
        // What comes while a group is being written is the next group.
        let mut groups = self.writer.write(task).ready_chunks(GROUP);
        while let Some(group) = groups.next().await {
            let mut pieces = Vec::with_capacity(group.len());
            let mut failed = None;
            for piece in group {
                match piece {
                    Ok(piece) => pieces.push(piece),
                    Err(error) => failed = Some(error),
                }
            }
            self.add(answer, pen, pieces, progress).await?;
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Adds pieces to the log, as many as the answer may still have.
    async fn add(
        &self,
        answer: &Answer,
        pen: Pen,
        pieces: Vec<String>,
        progress: &mut Progress,
    ) -> Result<(), Ending> {
        let asked = &answer.question.asked;
        let most = u64::from(answer.question.max_tokens);
        let mut chunks = Vec::with_capacity(pieces.len());
        let is_first = progress.totals.chunks == 0;
        let mut full = false;
        for piece in pieces {
            let text = first_tokens(&piece, most - progress.totals.tokens.min(most));
            full |= text.len() < piece.len();
            if text.is_empty() {
                break;
            }
            progress.totals.tokens += tokens(text);
            let chunk = Chunk {
                stream_id: asked.stream_id.clone(),
                trace_id: asked.trace_id.clone(),
                index: progress.totals.chunks,
                text: text.to_owned(),
                total_tokens: progress.totals.tokens,
            };
            progress.totals.chunks += 1;
            progress.text.push_str(text);
            chunks.push((CHUNK, serde_json::to_string(&chunk).unwrap_or_default()));
        }
        if !chunks.is_empty() {
            let count = chunks.len();
            let log = Topic::answer(answer.id);
            let hits: Vec<Hit> = progress.passages.iter().map(Into::into).collect();
            let passages = is_first.then(|| serde_json::to_string(&hits).unwrap_or_default());
            let added = self
                .store
                .write_in(log, move |tx| append(tx, pen, &chunks, passages.as_deref()))
                .await;
            if !added? {
                return Err(Ending::NotOurs);
            }
            self.figures.wrote(count, is_first.then(|| self.store.now().since(answer.started_at)));
        }
        if full { Err(Ending::Finished) } else { Ok(()) }
    }

    async fn end(
        &self,
        answer: &Answer,
        pen: Pen,
        ending: &Ending,
        progress: &Progress,
    ) -> Result<(), store::Error> {
        let sources = cited(&progress.text, &progress.passages);
        let answer = answer.clone();
        let reason = match ending {
            Ending::Finished => Some(Reason::Finished),
            Ending::DurationCap => Some(Reason::DurationCap),
            Ending::Failed { .. } => None,
            Ending::NotOurs => return Ok(()),
        };
        let ending = ending.clone();
        let ended = self.store.write_in(Topic::answer(answer.id), move |tx| {
            if !may_write(tx, pen)? {
                return Ok(None);
            }
            let now = tx.now();
            // As the log has it: a group that was being written when time ran out is there, or is not.
            let totals = written(tx, answer.id)?;
            let asked = &answer.question.asked;
            let (kind, data) = match (&ending, reason) {
                (Ending::Failed { code, message }, _) => {
                    let (stream_id, trace_id) = (&*asked.stream_id, &asked.trace_id);
                    (ERROR, serde_json::to_string(&Failed { stream_id, trace_id, code, message }))
                }
                (_, reason) => {
                    let reason = reason.unwrap_or(Reason::Finished);
                    let complete = Complete::new(&answer, reason, totals, &sources, now);
                    (COMPLETE, serde_json::to_string(&complete))
                }
            };
            let data = data.map_err(|_| store::Error::Gone)?;
            end(tx, answer.id, kind, &data, now)?;
            Ok::<_, store::Error>(Some(totals))
        });
        if let Some(totals) = ended.await? {
            self.figures.ended(reason, totals);
        }
        Ok(())
    }
}

/// Returns the passages that a text names by their numbers, in their order; all of them if it names none.
fn cited(text: &str, passages: &[Passage]) -> Vec<Source> {
    let named = |number: usize| text.contains(&format!("[{number}]"));
    let is_named = passages.iter().enumerate().filter(|(index, _)| named(index + 1));
    let named: Vec<Source> = is_named.map(|(_, passage)| passage.into()).collect();
    if named.is_empty() { passages.iter().map(Into::into).collect() } else { named }
}
