//! gRPC between the services: who may call and for how long, which replica is called, and what happens when one is gone.

mod calls;
mod deadline;
mod endpoints;
mod health;
mod peer;
mod server;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderName, Uri};

pub use self::{
    calls::Calls,
    peer::Peer,
    server::{Services, routes},
};

/// The longest message either way in bytes. Batches and pages are far below it.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// How long any call may take, its stream too: what a whole export may.
pub const MAX_DEADLINE: Duration = Duration::from_hours(2);

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Id of a replica: of the one that answers, and of the one that a call was signed for.
const REPLICA: HeaderName = HeaderName::from_static("parley-replica");

/// Reads one URL of a service's gRPC.
pub fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.trim().parse().map_err(|error| format!("{error}"))?;
    if url.scheme_str() != Some("http") {
        return Err(
            "begins with http://; what goes over a foreign network belongs into a tunnel or a mesh"
                .into(),
        );
    }
    let bare = matches!(url.path(), "" | "/") && url.query().is_none();
    match url.authority() {
        Some(authority) if bare && !authority.as_str().contains('@') => Ok(url),
        _ => Err("is a host and a port and nothing else, such as http://proc:9020".into()),
    }
}

#[cfg(test)]
mod url_tests {
    use super::url;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for fits in
            ["http://proc:9020", " http://127.0.0.1:9020/", "http://[::1]:9020", "http://proc"]
        {
            assert!(url(fits).is_ok(), "{fits}");
        }
        for other in [
            "",
            "proc:9020",
            "https://proc:9020",
            "http://proc/path",
            "http://a:b@proc",
            "http://proc?x=1",
        ] {
            assert!(url(other).is_err(), "{other}");
        }
    }
}
