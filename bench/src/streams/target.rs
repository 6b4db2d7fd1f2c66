//! A server that is measured: its process, what opens a stream of it, and what sends an event to all of them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::process::Process;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends an event of this text to every stream.
pub(super) type Publish = Box<dyn FnMut(&str) -> anyhow::Result<()> + Send>;

/// How streams are opened.
pub(crate) struct Door {
    /// Where: the streams go round these.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Returns the request that opens the stream of this number.
    pub(crate) request: Box<dyn Fn(usize) -> String + Send>,
    /// What has arrived once a stream is open.
    pub(crate) greeting: &'static str,
}

impl Door {
    pub(super) fn at(
        address: SocketAddr,
        greeting: &'static str,
        request: impl Fn(usize) -> String + Send + 'static,
    ) -> Self {
        Self { addresses: vec![address], request: Box::new(request), greeting }
    }
}

/// A server that is measured.
pub(super) struct Target {
    pub(super) process: Process,
    pub(super) door: Door,
    /// Streams to open and close beforehand, so that nobody is new when the measurement begins.
    pub(super) rehearsals: usize,
    pub(super) publish: Publish,
}

/// A client that waits for each answer, on a connection that is kept alive.
pub(super) struct Http {
    connection: BufReader<TcpStream>,
    /// The header lines that every request has.
    headers: String,
}

impl Http {
    pub(super) fn connect(address: SocketAddr, headers: &str) -> anyhow::Result<Self> {
        let began = Instant::now();
        let connection = loop {
            match TcpStream::connect(address) {
                Ok(connection) => break connection,
                Err(error) if began.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let headers = format!("host: {address}\r\n{headers}");
        Ok(Self { connection: BufReader::new(connection), headers })
    }

    /// Sends a request and returns the body of its answer, which is to be a success.
    pub(super) fn call(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let Self { connection, headers } = self;
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{body}");
        connection.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        connection.read_line(&mut line)?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            connection.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().context("the answer's length")?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("{path} answered in chunks, which this client does not read");
            }
        }
        let mut answer = vec![0; length];
        connection.read_exact(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        ensure!(status.starts_with('2'), "{method} {path} answered {status}: {answer}");
        Ok(answer)
    }
}
