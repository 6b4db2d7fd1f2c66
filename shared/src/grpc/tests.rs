//! Real servers on real sockets, some of which die.

mod gate;
mod replicas;
mod safety;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::{
    ListUnfinishedJobsRequest, ListUnfinishedJobsResponse,
    jobs_client::JobsClient,
    jobs_server::{self, JobsServer},
};
use tokio::{runtime::Runtime, sync::mpsc};
use tonic::{Request, Response, Status};

use super::{Calls, Peer, Services, endpoints::Lookup, peer::Pace, routes};
use crate::{
    http::{Hosts, current_trace, serve_internal},
    lifecycle::Lifecycle,
    service_token::{Service, ServiceToken},
};

/// How long a test waits for anything: far longer than it takes, since only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(20);
const QUICK: Pace = Pace {
    lookup: Duration::from_millis(20),
    check: Duration::from_millis(20),
    hurry: Duration::from_millis(5),
};

/// A service that says who it is, or whose trace the call belongs to, or never answers.
#[derive(Clone)]
struct Jobs {
    name: &'static str,
    holds: bool,
    asked: Arc<AtomicUsize>,
    arrive: mpsc::UnboundedSender<()>,
}

#[tonic::async_trait]
impl jobs_server::Jobs for Jobs {
    async fn list_unfinished_jobs(
        &self,
        request: Request<ListUnfinishedJobsRequest>,
    ) -> Result<Response<ListUnfinishedJobsResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _ = self.arrive.send(());
        if self.holds {
            std::future::pending::<()>().await;
        }
        let trace = current_trace().map(|trace| trace.to_string());
        let jobs = match request.into_inner().owner.as_deref() {
            Some("trace") => trace.into_iter().collect(),
            _ => vec![self.name.to_owned()],
        };
        Ok(Response::new(ListUnfinishedJobsResponse { jobs, next: None }))
    }
}

impl Jobs {
    fn new(name: &'static str, holds: bool) -> (Self, mpsc::UnboundedReceiver<()>) {
        let (arrive, arrived) = mpsc::unbounded_channel();
        (Self { name, holds, asked: Arc::default(), arrive }, arrived)
    }
}

/// A replica with a runtime of its own, so that it can be killed with all its connections.
struct Replica {
    address: SocketAddr,
    lifecycle: Lifecycle,
    jobs: Jobs,
    arrived: mpsc::UnboundedReceiver<()>,
    runtime: Option<Runtime>,
}

impl Replica {
    fn start(name: &'static str, token: &ServiceToken, holds: bool) -> Self {
        let (jobs, arrived) = Jobs::new(name, holds);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let lifecycle = Lifecycle::default();
        let routes = routes(
            Service::Proc,
            Services::of(JobsServer::new(jobs.clone())),
            token.clone(),
            &lifecycle,
        );
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let served = lifecycle.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve_internal(listener, routes, Hosts::default(), served).await;
        });
        Self { address, lifecycle, jobs, arrived, runtime: Some(runtime) }
    }

    /// Ends it as a power cut does.
    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    fn asked(&self) -> usize {
        self.jobs.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the name `proc` resolves to; with nothing in it, it is not found.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Names {
    fn set(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    /// Returns a peer that knows its replicas by this name, and the owner of the task that follows them.
    fn peer(&self, token: &ServiceToken) -> (Peer, Lifecycle) {
        let names = self.clone();
        let lookup: Lookup = Arc::new(move |_, _| {
            let found = names.0.lock().unwrap().clone();
            let found =
                if found.is_empty() { Err(io::Error::other("no such name")) } else { Ok(found) };
            Box::pin(std::future::ready(found))
        });
        let urls = vec!["http://proc:9020".parse().unwrap()];
        let peer = Peer::with(Service::Ingress, urls, token.clone(), lookup, QUICK);
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("replicas", peer.clone().run(lifecycle.shutdown()));
        (peer, lifecycle)
    }
}

/// Returns a peer with these replicas, none of which was asked yet whether it serves: the first one is called first.
fn unasked(addresses: &[SocketAddr], token: &ServiceToken) -> Peer {
    let urls = addresses.iter().map(|address| format!("http://{address}").parse().unwrap());
    Peer::new(Service::Ingress, urls.collect(), token.clone())
}

async fn ask_about(calls: &Calls, owner: Option<&str>) -> Result<String, Status> {
    let request = ListUnfinishedJobsRequest { owner: owner.map(Into::into), ..Default::default() };
    let answer = JobsClient::new(calls.clone()).list_unfinished_jobs(request).await?;
    Ok(answer.into_inner().jobs.concat())
}

/// Returns who answers.
async fn ask(calls: &Calls) -> Result<String, Status> {
    ask_about(calls, None).await
}

/// An address that nobody listens at.
fn nowhere() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
