//! Where a call may go: to the Internet, and nowhere that only we can reach.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::{
    Url,
    dns::{Name, Resolve, Resolving},
};
use serde::Deserialize;
use tokio::time::timeout;

use crate::HttpBundlesConfig;

/// How long a look at a new URL's name may take.
const LOOKUP: Duration = Duration::from_secs(2);

/// IPv4 that is not the Internet's: IANA's registry of special purposes, multicast, and an address that a cloud gives its
/// own services.
const SPECIAL_V4: [(Ipv4Addr, u8); 18] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 52, 193, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(192, 175, 48, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];
/// Within the one range of IPv6 that is routed, what is not, or carries IPv4 that would have to be looked at again.
const SPECIAL_V6: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];
/// Everything else is mapped, translated, local, multicast or nobody's.
const ROUTED_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

static SPECIAL: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let v4 = SPECIAL_V4.map(|(addr, bits)| Ipv4Net::new_assert(addr, bits).into());
    let v6 = SPECIAL_V6.map(|(addr, bits)| Ipv6Net::new_assert(addr, bits).into());
    v4.into_iter().chain(v6).collect()
});

/// Says whether an address is one of the Internet.
fn is_global(addr: IpAddr) -> bool {
    let routed = match addr {
        IpAddr::V4(_) => true,
        IpAddr::V6(addr) => Ipv6Net::new_assert(ROUTED_V6.0, ROUTED_V6.1).contains(&addr),
    };
    routed && !SPECIAL.iter().any(|network| network.contains(&addr))
}

/// Why Parley does not call a URL.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the URL begins with https://")]
    Scheme,
    #[error("the URL has no user, password or fragment")]
    Extra,
    #[error("the URL's port is not one of PROC_HTTP_BUNDLES_PORTS")]
    Port,
    #[error("the URL leads to an address that is not of the Internet")]
    Address,
}

/// A URL in a body.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Address(pub(crate) Url);

impl TryFrom<String> for Address {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let parsed = text.parse().ok().filter(|_| text.len() <= 2_000).map(Self);
        parsed.ok_or("it is no URL")
    }
}

/// Decides which URLs may be called, and looks up names so that nothing else is connected to; a clone decides the same.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    ports: Arc<[u16]>,
    loopback: bool,
}

impl Guard {
    pub(crate) fn new(config: &HttpBundlesConfig) -> Self {
        let ports = config.proc_http_bundles_ports.as_slice().into();
        Self { ports, loopback: config.proc_http_bundles_loopback }
    }

    /// Says whether plain HTTP may be spoken, on loopback.
    pub(crate) fn allows_loopback(&self) -> bool {
        self.loopback
    }

    /// Refuses what can be told from the URL itself. A name is looked at when it is connected to.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Refused> {
        if url.scheme() != "https" && !(self.loopback && url.scheme() == "http") {
            return Err(Refused::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(Refused::Extra);
        }
        let port = url.port_or_known_default().ok_or(Refused::Port)?;
        if !self.ports.contains(&port) && !self.loopback {
            return Err(Refused::Port);
        }
        // With brackets, an IPv6 address is no name and no address.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match host.parse() {
            Ok(addr) if !self.allows(addr) => Err(Refused::Address),
            _ => Ok(()),
        }
    }

    /// Refuses a URL whose name leads inward today. One that leads nowhere yet may do so later.
    pub(crate) async fn check_name(&self, url: &Url) -> Result<(), Refused> {
        self.check(url)?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match timeout(LOOKUP, self.look_up(host)).await {
            Ok(Ok(Err(refused))) => Err(refused),
            _ => Ok(()),
        }
    }

    fn allows(&self, addr: IpAddr) -> bool {
        is_global(addr) || (self.loopback && addr.is_loopback())
    }

    /// Returns every address of a name, or refuses them all if one of them is not to be called.
    async fn look_up(&self, host: &str) -> std::io::Result<Result<Vec<SocketAddr>, Refused>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
        let refused = found.iter().any(|addr| !self.allows(addr.ip()));
        Ok(if refused { Err(Refused::Address) } else { Ok(found) })
    }
}

/// The client connects to what this returns and looks nothing up itself, so a name that changes its mind changes nothing.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = guard.look_up(name.as_str()).await??;
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
