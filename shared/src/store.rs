//! The one database: reads and writes on threads of their own, each with a connection; writes in groups.
//!
//! A write is a closure that gets a transaction. A writer runs whatever is queued in one transaction, commits once,
//! publishes the journal's entries and only then answers the callers. A closure that fails leaves nothing, and takes none
//! of the others with it: each has a savepoint of its own, on `PostgreSQL` only once one of the group has failed. Once
//! queued a write runs to its end whatever becomes of the caller, so a client that hangs up cannot cut it.
//!
//! `PostgreSQL` has several writers, here and in other processes. What one write finds in a project, and what it makes
//! of it, is kept from the others by [`Store::write_in`], which takes the project's log for it. A transaction that
//! collides with another, or whose connection is lost, is done again: so a closure changes nothing but the database.
//!
//! Every wait has a deadline. A call is answered within `REQUEST_TIMEOUT` whatever the database does: a thread may hang
//! in the disk's or the server's silence, its caller never does. A write that was answered so has an unknown fate. All calls
//! of one request share that time, see [`budget`].

pub mod budget;
mod clock;
mod connection;
mod migrations;
mod postgres;
mod progress;
mod queue;
mod reader;
mod rewrite;
mod sqlite;
mod value;
mod work;
mod writer;

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

pub use self::{
    clock::Clock,
    connection::{Reader, Tx},
    progress::Health,
    value::{Column, ColumnValue, Row, Value},
};
use self::{
    connection::Connection,
    progress::{Progress, Refusal},
    queue::{Lane, Queue, Writes},
    rewrite::Location,
    work::{Call, Read},
    writer::Writer,
};
use crate::{
    bus::{Bus, News},
    files,
    journal::Topic,
    sabotage::Sabotage,
    time::Timestamp,
};

/// Reads that may run at once; more wait.
const READERS: usize = 4;
/// Transactions that may write at once, where the database allows more than one.
const WRITERS: usize = 4;
/// Reads and writes that may be queued; more wait [`QUEUE_WAIT`] and are then refused.
const QUEUE: usize = 4096;
const QUEUE_WAIT: Duration = Duration::from_secs(2);
/// How long a read or write is tried while the database is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time that a call may take with everything, its time in the queue included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
/// Time that a bulk write may take, each of its statements being limited as others are.
const BULK_TIMEOUT: Duration = Duration::from_mins(1);
/// How often the thread of leases asks a server for a sign of life when there is nothing else to do.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue stayed full.
    #[error("the store is overloaded")]
    Overloaded,
    /// The database could not be reached, or was busy with others, for too long.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// `SQLite` refused or failed.
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// `PostgreSQL` refused or failed.
    #[error("the database failed: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// A column holds what its type cannot be.
    #[error("column {column} of a row holds an unexpected value")]
    Column { column: usize },
    /// The thread is gone, or the work itself panicked.
    #[error("it was not done")]
    Gone,
    /// The group's commit failed: nothing of it is there, or nobody knows.
    #[error("the commit failed: {0}")]
    Commit(Arc<Error>),
}

impl Error {
    /// The answer to a call whose time was up before it began.
    fn expired() -> Self {
        Self::Unavailable("it has waited for too long".into())
    }

    /// Says whether the same may go well a little later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Overloaded | Self::Unavailable(_) => true,
            Self::Commit(error) => error.is_temporary() || matches!(**error, Self::Postgres(_)),
            // The file is locked by another program, or its disk is full or failing.
            Self::Sqlite(error) => error.sqlite_error_code().is_some_and(|code| {
                use rusqlite::ErrorCode::{
                    CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, ReadOnly, SystemIoFailure,
                };
                matches!(
                    code,
                    DatabaseBusy
                        | DatabaseLocked
                        | DiskFull
                        | SystemIoFailure
                        | ReadOnly
                        | CannotOpen
                )
            }),
            _ => false,
        }
    }
}

/// The database; a clone is the same one, and costs one reference count: each request makes many.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    reads: mpsc::Sender<Box<dyn Read>>,
    writes: Writes,
    leases: Writes,
    embedded: Option<Embedded>,
    location: Location,
    lanes: Lanes,
    clock: Clock,
    sabotage: Option<Sabotage>,
    /// Gone with the last handle, which ends threads that try to reach the database.
    _alive: Arc<()>,
}

/// Progress of the threads, and whether calls have deadlines; only a deliberate bug has none.
#[derive(Clone)]
struct Lanes {
    reads: Arc<Progress>,
    writes: Arc<Progress>,
    leases: Arc<Progress>,
    refusal: Arc<Refusal>,
    has_deadlines: bool,
}

/// What an embedded database has besides.
struct Embedded {
    /// Held while the store is open, so that a second process refuses to start.
    _lock: File,
    /// Nobody has asked yet whether they inherit.
    inheritable: AtomicBool,
}

impl Store {
    /// Opens the `SQLite` database `parley.db` in `folder`, creates and migrates it if need be, and starts its threads.
    /// Entries are published on `bus` once they are committed.
    pub fn open(folder: &Path, bus: &Bus) -> anyhow::Result<Self> {
        Self::open_with(folder, bus, None)
    }

    /// Opens the database like [`Store::open`], with a deliberate bug for a test to notice.
    pub fn open_with(folder: &Path, bus: &Bus, sabotage: Option<Sabotage>) -> anyhow::Result<Self> {
        files::private_folder(folder)?;
        for name in ["parley.db", "parley.db-wal", "parley.db-shm", "parley.lock"] {
            files::private_file(&folder.join(name));
        }
        let lock = sqlite::lock(folder)?;
        let path = folder.join("parley.db");
        let clock = Clock::of_machine();
        let open = |progress: &Arc<Progress>| {
            Ok(Connection::Sqlite(sqlite::Sqlite::open(&path, progress, clock.clone())?))
        };
        let lanes = Lanes::new(true, sabotage);
        let writer = open(&lanes.writes)?.watched(&lanes.refusal);
        migrations::run(&writer).context("failed to migrate the database")?;
        let last = "SELECT time FROM clock WHERE id = 1";
        if let Some(last) = writer.reader().find(last, &[], |row| row.get(0))? {
            clock.continue_from(last);
        }
        let embedded = Embedded { _lock: lock, inheritable: AtomicBool::new(true) };
        let location = Location::File(path.clone());
        Self::start(
            vec![writer],
            None,
            open,
            Some(embedded),
            location,
            bus,
            lanes,
            sabotage,
            clock.clone(),
        )
    }

    /// Opens the `PostgreSQL` database at `url`, migrates it if need be, and starts its threads. A server that does not
    /// keep what it says it kept is refused.
    pub fn connect(url: &str, bus: &Bus, sabotage: Option<Sabotage>) -> anyhow::Result<Self> {
        let lanes = Lanes::new(false, sabotage);
        let clock = match sabotage {
            Some(Sabotage::WallClock) => Clock::of_machine(),
            _ => Clock::of_server(),
        };
        let server = postgres::Server::new(url, lanes.has_deadlines, clock.clone())?;
        let open = |progress: &Arc<Progress>| {
            Ok(Connection::Postgres(Box::new(server.connect(progress)?)))
        };
        // The client waits with a runtime of its own, which the caller's runtime would not stand.
        let connect = || {
            let postgres =
                server.connect(&lanes.writes).context("failed to connect to the database")?;
            postgres.require_durability()?;
            let first = Connection::Postgres(Box::new(postgres)).watched(&lanes.refusal);
            migrations::run(&first).context("failed to migrate the database")?;
            first.reader().read_clock().context("failed to read the database's clock")?;
            let watched = |progress| Ok(open(progress)?.watched(&lanes.refusal));
            let more = (1..WRITERS).map(|_| watched(&lanes.writes));
            let writers = std::iter::once(Ok(first)).chain(more).collect::<anyhow::Result<_>>()?;
            let for_leases = Some(watched(&lanes.leases)?);
            let location = Location::Server(url.to_owned().into());
            Self::start(
                writers,
                for_leases,
                open,
                None,
                location,
                bus,
                lanes,
                sabotage,
                clock.clone(),
            )
        };
        std::thread::scope(|scope| scope.spawn(connect).join())
            .unwrap_or_else(|_| anyhow::bail!("the database could not be opened"))
    }

    /// Starts the threads. Leases have a connection of their own, or else go first on the only one that writes.
    #[expect(clippy::too_many_arguments, reason = "each part of a store is made by its caller")]
    fn start(
        connections: Vec<Connection>,
        for_leases: Option<Connection>,
        open: impl Fn(&Arc<Progress>) -> anyhow::Result<Connection>,
        embedded: Option<Embedded>,
        location: Location,
        bus: &Bus,
        lanes: Lanes,
        sabotage: Option<Sabotage>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let alive = Arc::new(());
        let erased = match &location {
            Location::File(path) => Some(rewrite::start_emptying(path, Arc::downgrade(&alive))?),
            Location::Server(_) => None,
        };
        let queue = Arc::new(Queue::default());
        let lease_queue =
            if for_leases.is_some() { Arc::new(Queue::default()) } else { queue.clone() };
        let writes = Writes::new(queue.clone(), Lane::Requests);
        let leases = Writes::new(lease_queue.clone(), Lane::Leases);
        let writer = |connection, queue: &Arc<Queue>, progress: &Arc<Progress>| Writer {
            connection,
            queue: queue.clone(),
            bus: bus.clone(),
            sabotage,
            progress: progress.clone(),
            refusal: lanes.refusal.clone(),
            store: Arc::downgrade(&alive),
            probe_interval: None,
            erased: erased.clone(),
        };
        for connection in connections {
            let thread = writer(connection, &queue, &lanes.writes);
            std::thread::Builder::new().name("store-writer".into()).spawn(move || thread.run())?;
        }
        if let Some(connection) = for_leases {
            let probe_interval = Some(PROBE_INTERVAL);
            let thread =
                Writer { probe_interval, ..writer(connection, &lease_queue, &lanes.leases) };
            std::thread::Builder::new().name("store-leases".into()).spawn(move || thread.run())?;
        }
        let (reads, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..READERS {
            let (connection, queue) = (open(&lanes.reads)?, queue.clone());
            let (progress, store) = (lanes.reads.clone(), Arc::downgrade(&alive));
            let read = move || reader::run(connection, &queue, &progress, &store);
            std::thread::Builder::new().name("store-reader".into()).spawn(read)?;
        }
        // Threads that are still starting are not silent.
        for lane in [&lanes.reads, &lanes.writes, &lanes.leases] {
            lane.begun();
        }
        let inner = Inner {
            reads,
            writes,
            leases,
            embedded,
            location,
            lanes,
            clock,
            sabotage,
            _alive: alive,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns whether the database answers, to be asked at any time.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.lanes.health()
    }

    /// Says, to the first who asks, that the processes which used the database before are all gone: a `SQLite` file has
    /// one process at a time. Later ones in this process share it with the first.
    #[must_use]
    pub fn inherits(&self) -> bool {
        self.inner
            .embedded
            .as_ref()
            .is_some_and(|embedded| embedded.inheritable.swap(false, Ordering::Relaxed))
    }

    /// Says whether the database belongs to this process alone.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.inner.embedded.is_some()
    }

    /// Returns the time by the database's clock, which all processes of the database share. Nothing is read for it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Returns the deliberate bug that the store and its users have, for a test to notice.
    #[must_use]
    pub fn sabotage(&self) -> Option<Sabotage> {
        self.inner.sabotage
    }

    /// Returns the database's clock, for what has no need of the database itself.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Runs `work` in a transaction and returns what it returned, once that is durable. An `Err` leaves nothing.
    ///
    /// Other writes may happen between two statements of it; see [`Store::write_in`].
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let _wait = budget::Wait::begin();
        let deadline = self
            .inner
            .lanes
            .admit(&self.inner.lanes.writes, budget::left().unwrap_or(REQUEST_TIMEOUT))?;
        let (call, answer) = Call::new(work, deadline);
        self.inner.writes.send(Box::new(call)).await?;
        answered(answer, deadline).await
    }

    /// Like [`Store::write`], and no other write of the same `topic` happens meanwhile. The topic has to exist.
    pub async fn write_in<T, E, F>(&self, topic: Topic, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let _wait = budget::Wait::begin();
        let deadline = self
            .inner
            .lanes
            .admit(&self.inner.lanes.writes, budget::left().unwrap_or(REQUEST_TIMEOUT))?;
        let (call, answer) = Call::new(work, deadline);
        self.inner.writes.send(Box::new(call.of(topic, false))).await?;
        answered(answer, deadline).await
    }

    /// Like [`Store::write_in`], for work that takes so long that no other should share its transaction.
    pub async fn write_bulk<T, E, F>(&self, topic: Topic, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let deadline = self.inner.lanes.admit(&self.inner.lanes.writes, BULK_TIMEOUT)?;
        let (call, answer) = Call::new(work, deadline);
        self.inner.writes.send(Box::new(call.of(topic, true))).await?;
        tokio::select! {
            outcome = answered(answer, deadline) => outcome,
            () = self.inner.lanes.gone() => Err(Error::Unavailable("it does not answer".into()).into()),
        }
    }

    /// Like [`Store::write`], for renewals of leases and heartbeats, which requests must never hold up.
    ///
    /// Requests cannot fill this lane: it has its own queue, and on `PostgreSQL` its own thread and connection. `SQLite` has
    /// one writer, which takes leases before all requests. The lane does one write after the other, so `work` is short: a few
    /// rows of the caller's own, read and written in the same closure. Work on behalf of a user never goes here.
    pub async fn write_lease<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let deadline = self.inner.lanes.deadline(REQUEST_TIMEOUT);
        let (call, answer) = Call::new(work, deadline);
        self.inner.leases.send(Box::new(call)).await?;
        answered(answer, deadline).await
    }

    /// Like [`Store::write_lease`], and no other write of the same `topic` happens meanwhile, as with [`Store::write_in`].
    /// The topic is one that requests do not write to, such as a replica's.
    pub async fn write_lease_in<T, E, F>(&self, topic: Topic, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let deadline = self.inner.lanes.deadline(REQUEST_TIMEOUT);
        let (call, answer) = Call::new(work, deadline);
        self.inner.leases.send(Box::new(call.of(topic, false))).await?;
        answered(answer, deadline).await
    }

    /// Runs `work` on a consistent snapshot that has every write answered before the call.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: Fn(&Reader<'_>) -> Result<T, E> + Send + 'static,
    {
        let _wait = budget::Wait::begin();
        let deadline = self
            .inner
            .lanes
            .admit(&self.inner.lanes.reads, budget::left().unwrap_or(REQUEST_TIMEOUT))?;
        let (call, answer) = Call::new(work, deadline);
        match self.inner.reads.send_timeout(Box::new(call), QUEUE_WAIT).await {
            Ok(()) => answered(answer, deadline).await,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Error::Overloaded.into()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Error::Gone.into()),
        }
    }
}

impl Lanes {
    fn new(is_embedded: bool, sabotage: Option<Sabotage>) -> Self {
        let writes = Progress::new();
        let leases = if is_embedded { writes.clone() } else { Progress::new() };
        let has_deadlines = sabotage != Some(Sabotage::NoDatabaseDeadline);
        let (reads, refusal) = (Progress::new(), Refusal::new());
        Self { reads, writes, leases, refusal, has_deadlines }
    }

    fn health(&self) -> Health {
        let all = [self.reads.clone(), self.writes.clone(), self.leases.clone()];
        let lanes: Arc<[_]> = if self.has_deadlines { Arc::new(all) } else { Arc::new([]) };
        Health { lanes, refusal: self.refusal.clone() }
    }

    /// Returns when a call has to be answered. While the database does not answer nobody is queued: a call would wait for
    /// its whole time behind those that wait already. Another lane may be the first to find out, as the one of leases asks
    /// for a sign of life each second. Threads find out themselves when the database is back.
    fn admit(&self, lane: &Progress, limit: Duration) -> Result<Instant, Error> {
        let is_silent =
            || [&self.reads, &self.writes, &self.leases].into_iter().any(|lane| lane.is_silent());
        if self.has_deadlines && !lane.was_answered_lately() && is_silent() {
            return Err(Error::Unavailable("it does not answer".into()));
        }
        if self.has_deadlines && limit.is_zero() {
            return Err(Error::Unavailable("the request has waited for too long".into()));
        }
        Ok(self.deadline(limit))
    }

    /// Waits as long as any call may, and then until the database does not answer any more.
    async fn gone(&self) {
        tokio::time::sleep(REQUEST_TIMEOUT).await;
        while self.admit(&self.writes, BULK_TIMEOUT).is_ok() {
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    fn deadline(&self, limit: Duration) -> Instant {
        /// Far enough not to be seen.
        const NEVER: Duration = Duration::from_hours(24);
        Instant::now() + if self.has_deadlines { limit } else { NEVER }
    }
}

async fn answered<T, E: From<Error>>(
    answer: oneshot::Receiver<Result<T, E>>,
    deadline: Instant,
) -> Result<T, E> {
    let answer = tokio::time::timeout_at(deadline.into(), answer).await;
    answer.map_err(|_| Error::Unavailable("no answer in time".into()))?.map_err(|_| Error::Gone)?
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// What the writes of a transaction append, to be published after its commit.
#[derive(Clone, Debug, Default)]
struct Appended {
    news: Vec<News>,
    /// To be appended when all writes are done, see [`Tx::append_last`].
    last: Vec<Last>,
    /// Text was erased, see [`Tx::erases`].
    erases: bool,
}

/// An entry that has no number yet.
#[derive(Clone, Debug)]
struct Last {
    topic: Topic,
    kind: &'static str,
    data: Arc<str>,
}

#[cfg(test)]
mod tests;
