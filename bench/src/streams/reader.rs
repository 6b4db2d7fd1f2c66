//! The streams' other end: one thread that opens them, reads them and finds the marks in what arrives. It does as little
//! as it can, since it shares the machine with what it measures.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use super::{
    marks::{CARRY, Marks},
    target::Door,
};

/// Streams of one client address: fewer than a server may allow an address.
const STREAMS_AN_ADDRESS: usize = 1000;
/// How long nothing may happen while streams are opened.
const PATIENCE: Duration = Duration::from_secs(30);

const OK: &[u8] = b"HTTP/1.1 200";

/// Opens and reads streams.
pub(crate) struct Reader {
    poll: Poll,
    events: Events,
    streams: Vec<Option<Stream>>,
    buffer: Vec<u8>,
    /// A network of addresses for each reader: the ports of the one before may still be held.
    network: u8,
    /// Bytes that have arrived.
    pub(crate) bytes: u64,
    pub(crate) marks: Marks,
}

struct Stream {
    socket: TcpStream,
    /// The answer so far, until the stream is open.
    opening: Option<Vec<u8>>,
    /// The end of what was read last, if a mark may have begun in it.
    carry: [u8; CARRY],
    carried: usize,
}

impl Reader {
    pub(crate) fn new() -> anyhow::Result<Self> {
        static NETWORK: AtomicU8 = AtomicU8::new(1);
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            streams: Vec::new(),
            buffer: vec![0; 256 * 1024],
            network: NETWORK.fetch_add(1, Ordering::Relaxed),
            bytes: 0,
            marks: Marks::new()?,
        })
    }

    /// Returns how many streams are open.
    pub(crate) fn open_count(&self) -> usize {
        self.streams.iter().flatten().count()
    }

    /// Opens streams, `at_once` at a time, and keeps them or closes each when it is open. Returns how long it took.
    pub(crate) fn open(
        &mut self,
        door: &Door,
        count: usize,
        at_once: usize,
        keep: bool,
    ) -> anyhow::Result<Duration> {
        self.streams.clear();
        self.streams.resize_with(count, || None);
        let (mut next, mut open) = (0, 0);
        let began = Instant::now();
        let mut progress = began;
        while open < count {
            while next < count && next - open < at_once {
                self.streams[next] =
                    Some(self.connect(door.addresses[next % door.addresses.len()], next)?);
                next += 1;
            }
            for index in self.ready(Duration::from_secs(1))? {
                let Some(stream) = &mut self.streams[index] else { continue };
                if stream.opening.is_none() {
                    self.receive(index);
                } else if stream.advance(door, index)? {
                    open += 1;
                    progress = Instant::now();
                    if !keep {
                        self.streams[index] = None;
                    }
                }
            }
            ensure!(progress.elapsed() < PATIENCE, "only {open} of {count} streams opened");
        }
        Ok(began.elapsed())
    }

    /// Reads until `until` passes.
    pub(crate) fn read_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.read(left)?;
        }
        Ok(())
    }

    /// Reads until nothing has come for a moment, or `most` is over.
    pub(crate) fn settle(&mut self, most: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + most;
        let mut before = u64::MAX;
        while before != self.bytes && Instant::now() < until {
            before = self.bytes;
            self.read_for(Duration::from_millis(500))?;
        }
        Ok(())
    }

    /// Waits for something to arrive, and reads what has.
    pub(crate) fn read(&mut self, wait: Duration) -> anyhow::Result<()> {
        for index in self.ready(wait)? {
            self.receive(index);
        }
        Ok(())
    }

    fn ready(&mut self, wait: Duration) -> anyhow::Result<Vec<usize>> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => Ok(self.events.iter().map(|event| event.token().0).collect()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn connect(&self, address: SocketAddr, index: usize) -> anyhow::Result<Stream> {
        let host = u8::try_from(index / STREAMS_AN_ADDRESS + 1).context("too many streams")?;
        let from = SocketAddrV4::new(Ipv4Addr::new(127, 1, self.network, host), 0);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&from.into())?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(error).context("failed to connect");
            }
            _ => {}
        }
        let mut socket = TcpStream::from_std(socket.into());
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(index), both)?;
        Ok(Stream { socket, opening: Some(Vec::new()), carry: [0; CARRY], carried: 0 })
    }

    fn receive(&mut self, index: usize) {
        let Self { streams, buffer, bytes, marks, .. } = self;
        let Some(stream) = &mut streams[index] else { return };
        loop {
            let carried = stream.carried;
            buffer[..carried].copy_from_slice(&stream.carry[..carried]);
            match stream.socket.read(&mut buffer[carried..]) {
                Ok(0) => break streams[index] = None,
                Ok(count) => {
                    *bytes += count as u64;
                    let end = carried + count;
                    let rest = marks.scan(&buffer[..end]);
                    stream.carried = rest.len();
                    stream.carry[..rest.len()].copy_from_slice(rest);
                    // Whoever reads less than there was room for has read everything.
                    if end < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break streams[index] = None,
            }
        }
    }
}

impl Stream {
    /// Asks for the stream or reads the start of the answer. Returns whether the stream is open now.
    fn advance(&mut self, door: &Door, index: usize) -> anyhow::Result<bool> {
        let Some(answer) = &mut self.opening else { return Ok(true) };
        if let Some(error) = self.socket.take_error()? {
            return Err(error).context("a stream was not connected");
        }
        if self.socket.peer_addr().is_err() {
            return Ok(false);
        }
        if answer.is_empty() {
            // A request is short: a new socket takes all of it. The first byte says that this was done.
            answer.push(b'\n');
            self.socket.write_all((door.request)(index).as_bytes())?;
        }
        let mut bytes = [0; 4096];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => bail!("a stream ended: {}", String::from_utf8_lossy(answer)),
                Ok(count) => answer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("a stream was not opened"),
            }
        }
        let refused = answer.len() > OK.len() && !answer[1..].starts_with(OK);
        ensure!(!refused, "a stream was refused: {}", String::from_utf8_lossy(answer));
        if memchr::memmem::find(answer, door.greeting.as_bytes()).is_none() {
            return Ok(false);
        }
        self.opening = None;
        Ok(true)
    }
}
