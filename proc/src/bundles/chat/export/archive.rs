//! Writes an archive in the shape of a Slack export from a project's lines, one day of one channel in hand at a time.

use std::{
    collections::HashSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use tempfile::SpooledTempFile;
use zip::{
    CompressionMethod, ZipArchive, ZipWriter,
    write::{SimpleFileOptions, StreamWriter},
};

use super::{line::Line, record};
use crate::bundles::chat::{
    names,
    slack::{Limits, RATIO_JUDGED_FROM_BYTES},
};

/// Packed bytes of a file that are kept in memory; what is longer waits on the disk.
const IN_MEMORY_BYTES: usize = 1 << 20;

/// An archive in the making. Days are written as they are complete, the lists at the end.
pub(super) struct Archive<W: Write> {
    out: ZipWriter<StreamWriter<W>>,
    scratch: PathBuf,
    files: u64,
    day: Option<(String, Entry)>,
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
            day: None,
            users: Entry::begin(scratch, "users.json")?,
            channels: Entry::begin(scratch, "channels.json")?,
            seen: HashSet::new(),
        })
    }

    /// Adds what one line tells. The channels come first, then one channel's messages after the other's, then people.
    pub(super) fn add(&mut self, line: &[u8]) -> io::Result<()> {
        match Line::parse(line)? {
            Line::Channel(channel) => self.channels.push(&record::channel(&channel)),
            Line::Person(person) => {
                let user = record::user(&person);
                // A member who has said nothing is none of the history; an import would make them one.
                let told = !user.is_login() || self.seen.contains(user.id());
                if told { self.users.push(&user) } else { Ok(()) }
            }
            Line::Message(message) => {
                let folder = names::folder(&message.channel);
                let name = format!("{folder}/{}.json", message.day());
                if self.day.as_ref().is_none_or(|(open, _)| *open != name) {
                    self.end_day()?;
                    self.day = Some((name.clone(), Entry::begin(&self.scratch, &name)?));
                }
                for user in message.logins() {
                    self.seen.insert(user);
                }
                match &mut self.day {
                    Some((_, day)) => day.push(&record::message(&message)?),
                    None => Ok(()),
                }
            }
            Line::Other => Ok(()),
        }
    }

    /// Writes what is left, and returns where it all went and how many files there are.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        self.end_day()?;
        let Self { mut out, users, channels, files, .. } = self;
        users.end(&mut out)?;
        channels.end(&mut out)?;
        Ok((out.finish()?.into_inner(), files + 2))
    }

    fn end_day(&mut self) -> io::Result<()> {
        if let Some((_, day)) = self.day.take() {
            day.end(&mut self.out)?;
            self.files += 1;
        }
        Ok(())
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

    fn push(&mut self, record: &impl Serialize) -> io::Result<()> {
        self.packed.write_all(if self.empty { b"\n" } else { b",\n" })?;
        self.empty = false;
        Ok(serde_json::to_writer(&mut self.packed, record)?)
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
