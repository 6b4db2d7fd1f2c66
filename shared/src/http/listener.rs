//! The public listeners: who is let in, for how long, and HTTP/1 on what is accepted.

mod body;
mod close;
mod connections;
mod detach;
mod drive;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod state;
mod tap;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    time::{Duration, Instant},
};

use axum::{Router, extract::ConnectInfo, extract::Request};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

pub(super) use self::body::BodyEnd;
pub use self::{
    connections::{ConnectionGuard, Connections},
    detach::{Detach, Detached},
};
use self::{
    detach::{Connection, Successor},
    drive::{Outcome, drive},
    state::{Deadlines, State},
};
use crate::{config::duration, lifecycle::Lifecycle};

/// How long nothing is accepted after the operating system could not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it is logged at most that nothing can be accepted.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// How long a body may take of a request that no public listener took.
const DEFAULT_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connection may do and how long it may take.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct ListenConfig {
    /// How long a request's head may take, from the first byte to the last; also how long a new connection may be silent.
    #[arg(long, env = "HEAD_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub head_timeout: Duration,
    /// How long a connection is kept between two requests.
    #[arg(long, env = "IDLE_CONNECTION_TIMEOUT", default_value = "75s", value_parser = duration)]
    pub idle_connection_timeout: Duration,
    /// How long a JSON body may take, and an upload may go without a byte.
    #[arg(long, env = "BODY_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub body_timeout: Duration,
    /// How long a client may go without reading a byte of its answer.
    #[arg(long, env = "WRITE_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub write_timeout: Duration,
    /// How many connections one address may have, of IPv6 one /64. 0 is no cap: for what is behind a proxy, whose address is all there is.
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 1024)]
    pub max_connections_per_address: usize,
}

impl ListenConfig {
    fn deadlines(&self) -> Deadlines {
        Deadlines {
            head: self.head_timeout,
            idle: self.idle_connection_timeout,
            body: self.body_timeout,
            write: self.write_timeout,
        }
    }
}

/// Returns how long the body of a request may take.
pub(super) fn body_timeout(request: &Request) -> Duration {
    let connection = request.extensions().get::<Connection>();
    connection.map_or(DEFAULT_BODY_TIMEOUT, |connection| connection.0.deadlines.body)
}

/// Serves a public listener, refusals too, until the last stream is closed, then finishes what is running.
pub async fn serve_public(
    listener: TcpListener,
    routes: Router,
    lifecycle: Lifecycle,
    connections: Connections,
) {
    // Makes the routes once instead of at every request.
    let routes = routes.with_state(());
    let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut closed = pin!(lifecycle.closed());
    let serve = |socket: TcpStream, peer: SocketAddr| match connections.admit(peer.ip()) {
        Ok(guard) => {
            let deadlines = connections.deadlines();
            let stopping = stopping.clone().cancelled_owned();
            tasks.spawn(connection(socket, peer, guard, routes.clone(), deadlines, stopping));
        }
        Err(limit) => close::refuse(socket, limit, &connections, &tasks),
    };
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = &mut closed => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => serve(socket, peer),
            Err(error) => {
                if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
                    logged = Some(Instant::now());
                    tracing::error!(%error, "a connection was not accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // What waits to be accepted would be reset, and a proxy does not repeat a POST that may have been read.
    if let Ok(listener) = listener.into_std() {
        while let Ok((socket, peer)) = listener.accept() {
            let nonblocking =
                socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
            if let Ok(socket) = nonblocking {
                serve(socket, peer);
            }
        }
    }
    stopping.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection, to its end or until it leaves HTTP.
async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    guard: ConnectionGuard,
    routes: Router,
    deadlines: Deadlines,
    stopping: impl Future<Output = ()>,
) {
    if let Err(error) = tune(&socket, deadlines.write) {
        tracing::debug!(%error, "the socket's options were not set");
    }
    let state = State::<Successor>::new(deadlines);
    let serve = |mut request: Request| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Connection(state.clone()));
        let answer = routes.clone().call(request);
        async move {
            let Ok(answer) = answer.await;
            answer
        }
    };
    match drive(socket, &state, serve, stopping).await {
        Outcome::HandedOver { io, successor } => {
            successor(Detached { socket: io, connection: guard }).await;
        }
        Outcome::Unread { io } => close::linger(io).await,
        Outcome::Ended => {}
    }
}

/// Sends what is written at once, and gives a peer up that acknowledges nothing.
fn tune(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(socket).set_tcp_user_timeout(Some(patience))?;
    #[cfg(not(target_os = "linux"))]
    let _ = patience;
    Ok(())
}
