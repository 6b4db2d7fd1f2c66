//! What the clients saw of a run. Times are since its beginning, on the one clock of the process that has all clients.

use std::time::Duration;

use uuid::Uuid;

/// Everything that the judge is given.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Each project's log as it was in the end.
    pub logs: Vec<Log>,
    pub sends: Vec<Send>,
    pub streams: Vec<Stream>,
    /// Times in which the database went back to an older copy of itself.
    pub rewinds: Vec<Rewind>,
    /// Times in which requests could not be answered.
    pub held: Vec<Window>,
}

/// The time in which a fault was there.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub from: Duration,
    pub to: Duration,
    /// The database lost what was acknowledged in that time.
    pub rewinds: bool,
    /// Nobody can answer a request that has come to a process then, such as a frozen one.
    pub holds_answers: bool,
}

/// Entries acknowledged between the copy and the return to it may be lost.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    pub copied: Duration,
    pub restored: Duration,
}

/// A project's messages in their order.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub entries: Vec<Entry>,
    /// Who was removed from the project, and at which number of the log.
    pub removals: Vec<Removal>,
    /// Numbers that no entry has; the log is to have none.
    pub holes: usize,
}

/// A message in the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub seq: i64,
    pub message: Uuid,
    /// Which send it is of, if it is of one.
    pub send: Option<usize>,
}

/// The end of a membership.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub seq: i64,
    pub user: usize,
}

/// A send; its number is its place in the list, and its text says it.
#[derive(Clone, Debug)]
pub struct Send {
    pub project: usize,
    pub began: Duration,
    /// When and as what it was acknowledged, if it ever was: else nobody knows what became of it.
    pub answer: Option<Answer>,
    /// The try that took longest to be answered, by a refusal too.
    pub slowest: Try,
}

/// One request of a send.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Try {
    pub began: Duration,
    pub ended: Duration,
}

impl Try {
    /// Returns how long it took.
    #[must_use]
    pub fn took(self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

/// What a sender was told.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub at: Duration,
    pub message: Uuid,
}

/// A stream through all its connections, each of which goes on where the one before ended.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub project: usize,
    pub user: usize,
    /// Whether the user is a member of the project; one may be removed later.
    pub is_member: bool,
    /// True if the scenario removes the user. The database may lose the removal again.
    pub is_leaver: bool,
    /// When it was first open and after which number of the log, if it ever was.
    pub begins: Option<Begin>,
    /// Messages, as they came.
    pub seen: Vec<Seen>,
    /// How often it was told that the log cannot be continued.
    pub resets: usize,
    /// Where it went on after the last time that it was told so.
    pub reset: Option<Begin>,
    /// How often a member was refused, or told not to come back.
    pub refused: usize,
    /// How often it was opened.
    pub opened: usize,
}

/// Where a stream begins.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    pub at: Duration,
    pub after: i64,
}

/// A message that was delivered.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub at: Duration,
    /// The number of the log in the event's id.
    pub seq: i64,
    pub message: Uuid,
    /// Which send its text names, if it names one of the project.
    pub send: Option<usize>,
}
