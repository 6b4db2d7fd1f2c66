//! Databases for tests: one server for the whole test process, a new database for everybody who asks.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, anyhow};

use crate::{folder::Folder, ports::Ports, postgres::Postgres};

/// Test processes that may run at once.
const FOLDERS: usize = 32;

static SERVER: LazyLock<Result<Server, String>> = LazyLock::new(|| {
    // A thread of its own, since whoever asks may be in a runtime.
    let started = thread::spawn(Server::start).join();
    started.map_err(|_| "it panicked".to_owned())?.map_err(|error| format!("{error:#}"))
});

struct Server {
    postgres: Postgres,
    made: AtomicUsize,
    _folder: Folder,
}

/// Returns the URL of a new and empty database. Its server ends with this process.
pub fn database() -> anyhow::Result<String> {
    let server = SERVER.as_ref().map_err(|error| anyhow!("no PostgreSQL for tests: {error}"))?;
    let number = server.made.fetch_add(1, Ordering::Relaxed);
    server.postgres.make_database(&format!("test_{number}"))
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let folder = |number| {
            let path = std::env::temp_dir().join(format!("parley-tests-{number}"));
            Folder::take(&path, false).ok()
        };
        let folder = (0..FOLDERS).find_map(folder).context("no folder is free")?;
        let postgres = Postgres::plan(&folder, &mut Ports::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(postgres.start())?;
        Ok(Self { postgres, made: AtomicUsize::new(0), _folder: folder })
    }
}

/// Which database a test is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Home {
    Sqlite,
    Postgres,
}

impl Home {
    /// Returns the URL of a new database, `None` for an embedded one.
    ///
    /// # Panics
    /// If there is no `PostgreSQL` to be had.
    #[must_use]
    pub fn url(self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(database().expect("a database for this test")),
        }
    }
}

/// Makes two tests of each function that takes a [`Home`].
#[macro_export]
macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[tokio::test]
            async fn sqlite() {
                super::$test($crate::scratch::Home::Sqlite).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$test($crate::scratch::Home::Postgres).await;
            }
        }
    )+};
}
