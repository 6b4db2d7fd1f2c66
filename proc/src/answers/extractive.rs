//! The writer that needs no model: it quotes the best passages, with who said it and when.

use std::{fmt::Write, time::Duration};

use futures_util::{StreamExt, stream};

use super::{
    words::{first_tokens, pieces, tokens},
    writer::{Pieces, Task, WriteError},
};
use crate::search::Passage;

/// Passages quoted at most.
const MOST: usize = 5;
/// Tokens quoted of one passage at most: a long one must not push the others out.
const OF_ONE: u64 = 160;
/// Words in a chunk that is to be read as it comes, and in one that comes with all others.
const PACED_WORDS: usize = 4;
const WORDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Extractive {
    /// How long each chunk but the first is held back.
    delay: Duration,
}

impl Extractive {
    pub(super) fn new(delay: Duration) -> Self {
        Self { delay }
    }

    pub(super) fn write<'a>(&'a self, task: &Task<'a>) -> Pieces<'a> {
        let text = compose(task.passages, task.max_tokens.into());
        let Some(rest) = text.strip_prefix(task.written) else {
            // Something was said or deleted meanwhile, and other passages are the best ones now.
            return Box::pin(stream::iter([Err(WriteError::Interrupted)]));
        };
        let words = if self.delay.is_zero() { WORDS } else { PACED_WORDS };
        let pieces: Vec<String> = pieces(rest, words).into_iter().map(Into::into).collect();
        if self.delay.is_zero() {
            return Box::pin(stream::iter(pieces).map(Ok));
        }
        let wait_before = !task.written.is_empty();
        Box::pin(stream::iter(pieces).enumerate().then(move |(index, piece)| async move {
            if index > 0 || wait_before {
                tokio::time::sleep(self.delay).await;
            }
            Ok(piece)
        }))
    }
}

/// Quotes as many of the best passages as there is room for, the first one in any case.
fn compose(passages: &[Passage], max_tokens: u64) -> String {
    let mut text = String::from("This was said about it:\n");
    for (number, passage) in (1..).zip(passages.iter().take(MOST)) {
        let quoted = passage.text.trim();
        let first = first_tokens(quoted, OF_ONE);
        let more = if first.len() < quoted.len() { " …" } else { "" };
        let Passage { author_name, channel, created_at, .. } = passage;
        let mut quote = String::new();
        let _ = write!(
            quote,
            "\n[{number}] {author_name} in #{channel}, {}: “{}{more}”\n",
            when(*created_at),
            first.trim_end()
        );
        if number > 1 && tokens(&text) + tokens(&quote) > max_tokens {
            break;
        }
        text.push_str(&quote);
    }
    text
}

/// Returns the minute, which is as exact as anybody wants to read it.
fn when(at: shared::time::Timestamp) -> String {
    let at = at.to_string();
    match (at.get(..10), at.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => at,
    }
}
