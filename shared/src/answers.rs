//! The log of an answer: what proc writes there and ingress reads out of it.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ProjectId, TraceId, UserId},
    journal::Entry,
};

/// The type of the first entry, which no client sees: an [`Asked`].
pub const ASKED: &str = "answer.asked";
/// The type of a piece of text: a [`Chunk`].
pub const CHUNK: &str = "content_chunk";
/// The type of the last entry of an answer that ended as it should.
pub const COMPLETE: &str = "complete";
/// The type of the last entry of an answer that did not.
pub const ERROR: &str = "error";

/// Who asked, and how the answer is known to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Who may read the answer.
    pub owner: UserId,
    /// What it is about: who is no member any more may not read it either.
    pub project_id: ProjectId,
    /// The owner's name for it.
    pub stream_id: String,
    /// The trace of the request that asked.
    pub trace_id: TraceId,
    /// How long it may take.
    pub max_ms: u32,
}

/// A piece of the text, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The owner's name for the answer.
    pub stream_id: String,
    /// The trace of the request that asked.
    pub trace_id: TraceId,
    /// Counted from 0.
    pub index: u64,
    /// What follows the chunk before.
    pub text: String,
    /// Tokens of the answer up to the end of this chunk.
    pub total_tokens: u64,
}

/// How much of an answer there is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Chunks.
    #[serde(rename = "total_chunks")]
    pub chunks: u64,
    /// Tokens: words, and single marks between them.
    #[serde(rename = "total_tokens")]
    pub tokens: u64,
}

impl Totals {
    /// Returns how much there is up to this entry, `None` if it says nothing about that.
    #[must_use]
    pub fn up_to(entry: &Entry) -> Option<Self> {
        match &*entry.kind {
            CHUNK => {
                let chunk: Chunk = serde_json::from_str(&entry.data).ok()?;
                Some(Self { chunks: chunk.index + 1, tokens: chunk.total_tokens })
            }
            COMPLETE => serde_json::from_str(&entry.data).ok(),
            _ => None,
        }
    }
}

/// Says whether nothing follows an entry of this type.
#[must_use]
pub fn is_end(kind: &str) -> bool {
    kind == COMPLETE || kind == ERROR
}
