//! The threads that read: each has a connection and takes the next read that is queued.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::mpsc;

use super::{
    Error, PATIENCE,
    connection::{Connection, Reader},
    work::Read,
};

/// Reads until every handle of the store is gone.
pub(super) fn run(mut connection: Connection, queue: &Mutex<mpsc::Receiver<Box<dyn Read>>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(mut work) = next else { return };
        let outcome = read(&mut connection, &mut *work);
        work.settle(outcome);
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
