//! A link between two others: open, stalled, cut, mended.

use std::time::Duration;

use cluster::Link;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::support::PATIENCE;

/// Long enough to say that something does not happen.
const A_WHILE: Duration = Duration::from_millis(200);

/// Sends a byte and waits for it to come back.
async fn echo(socket: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    socket.write_u8(byte).await?;
    socket.read_u8().await
}

#[tokio::test]
async fn a_link_can_be_stalled_cut_and_mended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = Link::open(listener.local_addr().unwrap()).unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let (mut from, mut to) = socket.into_split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let mut socket = TcpStream::connect(link.addr()).await.unwrap();
    assert_eq!(echo(&mut socket, 1).await.unwrap(), 1);

    link.stall();
    assert!(timeout(A_WHILE, echo(&mut socket, 2)).await.is_err(), "nothing gets through");
    link.mend();
    let late = timeout(PATIENCE, socket.read_u8()).await.unwrap();
    assert_eq!(late.unwrap(), 2);

    link.cut();
    let ended = timeout(PATIENCE, socket.read_u8()).await.expect("the connection ends");
    assert!(ended.is_err());
    let mut socket = TcpStream::connect(link.addr()).await.unwrap();
    assert!(timeout(PATIENCE, echo(&mut socket, 3)).await.unwrap().is_err(), "so do new ones");

    link.mend();
    let mut socket = TcpStream::connect(link.addr()).await.unwrap();
    assert_eq!(echo(&mut socket, 4).await.unwrap(), 4);
}
