//! The floor: bare `write(2)` of the bytes that Parley sends, one thread, no server around it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;

use super::target::{Door, Target};
use crate::process::{self, Process};

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                      5\r\n: hi\n\r\n";

pub(super) fn start() -> anyhow::Result<Target> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut process = Process::start(command.arg("floor"), process::folder()?)?;
    let address = process.line()?.parse()?;
    let (mut input, mut written) = (process.input()?, process.output()?);
    Ok(Target {
        process,
        door: Door::at(address, ": hi", |_| "GET / HTTP/1.1\r\nhost: floor\r\n\r\n".into()),
        rehearsals: 0,
        publish: Box::new(move |text| {
            writeln!(input, "{text}")?;
            written.next().context("the floor ended")??;
            Ok(())
        }),
    })
}

/// Accepts every connection, and writes each line of standard input to all of them as an event.
pub(crate) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let sockets = Arc::new(Mutex::new(Vec::new()));
    let accepted = Arc::clone(&sockets);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            if let Ok(socket) = greet(socket) {
                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
            }
        }
    });
    for line in io::stdin().lines() {
        let frame = frame(&line?);
        let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain_mut(|socket: &mut TcpStream| match socket.write(frame.as_bytes()) {
            Ok(written) => written == frame.len(),
            // A socket that is full misses the event.
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        // Like an answer to the sender, which so never has more than one event under way.
        println!();
    }
    Ok(())
}

fn greet(mut socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let _ = socket.read(&mut [0; 4096])?;
    socket.write_all(HEAD)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Returns a chunk as Parley's for a message of this text.
fn frame(text: &str) -> String {
    let id = "01a1fcdf-736d-703d-927f-ba122db4157a";
    let at = "2026-11-21T06:51:05.473Z";
    let frame = format!(
        "data: {{\"type\":\"message.created\",\"project_id\":\"{id}\",\"at\":\"{at}\",\
         \"actor\":\"owner\",\"trace_id\":\"01a1fcdf757f73da88237ba66afd0f96\",\"message\":{{\"id\":\"{id}\",\
         \"project_id\":\"{id}\",\"channel\":\"general\",\"author\":\"owner\",\"author_name\":\"owner\",\"text\":\"{text}\",\
         \"reply_to\":null,\"metadata\":null,\"reactions\":[],\"created_at\":\"{at}\",\"updated_at\":null,\
         \"deleted_at\":null}}}}\nid: v1.122rhky.65koo7wr.2sk.8t2szy\n\n"
    );
    format!("{:x}\r\n{frame}\r\n", frame.len())
}
