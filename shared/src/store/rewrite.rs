//! Rewriting of the database's files, so that they keep no copy of what their rows said before.

use std::{
    path::{Path, PathBuf},
    sync::{
        Weak,
        mpsc::{self, SyncSender},
    },
    thread::sleep,
    time::Duration,
};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::oneshot, time::timeout};

use super::{Error, Store, clock::Clock, postgres::Server, progress::Progress, sqlite::Sqlite};

/// Longest time for which the end of a process waits for its log to be emptied.
const LONGEST_CHECKPOINT: Duration = Duration::from_secs(3);

/// Time for which texts that are erased in a row are gathered, before the log is emptied once for all of them.
const ERASURE_DELAY: Duration = Duration::from_secs(1);
/// Rest after the log was emptied for erased text, so that sends seldom meet it.
const ERASURE_INTERVAL: Duration = Duration::from_secs(2);
/// Time for which readers and writers may keep the log from being emptied, and are themselves kept waiting at most.
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(50);
/// Rest before the next try where a reader or a writer was in the way.
const CHECKPOINT_RETRY: Duration = Duration::from_millis(250);

/// Place where further connections are opened.
pub(super) enum Location {
    File(PathBuf),
    Server(SecretString),
}

impl Store {
    /// Moves what the log of `SQLite` holds into its file and empties the log, so that the file alone is the whole database
    /// once the process has ended. A disk that does not answer is waited for only a moment: the log is sound as it is.
    pub async fn empty_log(&self) {
        let Location::File(path) = &self.inner.location else { return };
        let (path, (told, done)) = (path.clone(), oneshot::channel());
        // On a thread of its own, which keeps no runtime from ending.
        std::thread::spawn(move || {
            let empty = || {
                let sqlite = Sqlite::open(&path, &Progress::new(), Clock::of_machine())?;
                // Another checkpoint may be under way.
                while !sqlite.empty_log(LONGEST_CHECKPOINT)? {
                    sleep(CHECKPOINT_RETRY);
                }
                Ok::<_, Error>(())
            };
            // The receiver is gone once the wait is over.
            let _ = told.send(empty());
        });
        match timeout(LONGEST_CHECKPOINT, done).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "failed to empty parley.db-wal, which is still a part of the database");
            }
            _ => tracing::warn!(
                "parley.db-wal was not emptied in time and is still a part of the database"
            ),
        }
    }

    /// Writes `tables` anew, on a connection of its own; of `SQLite` the whole file, and its log is emptied. Takes as long as
    /// the data are large, and room for a second copy. `PostgreSQL` keeps writers of these tables waiting meanwhile.
    pub async fn rewrite(&self, tables: Vec<&'static str>) -> anyhow::Result<()> {
        let store = self.clone();
        let rewrite = tokio::task::spawn_blocking(move || match &store.inner.location {
            Location::File(path) => {
                let sqlite = Sqlite::open(path, &Progress::new(), Clock::of_machine())?;
                sqlite
                    .batch("PRAGMA temp_store = FILE; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
                Ok(())
            }
            Location::Server(url) => {
                // The client waits with a runtime of its own.
                let work = || {
                    let postgres = Server::new(url.expose_secret(), false, Clock::of_server())?
                        .connect(&Progress::new())?;
                    postgres.begin_migration()?;
                    for table in &tables {
                        postgres.batch(&format!("VACUUM (FULL) {table}"))?;
                    }
                    anyhow::Ok(())
                };
                std::thread::scope(|scope| scope.spawn(work).join())
                    .unwrap_or_else(|_| anyhow::bail!("the tables were not rewritten"))
            }
        });
        rewrite.await.context("the tables were not rewritten")?
    }
}

/// Starts the thread that empties the log of `SQLite` after text was erased: the log keeps the pages from before. Returns the
/// sender that asks for it. The thread ends with the store.
pub(super) fn start_emptying(path: &Path, store: Weak<()>) -> std::io::Result<SyncSender<()>> {
    let path = path.to_owned();
    let (erased, erasures) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("store-erasure".into()).spawn(move || {
        while erasures.recv().is_ok() {
            sleep(ERASURE_DELAY);
            // This checkpoint is for them, too.
            while erasures.try_recv().is_ok() {}
            empty_after_erasure(&path, &store);
            sleep(ERASURE_INTERVAL);
        }
    })?;
    Ok(erased)
}

/// Tries until the log is empty, or the store is gone.
fn empty_after_erasure(path: &Path, store: &Weak<()>) {
    let mut is_logged = false;
    let try_once = || {
        let sqlite = Sqlite::open(path, &Progress::new(), Clock::of_machine())?;
        sqlite.empty_log(CHECKPOINT_PATIENCE)
    };
    while store.strong_count() > 0 {
        match try_once() {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) if is_logged => tracing::debug!(%error, "parley.db-wal is not empty yet"),
            Err(error) => {
                tracing::warn!(%error, "failed to empty parley.db-wal of text that was erased");
                is_logged = true;
            }
        }
        sleep(CHECKPOINT_RETRY);
    }
}
