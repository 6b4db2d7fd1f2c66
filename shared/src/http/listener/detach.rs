//! Answers whose socket leaves HTTP once their first bytes are out.

use std::{pin::Pin, sync::Arc};

use axum::{body::Body, extract::FromRequestParts};
use bytes::Bytes;
use http::request::Parts;
use tokio::net::TcpStream;

use super::{body::LastBody, connections::ConnectionGuard, state::State};
use crate::http::Failure;

/// Takes a socket over.
pub(super) type Successor =
    Box<dyn FnOnce(Detached) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The connection that a request came on, as its extension.
#[derive(Clone)]
pub(super) struct Connection(pub(super) Arc<State<Successor>>);

/// The request's connection, to be taken from HTTP by the answer; only requests of a public listener have one.
pub struct Detach(Connection);

/// A socket that has left HTTP.
#[derive(Debug)]
pub struct Detached {
    /// The bare socket: everything before is with the kernel, and nothing comes after but what its holder writes.
    pub socket: TcpStream,
    /// Counts it among the listener's connections until dropped.
    pub connection: ConnectionGuard,
}

impl Detach {
    /// Returns a body that begins with `first` and does not end; once `first` is out, `then` gets the socket.
    ///
    /// What `then` returns is run to its end by the connection's task. If the peer goes away before, or the answer is
    /// dropped, `then` is dropped without being called. To HTTP/1.1 the answer is chunked: what is written to the
    /// socket has to be chunks. To HTTP/1.0 it is not, and ends with the connection. What the client has sent after the
    /// request's head, a body too, may be lost or may come out of the socket.
    pub fn body<F, Fut>(self, first: Bytes, then: F) -> Body
    where
        F: FnOnce(Detached) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let then: Successor = Box::new(|detached| Box::pin(then(detached)));
        Body::new(LastBody::new(first, then, self.0.0))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Detach {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let connection = parts.extensions.get::<Connection>().cloned();
        connection.map(Self).ok_or_else(|| {
            tracing::error!("a request that no public listener took cannot be detached");
            Failure::internal()
        })
    }
}
