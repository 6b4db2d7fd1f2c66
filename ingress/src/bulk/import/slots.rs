//! Finds the rows of records that share a time: by author and text, and by their order only as the last resort.
//!
//! A message's id follows from its time and its number among the records of that time. Another archive may have fewer of
//! these records, or another order. Then a record takes the number of the row that holds its message.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::ImportSibling;
use sha2::{Digest as _, Sha256};
use shared::{
    ids::{ChannelName, MessageId, ProjectId, UserId},
    store::{Error, Reader},
};
use uuid::Uuid;

use super::{
    There,
    message::{Checked, UNKNOWN_AUTHOR, imported},
    there_of,
};
use crate::bulk::identity::{Identity, MAX_OCCURRENCES};

/// Numbers whose rows are read at once; nearly every time has one message.
const NUMBERS_READ: u32 = 4;

pub(super) type Time = (ChannelName, i64);
/// The rows of times, by their numbers.
pub(super) type Rows = BTreeMap<Time, BTreeMap<u32, MessageId>>;

/// The rows of times at which a number does not tell enough.
pub(super) struct Slots<'a> {
    project: ProjectId,
    source: &'a str,
    import: Uuid,
    /// Messages of the same times that are in other batches.
    siblings: BTreeMap<Time, Vec<Member<'a>>>,
}

/// A message of a time, as far as its row is found by it.
#[derive(Clone)]
struct Member<'a> {
    author: UserId,
    text: Text<'a>,
    occurrence: u32,
    is_edited: bool,
    is_deleted: bool,
}

#[derive(Clone)]
enum Text<'a> {
    Whole(&'a str),
    Digest(&'a [u8]),
}

impl<'a> Member<'a> {
    fn of(message: &'a Checked) -> Self {
        Self {
            author: message.author.clone(),
            text: Text::Whole(&message.text),
            occurrence: message.occurrence,
            is_edited: message.updated_at.is_some(),
            is_deleted: message.deleted_at.is_some(),
        }
    }

    /// Returns whether this is the message of a row.
    fn is_same(&self, row: &There) -> bool {
        let has_text = || match self.text {
            Text::Whole(text) => row.text == text,
            Text::Digest(digest) => {
                !digest.is_empty() && Sha256::digest(&row.text).starts_with(digest)
            }
        };
        self.author == row.author && self.is_deleted == row.deleted_at.is_some() && has_text()
    }
}

impl<'a> Slots<'a> {
    /// Returns the slots of a batch; `siblings` are messages of other batches.
    pub(super) fn new(
        project: ProjectId,
        source: &'a str,
        import: Uuid,
        siblings: &'a [ImportSibling],
    ) -> Self {
        let mut of_times: BTreeMap<Time, Vec<Member<'a>>> = BTreeMap::new();
        for sibling in siblings {
            let channel = sibling.channel.parse::<ChannelName>();
            let (Ok(channel), Some(author)) = (channel, imported(&sibling.author)) else {
                continue;
            };
            if sibling.occurrence < MAX_OCCURRENCES {
                of_times.entry((channel, sibling.sent_at_us)).or_default().push(Member {
                    author,
                    text: Text::Digest(&sibling.text_digest),
                    occurrence: sibling.occurrence,
                    is_edited: sibling.is_edited,
                    is_deleted: sibling.is_deleted,
                });
            }
        }
        Self { project, source, import, siblings: of_times }
    }

    /// Gives the messages, and the links to messages, the numbers of their rows; adds the rows that it reads to `there`. Returns
    /// the indexes of the messages for which there is no number left.
    pub(super) fn assign(
        &self,
        reader: &Reader<'_>,
        messages: &mut [Checked],
        there: &mut HashMap<MessageId, There>,
    ) -> Result<BTreeSet<usize>, Error> {
        let mut times = BTreeSet::<Time>::new();
        for message in messages.iter() {
            if message.is_counted && !is_certain(message, there) {
                times.insert((message.channel.clone(), message.sent_at_us));
            }
            if let Some(root) = &message.reply_to {
                let time = (root.channel.clone(), root.sent_at_us);
                let is_other = there.get(&root.id).is_some_and(|row| row.author != root.author);
                let is_known = root.author.as_str() != UNKNOWN_AUTHOR;
                if is_known && (is_other || self.siblings.contains_key(&time)) {
                    times.insert(time);
                }
            }
        }
        let rows = self.rows(reader, times, there)?;
        let mut refused = BTreeSet::new();
        let mut elsewhere: HashMap<(Time, UserId), MessageId> = HashMap::new();
        for (time, rows) in &rows {
            let is_of_time =
                |message: &Checked| message.sent_at_us == time.1 && message.channel == time.0;
            let mut group: Vec<(Option<usize>, Member<'_>)> = Vec::new();
            for (index, message) in messages.iter().enumerate() {
                if message.is_counted && is_of_time(message) {
                    group.push((Some(index), Member::of(message)));
                }
            }
            let siblings = self.siblings.get(time).into_iter().flatten();
            group.extend(siblings.map(|sibling| (None, sibling.clone())));
            group.sort_by_key(|(index, member)| (member.occurrence, index.is_none()));
            group.dedup_by_key(|(_, member)| member.occurrence);
            let (indexes, members): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let numbers = self.numbers(&members, rows, there);
            let mut moved = Vec::new();
            for (at, (index, member)) in indexes.into_iter().zip(members).enumerate() {
                let number = numbers.get(&at).copied();
                if let Some(index) = index {
                    moved.push((index, member.occurrence, number));
                } else if let Some(id) = number.and_then(|number| self.id(time, number)) {
                    elsewhere.entry((time.clone(), member.author)).or_insert(id);
                }
            }
            moved.sort_unstable_by_key(|(index, ..)| *index);
            for (index, message) in messages.iter_mut().enumerate() {
                let is_of = |entry: &&(usize, u32, Option<u32>)| {
                    index >= entry.0 && entry.1 == message.occurrence
                };
                if !is_of_time(message) {
                    continue;
                }
                let Some((_, from, to)) = moved.iter().rev().find(is_of) else { continue };
                let is_placed = match to {
                    Some(to) if to == from => true,
                    Some(to) => message.set_occurrence(self.project, self.source, *to),
                    None => false,
                };
                if !is_placed {
                    refused.insert(index);
                }
            }
        }
        Self::link(messages, &rows, there, &elsewhere);
        Ok(refused)
    }

    /// Reads which numbers of the times have rows.
    pub(super) fn rows(
        &self,
        reader: &Reader<'_>,
        times: BTreeSet<Time>,
        there: &mut HashMap<MessageId, There>,
    ) -> Result<Rows, Error> {
        let mut rows: Rows = times.into_iter().map(|time| (time, BTreeMap::new())).collect();
        let mut open: Vec<Time> = rows.keys().cloned().collect();
        let mut first = 0;
        while !open.is_empty() && first < MAX_OCCURRENCES {
            let numbers = first..(first + NUMBERS_READ).min(MAX_OCCURRENCES);
            let ids: Vec<(&Time, u32, MessageId)> = open
                .iter()
                .flat_map(|time| numbers.clone().map(move |number| (time, number)))
                .filter_map(|(time, number)| Some((time, number, self.id(time, number)?)))
                .collect();
            let unread = ids.iter().map(|(_, _, id)| *id).filter(|id| !there.contains_key(id));
            let found = there_of(reader, &unread.collect())?;
            there.extend(found);
            let mut further = BTreeSet::new();
            for (time, number, id) in ids {
                if there.contains_key(&id) {
                    further.insert(time.clone());
                    rows.entry(time.clone()).or_default().insert(number, id);
                }
            }
            open = further.into_iter().collect();
            first += NUMBERS_READ;
        }
        Ok(rows)
    }

    fn id(&self, (channel, sent_at_us): &Time, occurrence: u32) -> Option<MessageId> {
        let (project, source, sent_at_us) = (self.project, self.source, *sent_at_us);
        Identity { project, source, channel, sent_at_us, occurrence, part: 0 }.id()
    }

    /// Returns the number of each message of one time, by its index.
    fn numbers(
        &self,
        members: &[Member<'_>],
        rows: &BTreeMap<u32, MessageId>,
        there: &HashMap<MessageId, There>,
    ) -> BTreeMap<usize, u32> {
        let mut free: BTreeMap<u32, &There> =
            rows.iter().filter_map(|(number, id)| Some((*number, there.get(id)?))).collect();
        let mut found = BTreeMap::new();
        let mut take = |free: &mut BTreeMap<u32, &There>, index: usize, number: Option<u32>| {
            if let Some(number) = number {
                free.remove(&number);
                found.insert(index, number);
            }
            number.is_some()
        };
        let mut open: Vec<usize> = (0..members.len()).collect();
        // The same message.
        open.retain(|index| {
            let message = &members[*index];
            let same = free.iter().filter(|(_, row)| message.is_same(row));
            let number = same
                .map(|(number, _)| *number)
                .min_by_key(|number| (*number != message.occurrence, *number));
            !take(&mut free, *index, number)
        });
        // Another state of a message of the same author. An edited record rather is a message that is here still, and one that
        // was never edited a message that was deleted here, of which no text is left.
        for is_edited in [true, false] {
            open.retain(|index| {
                let message = &members[*index];
                if message.is_edited != is_edited {
                    return true;
                }
                let own = free.iter().filter(|(number, row)| {
                    // A row of this import belongs to another record of the archive, unless this record is imported again.
                    let is_again = **number == message.occurrence
                        && (*number == &0 || row.deleted_at.is_some());
                    row.author == message.author
                        && !row.is_placeholder()
                        && (row.import != Some(self.import) || is_again)
                });
                let number = own.min_by_key(|(number, row)| {
                    let is_other_number = **number != message.occurrence;
                    (row.deleted_at.is_some() == is_edited, is_other_number, **number)
                });
                let number = number.map(|(number, _)| *number);
                !take(&mut free, *index, number)
            });
        }
        // The place that is kept for an answered message: for its author, else for the first record.
        for by_author in [true, false] {
            open.retain(|index| {
                let message = &members[*index];
                let kept = free.iter().find(|(number, row)| {
                    row.is_placeholder()
                        && if by_author {
                            row.author == message.author
                        } else {
                            **number == message.occurrence
                        }
                });
                let number = kept.map(|(number, _)| *number);
                !take(&mut free, *index, number)
            });
        }
        // New messages: under their own numbers as far as these are free.
        let mut used: BTreeSet<u32> = rows.keys().copied().collect();
        open.retain(|index| {
            let number = members[*index].occurrence;
            let is_free = used.insert(number);
            !take(&mut free, *index, is_free.then_some(number))
        });
        for index in open {
            let number = (0..MAX_OCCURRENCES).find(|number| !used.contains(number));
            used.extend(number);
            take(&mut free, index, number);
        }
        found
    }

    /// Lets replies hang on the message of the author whom they name.
    fn link(
        messages: &mut [Checked],
        rows: &Rows,
        there: &HashMap<MessageId, There>,
        elsewhere: &HashMap<(Time, UserId), MessageId>,
    ) {
        let mut authors = HashMap::new();
        for message in messages.iter().filter(|message| message.is_counted) {
            let time = (message.channel.clone(), message.sent_at_us);
            authors.entry((time, message.author.clone())).or_insert(message.id);
        }
        let first_author: HashMap<MessageId, _> = messages
            .iter()
            .filter(|message| message.is_counted)
            .map(|message| (message.id, message.author.clone()))
            .collect();
        for message in messages {
            let Some(root) = &mut message.reply_to else { continue };
            let is_author = |id: &MessageId| {
                first_author.get(id).or_else(|| there.get(id).map(|row| &row.author))
                    == Some(&root.author)
            };
            if is_author(&root.id) {
                continue;
            }
            let time = (root.channel.clone(), root.sent_at_us);
            let here = rows.get(&time).into_iter().flat_map(BTreeMap::values);
            let here = here.copied().find(|id| is_author(id));
            let key = (time, root.author.clone());
            let coming = authors.get(&key).copied();
            let elsewhere = elsewhere.get(&key).copied();
            root.id =
                coming.or(here).or(elsewhere).filter(|id| *id != message.id).unwrap_or(root.id);
        }
    }
}

/// Returns whether a message's row, by its number, is surely its own: nothing is of its time, or the same message.
fn is_certain(message: &Checked, there: &HashMap<MessageId, There>) -> bool {
    match there.get(&message.id) {
        Some(row) if row.is_placeholder() => {
            message.occurrence == 0 && row.author == message.author
        }
        Some(row) => row.is_same(message),
        None => message.occurrence == 0,
    }
}
