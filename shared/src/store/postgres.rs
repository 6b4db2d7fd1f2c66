//! The home of the store beyond one machine: `PostgreSQL` 13 or later.

mod rows;
mod types;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use postgres::{Client, Config, Statement, error::SqlState, types::ToSql};
use rand::RngExt as _;
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use self::types::column;
use self::types::refs;
use super::{Error, Row, Value, connection::Committed, value::Home};
use crate::journal::Topic;

/// How long a statement may run.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a write waits for another that has its project.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process that was stopped in the middle of a write keeps others from the project.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a server may leave bytes unacknowledged before the connection is lost.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements kept prepared on a connection.
const STATEMENTS: usize = 256;

/// Where the database is, and how it is reached.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    tls: MakeRustlsConnect,
}

/// A connection that opens itself anew.
pub(super) struct Postgres {
    server: Server,
    client: RefCell<Client>,
    statements: RefCell<HashMap<Box<str>, Statement>>,
    /// What went wrong in this transaction that may go well in another.
    failure: RefCell<Option<Error>>,
    stale: Cell<bool>,
}

impl Server {
    /// Reads the URL, `postgres://user:password@host:5432/database?sslmode=require`. Certificates are checked against the
    /// machine's.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        // The parser's error names what is wrong, never a value.
        let mut config: Config = url.parse().context("DATABASE_URL cannot be read")?;
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(TCP_USER_TIMEOUT);
        if config.get_application_name().is_none() {
            config.application_name("parley");
        }
        Ok(Self { config, tls: MakeRustlsConnect::new(crate::tls::client_config()) })
    }

    pub(super) fn connect(&self) -> Result<Postgres, Error> {
        let client = RefCell::new(self.open()?);
        Ok(Postgres {
            server: self.clone(),
            client,
            statements: RefCell::default(),
            failure: RefCell::default(),
            stale: Cell::new(false),
        })
    }

    fn open(&self) -> Result<Client, Error> {
        let mut client = self.config.connect(self.tls.clone())?;
        client.batch_execute(&settings())?;
        Ok(client)
    }
}

/// What a session is told first. Its statements are short, and compiling one takes far longer than running it: the server
/// may take a plan for costly that is not.
fn settings() -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET synchronous_commit = on; SET jit = off",
        STATEMENT_TIMEOUT.as_millis(),
        LOCK_TIMEOUT.as_millis(),
        IDLE_IN_TRANSACTION.as_millis(),
    )
}

impl Postgres {
    /// Refuses a server that answers before what it says is safe on its disk.
    pub(super) fn require_durability(&self) -> anyhow::Result<()> {
        for setting in ["fsync", "full_page_writes"] {
            let sql = "SELECT current_setting($1)";
            let value: Option<String> = self.find(sql, &[setting.into()], |row| row.get(0))?;
            ensure!(
                value.as_deref() == Some("on"),
                "the database has {setting}={}, so that an answered message could be lost in a power cut; set {setting}=on in postgresql.conf",
                value.unwrap_or_default()
            );
        }
        let sql = "SELECT current_setting('server_version_num')";
        let version: Option<i64> = self.find(sql, &[], |row| row.parse(0))?;
        ensure!(version >= Some(130_000), "PostgreSQL 13 or later is needed");
        Ok(())
    }

    /// Goes back to a session's usual timeouts.
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.batch(&settings())
    }

    /// Opens a transaction that has the rows of `topics`, taken in one order by everybody; says whether all are there.
    pub(super) fn begin(&self, topics: &[&Topic]) -> Result<bool, Error> {
        self.batch("BEGIN")?;
        if topics.is_empty() {
            return Ok(true);
        }
        let names: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        let sql = "SELECT 1 FROM topics WHERE name = ANY($1) ORDER BY name FOR UPDATE";
        Ok(self.run(sql, &[&names])?.len() == names.len())
    }

    pub(super) fn commit(&self) -> Committed {
        // A transaction with a statement that failed, whoever kept quiet about it, is rolled back by `COMMIT`, which succeeds:
        // the statement before it does not.
        let outcome = self.client.borrow_mut().batch_execute("SELECT 1; COMMIT");
        match outcome {
            Ok(()) => Committed::Yes,
            // The server has said no.
            Err(error) if error.as_db_error().is_some_and(|db| !is_lost(db.code())) => {
                Committed::No(self.note(error))
            }
            Err(error) => Committed::Unknown(Error::Unavailable(error.to_string())),
        }
    }

    pub(super) fn batch(&self, sql: &str) -> Result<(), Error> {
        let outcome = self.client.borrow_mut().batch_execute(sql);
        outcome.map_err(|error| self.note(error))
    }

    pub(super) fn query<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.run(sql, &refs(params))?;
        rows.iter().map(|row| map(&Row(Home::Postgres(row)))).collect()
    }

    pub(super) fn find<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        map: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let rows = self.run(sql, &refs(params))?;
        rows.first().map(|row| map(&Row(Home::Postgres(row)))).transpose()
    }

    pub(super) fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize, Error> {
        let statement = self.prepare(sql)?;
        let outcome = self.client.borrow_mut().execute(&statement, &refs(params));
        let changed = outcome.map_err(|error| self.note(error))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn run(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<postgres::Row>, Error> {
        let statement = self.prepare(sql)?;
        let outcome = self.client.borrow_mut().query(&statement, params);
        outcome.map_err(|error| self.note(error))
    }

    fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        let mut statements = self.statements.borrow_mut();
        if let Some(statement) = statements.get(sql) {
            return Ok(statement.clone());
        }
        let outcome = self.client.borrow_mut().prepare(sql);
        let statement = outcome.map_err(|error| self.note(error))?;
        if statements.len() >= STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.into(), statement.clone());
        Ok(statement)
    }

    /// Remembers a failure after which all of the transaction may be tried again.
    fn note(&self, error: postgres::Error) -> Error {
        let again = |code: &SqlState| is_lost(code) || is_collision(code);
        let code = error.as_db_error().map(postgres::error::DbError::code);
        let stale = code == Some(&SqlState::FEATURE_NOT_SUPPORTED);
        if stale {
            // "Cached plan must not change result type": another replica has migrated the schema.
            self.stale.set(true);
        }
        if stale || code.is_none_or(again) {
            let mut failure = self.failure.borrow_mut();
            failure.get_or_insert_with(|| Error::Unavailable(error.to_string()));
        }
        error.into()
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.borrow_mut().take()
    }

    /// Makes the connection fit for another transaction, if trying again may help and there is time; opens it anew if it
    /// was lost.
    pub(super) fn recover(&mut self, error: Error, until: Instant) -> Result<(), Error> {
        let again = self.take_failure().is_some() || matches!(error, Error::Unavailable(_));
        if self.stale.take() {
            self.statements.borrow_mut().clear();
        }
        // Others that collided with this transaction are not to meet it again.
        let pause = |most: u64| Duration::from_millis(rand::rng().random_range(5..=most));
        if self.client.borrow().is_closed() || self.batch("ROLLBACK").is_err() {
            self.reconnect(|| pause(150), until)?;
        } else if again {
            std::thread::sleep(pause(30));
        }
        self.take_failure();
        match error {
            error if !again => Err(error),
            _ if Instant::now() < until => Ok(()),
            Error::Unavailable(_) => Err(error),
            // Lost connections of all kinds are the same to callers: they may come again.
            error => Err(Error::Unavailable(error.to_string())),
        }
    }

    fn reconnect(&mut self, pause: impl Fn() -> Duration, until: Instant) -> Result<(), Error> {
        loop {
            match self.server.open() {
                Ok(client) => {
                    self.client = RefCell::new(client);
                    self.statements.borrow_mut().clear();
                    return Ok(());
                }
                Err(error) if Instant::now() >= until => {
                    return Err(Error::Unavailable(error.to_string()));
                }
                Err(_) => std::thread::sleep(pause()),
            }
        }
    }
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

/// The server has ended the connection, or a new one cannot write.
fn is_lost(code: &SqlState) -> bool {
    [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::TOO_MANY_CONNECTIONS,
    ]
    .contains(code)
        || code.code().starts_with("08")
}

/// Another transaction was in the way.
fn is_collision(code: &SqlState) -> bool {
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
    ]
    .contains(code)
}
