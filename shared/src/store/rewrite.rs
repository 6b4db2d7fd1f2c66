//! Rewriting of the database's files, so that they keep no copy of what their rows said before.

use std::path::PathBuf;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Store, clock::Clock, postgres::Server, progress::Progress, sqlite::Sqlite};

/// Place where further connections are opened.
pub(super) enum Location {
    File(PathBuf),
    Server(SecretString),
}

impl Store {
    /// Moves what the log of `SQLite` holds into its file and empties the log, so that the file alone is the whole database
    /// once the process has ended.
    pub async fn empty_log(&self) {
        let store = self.clone();
        let empty = tokio::task::spawn_blocking(move || match &store.inner.location {
            Location::File(path) => {
                let sqlite = Sqlite::open(path, &Progress::new(), Clock::of_machine())?;
                sqlite.batch("PRAGMA wal_checkpoint(TRUNCATE)")
            }
            Location::Server(_) => Ok(()),
        });
        if let Ok(Err(error)) = empty.await {
            tracing::warn!(%error, "failed to empty parley.db-wal, which is still a part of the database");
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
