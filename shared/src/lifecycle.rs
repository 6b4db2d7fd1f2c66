//! Owns every task of a process: starts them, tells them to stop, waits for them, and stops all when one breaks.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The process's tasks and the stages of their end; a clone is the same lifecycle.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    tasks: TaskTracker,
    /// A stop was asked for: not ready any more, still serving.
    draining: CancellationToken,
    /// New work is refused, streams are told to go.
    closing: CancellationToken,
    /// Every task ends now.
    shutdown: CancellationToken,
}

impl Lifecycle {
    /// Runs `task` until it ends. One that ends before the shutdown, by a panic too, stops the process.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let lifecycle = self.clone();
        let task = self.tasks.track_future(task);
        #[expect(clippy::disallowed_methods, reason = "this is the owner of all tasks")]
        let running = tokio::spawn(task);
        #[expect(clippy::disallowed_methods, reason = "this is the owner of all tasks")]
        tokio::spawn(async move {
            let ended = running.await;
            if !lifecycle.closing.is_cancelled() {
                tracing::error!(task = name, ?ended, "task ended early, stopping");
                lifecycle.draining.cancel();
            }
        });
    }

    /// Resolves when a stop was asked for or a task broke.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Says whether a stop was asked for.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Asks for the stop; the rest is [`Lifecycle::stop`]'s.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Returns the token that is cancelled when new work is refused and streams are told to go.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Returns the token that is cancelled when every task must end.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Ends everything in order: not ready, `delay`, refuse and close streams, wait at most `timeout` in all.
    /// Returns whether every task ended in time.
    pub async fn stop(&self, delay: Duration, timeout: Duration) -> bool {
        self.draining.cancel();
        let ordered = async {
            tokio::time::sleep(delay).await;
            self.closing.cancel();
            self.shutdown.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        };
        let in_time = tokio::time::timeout(timeout, ordered).await.is_ok();
        self.closing.cancel();
        self.shutdown.cancel();
        in_time
    }
}
