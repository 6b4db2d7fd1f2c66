//! Parley's database seen from outside, so that nobody has to ask Parley how far it is.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;

/// Often enough to be exact, and seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(5);

/// Where the database is.
#[derive(Clone)]
pub(super) enum Database {
    Sqlite(PathBuf),
    Postgres(String),
}

/// A connection, of one thread that may wait.
pub(super) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Client>),
}

impl Database {
    pub(super) fn connect(&self) -> anyhow::Result<Connection> {
        Ok(match self {
            Self::Sqlite(path) => Connection::Sqlite(rusqlite::Connection::open(path)?),
            Self::Postgres(url) => {
                Connection::Postgres(Box::new(postgres::Client::connect(url, postgres::NoTls)?))
            }
        })
    }

    /// Asks until `is_done` says so of the one number in the answer.
    pub(super) async fn until(
        &self,
        sql: String,
        is_done: impl Fn(i64) -> bool + Send + 'static,
    ) -> anyhow::Result<i64> {
        let database = self.clone();
        let ask = move || {
            let mut connection = database.connect()?;
            loop {
                let number = connection.number(&sql)?;
                if is_done(number) {
                    return Ok(number);
                }
                std::thread::sleep(LOOK);
            }
        };
        tokio::task::spawn_blocking(ask).await?
    }
}

impl Database {
    /// Clears away what earlier turns have left, as the database does by itself sooner or later: the others begin each turn
    /// with tables of their own.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        let database = self.clone();
        let clear = move || {
            if let Connection::Postgres(mut postgres) = database.connect()? {
                postgres.batch_execute("VACUUM (ANALYZE) jobs, entries")?;
            }
            Ok(())
        };
        tokio::task::spawn_blocking(clear).await?
    }
}

impl Connection {
    fn number(&mut self, sql: &str) -> anyhow::Result<i64> {
        match self {
            Self::Sqlite(sqlite) => Ok(sqlite.query_row(sql, [], |row| row.get(0))?),
            Self::Postgres(postgres) => {
                Ok(postgres.query(sql, &[])?.first().context("a row")?.try_get(0)?)
            }
        }
    }
}
