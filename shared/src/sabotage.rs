//! Deliberate bugs: for each there is a test that must notice it. Only debug builds can be told to have one.

/// What is done wrong.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// Callers are answered a while before the commit.
    AnswerEarly,
    /// Entries are told of a while before the commit.
    PublishEarly,
    /// What is missing between two hints is not read from the journal.
    NoGapFill,
    /// The ends of the logs are not asked for.
    NoHeadPoll,
    /// All entries have the same tag, so that a reused number passes for the entry that was lost.
    NoTagCheck,
    /// A worker that has lost its job, or a writer its answer, goes on as if it had not.
    NoFence,
    /// Entries are numbered by a sequence, whose order is not the order of commits.
    Sequence,
    /// Waits for the database have no deadline.
    NoDatabaseDeadline,
    /// A commit that was not answered is taken for one that succeeded.
    TrustLostCommit,
    /// The fate of a commit that was not answered is looked up before the transaction has ended.
    NoCommitWait,
    /// The text of a message that is deleted or edited stays in its topic.
    NoRedaction,
    /// Whatever belongs to a lease that has run out is taken over at once, also after the database was away.
    ReapAtOnce,
    /// A wait for a bundle counts as an attempt.
    SnoozeCounts,
    /// A bundle that asks for time is called before it is over.
    CallEarly,
    /// A job that its bundle has accepted keeps its worker until the process ends.
    WaitHoldsWorker,
    /// Each process goes by its own machine's clock instead of the database's.
    WallClock,
}
