//! A way through to a server that can be taken away from one client while others keep theirs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Weak},
    thread,
};

use anyhow::Context;
use memchr::memmem;
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
    /// Open, until a client springs the trap.
    Trapped(Trap),
}

/// A text of a client's at which the way is stalled or cut: it arrives at the server, and no reply comes back.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Sent before on the same connection.
    pub after: &'static str,
    pub text: &'static str,
    pub then: Then,
}

/// The end of a way whose [`Trap`] is sprung.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Ends the connection, and the text does not arrive.
    Lose,
    /// Ends the connection.
    Cut,
    /// Stalls the connection, for good.
    StallOne,
    /// Stalls every connection until the way is mended.
    StallAll,
}

/// A TCP proxy in a thread of its own; it ends when dropped.
#[derive(Debug)]
pub struct Link {
    addr: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Link {
    /// Opens a way to `target`.
    pub fn open(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let state = Arc::new(watch::channel(State::Open).0);
        // Not the caller's runtime, which may be one test's while the cluster is many tests'.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("failed to make a runtime")?;
        let (states, trap) = (state.subscribe(), Arc::downgrade(&state));
        thread::spawn(move || runtime.block_on(run(listener, target, states, trap)));
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

    /// Lets everything through until a client springs the trap.
    pub fn set(&self, trap: Trap) {
        self.state.send_replace(State::Trapped(trap));
    }

    /// Waits until a client has sprung the trap.
    pub async fn sprung(&self) {
        let mut states = self.state.subscribe();
        let is_over = |state: &State| !matches!(state, State::Trapped(_));
        // The sender is ours.
        let _ = states.wait_for(is_over).await;
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
    trap: Weak<watch::Sender<State>>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                if *states.borrow() != State::Cut {
                    let trap = trap.clone();
                    connections.spawn(connection(client, target, states.clone(), trap));
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
    trap: Weak<watch::Sender<State>>,
) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    let (out, back) = (states.clone(), states.clone());
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let most = match *states.borrow() {
        State::CutsAfter(bytes) => bytes,
        _ => u64::MAX,
    };
    let end = tokio::select! {
        end = carry_requests(from_client, to_server, out, &trap) => end?,
        ended = carry((&mut from_server).take(most), &mut to_client, back) => return ended,
        _ = states.wait_for(|state| *state == State::Cut) => End::Gone,
    };
    if let End::Stalled(_requests) = end {
        // The connection stays, and nothing passes.
        let _ = states.wait_for(|state| *state == State::Cut).await;
    }
    Ok(())
}

/// How requests came to an end.
enum End<R> {
    Gone,
    /// The connection is to be kept, with its ends.
    Stalled(R),
}

/// Carries a client's bytes until either end is gone, or until they have the text that springs the trap.
async fn carry_requests<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut from: R,
    mut to: W,
    mut states: watch::Receiver<State>,
    trap: &Weak<watch::Sender<State>>,
) -> io::Result<End<(R, W)>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut is_marked = false;
    loop {
        let count = from.read(&mut chunk).await?;
        // An end does not get through either.
        let is_over = states.wait_for(|state| *state != State::Stalled).await.is_err();
        if is_over || count == 0 {
            return Ok(End::Gone);
        }
        let state = *states.borrow();
        let then = match state {
            State::Trapped(Trap { after, text, then }) => {
                let has = |text: &str| memmem::find(&chunk[..count], text.as_bytes()).is_some();
                is_marked |= has(after);
                let springs = is_marked && has(text);
                is_marked &= !springs;
                springs.then_some(then)
            }
            _ => None,
        };
        // One client springs it, not each.
        let then = then.filter(|then| {
            let next = if *then == Then::StallAll { State::Stalled } else { State::Open };
            trap.upgrade().is_some_and(|trap| {
                trap.send_if_modified(|current| {
                    let is_set = *current == state;
                    *current = if is_set { next } else { *current };
                    is_set
                })
            })
        });
        if then != Some(Then::Lose) {
            to.write_all(&chunk[..count]).await?;
        }
        match then {
            Some(Then::Lose | Then::Cut) => return Ok(End::Gone),
            Some(Then::StallOne) => return Ok(End::Stalled((from, to))),
            Some(Then::StallAll) | None => {}
        }
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
        let is_over = states.wait_for(|state| *state != State::Stalled).await.is_err();
        if is_over || count == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..count]).await?;
    }
}
