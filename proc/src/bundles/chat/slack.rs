//! Reads a Slack workspace export: first a survey of the whole archive, then its records in order.

mod entries;
mod error;
mod index;
mod own;
mod record;
mod split;
mod text;
mod ts;

#[cfg(test)]
mod tests;

use std::{fs::File, io, ops::ControlFlow};

use serde::{Deserialize, Serialize};

pub use error::Error;
pub use own::{Answered, Own, OwnChannel};
pub use record::{KEPT_SUBTYPES, TOMBSTONE};
pub use ts::Ts;

pub use entries::RATIO_JUDGED_FROM_BYTES;

use entries::Entries;
use index::Index;
use split::{Item, Splitter};

/// Bounds what an archive may cost before it is refused.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most entries the ZIP directory may list, folders included.
    pub max_entries: usize,
    /// Most bytes one entry may unpack to.
    pub max_entry_bytes: u64,
    /// Most bytes all entries together may unpack to.
    pub max_total_bytes: u64,
    /// Most unpacked bytes for one packed byte, judged for entries that unpack to more than 1 MiB.
    pub max_ratio: u64,
    /// Most bytes of JSON one record may have; a longer one is a failed record.
    pub max_record_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_entries: 200_000,
            max_entry_bytes: 512 << 20,
            max_total_bytes: 8 << 30,
            max_ratio: 200,
            max_record_bytes: 4 << 20,
        }
    }
}

/// Tells how far an import has come: so many records of the day file with this number are done.
#[derive(
    Serialize, Deserialize, Copy, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug,
)]
pub struct Position {
    /// Number of the day file in reading order, from 0.
    pub file: u32,
    /// Number of records of that file which are done.
    pub record: u64,
}

/// Tells what an export holds, as counted by [`Archive::survey`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// The members listed in `users.json`, without repeated ids.
    pub people: Vec<Person>,
    /// The channels of `channels.json`, then those of `groups.json`, without repeated ids.
    pub channels: Vec<Channel>,
    /// Number of records [`Archive::read`] gives from the start, whatever their outcome.
    pub records: u64,
    /// Number of files that are neither an index nor a day of a listed channel.
    pub ignored_files: u64,
}

/// Describes one member of the workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// Slack's id, which messages name as their author.
    pub id: String,
    /// The display name, else the real name, else the user name, else the id; at most 200 chars.
    pub name: String,
    /// Whether Slack marks the member as a bot.
    pub is_bot: bool,
}

/// Describes one channel or private group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Channel {
    /// Slack's id.
    pub id: String,
    /// The name, which is also the name of its folder in the export; at most 200 chars.
    pub name: String,
    /// The name it had in Parley, if Parley wrote the export and the name was none for a folder.
    pub own_name: Option<String>,
    /// The topic, else the purpose, as plain text; `None` when both are empty.
    pub topic: Option<String>,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: Option<i64>,
    /// Whether it is archived.
    pub archived: bool,
}

/// Carries one element of a day file and the place where reading goes on after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where to go on once this record is dealt with.
    pub next: Position,
    /// What the record turned out to be.
    pub outcome: Outcome,
}

/// Tells what became of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A message to keep.
    Message(Message),
    /// A sound record that is no message to keep; the kind is 1 to 64 of `[a-z0-9_]`.
    Skipped(String),
    /// A broken record; the short reason holds nothing of its content.
    Failed(String),
}

/// Holds one message, its text converted to plain text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Name of the channel.
    pub channel: String,
    /// When it was sent; unique within a channel in Slack.
    pub ts: Ts,
    /// Id of the user or bot, or a bot's bare name where Slack recorded no id.
    pub author: String,
    /// The author's name, only if the record itself carries one.
    pub author_name: Option<String>,
    /// Whether a bot or app sent it.
    pub is_bot: bool,
    /// The plain text: not blank unless the message was deleted, without NUL, at most 64 KiB.
    pub text: String,
    /// Slack's subtype of a kept message, such as `me_message`.
    pub subtype: Option<String>,
    /// The parent's time, when the message is a reply in a thread.
    pub thread: Option<Ts>,
    /// When it was last edited.
    pub edited: Option<Ts>,
    /// The reactions that name at least one user.
    pub reactions: Vec<Reaction>,
    /// What Slack's fields cannot say, if Parley wrote the export.
    pub own: Option<Box<Own>>,
}

/// Holds one emoji and those who reacted with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reaction {
    /// The emoji's Slack name, without colons.
    pub name: String,
    /// Ids of the users.
    pub users: Vec<String>,
}

/// Gives access to an export that passed the checks of its ZIP directory.
#[derive(Debug)]
pub struct Archive {
    entries: Entries,
    max_record_bytes: usize,
    index: Option<Index>,
}

impl Archive {
    /// Opens an export and checks its ZIP directory; nothing is unpacked yet.
    ///
    /// Fails when the file is no ZIP or an entry is one that [`Error`] lists as refused.
    #[expect(clippy::needless_pass_by_value, reason = "limits are set once, when opening")]
    pub fn open(file: File, limits: Limits) -> Result<Self, Error> {
        let entries = Entries::open(file, &limits)?;
        Ok(Self { entries, max_record_bytes: limits.max_record_bytes, index: None })
    }

    /// Unpacks every relevant entry once, reads the indexes and counts the records.
    ///
    /// Fails when an index is missing or bad, or an entry does not unpack to what the directory
    /// says. After a survey that succeeds, [`Archive::read`] fails only if the disk does, so an
    /// import that surveys first is never left half done by a bad archive.
    pub fn survey(&mut self) -> Result<Survey, Error> {
        let Self { entries, max_record_bytes, index } = self;
        let index = loaded(index, entries)?;
        let mut records = 0;
        for day in &index.days {
            let mut elements = Splitter::new(entries.reader(day.entry)?, *max_record_bytes);
            while elements.next()?.is_some() {
                records += 1;
            }
            // The splitter stops early in a broken file, but the checksum is known only at the end.
            io::copy(&mut elements.into_source(), &mut io::sink())?;
        }
        Ok(Survey {
            people: index.people.clone(),
            channels: index.channels.clone(),
            records,
            ignored_files: index.ignored_files,
        })
    }

    /// Reads the records from `from` on: by channel as listed, then by day, then as in the file.
    ///
    /// Stops early when `each` breaks. Fails like [`Archive::survey`], but finds a damaged day
    /// file only when it comes to it.
    pub fn read(
        &mut self,
        from: Position,
        mut each: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let Self { entries, max_record_bytes, index } = self;
        let index = loaded(index, entries)?;
        for (file, day) in (0_u32..).zip(&index.days).skip_while(|(file, _)| *file < from.file) {
            let mut elements = Splitter::new(entries.reader(day.entry)?, *max_record_bytes);
            let mut record = if file == from.file { from.record } else { 0 };
            for _ in 0..record {
                if elements.next()?.is_none() {
                    break;
                }
            }
            while let Some(item) = elements.next()? {
                record += 1;
                let outcome = match item {
                    Item::Element(json) => record::outcome(json, &day.channel, &index.names),
                    Item::TooLong => {
                        Outcome::Failed(format!("record is longer than {max_record_bytes} bytes"))
                    }
                    Item::Broken(reason) => Outcome::Failed(reason.to_owned()),
                };
                if each(Record { next: Position { file, record }, outcome }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn loaded<'a>(slot: &'a mut Option<Index>, entries: &mut Entries) -> Result<&'a Index, Error> {
    let index = match slot.take() {
        Some(index) => index,
        None => Index::load(entries)?,
    };
    Ok(slot.insert(index))
}
