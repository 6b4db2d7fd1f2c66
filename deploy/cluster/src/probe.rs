//! How one sees from outside that a part is ready.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long one look may take; a part that is starting may accept and not answer.
const LOOK: Duration = Duration::from_secs(2);

/// A question that a part answers once it is ready.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    /// It answers `GET /health/ready` with 200.
    Health(SocketAddr),
    /// It begins a connection with these bytes.
    Greeting(SocketAddr, &'static str),
    /// It takes connections.
    Listening(SocketAddr),
    /// It has written so into its data folder. Asking it would fill its log with refusals.
    Postmaster(PathBuf),
}

impl Probe {
    /// Asks the process with the given id.
    pub(crate) async fn is_ready(&self, pid: u32) -> bool {
        matches!(timeout(LOOK, self.look(pid)).await, Ok(Ok(true)))
    }

    async fn look(&self, pid: u32) -> std::io::Result<bool> {
        match self {
            Self::Health(addr) => {
                let mut socket = TcpStream::connect(addr).await?;
                let request = format!("GET /health/ready HTTP/1.0\r\nHost: {addr}\r\n\r\n");
                socket.write_all(request.as_bytes()).await?;
                begins_with(socket, "HTTP/1.0 200").await
            }
            Self::Greeting(addr, greeting) => {
                begins_with(TcpStream::connect(addr).await?, greeting).await
            }
            Self::Listening(addr) => TcpStream::connect(addr).await.map(|_| true),
            Self::Postmaster(data) => {
                let text = std::fs::read_to_string(data.join("postmaster.pid"))?;
                // One that was killed has left its own.
                let (first, last) = (text.lines().next(), text.lines().last());
                Ok(first == Some(&pid.to_string()) && last.map(str::trim) == Some("ready"))
            }
        }
    }
}

async fn begins_with(mut socket: TcpStream, expected: &str) -> std::io::Result<bool> {
    let mut bytes = vec![0; expected.len()];
    socket.read_exact(&mut bytes).await?;
    Ok(bytes == expected.as_bytes())
}
