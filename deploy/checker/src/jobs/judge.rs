//! What is wrong with what clients saw of their jobs; knows nothing of sockets.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::bundle::Calls;

/// What all clients saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub owners: Vec<Owned>,
    /// How far every job was to count.
    pub counts: u64,
    /// Number of interruptions that the faults explain: as many as the affected workers can have had jobs.
    pub excused: usize,
    /// Calls and callbacks as the bundles behind a URL saw them.
    pub calls: Calls,
}

/// What an owner's clients saw.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    /// The number of the log where the stream began.
    pub begins: Option<i64>,
    /// How often the stream was opened.
    pub opened: usize,
    /// How often it was told to begin anew.
    pub resets: usize,
    /// In the order in which it came.
    pub told: Vec<Told>,
    /// The job of each submission that was acknowledged.
    pub submitted: Vec<Uuid>,
    /// How each job was in the end.
    pub last: HashMap<Uuid, Last>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub seq: i64,
    pub job: Uuid,
    /// Such as `job.started`.
    pub kind: String,
}

/// A job as it is when all is over.
#[derive(Clone, Debug)]
pub struct Last {
    pub state: String,
    pub attempt: u64,
    pub counted: Option<u64>,
    /// Such as `demo.count`.
    pub operation: String,
    /// As the API shows it.
    pub error: Option<serde_json::Value>,
    /// As the API shows it; `None` once the job has ended.
    pub run_after: Option<String>,
}

impl Last {
    /// Returns whether the job did what it was to do.
    fn is_done(&self, to: u64) -> bool {
        self.state == "succeeded" && self.counted == Some(to)
    }
}

const ENDS: [&str; 3] = ["job.succeeded", "job.failed", "job.cancelled"];

impl Owned {
    /// Returns how many events told of an end.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.told.iter().filter(|told| ENDS.contains(&&*told.kind)).count()
    }

    /// Returns how many events told of a job that was interrupted.
    #[must_use]
    pub fn interrupted(&self) -> usize {
        self.told.iter().filter(|told| told.kind == "job.interrupted").count()
    }
}

/// How often something was not as it should be.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged, and no end was told.
    pub lost: usize,
    /// More ends than one.
    pub ended_twice: usize,
    /// Two submissions got the same job.
    pub merged: usize,
    /// Told of, and never acknowledged.
    pub phantom: usize,
    /// An event that cannot follow the one before it, such as a start of a job that runs.
    pub out_of_turn: usize,
    /// Numbers of the log that were not told.
    pub holes: usize,
    /// Numbers of the log that were told again or too late.
    pub repeated: usize,
    /// Streams that were told to begin anew.
    pub resets: usize,
    /// Jobs that did not do what they were to do.
    pub failed: usize,
    /// Jobs that were charged an attempt for what was done to their worker.
    pub charged: usize,
    /// Interruptions that no fault explains: the job was taken from a worker that was there.
    pub stolen: usize,
    /// Bundles that were called sooner than they asked, for a job that was never interrupted.
    pub early: usize,
    /// Bundles that were called again for a job that they had accepted and called back for.
    pub called_again: usize,
}

impl Counts {
    /// Returns each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, usize); 13] {
        [
            ("lost", self.lost),
            ("ended twice", self.ended_twice),
            ("merged", self.merged),
            ("phantom", self.phantom),
            ("events out of turn", self.out_of_turn),
            ("holes in a log", self.holes),
            ("repeated", self.repeated),
            ("resets", self.resets),
            ("failed", self.failed),
            ("charged for a lost worker", self.charged),
            ("taken from a live worker", self.stolen),
            ("called sooner than asked", self.early),
            ("called again after a callback", self.called_again),
        ]
    }
}

/// Counts what is wrong.
#[must_use]
pub fn judge(history: &History) -> Counts {
    let mut counts = Counts::default();
    for owned in &history.owners {
        judge_one(owned, history.counts, &mut counts);
    }
    let interrupted: usize = history.owners.iter().map(Owned::interrupted).sum();
    counts.stolen = interrupted.saturating_sub(history.excused);
    let told = history.owners.iter().flat_map(|owned| &owned.told);
    let was_interrupted: HashSet<Uuid> =
        told.filter(|told| told.kind == "job.interrupted").map(|told| told.job).collect();
    // A worker that was taken away before it wrote down that it was asked to wait is excused.
    let early = history.calls.early.iter().filter(|job| !was_interrupted.contains(job));
    counts.early = early.count();
    counts.called_again = history.calls.again.len();
    counts
}

/// Describes the jobs that were lost or failed, so that a reader of the report can look for the cause.
#[must_use]
pub fn describe_unfinished(history: &History) -> Vec<String> {
    let mut described = Vec::new();
    for owned in &history.owners {
        for job in &owned.submitted {
            let last = owned.last.get(job);
            if last.is_some_and(|last| last.is_done(history.counts)) {
                continue;
            }
            let told = owned.told.iter().filter(|told| told.job == *job);
            let events: Vec<String> =
                told.map(|told| format!("{} {}", told.seq, told.kind)).collect();
            described.push(format!("{job} {last:?}; events: {}", events.join(", ")));
        }
    }
    described
}

fn judge_one(owned: &Owned, to: u64, counts: &mut Counts) {
    let submitted: HashSet<Uuid> = owned.submitted.iter().copied().collect();
    counts.merged += owned.submitted.len() - submitted.len();
    counts.resets += owned.resets;
    let mut next = owned.begins.unwrap_or_default() + 1;
    let mut told: HashMap<Uuid, &str> = HashMap::new();
    let mut ends: HashMap<Uuid, usize> = HashMap::new();
    for Told { seq, job, kind } in &owned.told {
        if *seq < next {
            counts.repeated += 1;
            continue;
        }
        counts.holes += usize::try_from(*seq - next).unwrap_or_default();
        next = *seq + 1;
        if !follows(told.insert(*job, kind), kind) {
            counts.out_of_turn += 1;
        }
        if ENDS.contains(&&**kind) {
            *ends.entry(*job).or_default() += 1;
        }
    }
    counts.phantom += told.keys().filter(|job| !submitted.contains(job)).count();
    counts.lost += submitted.iter().filter(|job| !ends.contains_key(job)).count();
    counts.ended_twice += ends.values().filter(|ends| **ends > 1).count();
    for job in &submitted {
        match owned.last.get(job) {
            Some(last) if last.is_done(to) => {
                counts.charged += usize::from(last.attempt != 1);
            }
            _ => counts.failed += 1,
        }
    }
}

/// Says whether an event may come after the one before it of the same job.
fn follows(before: Option<&str>, kind: &str) -> bool {
    match before {
        None => kind == "job.queued",
        Some("job.queued" | "job.interrupted" | "job.retrying") => {
            ["job.started", "job.cancelled"].contains(&kind)
        }
        Some("job.started" | "job.progress") => !["job.queued", "job.started"].contains(&kind),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests;
