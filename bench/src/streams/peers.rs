//! Other servers, if `bench/peers/setup` has installed them.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use super::target::{Door, Http, Target};
use crate::process::{self, Process};

const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// Starts nginx with nchan, one worker; `None` if it is not installed.
pub(super) fn nchan() -> anyhow::Result<Option<Target>> {
    if !Path::new(NCHAN).exists() {
        return Ok(None);
    }
    let (folder, address) = (process::folder()?, free_address()?);
    let inside = folder.path().display();
    let config = fs::read_to_string(peers().join("nginx.conf"))?
        .replace("MODULE", NCHAN)
        .replace("FOLDER", &inside.to_string())
        .replace("ADDRESS", &address.to_string());
    let file = folder.path().join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file).arg("-p").arg(folder.path());
    let process = Process::start(&mut command, folder)?;
    let mut sender = Http::connect(address, "content-type: text/plain\r\n")?;
    Ok(Some(Target {
        process,
        door: Door::at(address, ": hi", get(address, "/streams")),
        rehearsals: 0,
        publish: Box::new(move |text| sender.call("POST", "/events", text).map(drop)),
    }))
}

/// Starts a server on Express; `None` if it is not installed.
pub(super) fn express() -> anyhow::Result<Option<Target>> {
    let source = peers().join("express");
    if !source.join("node_modules").exists() {
        return Ok(None);
    }
    let mut command = Command::new("node");
    command.arg(source.join("server.js")).env("NODE_ENV", "production");
    // Its limits are counted, and are never reached.
    command.env("SSE_MAX_CONN_PER_IP", "1000").env("SSE_MAX_CONN_PER_SESSION", "5");
    let mut process = Process::start(&mut command, process::folder()?)?;
    let address = process.line()?.parse()?;
    let mut sender = Http::connect(address, "content-type: text/plain\r\n")?;
    Ok(Some(Target {
        process,
        door: Door::at(address, "\r\n\r\n", get(address, "/streams")),
        rehearsals: 0,
        publish: Box::new(move |text| sender.call("POST", "/events", text).map(drop)),
    }))
}

/// Starts the server of the crate `durable-streams`; `None` if it is not installed.
pub(super) fn durable_streams() -> anyhow::Result<Option<Target>> {
    let program = peers().join("durable-streams/bin/durable-streams-server");
    if !program.exists() {
        return Ok(None);
    }
    let (folder, address) = (process::folder()?, free_address()?);
    let mut command = Command::new(program);
    command.args(["--port", &address.port().to_string()]);
    command.arg("--data-dir").arg(folder.path());
    let process = Process::start(&mut command, folder)?;
    let mut sender = Http::connect(address, "content-type: text/plain\r\n")?;
    sender.call("PUT", "/room", "")?;
    Ok(Some(Target {
        process,
        door: Door::at(address, "upToDate", get(address, "/room?offset=now&live=sse")),
        rehearsals: 0,
        publish: Box::new(move |text| sender.call("POST", "/room", text).map(drop)),
    }))
}

fn get(address: SocketAddr, path: &str) -> impl Fn(usize) -> String + Send + 'static {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    move |_| request.clone()
}

/// Returns an address that is free now, for servers that cannot choose one and say which.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
