//! Holds what streams were given against what was sent and what the log says. Nothing here knows of sockets.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    ops::AddAssign,
    time::Duration,
};

use uuid::Uuid;

use crate::history::{Entry, History, Log, Rewind, Seen, Send, Stream, Try};

/// Time that a request may take to be answered, by a refusal too.
const ANSWER_TIME: Duration = Duration::from_secs(8);

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
    /// Streams that were told that the log cannot be continued, more often than the database lost something.
    pub resets: usize,
    /// Members who were refused, or told not to come back.
    pub refused: usize,
    /// Sends with a request that was neither acknowledged nor refused in time.
    pub unanswered: usize,
}

impl Counts {
    /// Returns each count with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, usize); 8] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("phantom", self.phantom),
            ("unauthorised", self.unauthorised),
            ("resets", self.resets),
            ("refused", self.refused),
            ("unanswered", self.unanswered),
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
        self.unanswered += other.unanswered;
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
    /// Acknowledged, and lost by the database when it went back to an older copy: nobody can deliver that.
    pub rewound: usize,
    /// The same for each stream to which something happened, by its number.
    pub by_stream: Vec<(usize, Counts)>,
}

/// Judges a run.
#[must_use]
pub fn judge(history: &History) -> Verdict {
    let projects: Vec<Project<'_>> =
        (0..history.logs.len()).map(|number| Project::new(history, number)).collect();
    let mut verdict = Verdict::default();
    verdict.counts.unanswered = unanswered(history);
    for project in &projects {
        verdict.counts += project.own();
        verdict.rewound += project.rewound.len();
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

/// Counts sends that were not answered in time though somebody could have.
fn unanswered(history: &History) -> usize {
    let is_excused = |slowest: Try| {
        history.held.iter().any(|held| slowest.began < held.to && held.from < slowest.ended)
    };
    let slowest = history.sends.iter().map(|send| send.slowest);
    slowest.filter(|slowest| slowest.took() > ANSWER_TIME && !is_excused(*slowest)).count()
}

/// One project's part of the history.
struct Project<'a> {
    log: &'a Log,
    by_message: HashMap<Uuid, Entry>,
    sends: Vec<(usize, &'a Send)>,
    rewinds: &'a [Rewind],
    /// Sends that were acknowledged and then lost by the database.
    rewound: HashSet<usize>,
}

impl<'a> Project<'a> {
    fn new(history: &'a History, number: usize) -> Self {
        let log = &history.logs[number];
        let sends = history.sends.iter().enumerate();
        let by_message: HashMap<Uuid, Entry> =
            log.entries.iter().map(|entry| (entry.message, *entry)).collect();
        let sends: Vec<_> = sends.filter(|(_, send)| send.project == number).collect();
        let rewinds = &history.rewinds;
        let is_rewound = |(_, send): &&(usize, &Send)| {
            send.answer.is_some_and(|answer| {
                may_be_lost(rewinds, answer.at) && !by_message.contains_key(&answer.message)
            })
        };
        let rewound = sends.iter().filter(is_rewound).map(|(number, _)| *number).collect();
        Self { log, by_message, sends, rewinds, rewound }
    }

    /// Judges the log itself, which is one more follower.
    fn own(&self) -> Counts {
        let logged: HashSet<usize> =
            self.log.entries.iter().filter_map(|entry| entry.send).collect();
        let lost = self.sends.iter().filter(|(number, send)| match send.answer {
            Some(_) if self.rewound.contains(number) => false,
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
        // Each time that the database loses something a stream is told so once.
        let resets = stream.resets.saturating_sub(self.rewinds.len());
        let mut counts = Counts { resets, ..Counts::default() };
        if !stream.is_member {
            counts.unauthorised = stream.opened;
        } else if removal.is_none() && (!stream.is_leaver || self.rewinds.is_empty()) {
            counts.refused = stream.refused;
        }
        let mut had = HashSet::new();
        let mut last = i64::MIN;
        for seen in &stream.seen {
            // The number of an entry that the database lost is given again, perhaps to what comes after a removal.
            let is_rewound =
                may_be_lost(self.rewinds, seen.at) && !self.by_message.contains_key(&seen.message);
            let removed = removal.is_some_and(|removal| seen.seq > removal.seq) && !is_rewound;
            if removed || !stream.is_member {
                counts.unauthorised += 1;
                continue;
            }
            let Some((send, entry)) = self.known(seen) else {
                counts.phantom += usize::from(!may_be_lost(self.rewinds, seen.at));
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
        // A stream that was reset has the rest from history, as its client fetches the state anew.
        let Some(begin) = stream.reset.or(stream.begins) else { return HashSet::new() };
        let sent = self.sends.iter().filter(|(number, send)| {
            send.answer.is_some() && send.began >= begin.at && !self.rewound.contains(number)
        });
        let logged = self.log.entries.iter().filter(|entry| entry.seq > begin.after);
        sent.map(|(number, _)| *number).chain(logged.filter_map(|entry| entry.send)).collect()
    }
}

/// Returns whether the database may have lost what was done at that time.
fn may_be_lost(rewinds: &[Rewind], at: Duration) -> bool {
    rewinds.iter().any(|rewind| (rewind.copied..=rewind.restored).contains(&at))
}

#[cfg(test)]
mod tests;
