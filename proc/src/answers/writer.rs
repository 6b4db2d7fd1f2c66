//! Who turns passages into text.

use std::pin::Pin;

use anyhow::Context;
use futures_util::Stream;

use super::{extractive::Extractive, openai::OpenAi};
use crate::{
    config::{AnswersConfig, WriterKind},
    search::Passage,
};

/// What a writer is given.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) question: &'a str,
    /// The best first; `[1]` in the text means the first one. There is at least one.
    pub(super) passages: &'a [Passage],
    pub(super) max_tokens: u32,
    pub(super) temperature: f32,
    /// What another process has written before it was lost; what comes now follows it.
    pub(super) written: &'a str,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Another process began it, and this one cannot go on where that was.
    #[error("the answer was interrupted and could not be continued")]
    Interrupted,
    /// The model did not begin to answer.
    #[error("the language model is not available")]
    ModelUnavailable,
    /// The model broke off.
    #[error("the language model broke off")]
    ModelBrokeOff,
}

impl WriteError {
    /// Returns the code that clients see.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::ModelUnavailable => "model_unavailable",
            Self::ModelBrokeOff => "model_broke_off",
        }
    }
}

/// Pieces of text as they come.
pub(super) type Pieces<'a> = Pin<Box<dyn Stream<Item = Result<String, WriteError>> + Send + 'a>>;

/// The writer that is configured.
#[derive(Debug)]
pub(crate) enum Writer {
    Extractive(Extractive),
    OpenAi(OpenAi),
}

impl Writer {
    /// Fails if it cannot be what the settings say.
    pub(crate) fn new(config: &AnswersConfig) -> anyhow::Result<Self> {
        Ok(match config.answer_writer {
            WriterKind::Extractive => Self::Extractive(Extractive::new(config.chunk_delay)),
            WriterKind::Openai => {
                Self::OpenAi(OpenAi::new(config).context("ANSWER_WRITER=openai")?)
            }
        })
    }

    /// Says whether another process can go on where this one is.
    pub(super) fn can_hand_over(&self) -> bool {
        matches!(self, Self::Extractive(_))
    }

    pub(super) fn write<'a>(&'a self, task: Task<'a>) -> Pieces<'a> {
        match self {
            Self::Extractive(writer) => writer.write(&task),
            Self::OpenAi(writer) => Box::pin(writer.write(task)),
        }
    }
}
