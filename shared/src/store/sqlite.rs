//! The embedded home of the store: `SQLite`, write-ahead log, every commit synced to disk.

use std::{
    cell::Cell,
    collections::HashSet,
    fs::{File, TryLockError},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rusqlite::{
    config::DbConfig,
    types::{ToSqlOutput, ValueRef},
};
use uuid::Uuid;

use super::{
    Error, Row, Value,
    clock::Clock,
    progress::{Progress, Refusal},
    value::{ColumnValue, Home, update},
};

/// Statements kept prepared on a connection.
const STATEMENTS: usize = 256;
/// Rows that one statement writes at most, and values that one looks for.
const ROWS: usize = 64;

/// One connection to the file.
#[derive(Debug)]
pub(super) struct Sqlite {
    connection: rusqlite::Connection,
    progress: Arc<Progress>,
    /// Told of writes that are refused; `None` on a connection whose writes say nothing of the process.
    refusal: Option<Arc<Refusal>>,
    /// Changes on the connection at the last `COMMIT`.
    committed_changes: Cell<u64>,
    clock: Clock,
}

/// Keeps a second process out of the folder while it lives.
pub(super) fn lock(folder: &Path) -> anyhow::Result<File> {
    let lock = File::create(folder.join("parley.lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "{} is in use by another Parley: stop it, or choose another folder with --data-dir",
            folder.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).context("failed to lock the folder"),
    }
}

impl Sqlite {
    pub(super) fn open(path: &Path, progress: &Arc<Progress>, clock: Clock) -> Result<Self, Error> {
        let connection = rusqlite::Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // Without this SQLite compiles a cached statement anew each time that a parameter is bound: it is built with
        // `SQLITE_ENABLE_STAT4`, whose plans depend on the values.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        // Deleted text is overwritten in the file, not only unlinked.
        connection.pragma_update(None, "secure_delete", "ON")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let (progress, committed_changes) = (progress.clone(), Cell::default());
        Ok(Self { connection, progress, refusal: None, committed_changes, clock })
    }

    /// Has `refusal` told of writes that are refused and of writes that are committed.
    pub(super) fn watched(self, refusal: &Arc<Refusal>) -> Self {
        Self { refusal: Some(refusal.clone()), ..self }
    }

    /// Notes a write that the database refused.
    fn noted<T>(&self, outcome: rusqlite::Result<T>) -> Result<T, Error> {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        outcome.map_err(|error| {
            let code = error.sqlite_error_code();
            let error = Error::from(error);
            if let (Some(refusal), Some(CannotOpen | DiskFull | ReadOnly | SystemIoFailure)) =
                (&self.refusal, code)
            {
                refusal.refused(&error);
            }
            error
        })
    }

    /// Commits, and notes whether something was written.
    pub(super) fn commit(&self) -> Result<(), Error> {
        self.run("COMMIT")?;
        let changes = self.connection.total_changes();
        if self.committed_changes.replace(changes) != changes
            && let Some(refusal) = &self.refusal
        {
            refusal.written();
        }
        Ok(())
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Moves all of the log into the file and truncates the log, unless a reader or a writer is in the way for longer than
    /// `patience`. Returns whether the log is empty.
    pub(super) fn empty_log(&self, patience: Duration) -> Result<bool, Error> {
        let checkpoint = |mode: &str| {
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0))
        };
        // Most of it without keeping writers waiting.
        checkpoint("PASSIVE")?;
        self.connection.busy_timeout(patience)?;
        Ok(checkpoint("TRUNCATE")? == 0)
    }

    pub(super) fn batch(&self, sql: &str) -> Result<(), Error> {
        Ok(self.connection.execute_batch(sql)?)
    }

    /// Runs one of the short statements that frame transactions, prepared once.
    pub(super) fn run(&self, sql: &str) -> Result<(), Error> {
        self.progress.moved();
        self.noted(self.connection.prepare_cached(sql)?.execute([]))?;
        Ok(())
    }

    /// `$1` would be a name to SQLite, numbered by its first use; `?1` is a number to it.
    fn prepare(&self, sql: &str) -> Result<rusqlite::CachedStatement<'_>, Error> {
        // The statement before has ended, so the disk answers.
        self.progress.moved();
        Ok(self.connection.prepare_cached(&sql.replace('$', "?"))?)
    }

    pub(super) fn query<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params))?;
        let mut answer = Vec::new();
        while let Some(row) = self.noted(rows.next())? {
            answer.push(map(&Row(Home::Sqlite(row)))?);
        }
        Ok(answer)
    }

    /// Few lengths of the list, so that few statements are prepared: the last value fills it up.
    pub(super) fn query_in<T>(
        &self,
        sql: &str,
        column: &str,
        values: &[Value<'_>],
        map: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut answer = Vec::new();
        for some in values.chunks(ROWS) {
            let length = some.len().next_power_of_two();
            let filled = some.iter().chain(some.last().into_iter().cycle()).take(length);
            let filled: Vec<Value<'_>> = filled.copied().collect();
            let numbers: Vec<String> = (1..=length).map(|number| format!("${number}")).collect();
            let sql = format!("{sql} {column} IN ({})", numbers.join(", "));
            answer.extend(self.query(&sql, &filled, &map)?);
        }
        Ok(answer)
    }

    /// Few numbers of rows, so that few statements are prepared.
    pub(super) fn execute_rows(
        &self,
        before: &str,
        after: &str,
        width: usize,
        mut values: &[Value<'_>],
    ) -> Result<(), Error> {
        while let Some(most) = (values.len() / width).min(ROWS).checked_ilog2() {
            let (some, more) = values.split_at(width << most);
            values = more;
            let row = |first: usize| {
                let numbers: Vec<String> = (1..=width).map(|n| format!("${}", first + n)).collect();
                format!("({})", numbers.join(", "))
            };
            let rows: Vec<String> = (0..some.len()).step_by(width).map(row).collect();
            self.execute(&format!("{before} VALUES {} {after}", rows.join(", ")), some)?;
        }
        Ok(())
    }

    /// There is no way to a server to be saved, so each row has its statement.
    pub(super) fn update_rows(
        &self,
        table: &str,
        columns: &[&str],
        values: &[Value<'_>],
    ) -> Result<(), Error> {
        let mut statement = self.prepare(&update(table, columns))?;
        for row in values.chunks(columns.len()) {
            self.noted(statement.execute(rusqlite::params_from_iter(row)))?;
        }
        Ok(())
    }

    pub(super) fn advance_rows(
        &self,
        table: &str,
        columns: &[&str],
        counter: &str,
        values: &[Value<'_>],
    ) -> Result<HashSet<Uuid>, Error> {
        let place = columns.iter().position(|column| *column == counter).unwrap_or_default();
        let sql = format!("{} AND {counter} = ${} - 1", update(table, columns), place + 1);
        let mut statement = self.prepare(&sql)?;
        let mut keys = HashSet::new();
        for row in values.chunks(columns.len()) {
            let changed = self.noted(statement.execute(rusqlite::params_from_iter(row)))?;
            if let Some(Value::Uuid(key)) = row.first()
                && changed > 0
            {
                keys.insert(*key);
            }
        }
        Ok(keys)
    }

    pub(super) fn find<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params))?;
        self.noted(rows.next())?.map(|row| map(&Row(Home::Sqlite(row)))).transpose()
    }

    pub(super) fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, Error> {
        self.noted(self.prepare(sql)?.execute(rusqlite::params_from_iter(params)))
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Uuid(value) => ValueRef::Blob(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

pub(super) fn column<'a>(
    row: &'a rusqlite::Row<'_>,
    index: usize,
) -> Result<ColumnValue<'a>, Error> {
    Ok(match row.get_ref(index)? {
        ValueRef::Null => ColumnValue::Null,
        ValueRef::Integer(value) => ColumnValue::Int(value),
        ValueRef::Blob(value) => ColumnValue::Bytes(value),
        ValueRef::Text(text) => ColumnValue::Text(
            std::str::from_utf8(text).map_err(|_| Error::Column { column: index })?,
        ),
        ValueRef::Real(_) => return Err(Error::Column { column: index }),
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    #[test]
    fn a_cached_statement_is_compiled_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("parley.db");
        let sqlite = Sqlite::open(&path, &Progress::new(), Clock::of_machine()).unwrap();
        sqlite
            .connection
            .execute_batch(
                "CREATE TABLE t (a INTEGER, b INTEGER); CREATE INDEX t_by_a ON t (a); \
                 WITH RECURSIVE n (v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 1000) \
                 INSERT INTO t SELECT v % 7, v FROM n; ANALYZE;",
            )
            .unwrap();
        let mut statement = sqlite
            .connection
            .prepare_cached("SELECT SUM(b) FROM t WHERE a > ?1 AND b < ?2")
            .unwrap();
        for value in 0..5 {
            statement.query_row([value, 900], |row| row.get::<_, Option<i64>>(0)).unwrap();
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
}
