//! Owns every task of a process: starts them, tells them to stop, waits for them, and stops all when one breaks.

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::config::DrainConfig;

/// The process's tasks and the stages of their end; a clone is the same lifecycle.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    need: OnceLock<Need>,
    /// Listeners with what they are answering.
    serving: TaskTracker,
    /// Open streams.
    streams: TaskTracker,
    /// What answers are made with.
    tasks: TaskTracker,
    /// A stop was asked for, or something broke: not ready any more, still serving.
    draining: CancellationToken,
    /// New work is refused, streams are told to go.
    closing: CancellationToken,
    /// Nothing is served any more: every task ends.
    shutdown: CancellationToken,
    /// Until when clients that come back are refused, where no other process serves them.
    refuses_until: OnceLock<Instant>,
}

/// Readiness of the process for traffic.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// A stop was asked for.
    Draining,
    /// The database does not answer, or refuses writes.
    Unavailable,
}

/// Returns whether there is what requests need.
struct Need(Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Need")
    }
}

impl Lifecycle {
    /// Makes the process ready only while `need` returns true; only the first such need counts.
    pub fn need(&self, need: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.inner.need.set(Need(Box::new(need)));
    }

    /// Returns whether the process wants traffic.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let has_need = self.inner.need.get().is_none_or(|Need(need)| need());
        match (self.is_draining(), has_need) {
            (true, _) => Readiness::Draining,
            (false, false) => Readiness::Unavailable,
            (false, true) => Readiness::Ready,
        }
    }

    /// Runs a listener until closing and until its last answer is out.
    pub fn serve(&self, name: &'static str, listener: impl Future<Output = ()> + Send + 'static) {
        self.watch(name, self.inner.serving.track_future(listener));
    }

    /// Runs `task` until shutdown, which is after the last answer.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.watch(name, self.inner.tasks.track_future(task));
    }

    /// A task that ends before closing, by a panic too, stops the process.
    fn watch(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let lifecycle = self.clone();
        #[expect(clippy::disallowed_methods, reason = "this is the owner of all tasks")]
        let running = tokio::spawn(task);
        #[expect(clippy::disallowed_methods, reason = "this is the owner of all tasks")]
        tokio::spawn(async move {
            let ended = running.await;
            if !lifecycle.inner.closing.is_cancelled() {
                tracing::error!(task = name, ?ended, "task ended early, stopping");
                lifecycle.inner.draining.cancel();
            }
        });
    }

    /// Says whether a stop was asked for.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.draining.is_cancelled()
    }

    /// Returns the token that is cancelled when a stop was asked for.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// Says whether new work is refused.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.inner.closing.is_cancelled()
    }

    /// Returns the token that is cancelled when new work is refused and streams are told to go.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.inner.closing.clone()
    }

    /// Counts an open stream until the token is dropped: listeners answer for as long as streams are being closed.
    pub fn stream(&self) -> TaskTrackerToken {
        self.inner.streams.token()
    }

    /// Resolves when new work is refused and the last stream is closed.
    pub async fn closed(&self) {
        self.inner.closing.cancelled().await;
        self.inner.streams.close();
        self.inner.streams.wait().await;
    }

    /// Says that clients that come back are refused for `rest` from now on, since no other process serves them.
    pub fn refuse_for(&self, rest: Duration) {
        // The first word counts.
        let _ = self.inner.refuses_until.set(Instant::now() + rest);
    }

    /// Returns for how long clients that come back are still refused.
    #[must_use]
    pub fn refuses_for(&self) -> Duration {
        let until = self.inner.refuses_until.get();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Returns the token that is cancelled when nothing is served any more.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.inner.shutdown.clone()
    }

    /// Runs until `stop` resolves or a task breaks, then ends everything in order: not ready, still serving for
    /// the delay; refusing new work, closing streams, finishing answers; then the rest. At the timeout all is over.
    pub async fn run(
        &self,
        stop: impl Future<Output = ()>,
        config: &DrainConfig,
    ) -> anyhow::Result<()> {
        tokio::select! {
            () = stop => {}
            () = self.inner.draining.cancelled() => {}
        }
        let broken = self.inner.draining.is_cancelled();
        self.inner.draining.cancel();
        tracing::info!(delay = ?config.drain_delay, "stopping");
        let ordered = async {
            tokio::time::sleep(config.drain_delay).await;
            self.inner.closing.cancel();
            self.inner.serving.close();
            self.inner.serving.wait().await;
            self.inner.shutdown.cancel();
            self.inner.tasks.close();
            self.inner.tasks.wait().await;
        };
        let in_time = tokio::time::timeout(config.drain_timeout, ordered).await.is_ok();
        self.inner.closing.cancel();
        self.inner.shutdown.cancel();
        if !in_time {
            tracing::warn!(timeout = ?config.drain_timeout, "not everything ended in time");
        }
        anyhow::ensure!(!broken, "a part of the server broke");
        tracing::info!("stopped");
        Ok(())
    }
}

/// Listens for SIGTERM and SIGINT from the call on; the future resolves at the first. A second one ends the process at
/// once.
pub fn signalled() -> std::io::Result<impl Future<Output = ()>> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    Ok(async move {
        signals.next().await;
        #[expect(clippy::disallowed_methods, reason = "outlives every lifecycle by design")]
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(130);
        });
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
