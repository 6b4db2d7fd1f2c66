//! Which budget a request is taken from: found by method and path in this one place, so that no route is without.

use http::Method;

use crate::auth::Route;

/// Kinds of requests that have a budget of their own.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Looks at something; the long poll too.
    Reads,
    /// Changes something.
    Sends,
    /// Opens a stream.
    Opens,
    /// Makes work for later: jobs, and the files that they read.
    Submits,
}

impl Class {
    pub(super) const ALL: [Self; 4] = [Self::Reads, Self::Sends, Self::Opens, Self::Submits];

    /// Returns the class of a request to a route. What looks at anything outside of the API is free: health, documents,
    /// pages. New routes are reads, sends or, on proc, submissions without being named here.
    #[must_use]
    pub fn of(method: &Method, route: &str) -> Option<Self> {
        let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if looks {
            let is_api = ["/api/", "/sse/", "/stream/"].iter().any(|root| route.starts_with(root));
            return is_api.then(|| if is_stream(route) { Self::Opens } else { Self::Reads });
        }
        // A bundle calls back as fast as its jobs go. What it sends is signed, and waits in a bounded queue. The flood guard
        // alone counts it.
        if route.starts_with("/api/integrations/callbacks/") {
            return None;
        }
        let submits = route.starts_with("/api/integrations/") && !route.ends_with("/cancel");
        Some(if submits { Self::Submits } else { Self::Sends })
    }
}

/// Returns which credentials a request may show, by method and path alone: no route has been matched yet.
pub(super) fn route(method: &Method, path: &str) -> Route {
    let opens = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && is_stream(path);
    if opens { Route::Stream } else { Route::Other }
}

/// The same paths that the proxy treats as streams.
fn is_stream(route: &str) -> bool {
    ["/sse/", "/stream/"].iter().any(|root| route.starts_with(root))
        || ["/api/jobs/stream", "/api/persistent-chat/stream"].contains(&route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_route_has_its_class() {
        for (method, route, class) in [
            (Method::GET, "/api/chat/projects", Some(Class::Reads)),
            (Method::HEAD, "/api/auth/me", Some(Class::Reads)),
            (Method::GET, "/api/chat/projects/{project}/events", Some(Class::Reads)),
            (Method::GET, "/api/jobs/stream/stats", Some(Class::Reads)),
            (Method::GET, "/api/integrations/jobs", Some(Class::Reads)),
            (Method::POST, "/api/chat/projects/{project}/messages", Some(Class::Sends)),
            (Method::DELETE, "/api/debug/sse-connections/{connection_id}", Some(Class::Sends)),
            (Method::POST, "/sse/streams/{stream_id}/channels", Some(Class::Sends)),
            (Method::POST, "/sse/ticket", Some(Class::Sends)),
            (Method::POST, "/api/integrations/jobs/{id}/cancel", Some(Class::Sends)),
            (Method::GET, "/sse/stream", Some(Class::Opens)),
            (Method::HEAD, "/stream/search", Some(Class::Opens)),
            (Method::GET, "/api/jobs/stream", Some(Class::Opens)),
            (Method::GET, "/api/persistent-chat/stream", Some(Class::Opens)),
            (Method::POST, "/api/integrations/uploads", Some(Class::Submits)),
            (Method::POST, "/api/integrations/jobs/{id}/retry", Some(Class::Submits)),
            (
                Method::POST,
                "/api/integrations/bundles/{bundle}/operations/{operation}/batch",
                Some(Class::Submits),
            ),
            (Method::POST, "/api/integrations/callbacks/{job}", None),
            (Method::GET, "/openapi.json", None),
            (Method::GET, "/", None),
            (Method::POST, "/", Some(Class::Sends)),
        ] {
            assert_eq!(Class::of(&method, route), class, "{method} {route}");
        }
    }
}
