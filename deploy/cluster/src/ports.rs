//! Ports that nobody has, kept until their owner starts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;
use rand::RngExt as _;

/// Below what systems give to outgoing connections, so that a port is still free when its owner comes back to it.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const TRIES: usize = 200;

/// Gives ports of 127.0.0.1 away.
#[derive(Debug, Default)]
pub struct Ports {
    next: Option<u16>,
}

/// A port that is kept for its owner until dropped.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) addr: SocketAddr,
    _kept: TcpListener,
}

impl Ports {
    /// Gives ports in order from `first`, which have to be free, or else any that are.
    #[must_use]
    pub fn from(first: Option<u16>) -> Self {
        Self { next: first }
    }

    pub(crate) fn take(&mut self) -> anyhow::Result<Port> {
        if let Some(port) = self.next {
            self.next = port.checked_add(1);
            return Port::at((Ipv4Addr::LOCALHOST, port).into());
        }
        let tries = (0..TRIES).map(|_| rand::rng().random_range(RANGE));
        let mut free = tries.filter_map(|port| Port::at((Ipv4Addr::LOCALHOST, port).into()).ok());
        free.next().context("no port is free")
    }
}

impl Port {
    /// Keeps a given address.
    pub(crate) fn at(addr: SocketAddr) -> anyhow::Result<Self> {
        let kept = TcpListener::bind(addr).with_context(|| format!("{addr} is not free"))?;
        Ok(Self { addr: kept.local_addr()?, _kept: kept })
    }
}
