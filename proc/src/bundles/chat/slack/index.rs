//! Reads the lists of people and conversations, and finds the files of messages that belong to them.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, Read},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use shared::names::without_invisible;
use unicode_normalization::UnicodeNormalization;

use super::{
    BadEntry, Channel, Conversation, Counts, Error, LeftOut, Message, Outcome, OwnChannel, Person,
    Privacy, Ts,
    entries::{Entries, shortened},
    foreign, lenient, record,
    split::{Item, Splitter},
    text::{Names, plain_text},
};

const PEOPLE_FILE: &str = "users.json";
/// Members of an Enterprise Grid export.
const ORG_PEOPLE_FILE: &str = "org_users.json";
const CHANNELS_FILE: &str = "channels.json";
/// Lists of conversations with what those of each are.
const CONVERSATION_FILES: [(&str, Option<Privacy>); 4] = [
    (CHANNELS_FILE, None),
    ("groups.json", Some(Privacy::PrivateChannel)),
    ("dms.json", Some(Privacy::DirectMessages)),
    ("mpims.json", Some(Privacy::GroupDirectMessages)),
];
/// Folder of an Enterprise Grid export that has a folder for each workspace.
const TEAMS_FOLDER: &str = "teams/";

/// A channel lists all its members, so its entry may be far longer than a message.
const MAX_INDEX_ENTRY_BYTES: usize = 4 << 20;
/// More than any workspace has; bounds the memory that the lists take.
const MAX_INDEX_ENTRIES: usize = 1_000_000;
/// Bytes of ids, names and topics that a list may have; 100,000 members have about three million.
const MAX_INDEX_BYTES: usize = 64 << 20;
const MAX_NAME_CHARS: usize = 200;
/// Users outside the lists whose names are kept.
const MAX_GUESTS: usize = 100_000;
/// Files that are named among those that are left out.
const MAX_LEFT_OUT: usize = 100;
/// Messages of a channel whose times are compared; of a channel with more, those beyond are not.
const MAX_COMPARED_TIMES: usize = 4_000_000;
/// Holds everything about an export but its messages.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) people: Vec<Person>,
    /// Users whom only messages name.
    pub(super) guests: Vec<Person>,
    pub(super) channels: Vec<Channel>,
    pub(super) private: Vec<Conversation>,
    pub(super) names: Names,
    /// The files of messages in reading order.
    pub(super) days: Vec<Day>,
    pub(super) records: u64,
    pub(super) ignored_files: u64,
    /// The first of the ignored files.
    pub(super) left_out: Vec<LeftOut>,
    /// The first of the entries of lists that cannot be used, and the number of all.
    pub(super) bad_entries: Vec<BadEntry>,
    pub(super) bad_counts: Counts,
    folders: Folders,
    /// Times that several records of a channel have, by the channel's number.
    repeated: HashMap<usize, HashSet<Ts>>,
    /// Messages that a record says were deleted, with their authors where the record tells them, by the channel's number.
    deleted: HashMap<usize, HashMap<Ts, Option<String>>>,
}

/// Holds one file of messages.
#[derive(Debug)]
pub(super) struct Day {
    /// Number of the file in the archive.
    pub(super) entry: usize,
    /// Number of its channel.
    pub(super) channel: usize,
    /// Number of the part of the export that it lies in.
    root: usize,
}

/// Place of a record: a file of a channel of an export.
#[derive(Copy, Clone)]
pub(super) struct Place<'a> {
    index: &'a Index,
    day: &'a Day,
}

impl<'a> Place<'a> {
    pub(super) fn names(self) -> &'a Names {
        &self.index.names
    }

    pub(super) fn channel(self) -> &'a Channel {
        &self.index.channels[self.day.channel]
    }

    /// Returns the id of the channel that has a folder of this name.
    pub(super) fn id_of(self, folder: &str) -> Option<String> {
        match self.index.folders.find(self.day.root, folder).first()? {
            Target::Channel(number) => Some(self.index.channels[*number].id.clone()),
            Target::Private(_) => None,
        }
    }
}

/// The lists of one export, or of all parts of one.
#[derive(Default)]
struct Lists {
    people: Vec<Person>,
    channels: Vec<Listed>,
    private: Vec<(usize, Conversation)>,
    is_complete: bool,
    bad_entries: Vec<BadEntry>,
    bad_counts: Counts,
}

/// A channel with the number of the part of the export that lists it.
struct Listed {
    root: usize,
    channel: Channel,
}

impl Index {
    /// Reads the index files, which may lie in one folder together with all the rest, and looks at every record once.
    pub(super) fn load(entries: &mut Entries, max_record_bytes: usize) -> Result<Self, Error> {
        let roots = match roots(entries) {
            Ok(roots) => roots,
            Err(error) => return Err(foreign::of_archive(entries).unwrap_or(error)),
        };
        let lists = Lists::read(entries, &roots)?;
        let people = first_of_each(lists.people, |person| &person.id);
        let mut folders = Folders::default();
        let (mut channels, mut private) = (Vec::new(), Vec::new());
        let mut numbers = HashMap::new();
        for (root, conversation) in lists.private {
            let number = *numbers.entry(conversation.id.clone()).or_insert(private.len());
            let target = Target::Private(number);
            folders.add(
                root,
                [
                    Some(&conversation.name),
                    conversation.normalized.as_ref(),
                    Some(&conversation.id),
                ],
                target,
            );
            if number == private.len() {
                private.push(conversation);
            }
        }
        let mut private_ids: HashSet<String> = numbers.into_keys().collect();
        private_ids.retain(|id| !id.is_empty());
        let mut numbers: HashMap<String, usize> = HashMap::new();
        // A conversation that any list calls private is private.
        let public = lists.channels.into_iter();
        for Listed { root, channel } in
            public.filter(|listed| !private_ids.contains(&listed.channel.id))
        {
            let number = *numbers.entry(channel.id.clone()).or_insert(channels.len());
            let target = Target::Channel(number);
            folders.add(
                root,
                [Some(&channel.name), channel.normalized.as_ref(), Some(&channel.id)],
                target,
            );
            if number == channels.len() {
                channels.push(channel);
            }
        }
        let names = Names {
            people: people.iter().map(|p| (p.id.clone(), p.name.clone())).collect(),
            channels: channels.iter().map(|c: &Channel| (c.id.clone(), c.name.clone())).collect(),
        };
        for topic in channels.iter_mut().filter_map(|channel| channel.topic.as_mut()) {
            *topic = plain_text(topic, &names).replace('\0', "");
        }
        let files = Files::of(entries, &roots, &folders);
        let mut index = Self {
            people,
            guests: Vec::new(),
            channels,
            private,
            names,
            days: files.days,
            records: 0,
            ignored_files: files.ignored,
            left_out: files.left_out,
            bad_entries: lists.bad_entries,
            bad_counts: lists.bad_counts,
            folders,
            repeated: HashMap::new(),
            deleted: HashMap::new(),
        };
        index.look_through(entries, max_record_bytes)?;
        for (entry, number) in files.private {
            let records = count(entries, entry, max_record_bytes)?;
            index.private[number].files += 1;
            index.private[number].records += records;
        }
        Ok(index)
    }

    pub(super) fn place<'a>(&'a self, day: &'a Day) -> Place<'a> {
        Place { index: self, day }
    }

    /// Returns whether several records of a channel have one time.
    pub(super) fn has_repeated(&self, channel: usize) -> bool {
        self.repeated.contains_key(&channel)
    }

    /// Returns whether other records of the channel have the time of the record `json`.
    pub(super) fn is_repeated(&self, channel: usize, json: &[u8]) -> bool {
        let Some(times) = self.repeated.get(&channel) else { return false };
        let glance = serde_json::from_slice::<Glance<'_>>(json).ok();
        let ts = glance.and_then(|glance| glance.ts.and_then(plain).and_then(Ts::parse));
        ts.is_some_and(|ts| times.contains(&ts))
    }

    /// Returns whether another record of the archive says that a message was deleted. Of several messages of one time, the
    /// record has to name the author.
    pub(super) fn is_deleted(&self, channel: usize, message: &Message) -> bool {
        let author = self.deleted.get(&channel).and_then(|deleted| deleted.get(&message.ts));
        author.is_some_and(|author| {
            message.same_time.is_none() || author.as_ref() == Some(&message.author)
        })
    }

    /// Counts the records, and finds which of a channel share a time and which users only messages name.
    fn look_through(
        &mut self,
        entries: &mut Entries,
        max_record_bytes: usize,
    ) -> Result<(), Error> {
        let mut times: Vec<Ts> = Vec::new();
        for number in 0..self.days.len() {
            let Day { entry, channel, .. } = self.days[number];
            let mut elements = Splitter::new(entries.reader(entry)?, max_record_bytes);
            while let Some(item) = elements.next()? {
                self.records += 1;
                let Item::Element(json) = item else { continue };
                let Ok(glance) = serde_json::from_slice::<Glance<'_>>(json) else { continue };
                if times.len() < MAX_COMPARED_TIMES {
                    times.extend(glance.ts.and_then(plain).and_then(Ts::parse));
                }
                let kind = glance.subtype.and_then(plain);
                if kind.is_some_and(|kind| record::DELETIONS.contains(&kind))
                    && let Outcome::Deleted(deletion) =
                        record::outcome(json, self.place(&self.days[number]))
                {
                    let deleted = self.deleted.entry(channel).or_default();
                    if deleted.len() < MAX_COMPARED_TIMES {
                        deleted.insert(deletion.ts, deletion.author);
                    }
                    continue;
                }
                if let (Some(user), Some(profile)) =
                    (glance.user.and_then(plain), glance.user_profile)
                {
                    self.meet(user, profile);
                }
            }
            // The splitter stops early in a broken file, but the checksum is known only at the end.
            io::copy(&mut elements.into_source(), &mut io::sink())?;
            if self.days.get(number + 1).is_none_or(|next| next.channel != channel) {
                times.sort_unstable();
                let repeated = times.windows(2).filter(|pair| pair[0] == pair[1]);
                let repeated: HashSet<Ts> = repeated.map(|pair| pair[0]).collect();
                if !repeated.is_empty() {
                    self.repeated.insert(channel, repeated);
                }
                times.clear();
            }
        }
        Ok(())
    }

    /// Keeps the name of a user whom no list has, as Slack shows it in a message.
    fn meet(&mut self, user: &str, profile: &RawValue) {
        if self.names.people.contains_key(user) || self.guests.len() >= MAX_GUESTS {
            return;
        }
        let profile = lenient::value(profile.get().as_bytes()).unwrap_or_default();
        let keys = ["display_name", "real_name", "name"];
        let Some(shown) = keys.iter().find_map(|key| name(profile.get(key))) else { return };
        let shown = without_invisible(&shown);
        if shown.trim().is_empty() {
            return;
        }
        let shown: Arc<str> = shown.trim().into();
        self.names.people.insert(user.to_owned(), shown.clone());
        let (id, is_bot) = (user.to_owned(), false);
        self.guests.push(Person { id, name: shown, is_bot, is_named: true, updated: None });
    }
}

/// The fields of a record that are looked at before it is read.
#[derive(Deserialize)]
struct Glance<'a> {
    #[serde(borrow, default)]
    ts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    subtype: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user: Option<&'a RawValue>,
    #[serde(borrow, default)]
    user_profile: Option<&'a RawValue>,
}

/// Returns a string that has no escapes, as no id and no time has.
fn plain(json: &RawValue) -> Option<&str> {
    let text = json.get().strip_prefix('"')?.strip_suffix('"')?;
    (!text.is_empty() && !text.contains('\\')).then_some(text)
}

fn count(entries: &mut Entries, entry: usize, max_record_bytes: usize) -> Result<u64, Error> {
    let mut elements = Splitter::new(entries.reader(entry)?, max_record_bytes);
    let mut records = 0;
    while elements.next()?.is_some() {
        records += 1;
    }
    io::copy(&mut elements.into_source(), &mut io::sink())?;
    Ok(records)
}

fn first_of_each<T>(mut list: Vec<T>, id: impl Fn(&T) -> &String) -> Vec<T> {
    let mut seen = HashSet::new();
    list.retain(|item| seen.insert(id(item).clone()));
    list
}

/// Returns the folders that hold the export and, of an Enterprise Grid, one of each workspace; each is empty or ends in `/`.
fn roots(entries: &Entries) -> Result<Vec<String>, Error> {
    let names = || entries.list().iter().map(|entry| entry.name.as_str());
    let holds = |name: &str, file: &str| {
        name.strip_suffix(file)
            .filter(|root| root.is_empty() || root.ends_with('/'))
            .map(str::to_owned)
    };
    let holds_people = |name| holds(name, PEOPLE_FILE).or_else(|| holds(name, ORG_PEOPLE_FILE));
    let mut found: Vec<String> = names().filter_map(holds_people).collect();
    found.sort_unstable();
    found.dedup();
    // In one folder only: with two of them it would be a guess which export is meant.
    let is_folder = |root: &&String| root.find('/') == Some(root.len() - 1) && !is_junk(root);
    let mut folders = found.iter().filter(is_folder);
    let root = if found.first().is_some_and(String::is_empty) {
        String::new()
    } else {
        match (folders.next(), folders.next()) {
            (Some(root), None) => root.clone(),
            _ => return Err(Error::Missing { file: PEOPLE_FILE }),
        }
    };
    let teams = format!("{root}{TEAMS_FOLDER}");
    let team = |name: &str| {
        let (team, rest) = name.strip_prefix(&teams)?.split_once('/')?;
        let is_list = |(file, _): &(&str, _)| rest == *file;
        let is_export = rest.contains('/') || CONVERSATION_FILES.iter().any(is_list);
        is_export.then(|| format!("{teams}{team}/"))
    };
    let mut team_roots: Vec<String> = names().filter_map(team).collect();
    team_roots.sort_unstable();
    team_roots.dedup();
    Ok([vec![root], team_roots].concat())
}

/// Tells what macOS adds to every archive from what a person put there.
fn is_junk(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.rsplit('/').next() == Some(".DS_Store")
}

impl Lists {
    fn read(entries: &mut Entries, roots: &[String]) -> Result<Self, Error> {
        let mut lists = Self::default();
        for (root, folder) in roots.iter().enumerate() {
            for file in [PEOPLE_FILE, ORG_PEOPLE_FILE] {
                let Some(List { found, bad }) = read_list(entries, folder, file, person)? else {
                    continue;
                };
                lists.people.extend(found);
                lists.bad_counts.people += bad.len();
                lists.leave_out(folder, file, bad);
            }
            for (file, privacy) in CONVERSATION_FILES {
                let read = |value: &Value, id| {
                    let privacy = privacy.or_else(|| Privacy::of(value));
                    (privacy, channel(value, id))
                };
                let Some(List { found, bad }) = read_list(entries, folder, file, read)? else {
                    continue;
                };
                lists.is_complete = true;
                for (privacy, channel) in found {
                    match privacy {
                        None => lists.channels.push(Listed { root, channel }),
                        Some(privacy) => {
                            lists.private.push((root, Conversation::new(privacy, channel)));
                        }
                    }
                }
                for entry in &bad {
                    let privacy = privacy.or_else(|| Privacy::of(&entry.value));
                    if privacy.is_none() {
                        lists.bad_counts.channels += 1;
                        continue;
                    }
                    lists.bad_counts.conversations += 1;
                    // The folder of a private conversation that has no id is private all the same.
                    if let (Some(privacy), Some(name)) = (privacy, name(entry.value.get("name"))) {
                        let conversation = channel(&entry.value, name);
                        lists.private.push((root, Conversation::new(privacy, conversation)));
                    }
                }
                lists.leave_out(folder, file, bad);
            }
        }
        if lists.is_complete { Ok(lists) } else { Err(Error::Missing { file: CHANNELS_FILE }) }
    }

    /// Names entries that cannot be used.
    fn leave_out(&mut self, folder: &str, file: &str, entries: Vec<Unusable>) {
        let room = MAX_LEFT_OUT.saturating_sub(self.bad_entries.len());
        let named = entries.into_iter().take(room).map(|entry| BadEntry {
            file: shortened(&format!("{folder}{file}")),
            entry: entry.number,
            name: name(entry.value.get("name")),
            reason: entry.reason,
        });
        self.bad_entries.extend(named);
    }
}

/// The entries of a list.
struct List<T> {
    found: Vec<T>,
    bad: Vec<Unusable>,
}

/// An entry that cannot be used.
struct Unusable {
    /// The number of the entry, from 1.
    number: usize,
    /// The names and marks of the entry, as far as it can be read.
    value: Value,
    reason: &'static str,
}

/// Counts the line that a reader has come to.
struct Lines<R> {
    source: R,
    line: u64,
}

impl<R: BufRead> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Lines<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        if let Ok(read) = self.source.fill_buf() {
            let read = &read[..length.min(read.len())];
            self.line += read.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        }
        self.source.consume(length);
    }
}

/// Reads a list; `None` if the export has none of this name. An entry that cannot be used costs no other.
fn read_list<T>(
    entries: &mut Entries,
    root: &str,
    file: &'static str,
    parse: impl Fn(&Value, String) -> T,
) -> Result<Option<List<T>>, Error> {
    let path = format!("{root}{file}");
    let Some(number) = entries.list().iter().position(|entry| entry.name == path) else {
        return Ok(None);
    };
    let lines = Lines { source: entries.reader(number)?, line: 1 };
    let mut elements = Splitter::new(lines, MAX_INDEX_ENTRY_BYTES);
    let mut list = List { found: Vec::new(), bad: Vec::new() };
    let (mut number, mut text_bytes) = (0, 0);
    while let Some(item) = elements.next()? {
        number += 1;
        if number > MAX_INDEX_ENTRIES {
            return Err(Error::IndexTooLong { file, max_entries: MAX_INDEX_ENTRIES });
        }
        let (value, reason) = match item {
            Item::Element(json) => match lenient::value(json) {
                Some(value) if value.is_object() => (value, "it has no id"),
                _ => (Value::Null, "it is not a valid JSON object"),
            },
            Item::TooLong => (Value::Null, "it is longer than 4 MiB"),
            Item::Broken(reason) => {
                let line = elements.source().line;
                return Err(Error::NotAnArray { file, reason, line });
            }
        };
        let id = value.get("id").and_then(Value::as_str);
        let id = id.filter(|id| !id.is_empty() && !id.contains('\0')).map(str::to_owned);
        text_bytes += text_length(&value, id.as_deref().unwrap_or_default());
        if id.is_none() {
            text_bytes += size_of::<Unusable>();
        }
        if text_bytes > MAX_INDEX_BYTES {
            return Err(Error::IndexTooLarge { file, max_bytes: MAX_INDEX_BYTES });
        }
        match id {
            Some(id) => list.found.push(parse(&value, id)),
            None => list.bad.push(Unusable { number, value: kept(&value), reason }),
        }
    }
    Ok(Some(list))
}

/// Returns what is needed of an entry that cannot be used.
fn kept(value: &Value) -> Value {
    let keys = ["name", "name_normalized", "is_im", "is_mpim", "is_private", "is_group"];
    let fields = keys.iter().filter_map(|key| {
        let field = value.get(key)?;
        let field = if field.is_boolean() { field.clone() } else { name(Some(field))?.into() };
        Some(((*key).to_owned(), field))
    });
    Value::Object(fields.collect())
}

/// Returns about how many bytes are kept of an entry of a list.
fn text_length(value: &Value, id: &str) -> usize {
    let kept = ["/name", "/real_name", "/profile/display_name", "/topic/value", "/purpose/value"];
    let lengths = kept.iter().filter_map(|path| value.pointer(path)?.as_str()).map(str::len);
    id.len() + lengths.max().unwrap_or(0)
}

fn person(value: &Value, id: String) -> Person {
    let paths = ["/profile/display_name", "/profile/real_name", "/real_name", "/name"];
    let names = paths.iter().filter_map(|path| name(value.pointer(path)));
    let name =
        names.map(|name| without_invisible(&name).trim().to_owned()).find(|name| !name.is_empty());
    let is_named = name.is_some();
    let name = name.unwrap_or_else(|| id.clone()).into();
    let updated = value.get("updated").and_then(Value::as_i64).filter(|at| *at > 0);
    Person { name, is_named, updated, is_bot: is_true(value, "is_bot"), id }
}

fn channel(value: &Value, id: String) -> Channel {
    let text = |path| value.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let own = value.get("parley").and_then(|own| OwnChannel::deserialize(own).ok());
    let is_own = own.is_some();
    let own = own.unwrap_or_default();
    let topic = text("/topic/value").or_else(|| text("/purpose/value")).map(str::to_owned);
    let created_ms =
        value.get("created").and_then(Value::as_i64).and_then(|at| at.checked_mul(1_000));
    Channel {
        name: name(value.get("name")).unwrap_or_else(|| id.clone()),
        normalized: name(value.get("name_normalized")),
        own_name: own.name,
        is_own,
        topic: topic.or(own.topic),
        created_ms: own.created_ms.or(created_ms),
        archived: is_true(value, "is_archived"),
        id,
    }
}

impl Privacy {
    /// Returns what a conversation is that a list of channels marks as private.
    fn of(value: &Value) -> Option<Self> {
        let marks = [
            ("is_im", Self::DirectMessages),
            ("is_mpim", Self::GroupDirectMessages),
            ("is_private", Self::PrivateChannel),
            ("is_group", Self::PrivateChannel),
        ];
        marks.into_iter().find_map(|(mark, privacy)| is_true(value, mark).then_some(privacy))
    }
}

fn is_true(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// Returns a name fit to be shown in one line, `None` if nothing of it is left.
pub(super) fn name(value: Option<&Value>) -> Option<String> {
    let is_shown = |c: &char| !c.is_control();
    let name: String = value?.as_str()?.chars().filter(is_shown).take(MAX_NAME_CHARS).collect();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// A conversation that a folder belongs to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Target {
    Channel(usize),
    Private(usize),
}

/// The conversations by the names that their folders may have, in each part of the export.
#[derive(Default, Debug)]
struct Folders(HashMap<(usize, String), Vec<Target>>);

impl Folders {
    /// Adds a conversation: under its name, the name that Slack normalised, and its id. Names are in one normal form, since the
    /// names of files are in another one where macOS made the archive.
    fn add(&mut self, root: usize, names: [Option<&String>; 3], target: Target) {
        for name in names.into_iter().flatten() {
            let targets = self.0.entry((root, name.nfc().collect())).or_default();
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
    }

    /// Returns the conversations of a folder: those that its own part of the export lists, else those that the whole lists.
    fn find(&self, root: usize, folder: &str) -> &[Target] {
        let folder: String = folder.nfc().collect();
        let found = self.0.get(&(root, folder.clone())).or_else(|| self.0.get(&(0, folder)));
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

/// The files of an export by what they are.
#[derive(Default)]
struct Files {
    days: Vec<Day>,
    /// Files of private conversations, with the conversation's number.
    private: Vec<(usize, usize)>,
    ignored: u64,
    left_out: Vec<LeftOut>,
}

impl Files {
    fn of(entries: &Entries, roots: &[String], folders: &Folders) -> Self {
        let mut files = Self::default();
        let mut found = Vec::new();
        for (entry, file) in entries.list().iter().enumerate() {
            if is_junk(&file.name) {
                continue;
            }
            // Folders of workspaces lie within the export's own.
            let roots = roots.iter().enumerate().rev();
            let mut places =
                roots.filter_map(|(root, folder)| Some((root, file.name.strip_prefix(folder)?)));
            let Some((root, path)) = places.next() else {
                files.leave_out(&file.name, "it is outside the export's folder");
                continue;
            };
            let Some((folder, name)) = path.split_once('/') else {
                let is_list = [PEOPLE_FILE, ORG_PEOPLE_FILE].contains(&path)
                    || CONVERSATION_FILES.iter().any(|(list, _)| *list == path);
                if !is_list {
                    files.leave_out(&file.name, "it holds no channel's messages");
                }
                continue;
            };
            let targets = folders.find(root, folder);
            let is_json = name.len() > ".json".len()
                && name
                    .get(name.len() - ".json".len()..)
                    .is_some_and(|end| end.eq_ignore_ascii_case(".json"));
            if targets.is_empty() {
                files.leave_out(&file.name, "no list names a channel of this folder");
            } else if name.contains('/') || !is_json {
                files.leave_out(&file.name, "it is not a JSON file of a channel's folder");
            } else {
                found.push((folder.to_owned(), root, targets, name, entry));
            }
        }
        // Workspaces of a Grid whose lists are one have channels of the same name, each its own.
        let mut owners: HashMap<&str, Vec<usize>> = HashMap::new();
        for (folder, root, targets, ..) in &found {
            if targets.len() > 1 {
                owners.entry(folder).or_default().push(*root);
            }
        }
        for roots in owners.values_mut() {
            roots.sort_unstable();
            roots.dedup();
        }
        let mut days = Vec::new();
        for (folder, root, targets, name, entry) in &found {
            // A folder that may be a private conversation's counts as private.
            let private = targets.iter().find_map(|target| match target {
                Target::Private(number) => Some(*number),
                Target::Channel(_) => None,
            });
            if let Some(number) = private {
                files.private.push((*entry, number));
                continue;
            }
            let turn = owners.get(folder.as_str()).and_then(|roots| roots.binary_search(root).ok());
            let target = targets[turn.unwrap_or(0).min(targets.len() - 1)];
            if let Target::Channel(channel) = target {
                days.push((channel, *name, *entry, *root));
            }
        }
        days.sort_unstable();
        let day = |(channel, _, entry, root)| Day { entry, channel, root };
        files.days = days.into_iter().map(day).collect();
        files
    }

    fn leave_out(&mut self, name: &str, reason: &'static str) {
        self.ignored += 1;
        if self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(LeftOut { name: shortened(name), reason });
        }
    }
}
