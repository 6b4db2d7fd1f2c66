//! The one database: reads on a small pool of connections, writes in groups on one thread.
//!
//! A write is a closure that gets a transaction. The writer runs whatever is queued in one transaction, each closure
//! in a savepoint of its own, commits once, publishes the journal's entries and only then answers the callers. Once
//! queued a write runs to its end whatever becomes of the caller, so a client that hangs up cannot cut it.

mod migrations;
mod sqlite;
mod value;
mod writer;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

use self::{sqlite::Connection, writer::Work};
pub use self::{
    sqlite::{Reader, Tx},
    value::{Column, ColumnValue, Row, Value},
    writer::Sabotage,
};
use crate::{bus::Bus, journal::Entry};

/// Reads that may run at once; more wait.
const READERS: usize = 4;
/// Writes that may be queued; more wait [`QUEUE_WAIT`] and are then refused.
const QUEUE: usize = 4096;
const QUEUE_WAIT: Duration = Duration::from_secs(2);

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue of writes stayed full.
    #[error("the store is overloaded")]
    Overloaded,
    /// The database refused or failed.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// A column holds what its type cannot be.
    #[error("column {column} of a row holds an unexpected value")]
    Column { column: usize },
    /// The writer is gone, or the write itself panicked.
    #[error("the write was not done")]
    Gone,
    /// The group's commit failed, so nothing of it is there.
    #[error("the commit failed: {0}")]
    Commit(Arc<rusqlite::Error>),
}

impl Error {
    /// Says whether a row with this key is there already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation))
    }
}

/// The database; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Store {
    readers: Arc<Readers>,
    queue: mpsc::Sender<Work>,
}

#[derive(Debug)]
struct Readers {
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
    path: PathBuf,
    /// Held while the store is open, so that a second process refuses to start.
    _lock: File,
    /// Nobody has asked yet whether they inherit.
    inheritable: AtomicBool,
}

impl Store {
    /// Opens the `SQLite` database `parley.db` in `folder`, creates and migrates it if need be, and starts the writer.
    /// Entries are published on `bus` once they are committed.
    pub fn open(folder: &Path, bus: Bus) -> anyhow::Result<Self> {
        Self::open_with(folder, bus, None)
    }

    /// Opens the database like [`Store::open`], with a deliberate bug for a test to notice.
    pub(crate) fn open_with(
        folder: &Path,
        bus: Bus,
        sabotage: Option<Sabotage>,
    ) -> anyhow::Result<Self> {
        use anyhow::Context;

        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        let lock = File::create(folder.join("parley.lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "{} is in use by another Parley: stop it, or choose another folder with --data-dir",
                folder.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let path = folder.join("parley.db");
        let mut connection = Connection::open(&path)?;
        migrations::run(&mut connection).context("failed to migrate the database")?;
        let idle = (0..READERS).map(|_| Connection::open(&path)).collect::<Result<_, _>>()?;
        let (queue, work) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer::run(&connection, work, &bus, sabotage))?;
        let permits = Semaphore::new(READERS);
        let inheritable = AtomicBool::new(true);
        let readers = Readers { permits, idle: Mutex::new(idle), path, _lock: lock, inheritable };
        Ok(Self { readers: Arc::new(readers), queue })
    }

    /// Says, to the first who asks, that the processes which used the database before are all gone: a `SQLite` file has
    /// one process at a time. Later ones in this process share it with the first.
    #[must_use]
    pub fn inherits(&self) -> bool {
        self.readers.inheritable.swap(false, Ordering::Relaxed)
    }

    /// Runs `work` in a transaction and returns what it returned, once that is durable. An `Err` leaves nothing.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |tx| {
            let outcome = work(tx);
            let keep = outcome.is_ok();
            let settle = move |committed: Result<(), Error>| {
                // The caller may have gone; the write stands all the same.
                let _ = reply.send(outcome.and_then(|value| Ok(committed.map(|()| value)?)));
            };
            (keep, Box::new(settle))
        });
        match self.queue.send_timeout(work, QUEUE_WAIT).await {
            Ok(()) => answer.await.map_err(|_| Error::Gone)?,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Error::Overloaded.into()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Error::Gone.into()),
        }
    }

    /// Runs `work` on a consistent snapshot that has every write answered before the call.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T, E> + Send + 'static,
    {
        let readers = self.readers.clone();
        let task = async move {
            let _permit = readers.permits.acquire().await.map_err(|_| Error::Gone)?;
            let held = readers.clone();
            tokio::task::spawn_blocking(move || {
                let mut connection = match held.take() {
                    Some(connection) => connection,
                    // A read that panicked took its connection with it.
                    None => Connection::open(&held.path)?,
                };
                let outcome = connection.read(work)?;
                held.give(connection);
                outcome
            })
            .await
            .map_err(|_| Error::Gone)?
        };
        task.await
    }
}

impl Readers {
    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// Entries appended in a transaction, to be published after its commit.
type Appended = Vec<Arc<Entry>>;
