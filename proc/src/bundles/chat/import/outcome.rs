//! Result of an import: what became of every record, and what was left out, by name and reason.

use std::collections::BTreeMap;

use proto::ImportResponse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bundles::chat::slack::{self, BadEntry, Conversation, LeftOut, Position, Privacy};

/// Kinds of skipped records told apart.
const MAX_KINDS: usize = 64;
/// Entries and bytes of JSON of one list in the result; those beyond are counted.
const MAX_LISTED: usize = 50;
const MAX_LIST_BYTES: usize = 8 << 10;

/// Counts of people or channels.
#[derive(Clone, Default, Serialize)]
pub(super) struct Counts {
    total: usize,
    written: u64,
    existing: u64,
    /// Members that have another name here now.
    #[serde(skip_serializing_if = "is_zero")]
    updated: u64,
    failed: u64,
    /// Entries of the archive's lists that cannot be used; they count as failed.
    #[serde(skip)]
    unusable: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Counts {
    pub(super) fn of(total: usize) -> Self {
        Self { total, ..Self::default() }
    }

    pub(super) fn add(&mut self, outcome: &ImportResponse) {
        self.written += outcome.written;
        self.existing += outcome.existing;
        self.updated += outcome.updated;
        self.failed += outcome.failed;
    }

    /// Adds entries of the archive's lists that cannot be used.
    pub(super) fn leave_out(&mut self, entries: usize) {
        self.total += entries;
        self.unusable += entries as u64;
        self.failed += entries as u64;
    }
}

/// Counts of the archive's records. `total` is the sum of the others.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Messages {
    pub(super) total: u64,
    pub(super) imported: u64,
    /// In the project before this import.
    pub(super) existing: u64,
    /// In the project before this import, as another text, with fewer reactions or without their thread.
    pub(super) updated: u64,
    pub(super) failed: u64,
    /// By kind.
    pub(super) skipped: BTreeMap<String, u64>,
}

impl Messages {
    pub(super) fn skip(&mut self, skipped: BTreeMap<String, u64>) {
        for (kind, count) in skipped {
            let room = self.skipped.len() < MAX_KINDS || self.skipped.contains_key(&kind);
            *self.skipped.entry(if room { kind } else { "other".into() }).or_default() += count;
        }
    }
}

/// A list of bounded length.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Bounded {
    list: Vec<Value>,
    bytes: usize,
    more: u64,
}

impl Bounded {
    fn add(&mut self, entry: Value) {
        let bytes = entry.to_string().len();
        if self.list.len() < MAX_LISTED && self.bytes + bytes <= MAX_LIST_BYTES {
            self.bytes += bytes;
            self.list.push(entry);
        } else {
            self.more += 1;
        }
    }
}

/// The records and their counts as far as an import has come.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Tally {
    pub(super) messages: Messages,
    records: Bounded,
    /// Reactions that were left out, by reason.
    reactions: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds what chat said of a batch.
    pub(super) fn add(&mut self, response: &ImportResponse, reactions_not_sound: u64) {
        self.messages.imported += response.written;
        self.messages.existing += response.existing;
        self.messages.updated += response.updated;
        self.messages.failed += response.failed;
        for (reason, count) in [
            ("name_not_allowed", response.reactions_refused),
            ("over_50_kinds", response.reactions_beyond_limit),
            ("without_name_or_users", reactions_not_sound),
        ] {
            if count > 0 {
                *self.reactions.entry(reason.into()).or_default() += count;
            }
        }
    }

    /// Names a record that failed.
    pub(super) fn name_record(&mut self, file: &str, record: u64, reason: &str) {
        self.records.add(json!({"file": file, "record": record, "reason": reason}));
    }
}

/// Parts of the archive that are not imported, as the survey found them.
#[derive(Default)]
pub(super) struct NotRead {
    files: Bounded,
    files_ignored: u64,
    entries: Bounded,
    entries_left_out: u64,
    conversations: Bounded,
    private: BTreeMap<&'static str, (u64, u64)>,
    made_public: Bounded,
}

impl NotRead {
    pub(super) fn new(
        files: Vec<LeftOut>,
        files_ignored: u64,
        private: &[Conversation],
        made_public: Vec<String>,
    ) -> Self {
        let mut found = Self { files_ignored, ..Self::default() };
        for LeftOut { name, reason } in files {
            found.files.add(json!({"name": name, "reason": reason}));
        }
        found.files.more = files_ignored.saturating_sub(found.files.list.len() as u64);
        for conversation in private {
            let Conversation { id, name, files, records, .. } = conversation;
            let kind = kind(conversation.privacy);
            let counts = found.private.entry(kind).or_default();
            counts.0 += 1;
            counts.1 += records;
            found.conversations.add(json!({
                "kind": kind, "id": id, "name": name, "files": files, "messages": records,
                "reason": "it is private, and only public channels are imported",
            }));
        }
        for name in made_public {
            found.made_public.add(json!(name));
        }
        found
    }

    /// Names entries of the archive's lists that cannot be used: the first ones, and how many there are of each kind.
    pub(super) fn add_entries(&mut self, entries: Vec<BadEntry>, counts: slack::Counts) {
        for BadEntry { file, entry, name, reason } in entries {
            self.entries.add(json!({"file": file, "entry": entry, "name": name, "reason": reason}));
        }
        self.entries_left_out = (counts.people + counts.channels + counts.conversations) as u64;
        self.entries.more = self.entries_left_out.saturating_sub(self.entries.list.len() as u64);
    }
}

fn kind(privacy: Privacy) -> &'static str {
    match privacy {
        Privacy::PrivateChannel => "private_channel",
        Privacy::DirectMessages => "direct_messages",
        Privacy::GroupDirectMessages => "group_direct_messages",
    }
}

/// Returns a sentence for everything that was not imported as it was.
pub(super) fn warnings(
    people: &Counts,
    channels: &Counts,
    tally: &Tally,
    not_read: &NotRead,
) -> Vec<String> {
    let Tally { messages, reactions, .. } = tally;
    let mut warnings = Vec::new();
    let mut warn = |count: u64, singular: &str, plural: &str| match count {
        0 => {}
        1 => warnings.push(format!("1 {singular}")),
        _ => warnings.push(format!("{count} {plural}")),
    };
    warn(
        not_read.files_ignored,
        "file was left out; left_out.files names it",
        "files were left out; left_out.files names them",
    );
    warn(
        not_read.entries_left_out,
        "entry of a list was left out; left_out.entries names it",
        "entries of lists were left out; left_out.entries names them",
    );
    let private: u64 = not_read.private.values().map(|(count, _)| count).sum();
    warn(
        private,
        "private conversation was left out; left_out.conversations names it",
        "private conversations were left out; left_out.conversations names them",
    );
    let made_public = &not_read.made_public;
    warn(
        made_public.list.len() as u64 + made_public.more,
        "channel here was made by an earlier import of one that is private in Slack; made_public names it",
        "channels here were made by an earlier import of ones that are private in Slack; made_public names them",
    );
    warn(
        messages.failed,
        "record failed; left_out.records names it",
        "records failed; left_out.records names them",
    );
    warn(
        channels.failed - channels.unusable,
        "channel was refused, with its messages: the project has as many as it may",
        "channels were refused, with their messages: the project has as many as it may",
    );
    warn(people.failed - people.unusable, "member was refused", "members were refused");
    warn(
        reactions.values().sum(),
        "reaction was left out; reactions_left_out has the reason",
        "reactions were left out; reactions_left_out has the reasons",
    );
    if messages.total == 0 {
        warnings.push("the archive has no messages of public channels".into());
    }
    warnings
}

/// Returns the job's result.
pub(super) fn result(
    people: &Counts,
    channels: &Counts,
    tally: &Tally,
    not_read: &NotRead,
    warnings: &[String],
) -> Value {
    let Tally { messages, records, reactions } = tally;
    let private = not_read.private.iter().map(|(kind, (conversations, messages))| {
        ((*kind).to_owned(), json!({"conversations": conversations, "messages": messages}))
    });
    json!({
        "people": people,
        "channels": channels,
        "messages": messages,
        "reactions_left_out": reactions,
        "files_ignored": not_read.files_ignored,
        "private_left_out": private.collect::<serde_json::Map<_, _>>(),
        "left_out": {
            "files": not_read.files.list,
            "entries": not_read.entries.list,
            "conversations": not_read.conversations.list,
            "records": records.list,
            // Entries beyond those of the lists.
            "more": {
                "files": not_read.files.more,
                "entries": not_read.entries.more,
                "conversations": not_read.conversations.more,
                "records": records.more + messages.failed.saturating_sub(records.list.len() as u64 + records.more),
            },
        },
        "made_public": not_read.made_public.list,
        "warnings": warnings,
    })
}

/// Returns how a log names a record.
pub(super) fn record_name(files: &[String], position: Position) -> String {
    let file = usize::try_from(position.file).ok().and_then(|file| files.get(file));
    file.map_or_else(|| format!("file {}", position.file + 1), Clone::clone)
}
