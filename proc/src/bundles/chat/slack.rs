//! Reads a Slack workspace export: first a survey of the whole archive, then its records in order.

mod content;
mod entries;
mod error;
mod foreign;
mod index;
mod lenient;
mod own;
mod record;
mod split;
mod text;
mod ts;
mod versions;

#[cfg(test)]
mod tests;

use std::{cmp::Ordering, fs::File, io::Seek, ops::ControlFlow, sync::Arc};

use serde::{Deserialize, Serialize};

pub use error::Error;
pub use own::{Answered, Own, OwnChannel};
pub use record::{KEPT_SUBTYPES, TOMBSTONE};
pub use ts::Ts;

pub use entries::RATIO_JUDGED_FROM_BYTES;

use entries::Entries;
use index::Index;
use split::{Item, Splitter};
use versions::Versions;

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
    /// The members listed in `users.json` or `org_users.json`, without repeated ids.
    pub people: Vec<Person>,
    /// Users who are in no list and whose names messages show, such as guests of shared channels.
    pub guests: Vec<Person>,
    /// The public channels, without repeated ids.
    pub channels: Vec<Channel>,
    /// The private conversations, without repeated ids. None of their messages is read.
    pub private: Vec<Conversation>,
    /// Number of records [`Archive::read`] gives from the start, whatever their outcome.
    pub records: u64,
    /// Number of files that are neither an index nor of a listed conversation.
    pub ignored_files: u64,
    /// The first of those files.
    pub left_out: Vec<LeftOut>,
    /// The first of the entries of lists that cannot be used.
    pub bad_entries: Vec<BadEntry>,
    /// Numbers of all entries of lists that cannot be used.
    pub bad_counts: Counts,
    /// Names of the files that [`Archive::read`] reads, by their numbers.
    pub files: Vec<String>,
}

/// Names a file that is not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// The path in the archive, shortened.
    pub name: String,
    /// Why it is not read.
    pub reason: &'static str,
}

/// Names an entry of a list that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadEntry {
    /// The path of the list in the archive, shortened.
    pub file: String,
    /// Number of the entry, from 1.
    pub entry: usize,
    /// The entry's name, if it has one.
    pub name: Option<String>,
    /// Why it cannot be used.
    pub reason: &'static str,
}

/// Counts entries of lists by what they are of.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Entries of lists of members.
    pub people: usize,
    /// Entries of lists of channels.
    pub channels: usize,
    /// Entries of lists of private conversations.
    pub conversations: usize,
}

/// Tells who sees a private conversation.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Privacy {
    /// A channel that only its members see.
    PrivateChannel,
    /// Messages between two users.
    DirectMessages,
    /// Messages between several users.
    GroupDirectMessages,
}

/// Describes a private conversation, of which only this is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// Visibility of the conversation.
    pub privacy: Privacy,
    /// Slack's id.
    pub id: String,
    /// The name, else the id; at most 200 chars.
    pub name: String,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: Option<i64>,
    /// Number of files of messages.
    pub files: u64,
    /// Number of their records.
    pub records: u64,
    normalized: Option<String>,
}

impl Conversation {
    fn new(privacy: Privacy, channel: Channel) -> Self {
        let Channel { id, name, normalized, created_ms, .. } = channel;
        Self { privacy, id, name, created_ms, files: 0, records: 0, normalized }
    }
}

/// Describes one member of the workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// Slack's id, which messages name as their author.
    pub id: String,
    /// The display name, else the real name, else the user name, else the id; at most 200 chars.
    pub name: Arc<str>,
    /// False if the name is the id.
    pub is_named: bool,
    /// When the member's entry was last changed, in seconds since the epoch.
    pub updated: Option<i64>,
    /// Whether Slack marks the member as a bot.
    pub is_bot: bool,
}

/// Describes one public channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Channel {
    /// Slack's id.
    pub id: String,
    /// The name, which is also the name of its folder in the export; at most 200 chars.
    pub name: String,
    /// The name as Slack normalised it, which may be the folder's.
    pub normalized: Option<String>,
    /// The name it had in Parley, if Parley wrote the export and the name was none for a folder.
    pub own_name: Option<String>,
    /// True if Parley wrote the export.
    pub is_own: bool,
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
#[expect(clippy::large_enum_variant, reason = "nearly every record is a message")]
pub enum Outcome {
    /// A message to keep.
    Message(Message),
    /// A record that says that a message was deleted.
    Deleted(Deletion),
    /// A sound record that is no message to keep; the kind is 1 to 64 of `[a-z0-9_]`.
    Skipped(String),
    /// A broken record; the short reason holds nothing of its content.
    Failed(String),
}

/// Names a message that was deleted in Slack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// Slack's id of the channel.
    pub channel: String,
    /// When the message was sent.
    pub ts: Ts,
    /// Slack's id of the author, where the record tells it.
    pub author: Option<String>,
    /// Kind under which the record counts if the message is not here.
    pub kind: &'static str,
}

/// Tells messages of one time apart, for batches that have not all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SameTime {
    /// Number of the message among those of its time.
    pub occurrence: u32,
    /// Slack's id of the author.
    pub author: String,
    /// The first bytes of the SHA-256 of the text, or of its first part if it is long.
    pub text: [u8; 16],
    /// True if the message has a time of its last edit.
    pub is_edited: bool,
    /// True if the message was deleted.
    pub is_deleted: bool,
}

/// Holds one message, its text converted to plain text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Slack's id of the channel.
    pub channel: String,
    /// When it was sent; unique within a channel in Slack.
    pub ts: Ts,
    /// Number of the message among those of this time in its channel: an archive that was put together may have several.
    pub occurrence: u32,
    /// All messages of this time in the channel, if there are several.
    pub same_time: Option<Arc<[SameTime]>>,
    /// All messages of the parent's time, if there are several.
    pub thread_same_time: Option<Arc<[SameTime]>>,
    /// Id of the user or bot, or a bot's bare name where Slack recorded no id.
    pub author: String,
    /// The author's name, only if the record itself carries one.
    pub author_name: Option<String>,
    /// The name that an app gave itself for this message alone.
    pub own_name: Option<String>,
    /// Whether a bot or app sent it.
    pub is_bot: bool,
    /// True if Slack says that the message was edited.
    pub is_edited: bool,
    /// The plain text with that of blocks and attachments: not blank unless the message was deleted, without NUL, at most 1 MiB.
    pub text: String,
    /// Slack's subtype of a kept message, such as `me_message`.
    pub subtype: Option<String>,
    /// The parent's time, when the message is a reply in a thread.
    pub thread: Option<Ts>,
    /// Slack's id of the parent's author.
    pub thread_author: Option<String>,
    /// When it was last edited.
    pub edited: Option<Ts>,
    /// The reactions that name at least one user.
    pub reactions: Vec<Reaction>,
    /// Number of reactions that name none or are otherwise not sound.
    pub reactions_left_out: u64,
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
    /// Number of users, of whom Slack may name a part; never less than are named.
    pub count: u64,
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
    pub fn open(mut file: File, limits: Limits) -> Result<Self, Error> {
        let head = file.try_clone().map_err(Error::Io)?;
        let entries = match Entries::open(head, &limits) {
            Err(Error::NotAZip) => {
                file.rewind().map_err(Error::Io)?;
                return Err(foreign::of_file(file).unwrap_or(Error::NotAZip));
            }
            entries => entries?,
        };
        Ok(Self { entries, max_record_bytes: limits.max_record_bytes, index: None })
    }

    /// Unpacks every relevant entry once, reads the indexes and looks at every record.
    ///
    /// Fails when an index is missing or bad, or an entry does not unpack to what the directory
    /// says. After a survey that succeeds, [`Archive::read`] fails only if the disk does, so an
    /// import that surveys first is never left half done by a bad archive.
    pub fn survey(&mut self) -> Result<Survey, Error> {
        let Self { entries, max_record_bytes, index } = self;
        let index = loaded(index, entries, *max_record_bytes)?;
        let name = |day: &index::Day| entries.list()[day.entry].name.clone();
        Ok(Survey {
            people: index.people.clone(),
            guests: index.guests.clone(),
            channels: index.channels.clone(),
            private: index.private.clone(),
            records: index.records,
            ignored_files: index.ignored_files,
            left_out: index.left_out.clone(),
            bad_entries: index.bad_entries.clone(),
            bad_counts: index.bad_counts,
            files: index.days.iter().map(name).collect(),
        })
    }

    /// Reads the records from `from` on: by channel as listed, then by day, then as in the file.
    ///
    /// Stops early when `each` breaks. Fails like [`Archive::survey`].
    pub fn read(
        &mut self,
        from: Position,
        mut each: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let Self { entries, max_record_bytes, index } = self;
        let index = loaded(index, entries, *max_record_bytes)?;
        let mut versions = Versions::default();
        let mut channel = None;
        for (file, day) in (0_u32..).zip(&index.days) {
            let done = match file.cmp(&from.file) {
                Ordering::Less => continue,
                Ordering::Equal => from.record,
                Ordering::Greater => 0,
            };
            if channel.replace(day.channel) != Some(day.channel) {
                versions = if index.has_repeated(day.channel) {
                    Versions::of(entries, index, day.channel, *max_record_bytes)?
                } else {
                    Versions::default()
                };
            }
            let mut elements = Splitter::new(entries.reader(day.entry)?, *max_record_bytes);
            let mut record = 0;
            while let Some(item) = elements.next()? {
                record += 1;
                if record <= done {
                    continue;
                }
                let next = Position { file, record };
                let mut outcome = match item {
                    Item::Element(json) => record::outcome(json, index.place(day)),
                    Item::TooLong => {
                        Outcome::Failed(format!("record is longer than {max_record_bytes} bytes"))
                    }
                    Item::Broken(reason) => Outcome::Failed(reason.to_owned()),
                };
                if let Outcome::Message(message) = outcome {
                    outcome = versions.settle(next, message);
                }
                // The record that says so is the newer version.
                if let Outcome::Message(message) = &outcome
                    && index.is_deleted(day.channel, message)
                {
                    outcome = Outcome::Skipped("duplicate_version".into());
                }
                if each(Record { next, outcome }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn loaded<'a>(
    slot: &'a mut Option<Index>,
    entries: &mut Entries,
    max_record_bytes: usize,
) -> Result<&'a Index, Error> {
    let index = match slot.take() {
        Some(index) => index,
        None => Index::load(entries, max_record_bytes)?,
    };
    Ok(slot.insert(index))
}
