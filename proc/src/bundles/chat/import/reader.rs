//! Reads the archive on a thread of its own and hands over what is to be sent, a batch at a time.

use std::{collections::BTreeMap, fs::File, ops::ControlFlow};

use tokio::sync::mpsc;

use crate::bundles::chat::slack::{
    Archive, Deletion, Error, Limits, Message, Outcome, Position, Record, Survey,
};

/// Messages in a batch at most.
const BATCH: usize = 500;
/// Records looked at for a batch at most, so that a long run of skipped ones is progress too.
const BATCH_RECORDS: u64 = 5_000;
/// A batch with this much in it takes no more: far below what gRPC lets pass.
const BATCH_BYTES: usize = 1 << 20;
/// Batches read ahead of what is sent.
const AHEAD: usize = 2;
/// Broken records that a batch names at most.
const REASONS: usize = 20;
/// Bytes of what a batch tells of one message of a time that has several.
const SAME_TIME_BYTES: usize = 96;
/// Kinds of skipped records told apart in a batch; a sound export has about thirty.
const KINDS: usize = 64;

/// What the archive holds, in the order it is found.
pub(super) enum Found {
    Survey(Survey),
    Batch(Batch),
}

/// The next records of the archive.
#[derive(Default)]
pub(super) struct Batch {
    /// Where reading goes on after these.
    pub(super) next: Position,
    pub(super) records: u64,
    /// The messages, each with the position behind its record.
    pub(super) messages: Vec<(Position, Message)>,
    /// Messages that were deleted in Slack, each with the position behind its record.
    pub(super) deletions: Vec<(Position, Deletion)>,
    pub(super) skipped: BTreeMap<String, u64>,
    pub(super) failed: u64,
    /// The first of the broken ones, and what is wrong with each.
    pub(super) broken: Vec<(Position, String)>,
    bytes: usize,
}

/// Starts reading at `from`. The channel ends with an error or after the last batch; dropping it stops the thread.
pub(super) fn start(
    file: File,
    from: Position,
) -> std::io::Result<mpsc::Receiver<Result<Found, Error>>> {
    let (out, found) = mpsc::channel(AHEAD);
    // A thread and not the runtime's blocking pool, whose threads the process would wait for when it ends.
    std::thread::Builder::new().name("slack-reader".into()).spawn(move || {
        if let Err(error) = read(file, from, &out) {
            // Nobody listens any more when the job was stopped.
            let _ = out.blocking_send(Err(error));
        }
    })?;
    Ok(found)
}

fn read(file: File, from: Position, out: &mpsc::Sender<Result<Found, Error>>) -> Result<(), Error> {
    let mut archive = Archive::open(file, Limits::default())?;
    let survey = archive.survey()?;
    if out.blocking_send(Ok(Found::Survey(survey))).is_err() {
        return Ok(());
    }
    let mut batch = Batch::default();
    archive.read(from, |record| {
        batch.add(record);
        if !batch.is_full() {
            return ControlFlow::Continue(());
        }
        match out.blocking_send(Ok(Found::Batch(std::mem::take(&mut batch)))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    if batch.records > 0 {
        let _ = out.blocking_send(Ok(Found::Batch(batch)));
    }
    Ok(())
}

impl Batch {
    fn add(&mut self, Record { next, outcome }: Record) {
        self.next = next;
        self.records += 1;
        match outcome {
            Outcome::Message(message) => {
                let users = message.reactions.iter().flat_map(|reaction| &reaction.users);
                self.bytes += message.text.len() + users.map(|user| user.len() + 16).sum::<usize>();
                let same_time = [&message.same_time, &message.thread_same_time].into_iter();
                let others: usize = same_time.flatten().map(|group| group.len()).sum();
                self.bytes += others * SAME_TIME_BYTES;
                self.messages.push((next, message));
            }
            Outcome::Deleted(deletion) => self.deletions.push((next, deletion)),
            Outcome::Skipped(kind) => {
                let room = self.skipped.len() < KINDS || self.skipped.contains_key(&kind);
                *self.skipped.entry(if room { kind } else { "other".into() }).or_default() += 1;
            }
            Outcome::Failed(reason) => {
                self.failed += 1;
                if self.broken.len() < REASONS {
                    self.broken.push((next, reason));
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.messages.len() + self.deletions.len() >= BATCH
            || self.records >= BATCH_RECORDS
            || self.bytes >= BATCH_BYTES
    }
}
