//! The internal listeners: gRPC over HTTP/2, and HTTP/1 for operators, on connections that end.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{Router, middleware::from_fn_with_state};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rand::RngExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Hosts, hosts};
use crate::{grpc::MAX_DEADLINE, lifecycle::Lifecycle};

/// Connections at once; further ones wait.
const MAX_CONNECTIONS: usize = 1024;
/// After how long a connection takes no new call, so that callers spread over replicas that came later; each a little
/// earlier. Not tonic's `max_connection_age`: with a grace, that cuts what is running without a word.
const MAX_AGE: Duration = Duration::from_mins(30);
/// How long what is running on it may then still take: the longest call.
const AGE_GRACE: Duration = MAX_DEADLINE;
/// How long a connection is silent before it is asked for a sign of life, and how long that may take.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls of one connection at once.
const MAX_STREAMS: u32 = 256;
/// The longest head of a call in bytes.
const MAX_HEAD_BYTES: u32 = 16 * 1024;
/// How long nothing is accepted after the operating system could not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves an internal listener until the last stream is closed, then finishes what is running. Besides gRPC it answers
/// only requests to an address, `localhost` or one of `hosts`.
pub async fn serve_internal(
    listener: TcpListener,
    routes: Router,
    hosts: Hosts,
    lifecycle: Lifecycle,
) {
    let routes = routes.layer(from_fn_with_state(hosts, hosts::only_ours_or_grpc));
    // Makes the routes once instead of at every request.
    let routes = routes.with_state(());
    let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut closed = pin!(lifecycle.closed());
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut closed => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                let served = connection(socket, routes.clone(), stopping.clone());
                tasks.spawn(async move {
                    let _place = place;
                    served.await;
                });
            }
            Err(error) => {
                tracing::error!(%error, "an internal connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stopping.cancel();
    tasks.close();
    tasks.wait().await;
}

async fn connection(socket: TcpStream, routes: Router, stopping: CancellationToken) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "the socket's options were not set");
    }
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES);
    let serving = server.serve_connection(TokioIo::new(socket), TowerToHyperService::new(routes));
    let mut serving = pin!(serving);
    let age = MAX_AGE.mul_f64(rand::rng().random_range(0.9..1.0));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        _ = timeout(age, stopping.cancelled()) => {
            serving.as_mut().graceful_shutdown();
            timeout(AGE_GRACE, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an internal connection broke");
    }
}
