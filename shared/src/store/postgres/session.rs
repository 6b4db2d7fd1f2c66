//! One session with the server, in which every wait has a deadline on this side.
//!
//! A server that is frozen, or a host that is lost, sends nothing: the server's own timeouts do not come, and TCP's come
//! late. So a reply that is late ends the session, and the connection is dropped without a further word to the server.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use tokio::{runtime::Runtime, time::timeout};
use tokio_postgres::{
    Client, Config, Connection, Error as PgError, Socket, config::LoadBalanceHosts,
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Time that a connection may take with its start-up: TCP, TLS, the password and the session's settings.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection and its client, both driven by the thread that waits for a reply.
pub(super) struct Session {
    client: Client,
    connection: Connection<Socket, Stream>,
}

/// Why there is no reply.
pub(super) enum Failure {
    /// The server's refusal, or a broken connection.
    Server(PgError),
    /// No reply within the deadline.
    Late,
    Closed,
}

/// The runtime of one thread's session. Dropped, it does not wait for a name that is still looked up.
pub(super) struct Waiter(Option<Runtime>);

impl Waiter {
    pub(super) fn new() -> std::io::Result<Self> {
        tokio::runtime::Builder::new_current_thread().enable_all().build().map(Some).map(Self)
    }

    fn wait<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        self.0.as_ref()?.block_on(async { timeout(limit, future).await.ok() })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Session {
    /// Connects and runs `settings`. With `any_first` the servers of the URL are tried in another order, so that a frozen one
    /// does not hide the others.
    pub(super) fn open(
        waiter: &Waiter,
        config: &Config,
        tls: &MakeRustlsConnect,
        settings: &str,
        any_first: bool,
    ) -> Result<Self, Failure> {
        let open = async {
            let opened = if any_first {
                let mut config = config.clone();
                config.load_balance_hosts(LoadBalanceHosts::Random).connect(tls.clone()).await
            } else {
                config.connect(tls.clone()).await
            };
            let (client, connection) = opened.map_err(Failure::Server)?;
            let mut session = Self { client, connection };
            session.drive(async |client| client.batch_execute(settings).await).await?;
            Ok(session)
        };
        waiter.wait(HANDSHAKE_TIMEOUT, open).unwrap_or(Err(Failure::Late))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Sends a request and waits for its reply, at most for `limit`. After [`Failure::Late`] the session is of no use: what
    /// comes next belongs to the request that was given up.
    pub(super) fn request<T>(
        &mut self,
        waiter: &Waiter,
        limit: Duration,
        request: impl AsyncFnOnce(&Client) -> Result<T, PgError>,
    ) -> Result<T, Failure> {
        waiter.wait(limit, self.drive(request)).unwrap_or(Err(Failure::Late))
    }

    async fn drive<T>(
        &mut self,
        request: impl AsyncFnOnce(&Client) -> Result<T, PgError>,
    ) -> Result<T, Failure> {
        let Self { client, connection } = self;
        let mut request = pin!(request(client));
        poll_fn(|context| {
            let is_closed = loop {
                match connection.poll_message(context) {
                    // A notice.
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(Failure::Server(error)));
                    }
                    Poll::Ready(None) => break true,
                    Poll::Pending => break false,
                }
            };
            match request.as_mut().poll(context) {
                Poll::Ready(reply) => Poll::Ready(reply.map_err(Failure::Server)),
                Poll::Pending if is_closed => Poll::Ready(Err(Failure::Closed)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
