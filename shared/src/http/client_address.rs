//! The client's address: the peer's, or what trusted proxies say it is.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use http::{HeaderMap, request::Parts};
use ipnet::{IpNet, Ipv4Net};

use super::Failure;

/// The networks of proxies whose word on where a request comes from is believed; a clone is the same list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let networks = text.split(',').map(str::trim).filter(|network| !network.is_empty());
        networks.map(network).collect::<Result<_, _>>().map(Self)
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let parsed = parsed.map_err(|_| format!("`{text}` is no address and no network"))?;
    // Peers are compared in their IPv4 form, so a network of mapped addresses would never match.
    let mapped = match parsed {
        IpNet::V6(net) => net.addr().to_ipv4_mapped().zip(net.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    Ok(mapped.and_then(|(addr, bits)| Ipv4Net::new(addr, bits).ok()).map_or(parsed, IpNet::V4))
}

impl TrustedProxies {
    /// Returns whether no proxy is trusted.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contain(&self, addr: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&addr))
    }

    /// Returns where a request comes from: the rightmost forwarded address that no trusted proxy has. What is left of
    /// it, and of anything that is no address, anybody may have written.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.to_canonical();
        let lines = headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>();
        let entries =
            lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        for entry in entries {
            if !self.contain(client) {
                break;
            }
            let Some(forwarded) = parse(entry) else { break };
            client = forwarded;
        }
        ClientAddress(client)
    }
}

/// Some proxies write the port too, and IPv6 in brackets.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let addr = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()));
    addr.ok().map(|addr| addr.to_canonical())
}

/// The address that a request comes from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// Returns the address itself.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// Returns the network that limits count by: an IPv4 address, or the first address of an IPv6 host's /64, from
    /// which the host can choose any address.
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64).into(),
            addr @ IpAddr::V4(_) => addr,
        }
    }

    /// Returns the text of the [network](Self::network), an IPv6 one with its length.
    #[must_use]
    pub fn key(self) -> String {
        match self.network() {
            IpAddr::V4(addr) => addr.to_string(),
            IpAddr::V6(addr) => format!("{addr}/64"),
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress
where
    TrustedProxies: FromRef<S>,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
            tracing::error!("a listener does not say who its peers are");
            return Err(Failure::internal());
        };
        Ok(TrustedProxies::from_ref(state).client(peer.ip(), &parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&[u8]]) -> ClientAddress {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
        }
        trusted.parse::<TrustedProxies>().unwrap().client(peer.parse().unwrap(), &headers)
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        assert_eq!(client("", "203.0.113.9", &[b"198.51.100.1"]).to_string(), "203.0.113.9");
        let proxies = "10.0.0.0/8";
        assert_eq!(client(proxies, "203.0.113.9", &[b"10.0.0.1"]).to_string(), "203.0.113.9");
    }

    #[test]
    fn the_rightmost_untrusted_entry_is_the_client() {
        let proxies = "10.0.0.0/8, 192.0.2.7,2001:db8:ffff::/48";
        for (forwarded, expected) in [
            (&[&b"198.51.100.1"[..]][..], "198.51.100.1"),
            (&[b"6.6.6.6, 198.51.100.1, 10.1.1.1"], "198.51.100.1"),
            (&[b"6.6.6.6", b"198.51.100.1,192.0.2.7"], "198.51.100.1"),
            (&[b"6.6.6.6, 198.51.100.1:4711"], "198.51.100.1"),
            (&[b"6.6.6.6, [2001:db8::1]:4711 , 2001:db8:ffff::3"], "2001:db8::1"),
            (&[b"[2001:db8::1]"], "2001:db8::1"),
            (&[b"::ffff:198.51.100.1"], "198.51.100.1"),
            (&[b"10.0.0.2, 10.0.0.3"], "10.0.0.2"),
            (&[], "10.0.0.1"),
            (&[b""], "10.0.0.1"),
            (&[b"198.51.100.1, unknown"], "10.0.0.1"),
            (&[b"198.51.100.1, , 10.0.0.4"], "10.0.0.4"),
            (&[b"\xff\xfe, 198.51.100.1"], "198.51.100.1"),
        ] {
            let found = client(proxies, "10.0.0.1", forwarded).to_string();
            assert_eq!(found, expected, "{forwarded:?}");
        }
        let mapped = client(proxies, "::ffff:10.0.0.1", &[b"198.51.100.1"]);
        assert_eq!(mapped.to_string(), "198.51.100.1");
        let mapped = client("::ffff:10.0.0.0/104", "10.0.0.1", &[b"198.51.100.1"]);
        assert_eq!(mapped.to_string(), "198.51.100.1");
    }

    #[test]
    fn a_thousand_entries_are_read_to_the_first_untrusted() {
        let proxies = "10.0.0.1,";
        let many = ["10.0.0.1"; 999].join(",");
        let line = format!("6.6.6.6, 198.51.100.1, {many}");
        assert_eq!(client(proxies, "10.0.0.1", &[line.as_bytes()]).to_string(), "198.51.100.1");
    }

    #[test]
    fn limits_count_by_address_and_by_the_64_of_ipv6() {
        let key = |peer| client("", peer, &[]).key();
        assert_eq!(key("203.0.113.9"), "203.0.113.9");
        assert_eq!(key("::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(key("2001:db8:1:2::9"), "2001:db8:1:2::/64");
    }

    #[test]
    fn a_bad_setting_is_refused() {
        for text in ["10.0.0.0/33", "proxy.example", "10.0.0.1;10.0.0.2"] {
            assert!(text.parse::<TrustedProxies>().is_err(), "{text}");
        }
    }

    proptest! {
        /// A client can send what it likes; the proxy appends the address that it sees.
        #[test]
        fn nobody_can_choose_their_address(
            lines in prop::collection::vec(prop::collection::vec(0x20..=0xff_u8, 0..40), 0..5),
            same_line in any::<bool>(),
        ) {
            let mut lines: Vec<Vec<u8>> = lines;
            lines.iter_mut().flatten().for_each(|byte| if *byte == 0x7f { *byte = b',' });
            match lines.last_mut() {
                Some(line) if same_line => line.extend_from_slice(b", 198.51.100.1"),
                _ => lines.push(b"198.51.100.1".to_vec()),
            }
            let lines = lines.iter().map(Vec::as_slice).collect::<Vec<_>>();
            let found = client("10.0.0.0/8", "10.0.0.1", &lines);
            prop_assert_eq!(found.to_string(), "198.51.100.1");
        }
    }
}
