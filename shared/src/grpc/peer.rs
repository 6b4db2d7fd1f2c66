//! The other service as a set of replicas: which there are, and which of them answer.
//!
//! Not tonic's `balance_channel`: there an endpoint that cannot be connected to counts as ready and fails its share of
//! the calls, a call waits without end while there is no endpoint, and a second attempt cannot ask for another one.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Uri};
use rand::RngExt as _;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    Calls, REPLICA,
    endpoints::{Endpoint, Endpoints, Lookup, system},
};
use crate::service_token::{Service, ServiceToken};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a replica may take to say that it serves.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection is silent before it is asked for a sign of life, and how long that may take.
const PING_AFTER: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls to one replica at once; further ones wait until their deadline.
const MAX_CALLS: usize = 256;
/// The longest head of an answer in bytes.
const MAX_HEAD_BYTES: u32 = 16 * 1024;

/// How often names are looked up and replicas are asked whether they serve.
#[derive(Copy, Clone, Debug)]
pub(super) struct Pace {
    pub(super) lookup: Duration,
    pub(super) check: Duration,
    /// The pause after a call that found a replica dead.
    pub(super) hurry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            lookup: Duration::from_secs(5),
            check: Duration::from_secs(1),
            hurry: Duration::from_millis(100),
        }
    }
}

/// The replicas of the other service; a clone is the same ones.
#[derive(Clone)]
pub struct Peer {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) me: Service,
    pub(super) token: ServiceToken,
    /// `None` until names were looked up for the first time.
    replicas: watch::Sender<Option<Arc<[Arc<Replica>]>>>,
    /// Where the next call begins, so that all replicas get their share.
    next: AtomicUsize,
    pace: Pace,
    hurry: Notify,
    /// Taken by the task that follows them.
    endpoints: Mutex<Option<Endpoints>>,
}

/// One replica.
pub(super) struct Replica {
    endpoint: Endpoint,
    pub(super) channel: Channel,
    /// It said lately that it serves, and no call has found otherwise since.
    serves: AtomicBool,
    /// Its id, for which calls are signed, as its last answer said.
    id: Mutex<Option<HeaderValue>>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("service", &self.inner.me.other()).finish_non_exhaustive()
    }
}

impl Peer {
    /// Names the replicas of the service that `me` calls: by address, or by names that may have many.
    #[must_use]
    pub fn new(me: Service, urls: Vec<Uri>, token: ServiceToken) -> Self {
        Self::with(me, urls, token, system(), Pace::default())
    }

    pub(super) fn with(
        me: Service,
        urls: Vec<Uri>,
        token: ServiceToken,
        lookup: Lookup,
        pace: Pace,
    ) -> Self {
        let endpoints = Endpoints::new(urls, lookup);
        let known: Arc<[_]> = endpoints.all().into_iter().map(Replica::new).collect();
        let (replicas, _) = watch::channel(Some(known).filter(|known| !known.is_empty()));
        let inner = Inner {
            me,
            token,
            replicas,
            next: AtomicUsize::new(0),
            pace,
            hurry: Notify::new(),
            endpoints: Mutex::new(Some(endpoints)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns what tonic's clients call through; each call has so long.
    #[must_use]
    pub fn calls(&self, deadline: Duration) -> Calls {
        Calls::new(self.clone(), deadline)
    }

    /// Follows the names and asks the replicas whether they serve, until shutdown. Connections are made when they are
    /// needed first, which is here.
    pub async fn run(self, shutdown: CancellationToken) {
        let taken = self.inner.endpoints.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(endpoints) = taken {
            shutdown.run_until_cancelled(self.follow(endpoints)).await;
        }
    }

    async fn follow(&self, mut endpoints: Endpoints) {
        let Pace { lookup, check, hurry } = self.inner.pace;
        let mut looked_up: Option<Instant> = None;
        let mut soon = lookup;
        loop {
            if looked_up.is_none_or(|at| at.elapsed() >= soon) {
                endpoints.refresh().await;
                looked_up = Some(Instant::now());
                self.renew(&endpoints.all());
                soon = lookup;
            }
            let replicas = self.inner.replicas.borrow().clone().unwrap_or_default();
            join_all(replicas.iter().map(|replica| replica.check(self.inner.me.other()))).await;
            // Not all of a service's callers at once.
            let pause = check.mul_f64(rand::rng().random_range(0.8..1.2));
            let hurried = async {
                self.inner.hurry.notified().await;
                sleep(hurry).await;
            };
            tokio::select! {
                () = sleep(pause) => {}
                // The dead one may have a successor elsewhere.
                () = hurried => soon = check,
            }
        }
    }

    /// Takes over what was found: who stays keeps their connection, calls to who is gone may end.
    fn renew(&self, endpoints: &[Endpoint]) {
        self.inner.replicas.send_modify(|replicas| {
            let known = replicas.clone().unwrap_or_default();
            let renewed = endpoints.iter().map(|endpoint| {
                let same = known.iter().find(|replica| replica.endpoint == *endpoint);
                same.cloned().unwrap_or_else(|| Replica::new(endpoint.clone()))
            });
            *replicas = Some(renewed.collect());
        });
    }

    /// Returns the replicas in the order in which a call tries them: those that serve, then those that did not, since
    /// what was asked a second ago may have changed.
    pub(super) async fn route(&self) -> Vec<Arc<Replica>> {
        let mut replicas = self.inner.replicas.subscribe();
        let known = replicas.wait_for(Option::is_some).await;
        let known = known.ok().and_then(|known| known.clone()).unwrap_or_default();
        let first = self.inner.next.fetch_add(1, Ordering::Relaxed) % known.len().max(1);
        let (after, before) = (known.iter().skip(first), known.iter().take(first));
        let (mut serving, silent): (Vec<_>, Vec<_>) =
            after.chain(before).cloned().partition(|replica| replica.serves());
        serving.extend(silent);
        serving
    }

    /// Takes a replica for dead until it is asked again, which is soon.
    pub(super) fn suspect(&self, replica: &Replica) {
        replica.serves.store(false, Ordering::Relaxed);
        self.inner.hurry.notify_one();
    }
}

impl Replica {
    fn new(endpoint: Endpoint) -> Arc<Self> {
        let uri = format!("http://{}", endpoint.address);
        let uri = uri.parse().unwrap_or_else(|_| endpoint.origin.clone());
        let channel = tonic::transport::Endpoint::from(uri)
            .origin(endpoint.origin.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .http2_max_header_list_size(MAX_HEAD_BYTES)
            .concurrency_limit(MAX_CALLS)
            .connect_lazy();
        Arc::new(Self { endpoint, channel, serves: AtomicBool::new(false), id: Mutex::default() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    pub(super) fn serves(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Returns the replica's id; asks for it if nobody has yet.
    pub(super) async fn id(&self, service: Service) -> Option<HeaderValue> {
        if self.known_id().is_none() {
            self.check(service).await;
        }
        self.known_id()
    }

    fn known_id(&self) -> Option<HeaderValue> {
        self.id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over the id that an answer of the replica names.
    pub(super) fn learn_id(&self, headers: &HeaderMap) {
        if let Some(id) = headers.get(REPLICA) {
            *self.id.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.clone());
        }
    }

    async fn check(&self, service: Service) {
        let mut health = HealthClient::new(self.channel.clone()).max_decoding_message_size(1024);
        let asked = timeout(CHECK_TIMEOUT, health.check(HealthCheckRequest::default())).await;
        let answer = asked.ok().and_then(Result::ok);
        if let Some(answer) = &answer {
            self.learn_id(answer.metadata().as_ref());
        }
        let status = answer.map(|answer| answer.into_inner().status());
        let serves = status == Some(ServingStatus::Serving);
        if self.serves.swap(serves, Ordering::Relaxed) != serves {
            tracing::info!(%service, address = %self.address(), serves, ?status, "a replica changed");
        }
    }
}
