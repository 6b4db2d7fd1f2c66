//! Moment at which a call is connected, from which on the other side's time runs.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::SetOnce, time::Instant};
use tower::{Layer, Service};

tokio::task_local! {
    static CONNECTED: Connected;
}

/// Moment at which one call is connected; a clone is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connected(Arc<SetOnce<Instant>>);

impl Connected {
    /// Runs a call and notes when it is connected.
    pub(crate) fn watch<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        CONNECTED.scope(self.clone(), call)
    }

    /// Waits until the call is connected, and returns when that was.
    pub(crate) async fn wait(&self) -> Instant {
        *self.0.wait().await
    }

    /// Returns how long the call has been connected.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.get().map(Instant::elapsed).unwrap_or_default()
    }
}

/// Connector that notes its connections. They are made in the task of their call, as none is kept for another one.
#[derive(Clone, Debug)]
pub(super) struct NoteConnections;

/// Connector of [`NoteConnections`].
#[derive(Clone, Debug)]
pub(super) struct Connector<S>(S);

impl<S> Layer<S> for NoteConnections {
    type Service = Connector<S>;

    fn layer(&self, connector: S) -> Connector<S> {
        Connector(connector)
    }
}

impl<S, R> Service<R> for Connector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: R) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async move {
            let connection = connecting.await?;
            // Calls that nobody watches have no place for it.
            let _ = CONNECTED.try_with(|connected| connected.0.set(Instant::now()));
            Ok(connection)
        })
    }
}
