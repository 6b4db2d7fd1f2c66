//! Rewriting of the database's files, so that they keep no copy of what their rows said before.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::oneshot, time::timeout};

use super::{Store, clock::Clock, postgres::Server, progress::Progress, sqlite::Sqlite};

/// Longest time for which the end of a process waits for its log to be emptied.
const LONGEST_CHECKPOINT: Duration = Duration::from_secs(3);

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
                sqlite.batch("PRAGMA wal_checkpoint(TRUNCATE)")
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
