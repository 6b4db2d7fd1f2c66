//! The home of the store beyond one machine: `PostgreSQL` 13 or later.

mod rows;
mod session;
mod types;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join;
use rand::RngExt as _;
use tokio_postgres::{Client, Config, Error as PgError, Statement, error::SqlState, types::ToSql};
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use self::types::column;
use self::{
    session::{Failure, Session, Waiter},
    types::refs,
};
use super::{
    Error, Row, Value,
    clock::Clock,
    connection::{Absent, Committed, Locking},
    progress::{Progress, Refusal},
    value::Home,
};
use crate::{journal::Topic, time::Timestamp};

/// How long a statement may run.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a statement's reply may take: longer than the server's own timeout, which leaves the session whole.
const REPLY_TIMEOUT: Duration = Duration::from_secs(6);
/// Time that a `COMMIT` may take whose fate can be found out afterwards.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time that a statement of a migration may run, and its reply may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(10);
const MIGRATION_REPLY_TIMEOUT: Duration = Duration::from_mins(11);
/// How long a write waits for another that has its project.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process that was stopped in the middle of a write keeps others from the project.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(2);
/// Time that a server may take to accept the TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server may leave bytes unacknowledged before the connection is lost.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// A quiet connection is probed after this time, so that a lost host is noticed between requests.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
/// Time that a start waits for a server that does not answer.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Statements kept prepared on a connection.
const STATEMENTS: usize = 256;

/// Where the database is, and how it is reached.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    tls: MakeRustlsConnect,
    /// True if replies have deadlines; only a deliberate bug has none.
    has_deadlines: bool,
    clock: Clock,
}

/// A connection that opens itself anew.
pub(super) struct Postgres {
    server: Server,
    waiter: Waiter,
    /// `None` while the connection is lost.
    session: RefCell<Option<Session>>,
    statements: RefCell<HashMap<Box<str>, Statement>>,
    /// What went wrong in this transaction that may go well in another.
    failure: RefCell<Option<Error>>,
    stale: Cell<bool>,
    /// A statement since [`Postgres::forget_changes`] has changed something, or has failed.
    is_changed: Cell<bool>,
    is_in_transaction: Cell<bool>,
    /// Times of the last messages that were sent to the topics that the transaction has locked.
    last_sent: RefCell<HashMap<Box<str>, Timestamp>>,
    /// The last connection did not answer in time.
    was_late: Cell<bool>,
    reply_timeout: Cell<Duration>,
    progress: Arc<Progress>,
    /// Told of writes that are refused; `None` on a connection whose writes say nothing of the process.
    refusal: Option<Arc<Refusal>>,
    /// A statement of this transaction has changed rows.
    has_written: Cell<bool>,
}

impl Server {
    /// Reads the URL, `postgres://user:password@host:5432/database?sslmode=require`. Certificates are checked against the
    /// machine's.
    pub(super) fn new(url: &str, has_deadlines: bool, clock: Clock) -> anyhow::Result<Self> {
        // The parser's error names what is wrong, never a value.
        let mut config: Config = url.parse().context("DATABASE_URL cannot be read")?;
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(TCP_USER_TIMEOUT);
        config.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(KEEPALIVE_RETRIES);
        if config.get_application_name().is_none() {
            config.application_name("parley");
        }
        let tls = MakeRustlsConnect::new(crate::tls::client_config());
        Ok(Self { config, tls, has_deadlines, clock })
    }

    pub(super) fn connect(&self, progress: &Arc<Progress>) -> anyhow::Result<Postgres> {
        let postgres = Postgres {
            server: self.clone(),
            waiter: Waiter::new()?,
            session: RefCell::default(),
            statements: RefCell::default(),
            failure: RefCell::default(),
            stale: Cell::new(false),
            is_changed: Cell::new(false),
            is_in_transaction: Cell::new(false),
            last_sent: RefCell::default(),
            was_late: Cell::new(false),
            reply_timeout: Cell::new(REPLY_TIMEOUT),
            progress: progress.clone(),
            refusal: None,
            has_written: Cell::new(false),
        };
        let until = Instant::now() + START_PATIENCE;
        // A server that refuses says why at once; one that is slow may have much to do.
        while let Err(error) = postgres.open() {
            if !postgres.was_late.get() || Instant::now() >= until {
                return Err(error.into());
            }
        }
        Ok(postgres)
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
    /// Has `refusal` told of writes that are refused and of writes that are committed.
    pub(super) fn watched(self, refusal: &Arc<Refusal>) -> Self {
        Self { refusal: Some(refusal.clone()), ..self }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.server.clock
    }

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

    /// Allows statements the time of a migration.
    pub(super) fn begin_migration(&self) -> Result<(), Error> {
        self.reply_timeout.set(MIGRATION_REPLY_TIMEOUT);
        let limit = MIGRATION_TIMEOUT.as_millis();
        self.batch(&format!("SET lock_timeout = '60s'; SET statement_timeout = {limit}"))
    }

    /// Goes back to a session's usual timeouts.
    pub(super) fn end_migration(&self) -> Result<(), Error> {
        self.reply_timeout.set(REPLY_TIMEOUT);
        self.batch(&settings())
    }

    /// Opens a transaction that has the rows of `topics`, taken in one order by everybody; returns the topics that it does
    /// not have, and why.
    pub(super) fn begin(&self, topics: &[&Topic], locking: Locking) -> Result<Vec<Absent>, Error> {
        self.last_sent.borrow_mut().clear();
        self.has_written.set(false);
        if topics.is_empty() {
            return self.batch("BEGIN").map(|()| Vec::new());
        }
        let names: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        let statement = self.prepare(match locking {
            Locking::Wait => {
                "SELECT name, sent_at FROM topics WHERE name = ANY($1) ORDER BY name FOR UPDATE"
            }
            Locking::Skip => {
                "SELECT name, sent_at FROM topics WHERE name = ANY($1) ORDER BY name FOR UPDATE SKIP LOCKED"
            }
        })?;
        self.is_in_transaction.set(true);
        // Sent together, answered together.
        let begin = self.request(self.reply_timeout.get(), async |client| {
            try_join(client.batch_execute("BEGIN"), client.query(&statement, &[&names])).await
        });
        let ((), rows) = begin.map_err(|failure| self.note(failure))?;
        for row in &rows {
            if let Some(sent_at) = row.try_get::<_, Option<i64>>(1)? {
                let sent_at = Timestamp::from_ms(sent_at);
                self.last_sent.borrow_mut().insert(row.try_get(0)?, sent_at);
            }
        }
        if rows.len() == names.len() {
            return Ok(Vec::new());
        }
        let had: HashSet<&str> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        let absent: Vec<&&Topic> =
            topics.iter().filter(|topic| !had.contains(topic.as_str())).collect();
        let names: Vec<&str> = absent.iter().map(|topic| topic.as_str()).collect();
        let rows = self.run("SELECT name FROM topics WHERE name = ANY($1)", &[&names])?;
        let locked: HashSet<&str> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        let absent = absent.into_iter().map(|topic| Absent {
            topic: (*topic).clone(),
            is_locked: locked.contains(topic.as_str()),
        });
        Ok(absent.collect())
    }

    /// Returns when the last message was sent to a topic that the transaction has locked. `None` for another topic.
    pub(super) fn last_sent(&self, topic: &Topic) -> Option<Timestamp> {
        self.last_sent.borrow().get(topic.as_str()).copied()
    }

    pub(super) fn note_sent(&self, topic: &Topic, at: Timestamp) {
        if let Some(last) = self.last_sent.borrow_mut().get_mut(topic.as_str()) {
            *last = at;
        }
    }

    /// Commits. With `has_evidence` the transaction's fate can be found out by another one, so that a late answer is not
    /// waited for as long.
    pub(super) fn commit(&self, has_evidence: bool) -> Committed {
        let limit = if has_evidence { COMMIT_TIMEOUT } else { REPLY_TIMEOUT };
        // A transaction with a statement that failed, whoever kept quiet about it, is rolled back by `COMMIT`, which succeeds:
        // the statement before it does not.
        let sql = "SELECT 1; COMMIT";
        match self.request(limit, async |client| client.batch_execute(sql).await) {
            Ok(()) => {
                self.is_in_transaction.set(false);
                if self.has_written.get()
                    && let Some(refusal) = &self.refusal
                {
                    refusal.written();
                }
                Committed::Yes
            }
            // The server has said no.
            Err(Failure::Server(error))
                if error.as_db_error().is_some_and(|db| !is_lost(db.code())) =>
            {
                Committed::No(self.note(Failure::Server(error)))
            }
            Err(failure) => Committed::Unknown(failure.unavailable()),
        }
    }

    pub(super) fn batch(&self, sql: &str) -> Result<(), Error> {
        match sql {
            "BEGIN" | "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" => {
                self.is_in_transaction.set(true);
            }
            _ => {}
        }
        let limit = self.reply_timeout.get();
        let outcome = self.request(limit, async |client| client.batch_execute(sql).await);
        if sql == "ROLLBACK" && outcome.is_ok() {
            self.is_in_transaction.set(false);
        }
        outcome.map_err(|failure| self.note(failure))
    }

    /// Sends a request and waits for its reply. A session without a reply in time is given up.
    fn request<T>(
        &self,
        limit: Duration,
        request: impl AsyncFnOnce(&Client) -> Result<T, PgError>,
    ) -> Result<T, Failure> {
        let limit = if self.server.has_deadlines { limit } else { Duration::MAX };
        let mut place = self.session.borrow_mut();
        let Some(session) = place.as_mut() else { return Err(Failure::Closed) };
        let reply = session.request(&self.waiter, limit, request);
        match &reply {
            Ok(_) => self.progress.moved(),
            Err(Failure::Server(error)) => {
                self.is_changed.set(true);
                if error.as_db_error().is_some() {
                    self.progress.moved();
                }
            }
            Err(failure @ (Failure::Late | Failure::Closed)) => {
                self.was_late.set(matches!(failure, Failure::Late));
                *place = None;
            }
        }
        reply
    }

    /// Forgets what [`Postgres::is_changed`] has to say of the statements before.
    pub(super) fn forget_changes(&self) {
        self.is_changed.set(false);
    }

    /// Returns whether a statement since the last [`Postgres::forget_changes`] may have changed something, or has failed: if
    /// not, the transaction is as if there had been none.
    pub(super) fn is_changed(&self) -> bool {
        self.is_changed.get()
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
        self.is_changed.set(true);
        let statement = self.prepare(sql)?;
        let params = refs(params);
        let limit = self.reply_timeout.get();
        let outcome = self.request(limit, async |client| client.execute(&statement, &params).await);
        let changed = outcome.map_err(|failure| self.note(failure))?;
        if changed > 0 {
            self.has_written.set(true);
        }
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn run(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        if !sql.starts_with("SELECT") {
            self.is_changed.set(true);
        }
        let statement = self.prepare(sql)?;
        let limit = self.reply_timeout.get();
        let outcome = self.request(limit, async |client| client.query(&statement, params).await);
        outcome.map_err(|failure| self.note(failure))
    }

    fn prepare(&self, sql: &str) -> Result<Statement, Error> {
        let mut statements = self.statements.borrow_mut();
        if let Some(statement) = statements.get(sql) {
            return Ok(statement.clone());
        }
        let limit = self.reply_timeout.get();
        let outcome = self.request(limit, async |client| client.prepare(sql).await);
        let statement = outcome.map_err(|failure| self.note(failure))?;
        if statements.len() >= STATEMENTS {
            statements.clear();
        }
        statements.insert(sql.into(), statement.clone());
        Ok(statement)
    }

    /// Remembers a failure after which all of the transaction may be tried again.
    fn note(&self, failure: Failure) -> Error {
        let again = |code: &SqlState| is_lost(code) || is_collision(code);
        let code = match &failure {
            Failure::Server(error) => error.as_db_error().map(tokio_postgres::error::DbError::code),
            Failure::Late | Failure::Closed => None,
        };
        let stale = code == Some(&SqlState::FEATURE_NOT_SUPPORTED);
        if stale {
            // "Cached plan must not change result type": another replica has migrated the schema.
            self.stale.set(true);
        }
        let may_go_well = stale || code.is_none_or(again);
        let is_refused = code.is_some_and(is_refusal);
        let error = Error::from(failure);
        if is_refused && let Some(refusal) = &self.refusal {
            refusal.refused(&error);
        }
        if may_go_well {
            let mut failure = self.failure.borrow_mut();
            failure.get_or_insert_with(|| Error::Unavailable(error.to_string()));
        }
        error
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.borrow_mut().take()
    }

    /// Makes the connection fit for another transaction, if trying again may help and there is time; opens it anew if it
    /// was lost. Without time it returns at once, and [`Postgres::restore`] has to follow.
    pub(super) fn recover(&mut self, error: Error, until: Instant) -> Result<(), Error> {
        let again = self.take_failure().is_some() || matches!(error, Error::Unavailable(_));
        if self.stale.take() {
            self.statements.borrow_mut().clear();
        }
        if again && Instant::now() >= until {
            // Lost connections of all kinds are the same to callers: they may come again.
            return Err(match error {
                Error::Unavailable(_) => error,
                error => Error::Unavailable(error.to_string()),
            });
        }
        if !self.is_sound() {
            while let Err(error) = self.open() {
                if Instant::now() >= until {
                    return Err(error);
                }
                std::thread::sleep(pause(150));
            }
        } else if again {
            // Others that collided with this transaction are not to meet it again.
            std::thread::sleep(pause(30));
        }
        self.take_failure();
        if again { Ok(()) } else { Err(error) }
    }

    /// Makes the connection fit for another transaction, however long the database is away, unless `is_closed`.
    pub(super) fn restore(&mut self, is_closed: impl Fn() -> bool) {
        if self.is_sound() {
            return;
        }
        let mut is_told = false;
        while let Err(error) = self.open() {
            if !is_told {
                tracing::warn!(%error, "the connection to the database is lost");
                is_told = true;
            }
            if is_closed() {
                return;
            }
            std::thread::sleep(pause(150));
        }
        if is_told {
            tracing::info!("the connection to the database is back");
        }
        self.take_failure();
    }

    /// Asks the server for a sign of life.
    pub(super) fn probe(&self) {
        if self.batch("SELECT 1").is_err() {
            // Found out here, it need not be found out by a write.
            self.session.take();
        }
        self.take_failure();
    }

    /// Leaves the transaction, if there is one, and returns whether the connection is of use.
    fn is_sound(&self) -> bool {
        if self.session.borrow().as_ref().is_none_or(Session::is_closed) {
            return false;
        }
        !self.is_in_transaction.get() || self.batch("ROLLBACK").is_ok()
    }

    fn open(&self) -> Result<(), Error> {
        // The one before has to be gone first, or there would be two.
        self.session.take();
        self.statements.borrow_mut().clear();
        let Server { config, tls, .. } = &self.server;
        let opened = Session::open(&self.waiter, config, tls, &settings(), self.was_late.get());
        self.was_late.set(matches!(opened, Err(Failure::Late)));
        let session = opened.map_err(Failure::unavailable)?;
        self.is_in_transaction.set(false);
        self.progress.moved();
        self.session.replace(Some(session));
        Ok(())
    }
}

impl Failure {
    /// Returns the failure as one that says that the database is away.
    fn unavailable(self) -> Error {
        match self {
            Self::Server(error) => Error::Unavailable(error.to_string()),
            failure => failure.into(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Server(error) => error.into(),
            Failure::Late => Self::Unavailable("no reply in time".into()),
            Failure::Closed => Self::Unavailable("the connection is lost".into()),
        }
    }
}

fn pause(most_ms: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(5..=most_ms))
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
        SqlState::DISK_FULL,
        SqlState::IO_ERROR,
        SqlState::OUT_OF_MEMORY,
    ]
    .contains(code)
        || code.code().starts_with("08")
}

/// The server answers and refuses to write.
fn is_refusal(code: &SqlState) -> bool {
    [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::DISK_FULL, SqlState::IO_ERROR].contains(code)
}

/// Another transaction was in the way.
fn is_collision(code: &SqlState) -> bool {
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        // The statement's time was up, most of all while it waited for others.
        SqlState::QUERY_CANCELED,
    ]
    .contains(code)
}
