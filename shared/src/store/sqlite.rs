//! The embedded home of the store: `SQLite`, write-ahead log, every commit synced to disk.

use std::{path::Path, time::Duration};

use super::{Appended, Error, Row, Value};

/// Statements kept prepared on a connection.
const STATEMENTS: usize = 256;

/// One connection to the file.
#[derive(Debug)]
pub(super) struct Connection(rusqlite::Connection);

impl Connection {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self(connection))
    }

    pub(super) fn batch(&self, sql: &str) -> Result<(), Error> {
        Ok(self.0.execute_batch(sql)?)
    }

    /// Runs one of the short statements that frame transactions, prepared once.
    pub(super) fn run(&self, sql: &str) -> Result<(), Error> {
        self.0.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    pub(super) fn tx<'a>(&'a self, appended: &'a mut Appended) -> Tx<'a> {
        Tx { reader: Reader(&self.0), appended }
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader(&self.0)
    }

    pub(super) fn read<T>(&mut self, work: impl FnOnce(&Reader<'_>) -> T) -> Result<T, Error> {
        let snapshot = self.0.transaction()?;
        let outcome = work(&Reader(&snapshot));
        snapshot.rollback()?;
        Ok(outcome)
    }
}

/// Reads inside a transaction.
///
/// Statements number their parameters `$1`, `$2`, …, as `PostgreSQL` has them.
#[derive(Debug)]
pub struct Reader<'a>(&'a rusqlite::Connection);

impl Reader<'_> {
    /// `$1` would be a name to SQLite, numbered by its first use; `?1` is a number to it.
    fn prepare(&self, sql: &str) -> Result<rusqlite::CachedStatement<'_>, Error> {
        Ok(self.0.prepare_cached(&sql.replace('$', "?"))?)
    }

    /// Returns every row of the answer, each through `map`.
    pub fn query<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params))?;
        let mut answer = Vec::new();
        while let Some(row) = rows.next()? {
            answer.push(map(&Row(row))?);
        }
        Ok(answer)
    }

    /// Returns the answer's first row, if there is one.
    pub fn find<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params))?;
        rows.next()?.map(|row| map(&Row(row))).transpose()
    }
}

/// Reads and writes inside a transaction.
#[derive(Debug)]
pub struct Tx<'a> {
    reader: Reader<'a>,
    pub(crate) appended: &'a mut Appended,
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
        Ok(self.reader.prepare(sql)?.execute(rusqlite::params_from_iter(params))?)
    }
}
