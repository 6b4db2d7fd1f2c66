//! Records of a channel that share a time: versions of one message, and messages of their own.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use super::{
    Error, Message, Outcome, Position, SameTime, Ts,
    entries::Entries,
    index::Index,
    record,
    split::{Item, Splitter},
};
use crate::bundles::chat::parts;

/// Records of one time that are told apart.
const MAX_OCCURRENCES: usize = 256;

type Digest = [u8; 16];

/// Verdicts on the records of one channel that share a time.
#[derive(Default)]
pub(super) struct Versions {
    verdicts: HashMap<Position, Verdict>,
    /// Messages of a time that has several.
    groups: HashMap<Ts, Arc<[SameTime]>>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Verdict {
    /// A message, with its number among those of its time.
    Message(u32),
    /// The same message as another record.
    Duplicate,
    /// An older version of the message of another record.
    OtherVersion,
    TooMany,
}

/// A record with what tells it from others of its time.
struct Version {
    ts: Ts,
    position: Position,
    /// Number of the copy of the channel that the record is in.
    copy: u32,
    author: u32,
    /// Digest of the whole text, and of what chat takes as the first part of it.
    text: Digest,
    first_part: Digest,
    is_edited: bool,
    edited: Option<Ts>,
    is_deleted: bool,
}

impl Version {
    /// Returns by what the newer of two versions is found: the time of its edit, and then its place.
    fn rank(&self) -> (bool, Option<Ts>, Position) {
        (self.is_edited, self.edited, self.position)
    }
}

impl Versions {
    /// Looks through the files of a channel.
    pub(super) fn of(
        entries: &mut Entries,
        index: &Index,
        channel: usize,
        max_record_bytes: usize,
    ) -> Result<Self, Error> {
        let mut versions = Vec::new();
        let mut authors: HashMap<String, u32> = HashMap::new();
        let mut copies: HashMap<String, u32> = HashMap::new();
        let days = (0_u32..).zip(&index.days).filter(|(_, day)| day.channel == channel);
        for (file, day) in days {
            let number = u32::try_from(copies.len()).unwrap_or(u32::MAX);
            let name = &entries.list()[day.entry].name;
            let copy = *copies.entry(copy_of(name).to_owned()).or_insert(number);
            let mut elements = Splitter::new(entries.reader(day.entry)?, max_record_bytes);
            let mut record = 0;
            while let Some(item) = elements.next()? {
                record += 1;
                let Item::Element(json) = item else { continue };
                if !index.is_repeated(channel, json) {
                    continue;
                }
                let Outcome::Message(message) = record::outcome(json, index.place(day)) else {
                    continue;
                };
                let number = u32::try_from(authors.len()).unwrap_or(u32::MAX);
                versions.push(Version {
                    ts: message.ts,
                    position: Position { file, record },
                    copy,
                    text: digest(&message.text),
                    first_part: digest(parts::split(&message.text)[0]),
                    is_edited: message.is_edited,
                    edited: message.edited,
                    is_deleted: message.own.is_some_and(|own| own.deleted.is_some()),
                    author: *authors.entry(message.author).or_insert(number),
                });
            }
        }
        versions.sort_by_key(|version| version.ts);
        let mut names = vec![String::new(); authors.len()];
        for (name, number) in authors {
            if let Some(place) = usize::try_from(number).ok().and_then(|at| names.get_mut(at)) {
                *place = name;
            }
        }
        let mut found = Self::default();
        for of_time in versions.chunk_by(|one, next| one.ts == next.ts) {
            found.tell_apart(of_time, &names);
        }
        Ok(found)
    }

    /// Judges the records of one time, in the order of reading.
    fn tell_apart(&mut self, records: &[Version], authors: &[String]) {
        let mut by_author: HashMap<u32, Vec<&Version>> = HashMap::new();
        for record in records {
            by_author.entry(record.author).or_default().push(record);
        }
        // The messages, each with the place of its first record.
        let mut messages: Vec<(Position, &Version)> = Vec::new();
        for own in by_author.values() {
            self.of_author(own, &mut messages);
        }
        messages.sort_unstable_by_key(|(first, _)| *first);
        let mut group = Vec::new();
        for (number, (_, version)) in messages.into_iter().enumerate() {
            if number >= MAX_OCCURRENCES {
                self.verdicts.insert(version.position, Verdict::TooMany);
                continue;
            }
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            self.verdicts.insert(version.position, Verdict::Message(number));
            let author = usize::try_from(version.author).ok().and_then(|at| authors.get(at));
            group.push(SameTime {
                occurrence: number,
                author: author.cloned().unwrap_or_default(),
                text: version.first_part,
                is_edited: version.edited.is_some(),
                is_deleted: version.is_deleted,
            });
        }
        if let [first, _, ..] = records
            && group.len() > 1
        {
            self.groups.insert(first.ts, group.into());
        }
    }

    /// Judges the records of one author and time; adds those that are messages.
    fn of_author<'a>(
        &mut self,
        records: &[&'a Version],
        messages: &mut Vec<(Position, &'a Version)>,
    ) {
        // Each text once, with its newest record.
        let mut texts: Vec<(Position, &Version)> = Vec::new();
        let mut known: HashMap<Digest, usize> = HashMap::new();
        let mut unedited: HashSet<Digest> = HashSet::new();
        let mut text_of_copy: HashMap<u32, Digest> = HashMap::new();
        let mut has_several = false;
        for record in records {
            if !record.is_edited {
                unedited.insert(record.text);
                let first = text_of_copy.entry(record.copy).or_insert(record.text);
                // A copy has each message once: other texts in it are other messages.
                has_several |= *first != record.text;
            }
            let older = match known.get(&record.text) {
                None => {
                    known.insert(record.text, texts.len());
                    texts.push((record.position, record));
                    continue;
                }
                Some(at) => {
                    let newest = &mut texts[*at].1;
                    if newest.rank() < record.rank() {
                        std::mem::replace(newest, record)
                    } else {
                        record
                    }
                }
            };
            self.verdicts.insert(older.position, Verdict::Duplicate);
        }
        if !has_several {
            let Some(first) = texts.first().map(|(first, _)| *first) else { return };
            let newest = texts.iter().map(|(_, text)| *text).max_by_key(|text| text.rank());
            let Some(newest) = newest else { return };
            for (_, text) in texts.iter().filter(|(_, text)| text.position != newest.position) {
                self.verdicts.insert(text.position, Verdict::OtherVersion);
            }
            messages.push((first, newest));
            return;
        }
        // An edited text is a version of the message before it.
        let mut own: Vec<(Position, &Version)> = Vec::new();
        let mut edits = Vec::new();
        for (first, text) in texts {
            if unedited.contains(&text.text) {
                own.push((first, text));
            } else {
                edits.push((first, text));
            }
        }
        for (place, edit) in edits {
            let before = own.iter().rposition(|(first, _)| *first < place).unwrap_or(0);
            let message = &mut own[before].1;
            let older =
                if message.rank() < edit.rank() { std::mem::replace(message, edit) } else { edit };
            self.verdicts.insert(older.position, Verdict::OtherVersion);
        }
        messages.extend(own);
    }

    /// Returns the messages of a time, if it has several.
    pub(super) fn group(&self, ts: Ts) -> Option<&Arc<[SameTime]>> {
        self.groups.get(&ts)
    }

    /// Returns the outcome of a message's record.
    pub(super) fn settle(&self, position: Position, mut message: Message) -> Outcome {
        message.same_time = self.group(message.ts).cloned();
        message.thread_same_time = message.thread.and_then(|thread| self.group(thread)).cloned();
        match self.verdicts.get(&position) {
            None => Outcome::Message(message),
            Some(Verdict::Message(number)) => {
                message.occurrence = *number;
                Outcome::Message(message)
            }
            Some(Verdict::Duplicate) => Outcome::Skipped("duplicate".into()),
            Some(Verdict::OtherVersion) => Outcome::Skipped("duplicate_version".into()),
            Some(Verdict::TooMany) => {
                let reason = format!("there are more than {MAX_OCCURRENCES} records of its time");
                Outcome::Failed(reason)
            }
        }
    }
}

/// Returns what the files of one copy of a channel have in common: those of single days are one copy together.
fn copy_of(path: &str) -> &str {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let day = file.get(..10).filter(|_| file.len() == "2020-01-01.json".len());
    let is_day = day.is_some_and(|day| {
        day.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
    });
    if is_day { folder } else { path }
}

/// Returns the digest by which texts are compared here and in chat.
fn digest(text: &str) -> Digest {
    let digest = Sha256::digest(text);
    let mut short = Digest::default();
    short.copy_from_slice(&digest[..size_of::<Digest>()]);
    short
}
