//! Time that one request may spend on the database in all, however many reads and writes it makes.
//!
//! Each read and write has a deadline of its own. A request that makes several of them in a row would otherwise wait several
//! times for a database that answers late or stops in between.

use std::{
    cell::Cell,
    future::Future,
    time::{Duration, Instant},
};

use super::REQUEST_TIMEOUT;

/// Time of each read or write that is not counted: a database in good health takes less.
const FREE: Duration = Duration::from_millis(100);

tokio::task_local! {
    /// Time that the request has spent on the database.
    static SPENT: Cell<Duration>;
}

/// Serves a request with a budget of its own. Tasks that the request starts do not share it.
pub async fn with_budget<T>(request: impl Future<Output = T>) -> T {
    SPENT.scope(Cell::default(), request).await
}

/// Returns how long the request may still wait, `None` outside of a request.
#[must_use]
pub fn left() -> Option<Duration> {
    let spent = SPENT.try_with(Cell::get).ok()?;
    Some(REQUEST_TIMEOUT.saturating_sub(spent))
}

/// A wait for the database or for the other service, which is counted when it ends.
#[derive(Debug)]
#[must_use = "the wait ends when this is dropped"]
pub struct Wait(Instant);

impl Wait {
    /// Begins to wait.
    pub fn begin() -> Self {
        Self(Instant::now())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let counted = self.0.elapsed().saturating_sub(FREE);
        // Outside of a request there is no budget.
        let _ = SPENT.try_with(|spent| spent.set(spent.get() + counted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(time: Duration) {
        drop(Wait(Instant::now().checked_sub(time).expect("the machine has run for longer")));
    }

    #[tokio::test]
    async fn long_waits_of_a_request_are_counted_together() {
        with_budget(async {
            (0..1000).for_each(|_| waited(FREE / 2));
            assert_eq!(left(), Some(REQUEST_TIMEOUT));
            waited(Duration::from_secs(4));
            assert!(left() < Some(Duration::from_millis(3200)), "{:?}", left());
            waited(Duration::from_secs(4));
            assert_eq!(left(), Some(Duration::ZERO));
            with_budget(async { assert_eq!(left(), Some(REQUEST_TIMEOUT)) }).await;
        })
        .await;
        waited(Duration::from_secs(4));
        assert_eq!(left(), None);
    }
}
