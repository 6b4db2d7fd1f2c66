//! A way through to a server that can be taken away from one client while others keep theirs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use anyhow::Context;
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

const CHUNK_BYTES: usize = 16 * 1024;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    Cut,
    Stalled,
    /// Open, and each new connection is cut after so many bytes from the server.
    CutsAfter(u64),
}

/// A TCP proxy in a thread of its own; it ends when dropped.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    state: watch::Sender<State>,
}

impl Link {
    /// Opens a way to `target`.
    pub fn open(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let (state, states) = watch::channel(State::Open);
        // Not the caller's runtime, which may be one test's while the cluster is many tests'.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("failed to make a runtime")?;
        thread::spawn(move || runtime.block_on(run(listener, target, states)));
        Ok(Self { addr, state })
    }

    /// Returns where it begins.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends every connection, and new ones at once.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets nothing through while connections stay, as when packets are lost; they arrive once it is mended.
    pub fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    /// Lets so many bytes of the server through on each connection that is made from now on, and then cuts it.
    pub fn cut_after(&self, bytes: u64) {
        self.state.send_replace(State::CutsAfter(bytes));
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn run(
    listener: std::net::TcpListener,
    target: SocketAddr,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                if *states.borrow() != State::Cut {
                    connections.spawn(connection(client, target, states.clone()));
                }
            }
            changed = states.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    client: TcpStream,
    target: SocketAddr,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    let (out, back) = (states.clone(), states.clone());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let most = match *states.borrow() {
        State::CutsAfter(bytes) => bytes,
        _ => u64::MAX,
    };
    let from_server = from_server.take(most);
    tokio::select! {
        ended = carry(from_client, to_server, out) => ended,
        ended = carry(from_server, to_client, back) => ended,
        _ = states.wait_for(|state| *state == State::Cut) => Ok(()),
    }
}

/// Carries bytes one way until either end is gone.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        if states.wait_for(|state| *state != State::Stalled).await.is_err() {
            return Ok(());
        }
        to.write_all(&chunk[..count]).await?;
    }
}
