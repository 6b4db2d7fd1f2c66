//! Where a service's replicas are: every address that the configured names have now.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use http::Uri;
use tokio::time::timeout;

/// How long a name's addresses may take to find.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 80;

/// Finds the addresses of a name.
pub(super) type Lookup =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Asks the operating system.
pub(super) fn system() -> Lookup {
    Arc::new(|host, port| {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
}

/// A replica's address, and the URL that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) origin: Uri,
}

/// The configured URLs with what was found last.
pub(super) struct Endpoints {
    lookup: Lookup,
    known: Vec<(Uri, Vec<SocketAddr>)>,
}

impl Endpoints {
    /// Takes the URLs; those that name an address need no look-up.
    pub(super) fn new(urls: Vec<Uri>, lookup: Lookup) -> Self {
        let known = urls.into_iter().map(|url| {
            let (host, port) = parts(&url);
            let address = host.parse().map(|ip| SocketAddr::new(ip, port));
            (url, address.into_iter().collect())
        });
        Self { lookup, known: known.collect() }
    }

    /// Looks every name up again. One that cannot be found keeps the addresses it had: a resolver that is away takes no
    /// replica with it.
    pub(super) async fn refresh(&mut self) {
        let lookups = self.known.iter().map(|(url, _)| {
            let (host, port) = parts(url);
            let (lookup, is_address) =
                (self.lookup.clone(), host.parse::<std::net::IpAddr>().is_ok());
            async move {
                if is_address {
                    return None;
                }
                let found = timeout(LOOKUP_TIMEOUT, lookup(host.clone(), port)).await;
                let found = found.unwrap_or_else(|late| Err(late.into()));
                found
                    .inspect_err(
                        |error| tracing::warn!(host, %error, "a service's name was not found"),
                    )
                    .ok()
            }
        });
        let found = join_all(lookups).await;
        for ((_, known), found) in self.known.iter_mut().zip(found) {
            *known = found.unwrap_or_else(|| std::mem::take(known));
        }
    }

    /// Returns every address once.
    pub(super) fn all(&self) -> Vec<Endpoint> {
        let mut all: Vec<Endpoint> = Vec::new();
        for (origin, addresses) in &self.known {
            for address in addresses {
                if all.iter().all(|endpoint| endpoint.address != *address) {
                    all.push(Endpoint { address: *address, origin: origin.clone() });
                }
            }
        }
        all
    }
}

/// Returns host and port as a look-up takes them.
fn parts(url: &Uri) -> (String, u16) {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), url.port_u16().unwrap_or(DEFAULT_PORT))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn addresses(endpoints: &Endpoints) -> Vec<String> {
        endpoints.all().iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    #[tokio::test]
    async fn names_are_followed_and_a_resolver_that_is_away_takes_nothing() {
        let answers = Arc::new(Mutex::new(vec![
            Err(io::Error::other("away")),
            Ok(vec!["10.0.0.1:9020", "10.0.0.2:9020", "10.0.0.1:9020"]),
            Err(io::Error::other("away")),
            Ok(vec!["10.0.0.2:9020", "10.0.0.3:9020"]),
            Ok(vec![]),
        ]));
        let lookup: Lookup = Arc::new(move |host, port| {
            assert_eq!((host.as_str(), port), ("proc", 9020));
            let answer = answers.lock().unwrap().remove(0);
            let parse = |found: Vec<&str>| found.iter().map(|text| text.parse().unwrap()).collect();
            Box::pin(std::future::ready(answer.map(parse)))
        });
        let urls = ["http://proc:9020", "http://[::1]:7", "http://192.0.2.1"];
        let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
        let mut endpoints = Endpoints::new(urls, lookup);
        let mut seen = vec![addresses(&endpoints)];
        for _ in 0..5 {
            endpoints.refresh().await;
            seen.push(addresses(&endpoints));
        }
        let fixed = ["[::1]:7", "192.0.2.1:80"];
        let named: Vec<&[&str]> = vec![
            &[],
            &[],
            &["10.0.0.1:9020", "10.0.0.2:9020"],
            &["10.0.0.1:9020", "10.0.0.2:9020"],
            &["10.0.0.2:9020", "10.0.0.3:9020"],
            &[],
        ];
        for (seen, named) in seen.iter().zip(named) {
            assert_eq!(*seen, [named, &fixed].concat());
        }
    }
}
