//! The group commit: one thread, one transaction for all that is queued, one sync to disk.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Appended, Error,
    sqlite::{Connection, Tx},
};
use crate::bus::{Bus, Notice};

/// Writes in one transaction at most.
const GROUP: usize = 128;
/// No write joins a group that has been running for this long, so that a bulk write delays others little.
const GROUP_TIME: Duration = Duration::from_millis(10);

/// What to do when the group's fate is known.
type Settle = Box<dyn FnOnce(Result<(), Error>) + Send>;
/// A queued write: runs, says whether its changes are to be kept, and how to answer its caller.
pub(super) type Work = Box<dyn FnOnce(&mut Tx<'_>) -> (bool, Settle) + Send>;

/// A deliberate bug, which a test must notice; only debug builds can be told to have it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// Callers are answered a while before the commit.
    AnswerEarly,
}

/// Commits groups until every handle of the store is gone.
pub(super) fn run(
    connection: &Connection,
    mut queue: mpsc::Receiver<Work>,
    bus: &Bus,
    sabotage: Option<Sabotage>,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut appended = Appended::new();
        let (settled, outcome) = group(connection, first, &mut queue, &mut appended, sabotage);
        let failure = outcome.err().map(|error| {
            tracing::error!(%error, "a group of writes was not committed");
            match error {
                Error::Database(error) => Arc::new(error),
                _ => Arc::new(rusqlite::Error::InvalidQuery),
            }
        });
        if failure.is_none() {
            for entry in appended {
                bus.publish(&entry.topic.clone(), Notice::Entry(entry));
            }
        }
        for settle in settled {
            settle(failure.clone().map_or(Ok(()), |error| Err(Error::Commit(error))));
        }
    }
}

fn group(
    connection: &Connection,
    first: Work,
    queue: &mut mpsc::Receiver<Work>,
    appended: &mut Appended,
    sabotage: Option<Sabotage>,
) -> (Vec<Settle>, Result<(), Error>) {
    let mut settled = Vec::new();
    if let Err(error) = connection.run("BEGIN IMMEDIATE") {
        // The caller's `Settle` lives inside the work, which never ran: dropping it answers `Gone`.
        drop(first);
        return (settled, Err(error));
    }
    let began = Instant::now();
    let mut next = Some(first);
    let outcome = loop {
        let Some(work) = next else {
            if sabotage == Some(Sabotage::AnswerEarly) {
                settled.drain(..).for_each(|settle: Settle| settle(Ok(())));
                std::thread::sleep(Duration::from_millis(100));
            }
            break connection.run("COMMIT");
        };
        match one(connection, work, appended) {
            Ok(settle) => settled.extend(settle),
            Err(error) => break Err(error),
        }
        let joins = settled.len() < GROUP && began.elapsed() < GROUP_TIME;
        next = if joins { queue.try_recv().ok() } else { None };
    };
    if outcome.is_err() {
        // Fails when SQLite has rolled back by itself, which is as good.
        let _ = connection.run("ROLLBACK");
    }
    (settled, outcome)
}

/// Runs one write in its savepoint. An error is the database's: the whole group is lost.
fn one(
    connection: &Connection,
    work: Work,
    appended: &mut Appended,
) -> Result<Option<Settle>, Error> {
    connection.run("SAVEPOINT write")?;
    let before = appended.len();
    let ran = catch_unwind(AssertUnwindSafe(|| work(&mut connection.tx(appended))));
    let (keep, settle) = match ran {
        Ok((keep, settle)) => (keep, Some(settle)),
        // The panic hook has logged it; the caller hears `Gone`.
        Err(_) => (false, None),
    };
    if !keep {
        connection.run("ROLLBACK TO write")?;
        appended.truncate(before);
    }
    connection.run("RELEASE write")?;
    Ok(settle)
}
