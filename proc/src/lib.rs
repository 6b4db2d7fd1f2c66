//! Proc: bundles of operations that run as durable jobs, and the files they read and make.

mod access;
mod answers;
mod artifacts;
mod blobs;
mod bundles;
mod clock_repair;
mod config;
mod deleted_projects;
mod error;
mod grpc;
mod ingress;
mod jobs;
mod outgoing;
mod raw_json;
mod schedules;
mod search;
mod state;
mod storage;
mod uploads;
mod webhooks;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::BoxFuture;
use http::Uri;
use shared::{
    auth::{Auth, Endings},
    grpc::Peer,
    http::{layered, serve_internal, serve_public},
    lifecycle::Lifecycle,
    metrics::Metrics,
    parts::Parts,
    service_token::Service,
    store::Store,
    sweep::Sweeps,
    time::Timestamp,
};
use tokio::net::TcpListener;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The reader of Slack exports, for the targets in `fuzz/`.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::bundles::chat::slack::{
        Archive, Error, Limits, Outcome, Position, Record, Survey,
    };
}

pub use self::config::{
    AnswersConfig, Config, HttpBundlesConfig, JobsConfig, SearchConfig, UploadsConfig, WriterKind,
};
pub use self::storage::StorageLimit;
use self::{
    access::{Guarded, ProjectRoles},
    answers::Answers,
    blobs::Blobs,
    bundles::{HttpBundles, Registry},
    ingress::Ingress,
    jobs::{Engine, Tools, retention},
    outgoing::{Outgoing, SECRET_COLUMNS},
    schedules::Scheduler,
    search::{Feed, Reindex, Search},
    state::{AppState, StateParts},
    storage::Quota,
    webhooks::Deliver,
};

#[derive(OpenApi)]
#[openapi(info(
    title = "Parley proc",
    description = "Integrations: bundles of operations that run as jobs. Errors have one shape: {error, message, trace_id, …}."
))]
struct Document;

/// The service with its listeners bound and nothing served yet.
#[derive(Debug)]
pub struct App {
    public: TcpListener,
    internal: TcpListener,
    auth: Auth,
    endings: Endings,
    blobs: Blobs,
    search: Search,
    feed: Feed,
    registry: Registry,
    http_bundles: HttpBundles,
    outgoing: Outgoing,
    writer: answers::Writer,
    common: shared::config::Config,
    config: Config,
    parts: Parts,
}

impl App {
    /// Binds the listeners; a bad setting fails here, before any traffic.
    pub async fn bind(
        common: &shared::config::Config,
        config: Config,
        parts: Parts,
    ) -> anyhow::Result<Self> {
        let listen = async |addr: SocketAddr| {
            TcpListener::bind(addr).await.with_context(|| format!("failed to listen on {addr}"))
        };
        let auth = Auth::new(common, &parts, config.proc_listen)?;
        let blobs = Blobs::open(&common.data_dir)?;
        let (search, feed) = config.search.open(&common.data_dir, parts.store.clone())?;
        let public = listen(config.proc_listen).await?;
        let internal = listen(config.proc_internal_listen).await?;
        let (addr, internal_addr) = (public.local_addr()?, internal.local_addr()?);
        anyhow::ensure!(
            addr.ip().is_loopback() || !config.http_bundles.proc_http_bundles_loopback,
            "PROC_HTTP_BUNDLES_LOOPBACK is for development and {addr} is not loopback"
        );
        let base = config.http_bundles.proc_public_url.as_ref().map(ToString::to_string);
        let base = base.unwrap_or_else(|| format!("http://{addr}"));
        let writer = answers::Writer::new(&config.answers)?;
        let secrets = shared::secrets::seal_all(common, &parts.store, SECRET_COLUMNS).await?;
        let outgoing = Outgoing::new(&config.http_bundles, secrets)?;
        let retries = config.jobs.retries();
        let http_bundles = HttpBundles::new(parts.store.clone(), outgoing.clone(), &base, retries);
        http_bundles.put_limits().await.context("failed to write the limits of bundles")?;
        let reindex = vec![Arc::new(Reindex::new(search.clone())) as _];
        let deliver = Deliver::new(outgoing.clone(), config.jobs.proc_workers);
        let with_demo = config.jobs.proc_demo_bundle.unwrap_or(addr.ip().is_loopback());
        let registry = Registry::built_in(with_demo)?
            .with("search", "Keeps what is found in chat.", reindex)?
            .with_hidden(webhooks::BUNDLE, vec![Arc::new(deliver)])?
            .with_registered(http_bundles.clone());
        tracing::info!(public = %addr, internal = %internal_addr, "proc bound");
        let common = common.clone();
        let endings = Endings::begin(auth.clone(), &parts.bus).await?;
        Ok(Self {
            public,
            internal,
            auth,
            endings,
            blobs,
            search,
            feed,
            registry,
            http_bundles,
            outgoing,
            writer,
            common,
            config,
            parts,
        })
    }

    /// Returns the address of the public listener.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Returns the address of gRPC.
    pub fn internal_addr(&self) -> std::io::Result<SocketAddr> {
        self.internal.local_addr()
    }

    /// Starts every task of the service on the lifecycle of its parts; chat is asked of ingress at `ingress`.
    pub fn start(self, ingress: Vec<Uri>) -> anyhow::Result<()> {
        let Self {
            public,
            internal,
            auth,
            endings,
            blobs,
            search,
            feed,
            registry,
            http_bundles,
            outgoing,
            writer,
            common,
            config,
            parts,
        } = self;
        let Parts { store, bus, lifecycle, connections, limits, service_token, .. } = parts;
        let peer = Peer::new(Service::Proc, ingress, service_token.clone());
        let ingress = Ingress::new(&peer);
        let registry = Arc::new(registry);
        let roles = ProjectRoles::new(ingress.clone());
        let quota = Quota::new(config.uploads.storage_per_user);
        let tools = Tools {
            store: store.clone(),
            bus,
            blobs: blobs.clone(),
            ingress: ingress.clone(),
            roles: roles.clone(),
            registry: registry.clone(),
            quota: quota.clone(),
        };
        let job_age = config.jobs.proc_job_max_age;
        let engine = Engine::new(tools, &config.jobs);
        let state = AppState::new(StateParts {
            auth: auth.clone(),
            store: Guarded::new(store.clone()),
            lifecycle: lifecycle.clone(),
            blobs: blobs.clone(),
            ingress: ingress.clone(),
            roles: roles.clone(),
            registry: registry.clone(),
            http_bundles: http_bundles.clone(),
            engine: engine.clone(),
            outgoing,
            uploads: config.uploads.clone(),
            quota,
        });
        let routes = documented(routes())?.with_state(state);
        let proxies = common.proxies.trusted_proxies.clone().unwrap_or_default();
        let gate = limits.gate(auth.clone(), proxies);
        let routes = limits.guard(routes, &gate);
        let demo = auth.demo_access();
        let routes = layered(routes, &lifecycle, &common.cors_origin, Some(&gate), demo)?;
        let metrics = Metrics::default();
        search.tell(&metrics);
        store.health().tell(&metrics);
        let sweeps = Sweeps::new(store.clone(), &metrics);
        let routes = metrics.watch(routes);
        let public = serve_public(public, routes, lifecycle.clone(), connections);
        lifecycle.serve("proc http", public);
        lifecycle.spawn("ingress replicas", peer.run(lifecycle.shutdown()));
        let retriever = search::Retriever::new(search.clone(), ingress.clone());
        let answers = Answers::new(
            store.clone(),
            retriever,
            writer,
            &config.answers,
            lifecycle.clone(),
            &metrics,
        );
        let grpc = grpc::service(
            store.clone(),
            answers.clone(),
            search.clone(),
            service_token,
            &lifecycle,
        );
        let grpc = grpc.merge(jobs::figures::routes(store.clone(), metrics));
        let hosts = common.internal_hosts.unwrap_or_default();
        lifecycle.serve("proc grpc", serve_internal(internal, grpc, hosts, lifecycle.clone()));
        let scheduler = Scheduler::new(store.clone(), registry, roles, engine.clone());
        lifecycle.spawn("answers", answers.clone().run());
        lifecycle.spawn("schedules", scheduler.run(lifecycle.closing()));
        let repair = clock_repair::ClockRepair::new(store.clone());
        lifecycle.spawn("clock repair", repair.run(lifecycle.closing()));
        lifecycle.spawn("job engine", engine.clone().run(lifecycle.closing()));
        lifecycle.spawn("job leases", engine.clone().keep_leases(lifecycle.shutdown()));
        let dispatch = webhooks::dispatch(engine.clone(), store.clone(), lifecycle.closing());
        lifecycle.spawn("webhooks", dispatch);
        lifecycle.spawn("job hints", engine.listen(lifecycle.shutdown()));
        // There is nothing here that outlives a request.
        lifecycle.spawn("ended sessions", endings.run(drop, lifecycle.shutdown()));
        let expire = http_bundles.clone().expire_accepted(lifecycle.shutdown());
        lifecycle.spawn("accepted jobs", expire);
        lifecycle.spawn("bundle cancels", http_bundles.tell_of_cancels(lifecycle.shutdown()));
        let deps = SweepDeps { store, blobs, answers, job_age, uploads: config.uploads };
        deps.start(&sweeps, &lifecycle);
        lifecycle.spawn("search index", feed.run(ingress, lifecycle.shutdown()));
        Ok(())
    }
}

/// Dependencies of the periodic deletions; a clone is the same ones.
#[derive(Clone)]
struct SweepDeps {
    store: Store,
    blobs: Blobs,
    answers: Answers,
    job_age: Duration,
    uploads: UploadsConfig,
}

impl SweepDeps {
    /// Starts each periodic deletion as a task of its own.
    fn start(self, sweeps: &Sweeps, lifecycle: &Lifecycle) {
        let spawn = |name, every, work: fn(Self, Timestamp) -> BoxFuture<'static, Swept>| {
            let deps = self.clone();
            let sweep = sweeps
                .clone()
                .run(name, every, lifecycle.shutdown(), move |now| work(deps.clone(), now));
            lifecycle.spawn(name, sweep);
        };
        spawn("answers", answers::SWEEP_INTERVAL, |deps, now| {
            Box::pin(async move { Ok(deps.answers.delete_old(now).await?) })
        });
        spawn("jobs", retention::INTERVAL, |deps, now| {
            Box::pin(
                async move { retention::run(&deps.store, &deps.blobs, deps.job_age, now).await },
            )
        });
        spawn("uploads", uploads::SWEEP_INTERVAL, |deps, now| {
            Box::pin(async move {
                let age = deps.uploads.proc_upload_max_age;
                uploads::sweep(&deps.store, &deps.blobs, age, now).await
            })
        });
        spawn("exports", artifacts::EXPORT_SWEEP_INTERVAL, |deps, now| {
            Box::pin(async move {
                let age = deps.uploads.export_max_age;
                artifacts::sweep_exports(&deps.store, &deps.blobs, age, now).await
            })
        });
        spawn("webhooks", webhooks::TIDY_INTERVAL, |deps, now| {
            Box::pin(async move { Ok(webhooks::tidy(&deps.store, now).await?) })
        });
        spawn("deleted_projects", deleted_projects::INTERVAL, |deps, now| {
            Box::pin(async move { deleted_projects::run(&deps.store, &deps.blobs, now).await })
        });
    }
}

/// Rows that a periodic deletion deleted.
type Swept = anyhow::Result<usize>;

/// Returns the routes, with one more for their document.
fn documented(routes: OpenApiRouter<AppState>) -> anyhow::Result<axum::Router<AppState>> {
    let (routes, document) = routes.split_for_parts();
    let document = document.to_json().context("failed to write the OpenAPI document")?;
    let document = async move || ([(http::header::CONTENT_TYPE, "application/json")], document);
    Ok(routes.route("/openapi.json", axum::routing::get(document)))
}

fn routes() -> OpenApiRouter<AppState> {
    let integrations = OpenApiRouter::new()
        .merge(bundles::routes())
        .merge(jobs::routes())
        .merge(artifacts::routes())
        .merge(schedules::routes())
        .merge(uploads::routes())
        .merge(webhooks::routes());
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/integrations", integrations)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_in_the_document() {
        let (routes, document) = super::routes().split_for_parts();
        // A router names its paths in its debug form alone.
        let shown = format!("{routes:?}");
        let (shown, _fallbacks) = shown.split_once("fallback_router").unwrap();
        let paths = shown.split(": \"/").skip(1).filter_map(|rest| rest.split('"').next());
        let routed: BTreeSet<String> = paths.map(|path| format!("/{path}")).collect();
        let documented: BTreeSet<String> = document.paths.paths.into_keys().collect();
        assert_eq!(routed, documented);
    }
}
