//! How many connections there may be, in all and of one address.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{LOG_INTERVAL, ListenConfig, state::Deadlines};

/// Descriptors that are kept for all else: the database, files, gRPC, refusals.
const RESERVED_DESCRIPTORS: usize = 512;
/// Connections that are served however few descriptors there are.
const MIN_CONNECTIONS: usize = 64;
/// Refused connections that are waited for at once, within the reserve.
const MAX_REFUSALS: usize = 128;

/// The connections of all public listeners of the process; a clone is the same connections.
#[derive(Clone, Debug)]
pub struct Connections {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    deadlines: Deadlines,
    max: usize,
    max_per_address: usize,
    refusals: Arc<Semaphore>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// When a refusal was last logged.
    logged: Option<Instant>,
    by_address: HashMap<IpAddr, usize>,
}

/// Limit that a connection was refused for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum ConnectionLimit {
    /// Of the process.
    All(usize),
    /// Of one client address.
    OfAddress(usize),
}

impl ConnectionLimit {
    pub(super) fn value(self) -> usize {
        match self {
            Self::All(max) | Self::OfAddress(max) => max,
        }
    }

    /// Returns the setting that raises the limit.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::All(_) => "ulimit -n",
            Self::OfAddress(_) => "MAX_CONNECTIONS_PER_ADDRESS",
        }
    }
}

impl fmt::Display for ConnectionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(max) => write!(
                f,
                "there are too many connections: the limit is {max}, {RESERVED_DESCRIPTORS} less than the process's \
                 descriptors (ulimit -n)"
            ),
            Self::OfAddress(max) => write!(
                f,
                "there are too many connections of one address: the limit is {max} (MAX_CONNECTIONS_PER_ADDRESS)"
            ),
        }
    }
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    inner: Arc<Inner>,
    address: IpAddr,
}

impl Connections {
    /// Raises the process's limit of descriptors as far as it may, and leaves some of them to all else.
    #[must_use]
    pub fn new(config: &ListenConfig) -> Self {
        Self::with_max(
            config,
            descriptors().saturating_sub(RESERVED_DESCRIPTORS).max(MIN_CONNECTIONS),
        )
    }

    pub(super) fn with_max(config: &ListenConfig, max: usize) -> Self {
        let inner = Inner {
            deadlines: config.deadlines(),
            max,
            max_per_address: config.max_connections_per_address,
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            counts: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Counts a connection, unless there are too many. Each limit is logged at most once in [`LOG_INTERVAL`].
    pub(super) fn admit(&self, address: IpAddr) -> Result<ConnectionGuard, ConnectionLimit> {
        let Inner { max, max_per_address, .. } = *self.inner;
        let address = network(address);
        let mut counts = self.inner.lock();
        let of_address = counts.by_address.get(&address).copied().unwrap_or_default();
        let limit = if counts.total >= max {
            Some(ConnectionLimit::All(max))
        } else if max_per_address > 0 && of_address >= max_per_address {
            Some(ConnectionLimit::OfAddress(max_per_address))
        } else {
            None
        };
        if let Some(limit) = limit {
            if counts.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
                counts.logged = Some(Instant::now());
                tracing::warn!(
                    limit = limit.value(), setting = limit.setting(), %address,
                    "refused a connection: {limit}"
                );
            }
            return Err(limit);
        }
        counts.total += 1;
        counts.by_address.insert(address, of_address + 1);
        drop(counts);
        Ok(ConnectionGuard { inner: self.inner.clone(), address })
    }

    /// Returns the permit to wait until a refusal is read, unless too many are waited for.
    pub(super) fn refusal(&self) -> Option<OwnedSemaphorePermit> {
        self.inner.refusals.clone().try_acquire_owned().ok()
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        self.inner.deadlines
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut counts = self.inner.lock();
        counts.total -= 1;
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// Returns what is counted as one address: of IPv6 the /64, which is what one customer is given at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Returns how many descriptors the process may have.
fn descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current;
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of descriptors was not raised");
        limit.current = soft;
    }
    limit.current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        listen: ListenConfig,
    }

    fn connections(max: usize, per_address: &str) -> Connections {
        let args = Args::parse_from(["", "--max-connections-per-address", per_address]);
        Connections::with_max(&args.listen, max)
    }

    #[test]
    fn an_address_has_only_its_share_and_gets_it_back() {
        let connections = connections(9, "2");
        let admit = |address: &str| connections.admit(address.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let _mapped = admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_err());
        let _other = admit("10.0.0.2").unwrap();
        drop(first);
        let _again = admit("10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_err());
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let connections = connections(9, "1");
        let admit = |address: &str| connections.admit(address.parse().unwrap());
        let guard = admit("2001:db8::1").unwrap();
        assert!(admit("2001:db8::ffff:2").is_err());
        assert!(admit("2001:db8:0:1::1").is_ok());
        drop(guard);
        assert!(connections.inner.lock().by_address.is_empty());
    }

    #[test]
    fn without_a_share_only_the_whole_is_bounded() {
        let connections = connections(3, "0");
        let address: IpAddr = [127, 0, 0, 1].into();
        let admitted: Vec<_> = (0..5).filter_map(|_| connections.admit(address).ok()).collect();
        assert_eq!(admitted.len(), 3);
    }
}
