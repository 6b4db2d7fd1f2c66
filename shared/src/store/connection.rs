//! One connection to whichever database it is, and what a transaction on it can do.

use std::{collections::HashSet, sync::Arc, time::Instant};

use uuid::Uuid;

use super::{
    Appended, Error, Last, Row, Value, clock::Clock, postgres::Postgres, progress::Refusal,
    sqlite::Sqlite,
};
use crate::{bus::News, journal::Topic, sabotage::Sabotage, time::Timestamp};

/// A connection of one thread.
#[derive(Debug)]
pub(super) enum Connection {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

/// Behaviour of a transaction towards topics that another one has locked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Locking {
    /// Waits for them. Only a transaction that wants a single topic may: it holds none while it waits.
    Wait,
    /// Goes on without them.
    Skip,
}

/// A topic that a transaction wanted and does not have.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) topic: Topic,
    /// Another transaction has it; else there is no such topic.
    pub(super) is_locked: bool,
}

/// What became of a commit.
pub(super) enum Committed {
    Yes,
    /// It left nothing, and may be done once more.
    No(Error),
    /// The connection was lost over it and nobody can say.
    Unknown(Error),
}

impl Connection {
    /// Has `refusal` told of writes that are refused and of writes that are committed.
    pub(super) fn watched(self, refusal: &Arc<Refusal>) -> Self {
        match self {
            Self::Sqlite(sqlite) => Self::Sqlite(sqlite.watched(refusal)),
            Self::Postgres(postgres) => Self::Postgres(Box::new(postgres.watched(refusal))),
        }
    }

    /// Opens a transaction that writes.
    ///
    /// The topics' rows are locked at once and in one order, so that what a write finds in a project stays as it is until
    /// its commit, and two groups of writes never wait for each other. Returns the topics that the transaction does not
    /// have. `SQLite` has one writer and needs none of it.
    pub(super) fn begin(
        &mut self,
        topics: &[&Topic],
        locking: Locking,
    ) -> Result<Vec<Absent>, Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.run("BEGIN IMMEDIATE").map(|()| Vec::new()),
            Self::Postgres(postgres) => postgres.begin(topics, locking),
        }
    }

    /// Commits. With `has_evidence` the fate of the transaction can be found out if no answer comes.
    pub(super) fn commit(&mut self, has_evidence: bool) -> Committed {
        match self {
            Self::Sqlite(sqlite) => sqlite.commit().map_or_else(Committed::No, |()| Committed::Yes),
            Self::Postgres(postgres) => postgres.commit(has_evidence),
        }
    }

    /// Forgets what [`Connection::is_changed`] has to say of the statements before.
    pub(super) fn forget_changes(&self) {
        if let Self::Postgres(postgres) = self {
            postgres.forget_changes();
        }
    }

    /// Returns whether a statement since the last [`Connection::forget_changes`] may have changed something, or has failed.
    pub(super) fn is_changed(&self) -> bool {
        match self {
            Self::Sqlite(_) => true,
            Self::Postgres(postgres) => postgres.is_changed(),
        }
    }

    /// Makes the connection fit for the next transaction, however long the database is away, unless `is_closed`.
    pub(super) fn restore(&mut self, is_closed: impl Fn() -> bool) {
        if let Self::Postgres(postgres) = self {
            postgres.restore(is_closed);
        }
    }

    /// Asks a server for a sign of life.
    pub(super) fn probe(&self) {
        if let Self::Postgres(postgres) = self {
            postgres.probe();
        }
    }

    /// Writes a row of its own, which shows whether the database accepts writes again.
    pub(super) fn probe_writes(&mut self) {
        let probe = self.begin(&[], Locking::Wait).and_then(|_| {
            // SQLite's clock is in this row: it may not go back.
            let sql = "INSERT INTO clock (id, time) VALUES (1, $1) \
                       ON CONFLICT (id) DO UPDATE SET time = excluded.time";
            let now = self.clock().now();
            match self {
                Self::Sqlite(sqlite) => sqlite.execute(sql, &[now.into()]),
                Self::Postgres(postgres) => postgres.execute(sql, &[now.into()]),
            }
        });
        let is_written = probe.is_ok() && matches!(self.commit(false), Committed::Yes);
        // The connection has told of the outcome.
        if !is_written {
            let _ = self.run("ROLLBACK");
        }
        self.take_failure();
    }

    /// Gives the failed transaction up and makes the connection fit for another one, if it is worth trying before `until`;
    /// else returns why not.
    pub(super) fn recover(&mut self, error: Error, until: Instant) -> Result<(), Error> {
        match self {
            Self::Sqlite(sqlite) => {
                // Fails when SQLite has rolled back by itself, which is as good.
                let _ = sqlite.run("ROLLBACK");
                Err(error)
            }
            Self::Postgres(postgres) => postgres.recover(error, until),
        }
    }

    /// Runs one of the short statements that frame transactions.
    pub(super) fn run(&self, sql: &str) -> Result<(), Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.run(sql),
            Self::Postgres(postgres) => postgres.batch(sql),
        }
    }

    /// Runs several statements.
    pub(super) fn batch(&self, sql: &str) -> Result<(), Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.batch(sql),
            Self::Postgres(postgres) => postgres.batch(sql),
        }
    }

    /// Runs `work` in a consistent snapshot. After an error it may not have seen all of it.
    pub(super) fn read(&mut self, work: impl FnOnce(&Reader<'_>)) -> Result<(), Error> {
        self.run(match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        })?;
        work(&Reader(self));
        self.take_failure().map_or(Ok(()), Err)?;
        self.run("ROLLBACK")
    }

    /// Says whether other connections write meanwhile.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Takes the failure that asks for the whole transaction to be tried again, whatever became of its work.
    pub(super) fn take_failure(&self) -> Option<Error> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(postgres) => postgres.take_failure(),
        }
    }

    fn last_sent(&self, topic: &Topic) -> Option<Timestamp> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(postgres) => postgres.last_sent(topic),
        }
    }

    fn note_sent(&self, topic: &Topic, at: Timestamp) {
        if let Self::Postgres(postgres) = self {
            postgres.note_sent(topic, at);
        }
    }

    pub(super) fn tx<'a>(
        &'a self,
        appended: &'a mut Appended,
        sabotage: Option<Sabotage>,
    ) -> Tx<'a> {
        Tx { reader: Reader(self), appended, sabotage }
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader(self)
    }

    fn clock(&self) -> &Clock {
        match self {
            Self::Sqlite(sqlite) => sqlite.clock(),
            Self::Postgres(postgres) => postgres.clock(),
        }
    }
}

/// Reads inside a transaction.
///
/// Statements number their parameters `$1`, `$2`, …, as `PostgreSQL` has them.
#[derive(Debug)]
pub struct Reader<'a>(&'a Connection);

impl Reader<'_> {
    /// Returns the time by the database's clock, which all processes of the database share. Nothing is read for it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock().now()
    }

    /// Reads the database's clock and returns its time. From then on [`Reader::now`] goes by this reading.
    pub fn read_clock(&self) -> Result<Timestamp, Error> {
        let clock = self.0.clock();
        if clock.is_of_server() {
            let sql = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT";
            let sent = Instant::now();
            let read = self.find(sql, &[], |row| row.get(0))?;
            clock.observe(sent, read.ok_or(Error::Gone)?);
        }
        Ok(clock.now())
    }

    /// Returns every row of the answer, each through `map`.
    pub fn query<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        match self.0 {
            Connection::Sqlite(sqlite) => sqlite.query(sql, params, map),
            Connection::Postgres(postgres) => postgres.query(sql, params, map),
        }
    }

    /// Returns every row whose `column` is one of `values`, each through `map`; `sql` ends where the condition begins.
    pub fn query_in<T>(
        &self,
        sql: &str,
        column: &str,
        values: &[Value<'_>],
        map: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        match self.0 {
            Connection::Sqlite(sqlite) => sqlite.query_in(sql, column, values, map),
            Connection::Postgres(postgres) => postgres.query_in(sql, column, values, map),
        }
    }

    /// Returns the answer's first row, if there is one.
    pub fn find<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match self.0 {
            Connection::Sqlite(sqlite) => sqlite.find(sql, params, map),
            Connection::Postgres(postgres) => postgres.find(sql, params, map),
        }
    }
}

/// Reads and writes inside a transaction.
#[derive(Debug)]
pub struct Tx<'a> {
    reader: Reader<'a>,
    pub(super) appended: &'a mut Appended,
    /// The deliberate bug that its users have, for a test to notice.
    pub sabotage: Option<Sabotage>,
}

impl<'a> std::ops::Deref for Tx<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

impl Tx<'_> {
    /// Runs a statement and returns how many rows it changed.
    pub fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<usize, Error> {
        match self.reader.0 {
            Connection::Sqlite(sqlite) => sqlite.execute(sql, params),
            Connection::Postgres(postgres) => postgres.execute(sql, params),
        }
    }

    /// Runs an `INSERT`, between `before` and `after`, of rows of `width` values; many at once.
    pub fn execute_rows(
        &mut self,
        before: &str,
        after: &str,
        width: usize,
        values: &[Value<'_>],
    ) -> Result<(), Error> {
        if values.is_empty() {
            return Ok(());
        }
        match self.reader.0 {
            Connection::Sqlite(sqlite) => sqlite.execute_rows(before, after, width, values),
            Connection::Postgres(postgres) => postgres.execute_rows(before, after, width, values),
        }
    }

    /// Sets `columns` of rows of `table`, the first of them being its key; many rows at once, each a value a column.
    pub fn update_rows(
        &mut self,
        table: &str,
        columns: &[&str],
        values: &[Value<'_>],
    ) -> Result<(), Error> {
        if values.is_empty() {
            return Ok(());
        }
        match self.reader.0 {
            Connection::Sqlite(sqlite) => sqlite.update_rows(table, columns, values),
            Connection::Postgres(postgres) => postgres.update_rows(table, columns, values),
        }
    }

    /// Like [`Tx::update_rows`], but only of rows whose `counter`, one of the columns, is one less than it is set to. Returns
    /// the keys of those.
    pub fn advance_rows(
        &mut self,
        table: &str,
        columns: &[&str],
        counter: &str,
        values: &[Value<'_>],
    ) -> Result<HashSet<Uuid>, Error> {
        if values.is_empty() {
            return Ok(HashSet::new());
        }
        match self.reader.0 {
            Connection::Sqlite(sqlite) => sqlite.advance_rows(table, columns, counter, values),
            Connection::Postgres(postgres) => {
                postgres.advance_rows(table, columns, counter, values)
            }
        }
    }

    /// Returns when the last message was sent to a topic that the transaction has locked. `None` if that is not known.
    pub fn last_sent(&self, topic: &Topic) -> Result<Option<Timestamp>, Error> {
        // The lock of PostgreSQL's row came with it: another query would be a tenth of the server's work for a send.
        if let Some(sent_at) = self.reader.0.last_sent(topic) {
            return Ok(Some(sent_at));
        }
        let sql = "SELECT sent_at FROM topics WHERE name = $1";
        Ok(self.find(sql, &[topic.as_str().into()], |row| row.get(0))?.flatten())
    }

    /// Notes when a message is sent, for [`Tx::last_sent`] in the same transaction.
    pub(crate) fn note_sent(&self, topic: &Topic, at: Timestamp) {
        self.reader.0.note_sent(topic, at);
    }

    /// Returns the time by the database's clock as [`Reader::read_clock`] does. Where that is this machine's it is written
    /// down, so that it goes on from there should the machine's clock be set back while no process runs.
    pub fn keep_clock(&mut self) -> Result<Timestamp, Error> {
        let now = self.read_clock()?;
        if !self.reader.0.clock().is_of_server() {
            let sql = "INSERT INTO clock (id, time) VALUES (1, $1) \
                       ON CONFLICT (id) DO UPDATE SET time = excluded.time";
            self.execute(sql, &[now.into()])?;
        }
        Ok(now)
    }

    /// Appends an entry to `topic` when all writes of the transaction are done, so that a log which many kinds of work
    /// append to is locked for the time of the commit alone. Nothing else may lock such a log.
    pub fn append_last(&mut self, topic: &Topic, kind: &'static str, data: Arc<str>) {
        self.appended.last.push(Last { topic: topic.clone(), kind, data });
    }

    /// Has the database keep no copy of what the transaction erases. The log of `SQLite` is emptied in the next seconds; without
    /// this it keeps erased text until it is written over.
    pub fn erases(&mut self) {
        self.appended.erases = true;
    }

    /// Notes what whoever publishes is to tell.
    pub(crate) fn appended(&mut self, news: News) {
        self.appended.news.push(news);
    }
}
