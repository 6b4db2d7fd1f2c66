//! The threads that read: each has a connection and takes the next read that is queued.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use tokio::sync::mpsc;

use super::{
    Error, PATIENCE,
    connection::{Connection, Reader},
    progress::Progress,
    work::Read,
};

/// Reads until every handle of the store, which `store` is a part of, is gone.
pub(super) fn run(
    mut connection: Connection,
    queue: &Mutex<mpsc::Receiver<Box<dyn Read>>>,
    progress: &Arc<Progress>,
    store: &Weak<()>,
) {
    loop {
        progress.rest();
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        progress.work();
        let Some(mut work) = next else { return };
        let outcome = if work.deadline() <= Instant::now() {
            Err(Error::expired())
        } else {
            read(&mut connection, &mut *work)
        };
        work.settle(outcome);
        connection.restore(|| store.strong_count() == 0);
    }
}

fn read(connection: &mut Connection, work: &mut dyn Read) -> Result<(), Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        // A panic was logged by its hook; it leaves no outcome, which says enough.
        let run = |reader: &Reader<'_>| drop(catch_unwind(AssertUnwindSafe(|| work.run(reader))));
        match connection.read(run) {
            Ok(()) => return Ok(()),
            Err(error) => connection.recover(error, until)?,
        }
    }
}
