//! Writes an archive in the shape of a Slack export from a project's lines, one channel at a time.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
};

use shared::time::Timestamp;
use tempfile::SpooledTempFile;
use zip::{
    CompressionMethod, ZipArchive, ZipWriter,
    write::{SimpleFileOptions, StreamWriter},
};

use super::{
    line::{Line, MessageLine},
    record,
};
use crate::bundles::chat::{
    names,
    slack::{Limits, RATIO_JUDGED_FROM_BYTES},
};

/// Packed bytes of a file that are kept in memory; what is longer waits on the disk.
const IN_MEMORY_BYTES: usize = 1 << 20;

/// An archive in the making. A channel's days are written when it is complete, the lists at the end.
pub(super) struct Archive<W: Write> {
    out: ZipWriter<StreamWriter<W>>,
    scratch: PathBuf,
    files: u64,
    channel: Option<Channel>,
    users: Entry,
    channels: Entry,
    /// Logins who said something, as they are named in the archive.
    seen: HashSet<String>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive; what has to wait does so in `scratch`.
    pub(super) fn begin(out: W, scratch: &Path) -> io::Result<Self> {
        Ok(Self {
            out: ZipWriter::new_stream(out).set_auto_large_file(),
            scratch: scratch.into(),
            files: 0,
            channel: None,
            users: Entry::begin(scratch, "users.json")?,
            channels: Entry::begin(scratch, "channels.json")?,
            seen: HashSet::new(),
        })
    }

    /// Adds what one line tells. The channels come first, then one channel's messages after the other's, then people.
    pub(super) fn add(&mut self, line: &[u8]) -> io::Result<()> {
        match Line::parse(line)? {
            Line::Channel(channel) => {
                self.channels.push(&serde_json::to_vec(&record::channel(&channel))?)
            }
            Line::Person(person) => {
                let user = record::user(&person);
                // A member who has said nothing is none of the history; an import would make them one.
                let told = !user.is_login() || self.seen.contains(user.id());
                if told { self.users.push(&serde_json::to_vec(&user)?) } else { Ok(()) }
            }
            Line::Message(message) => {
                let is_open = |open: &Channel| open.name == message.channel;
                if !self.channel.as_ref().is_some_and(is_open) {
                    self.end_channel()?;
                    self.channel = Some(Channel::begin(&self.scratch, &message.channel));
                }
                for user in message.logins() {
                    self.seen.insert(user);
                }
                match &mut self.channel {
                    Some(channel) => channel.push(&message),
                    None => Ok(()),
                }
            }
            Line::Other => Ok(()),
        }
    }

    /// Writes what is left, and returns where it all went and how many files there are.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        self.end_channel()?;
        let Self { mut out, users, channels, files, .. } = self;
        users.end(&mut out)?;
        channels.end(&mut out)?;
        Ok((out.finish()?.into_inner(), files + 2))
    }

    fn end_channel(&mut self) -> io::Result<()> {
        if let Some(channel) = self.channel.take() {
            self.files += channel.end(&self.scratch, &mut self.out)?;
        }
        Ok(())
    }
}

/// The records of one channel, kept aside: only when all are there is it known which of them were answered.
struct Channel {
    name: String,
    records: BufWriter<SpooledTempFile>,
    /// The answers of each thread, by the time of its first message.
    threads: HashMap<i64, Vec<(i64, usize)>>,
    /// Authors of answers, and their numbers.
    users: IndexedUsers,
}

#[derive(Default)]
struct IndexedUsers {
    list: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl IndexedUsers {
    fn number(&mut self, user: String) -> usize {
        *self.numbers.entry(user).or_insert_with_key(|user| {
            self.list.push(user.clone());
            self.list.len() - 1
        })
    }
}

/// Head of each record: the time of its day, its own time, a flag for records that name a thread, and the length.
struct Head {
    created_ms: i64,
    sent_at_us: i64,
    names_thread: bool,
    length: u32,
}

impl Head {
    const BYTES: usize = 8 + 8 + 1 + 4;

    fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.created_ms.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sent_at_us.to_le_bytes());
        bytes[16] = self.names_thread.into();
        bytes[17..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// Reads the next head, `None` at the end.
    fn read(records: &mut impl BufRead) -> io::Result<Option<Self>> {
        if records.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let (mut created_ms, mut sent_at_us) = ([0; 8], [0; 8]);
        let (mut names_thread, mut length) = ([0; 1], [0; 4]);
        records.read_exact(&mut created_ms)?;
        records.read_exact(&mut sent_at_us)?;
        records.read_exact(&mut names_thread)?;
        records.read_exact(&mut length)?;
        Ok(Some(Self {
            created_ms: i64::from_le_bytes(created_ms),
            sent_at_us: i64::from_le_bytes(sent_at_us),
            names_thread: names_thread[0] != 0,
            length: u32::from_le_bytes(length),
        }))
    }
}

impl Channel {
    fn begin(scratch: &Path, name: &str) -> Self {
        let records = tempfile::spooled_tempfile_in(IN_MEMORY_BYTES, scratch);
        let (threads, users) = (HashMap::new(), IndexedUsers::default());
        Self { name: name.to_owned(), records: BufWriter::new(records), threads, users }
    }

    fn push(&mut self, message: &MessageLine<'_>) -> io::Result<()> {
        let thread = message.parent.as_ref().and_then(|parent| parent.thread.as_ref());
        if let Some(thread) = thread {
            let user = self.users.number(names::exported(&message.author));
            self.threads.entry(thread.sent_at_us).or_default().push((message.sent_at_us, user));
        }
        let json = serde_json::to_vec(&record::message(message)?)?;
        let head = Head {
            created_ms: message.created_at.as_ms(),
            sent_at_us: message.sent_at_us,
            names_thread: thread.is_some(),
            length: u32::try_from(json.len()).map_err(io::Error::other)?,
        };
        self.records.write_all(&head.bytes())?;
        self.records.write_all(&json)
    }

    /// Writes the channel's days, and returns how many there are.
    fn end<W: Write>(
        self,
        scratch: &Path,
        out: &mut ZipWriter<StreamWriter<W>>,
    ) -> io::Result<u64> {
        let mut records = self.records.into_inner().map_err(io::IntoInnerError::into_error)?;
        records.rewind()?;
        let mut records = BufReader::new(records);
        let folder = names::folder(&self.name);
        let (mut day, mut files) = (None::<(String, Entry)>, 0);
        let mut json = Vec::new();
        while let Some(head) = Head::read(&mut records)? {
            json.resize(usize::try_from(head.length).map_err(io::Error::other)?, 0);
            records.read_exact(&mut json)?;
            if let Some(replies) = self.threads.get(&head.sent_at_us) {
                let reply = |&(sent_at_us, user): &(i64, usize)| record::Reply {
                    sent_at_us,
                    user: &self.users.list[user],
                };
                let replies: Vec<record::Reply<'_>> = replies.iter().map(reply).collect();
                let thread = record::thread(head.sent_at_us, head.names_thread, &replies)?;
                // Both are objects, and the record has at least its type.
                let more = serde_json::to_vec(&thread)?;
                json.pop();
                json.push(b',');
                json.extend_from_slice(&more[1..]);
            }
            let date = Timestamp::from_ms(head.created_ms).to_string();
            let date = date.get(.."2004-11-15".len()).unwrap_or(&date);
            let name = format!("{folder}/{date}.json");
            if day.as_ref().is_none_or(|(open, _)| *open != name) {
                if let Some((_, day)) = day.take() {
                    day.end(out)?;
                    files += 1;
                }
                day = Some((name.clone(), Entry::begin(scratch, &name)?));
            }
            if let Some((_, day)) = &mut day {
                day.push(&json)?;
            }
        }
        if let Some((_, day)) = day {
            day.end(out)?;
            files += 1;
        }
        Ok(files)
    }
}

/// One file, packed aside: only when it is whole can be told how it may be packed.
struct Entry {
    packed: ZipWriter<SpooledTempFile>,
    name: String,
    empty: bool,
}

impl Entry {
    fn begin(scratch: &Path, name: &str) -> io::Result<Self> {
        let spool = tempfile::spooled_tempfile_in(IN_MEMORY_BYTES, scratch);
        let mut packed = ZipWriter::new(spool).set_auto_large_file();
        packed.start_file(name, options(CompressionMethod::Deflated))?;
        packed.write_all(b"[")?;
        Ok(Self { packed, name: name.into(), empty: true })
    }

    fn push(&mut self, json: &[u8]) -> io::Result<()> {
        self.packed.write_all(if self.empty { b"\n" } else { b",\n" })?;
        self.empty = false;
        self.packed.write_all(json)
    }

    fn end<W: Write>(mut self, out: &mut ZipWriter<StreamWriter<W>>) -> io::Result<()> {
        self.packed.write_all(b"\n]\n")?;
        let mut packed = ZipArchive::new(self.packed.finish()?)?;
        let mut file = packed.by_index(0)?;
        let most_bytes = file.compressed_size().saturating_mul(Limits::default().max_ratio);
        if file.size() > RATIO_JUDGED_FROM_BYTES && file.size() > most_bytes {
            // Packed as tightly as this, an importer would take it for a bomb.
            out.start_file(&self.name, options(CompressionMethod::Stored))?;
            io::copy(&mut file, out)?;
        } else {
            out.raw_copy_file(file)?;
        }
        Ok(())
    }
}

/// The same for every archive, so that the same project makes the same bytes.
fn options(method: CompressionMethod) -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(method)
}
