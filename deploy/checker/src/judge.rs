//! Holds what streams were given against what was sent and what the log says. Nothing here knows of sockets.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    ops::AddAssign,
};

use uuid::Uuid;

use crate::history::{Entry, History, Log, Seen, Send, Stream};

/// What went wrong, each thing that did counted once for each stream that it happened to.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged, or in the log, and not delivered to a stream that was open before.
    pub lost: usize,
    /// Delivered to a stream that had it already.
    pub duplicated: usize,
    /// Delivered after what comes later in the log, or under another number than the log's.
    pub reordered: usize,
    /// Delivered, and never sent or not in the log.
    pub phantom: usize,
    /// Delivered to who is no member of its project, or after a removal; or a stream that was opened to who is none.
    pub unauthorised: usize,
    /// Streams that were told that the log cannot be continued.
    pub resets: usize,
    /// Members who were refused, or told not to come back.
    pub refused: usize,
}

impl Counts {
    /// Returns each count with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, usize); 7] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("phantom", self.phantom),
            ("unauthorised", self.unauthorised),
            ("resets", self.resets),
            ("refused", self.refused),
        ]
    }

    /// Says whether nothing went wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.phantom += other.phantom;
        self.unauthorised += other.unauthorised;
        self.resets += other.resets;
        self.refused += other.refused;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.named().map(|(name, count)| format!("{name} {count}"));
        f.write_str(&named.join(", "))
    }
}

/// What the judge says of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub counts: Counts,
    /// The same for each stream to which something happened, by its number.
    pub by_stream: Vec<(usize, Counts)>,
}

/// Judges a run.
#[must_use]
pub fn judge(history: &History) -> Verdict {
    let projects: Vec<Project<'_>> =
        (0..history.logs.len()).map(|number| Project::new(history, number)).collect();
    let mut verdict = Verdict::default();
    for project in &projects {
        verdict.counts += project.own();
    }
    for (number, stream) in history.streams.iter().enumerate() {
        let counts = projects[stream.project].stream(stream);
        if !counts.is_clean() {
            verdict.by_stream.push((number, counts));
        }
        verdict.counts += counts;
    }
    verdict
}

/// One project's part of the history.
struct Project<'a> {
    log: &'a Log,
    by_message: HashMap<Uuid, Entry>,
    sends: Vec<(usize, &'a Send)>,
}

impl<'a> Project<'a> {
    fn new(history: &'a History, number: usize) -> Self {
        let log = &history.logs[number];
        let sends = history.sends.iter().enumerate();
        Self {
            log,
            by_message: log.entries.iter().map(|entry| (entry.message, *entry)).collect(),
            sends: sends.filter(|(_, send)| send.project == number).collect(),
        }
    }

    /// Judges the log itself, which is one more follower.
    fn own(&self) -> Counts {
        let logged: HashSet<usize> =
            self.log.entries.iter().filter_map(|entry| entry.send).collect();
        let lost = self.sends.iter().filter(|(number, send)| match send.answer {
            Some(answer) => {
                !logged.contains(number) || !self.by_message.contains_key(&answer.message)
            }
            None => false,
        });
        let mut counts = Counts { lost: lost.count() + self.log.holes, ..Counts::default() };
        let mut had = HashSet::new();
        for entry in &self.log.entries {
            match entry.send {
                None => counts.phantom += 1,
                Some(send) => counts.duplicated += usize::from(!had.insert(send)),
            }
        }
        counts
    }

    fn stream(&self, stream: &Stream) -> Counts {
        let removal = self.log.removals.iter().find(|removal| removal.user == stream.user);
        let mut counts = Counts { resets: stream.resets, ..Counts::default() };
        if !stream.is_member {
            counts.unauthorised = stream.opened;
        } else if removal.is_none() {
            counts.refused = stream.refused;
        }
        let mut had = HashSet::new();
        let mut last = i64::MIN;
        for seen in &stream.seen {
            let removed = removal.is_some_and(|removal| seen.seq > removal.seq);
            if removed || !stream.is_member {
                counts.unauthorised += 1;
                continue;
            }
            let Some((send, entry)) = self.known(seen) else {
                counts.phantom += 1;
                continue;
            };
            if !had.insert(send) {
                counts.duplicated += 1;
            } else if entry.seq != seen.seq || entry.seq <= last {
                counts.reordered += 1;
            }
            last = last.max(entry.seq);
        }
        // Whoever was removed may have been away until then, and cannot catch up any more.
        if stream.is_member && removal.is_none() {
            counts.lost = self.expected(stream).difference(&had).count();
        }
        counts
    }

    /// Returns the send and the entry of a delivery, `None` if either is not there.
    fn known(&self, seen: &Seen) -> Option<(usize, Entry)> {
        let entry = self.by_message.get(&seen.message)?;
        let send = seen.send?;
        (entry.send == Some(send)).then_some((send, *entry))
    }

    /// Returns the sends that the stream must have: by the senders' account and by the log's.
    fn expected(&self, stream: &Stream) -> HashSet<usize> {
        let Some(begin) = stream.begins else { return HashSet::new() };
        let sent =
            self.sends.iter().filter(|(_, send)| send.answer.is_some() && send.began >= begin.at);
        let logged = self.log.entries.iter().filter(|entry| entry.seq > begin.after);
        sent.map(|(number, _)| *number).chain(logged.filter_map(|entry| entry.send)).collect()
    }
}

#[cfg(test)]
mod tests;
