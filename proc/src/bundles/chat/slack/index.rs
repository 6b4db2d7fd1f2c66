//! Reads the lists of people and channels, and finds the day files that belong to them.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;
use shared::names::without_invisible;

use super::{
    Channel, Error, OwnChannel, Person,
    entries::Entries,
    split::{Item, Splitter},
    text::{Names, plain_text},
};

const PEOPLE_FILE: &str = "users.json";
const CHANNELS_FILE: &str = "channels.json";
const GROUPS_FILE: &str = "groups.json";
const INDEX_FILES: [&str; 3] = [PEOPLE_FILE, CHANNELS_FILE, GROUPS_FILE];

const MAX_INDEX_BYTES: u64 = 64 << 20;
/// A channel lists all its members, so its entry may be far longer than a message.
const MAX_INDEX_ENTRY_BYTES: usize = 4 << 20;
/// More than any workspace has; bounds the memory that the lists take.
const MAX_INDEX_ENTRIES: usize = 1_000_000;
const MAX_NAME_CHARS: usize = 200;

/// Holds everything about an export but its messages.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) people: Vec<Person>,
    pub(super) channels: Vec<Channel>,
    pub(super) names: Names,
    /// The day files in reading order.
    pub(super) days: Vec<Day>,
    pub(super) ignored_files: u64,
}

/// Holds one file of messages.
#[derive(Debug)]
pub(super) struct Day {
    /// Number of the file in the archive.
    pub(super) entry: usize,
    /// Name of its channel.
    pub(super) channel: String,
}

impl Index {
    /// Reads the index files, which may lie in one folder together with all the rest.
    pub(super) fn load(entries: &mut Entries) -> Result<Self, Error> {
        let root = root(entries)?;
        let people = read_list(entries, &root, PEOPLE_FILE, person)?;
        let mut channels = read_list(entries, &root, CHANNELS_FILE, channel)?;
        match read_list(entries, &root, GROUPS_FILE, channel) {
            Err(Error::Missing { .. }) => {}
            groups => channels.extend(groups?),
        }
        let people = first_of_each(people, |person| &person.id);
        let mut channels = first_of_each(channels, |channel| &channel.id);
        let names = Names {
            people: people.iter().map(|p| (p.id.clone(), p.name.clone())).collect(),
            channels: channels.iter().map(|c| (c.id.clone(), c.name.clone())).collect(),
        };
        for topic in channels.iter_mut().filter_map(|channel| channel.topic.as_mut()) {
            *topic = plain_text(topic, &names).replace('\0', "");
        }
        let (days, ignored_files) = days(entries, &root, &channels);
        Ok(Self { people, channels, names, days, ignored_files })
    }
}

fn first_of_each<T>(mut list: Vec<T>, id: impl Fn(&T) -> &String) -> Vec<T> {
    let mut seen = HashSet::new();
    list.retain(|item| seen.insert(id(item).clone()));
    list
}

/// Returns the folder that holds the export, empty or ending in `/`.
fn root(entries: &Entries) -> Result<String, Error> {
    let holds_people = |name: &str| name.strip_suffix(PEOPLE_FILE).map(str::to_owned);
    let roots: Vec<String> =
        entries.list().iter().filter_map(|entry| holds_people(&entry.name)).collect();
    if roots.iter().any(String::is_empty) {
        return Ok(String::new());
    }
    // In one folder only: with two of them it would be a guess which export is meant.
    let is_folder = |root: &&String| root.find('/') == Some(root.len() - 1) && !is_junk(root);
    let mut folders = roots.iter().filter(is_folder);
    match (folders.next(), folders.next()) {
        (Some(root), None) => Ok(root.clone()),
        _ => Err(Error::Missing { file: PEOPLE_FILE }),
    }
}

/// Tells what macOS adds to every archive from what a person put there.
fn is_junk(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.rsplit('/').next() == Some(".DS_Store")
}

fn read_list<T>(
    entries: &mut Entries,
    root: &str,
    file: &'static str,
    parse: fn(&Value, String) -> T,
) -> Result<Vec<T>, Error> {
    let path = format!("{root}{file}");
    let number = entries.list().iter().position(|entry| entry.name == path);
    let number = number.ok_or(Error::Missing { file })?;
    if entries.size_bytes(number) > MAX_INDEX_BYTES {
        return Err(Error::EntryTooLarge { name: file.to_owned(), max_bytes: MAX_INDEX_BYTES });
    }
    let mut elements = Splitter::new(entries.reader(number)?, MAX_INDEX_ENTRY_BYTES);
    let mut list = Vec::new();
    while let Some(item) = elements.next()? {
        let bad = |problem| Error::BadEntry { file, entry: list.len() + 1, problem };
        let json = match item {
            Item::Element(json) => json,
            Item::TooLong => return Err(bad("is too long")),
            Item::Broken(_) => return Err(Error::NotAnArray { file }),
        };
        let value: Value =
            serde_json::from_slice(json).map_err(|_| bad("is not a valid JSON object"))?;
        let id = value.as_object().ok_or_else(|| bad("is not a valid JSON object"))?.get("id");
        let id = id.and_then(Value::as_str).filter(|id| !id.is_empty() && !id.contains('\0'));
        let id = id.ok_or_else(|| bad("has no id"))?.to_owned();
        if list.len() == MAX_INDEX_ENTRIES {
            return Err(Error::IndexTooLong { file, max_entries: MAX_INDEX_ENTRIES });
        }
        list.push(parse(&value, id));
    }
    Ok(list)
}

fn person(value: &Value, id: String) -> Person {
    let paths = ["/profile/display_name", "/profile/real_name", "/real_name", "/name"];
    let names = paths.iter().filter_map(|path| name(value.pointer(path)));
    let name =
        names.map(|name| without_invisible(&name).trim().to_owned()).find(|name| !name.is_empty());
    Person { name: name.unwrap_or_else(|| id.clone()), is_bot: is_true(value, "is_bot"), id }
}

fn channel(value: &Value, id: String) -> Channel {
    let text = |path| value.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let own = value.get("parley").and_then(|own| OwnChannel::deserialize(own).ok());
    let own = own.unwrap_or_default();
    let topic = text("/topic/value").or_else(|| text("/purpose/value")).map(str::to_owned);
    let created_ms =
        value.get("created").and_then(Value::as_i64).and_then(|at| at.checked_mul(1_000));
    Channel {
        name: name(value.get("name")).unwrap_or_else(|| id.clone()),
        own_name: own.name,
        topic: topic.or(own.topic),
        created_ms: own.created_ms.or(created_ms),
        archived: is_true(value, "is_archived"),
        id,
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

/// Returns the day files of `channels` in reading order, and how many other files there are.
fn days(entries: &Entries, root: &str, channels: &[Channel]) -> (Vec<Day>, u64) {
    let mut by_name = HashMap::new();
    for (number, channel) in channels.iter().enumerate() {
        by_name.entry(channel.name.as_str()).or_insert(number);
    }
    let mut found = Vec::new();
    let mut ignored_files = 0;
    for (entry, file) in entries.list().iter().enumerate() {
        let path = file.name.strip_prefix(root).unwrap_or_default();
        let day = path.split_once('/').filter(|(_, day)| is_day(day));
        if let Some(channel) = day.and_then(|(folder, _)| by_name.get(folder)) {
            found.push((*channel, path, entry));
        } else if !INDEX_FILES.contains(&path) && !is_junk(&file.name) {
            ignored_files += 1;
        }
    }
    found.sort_unstable();
    let day =
        |(channel, _, entry): (usize, _, _)| Day { entry, channel: channels[channel].name.clone() };
    (found.into_iter().map(day).collect(), ignored_files)
}

fn is_day(name: &str) -> bool {
    let form = b"dddd-dd-dd.json";
    name.len() == form.len()
        && name.bytes().zip(form).all(|(byte, &wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            _ => byte == wanted,
        })
}
