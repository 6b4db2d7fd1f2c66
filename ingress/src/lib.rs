//! Ingress: who is calling, what happens in a project as a log and as streams, and the chat that makes it happen.

mod access;
mod answers;
mod bulk;
mod channels;
mod config;
mod console;
mod error;
mod events;
mod me;
mod members;
mod messages;
mod presence;
mod projects;
mod reactions;
mod read_marks;
mod replica;
mod search;
mod sessions;
mod state;
mod streams;
mod typing;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::BoxFuture;
use http::Uri;
use shared::{
    auth::{Auth, Endings},
    grpc::Peer,
    http::{layered, serve_internal, serve_public},
    journal::{self, RetentionConfig},
    lifecycle::Lifecycle,
    metrics::Metrics,
    parts::Parts,
    service_token::Service,
    store::{Error, Store},
    sweep::Sweeps,
    time::Timestamp,
};
use tokio::{net::TcpListener, sync::mpsc};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use self::config::{ChatConfig, Config, StreamsConfig};
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use self::streams::fuzzing;
use self::{
    access::Guarded,
    answers::Answers,
    console::Beside,
    presence::Presence,
    replica::Replica,
    state::{AppState, StateParts},
    streams::{
        command::RemoteCommands, hub::Hub, reactor::Reactor, refill, relief, slots::Slots,
        stats::Stats,
    },
};

#[derive(OpenApi)]
#[openapi(info(
    title = "Parley ingress",
    description = "Auth, event streams and chat. Errors have one shape: {error, message, trace_id, …}."
))]
struct Document;

/// The service with its listeners bound and nothing served yet.
#[derive(Debug)]
pub struct App {
    public: TcpListener,
    internal: TcpListener,
    auth: Auth,
    endings: Endings,
    common: shared::config::Config,
    config: Config,
    parts: Parts,
    replica: Replica,
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
        let auth = Auth::new(common, &parts, config.ingress_listen)?;
        let public = listen(config.ingress_listen).await?;
        let internal = listen(config.ingress_internal_listen).await?;
        let endings = Endings::begin(auth.clone(), &parts.bus).await?;
        let replica = Replica::join(parts.store.clone()).await?;
        let (addr, internal_addr) = (public.local_addr()?, internal.local_addr()?);
        tracing::info!(public = %addr, internal = %internal_addr, "ingress bound");
        let common = common.clone();
        Ok(Self { public, internal, auth, endings, common, config, parts, replica })
    }

    /// Returns the address of the public listener.
    pub fn addr(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Returns the address of gRPC.
    pub fn internal_addr(&self) -> std::io::Result<SocketAddr> {
        self.internal.local_addr()
    }

    /// Starts every task of the service on the lifecycle of its parts; jobs are asked of proc at `proc`. If proc's public
    /// listener is known, as in one process, the console finds it there.
    pub fn start(self, proc: Vec<Uri>, proc_public: Option<SocketAddr>) -> anyhow::Result<()> {
        let Self { public, internal, auth, endings, common, config, parts, replica } = self;
        let public_addr = public.local_addr()?;
        let hub = Hub::new(&parts);
        let Parts { store, bus, lifecycle, connections, limits, service_token, .. } = parts;
        let (presence, keeper) = Presence::new(
            store.clone(),
            bus.clone(),
            replica.clone(),
            config.streams.presence_grace,
        );
        let (slots, releaser) = Slots::new(replica.id(), store.clone());
        let proc = Peer::new(Service::Ingress, proc, service_token.clone());
        let jobs = state::Jobs::new(&proc);
        let finder = search::Finder::new(&proc);
        let stats = Arc::new(Stats::default());
        let (refills, wanted) = mpsc::unbounded_channel();
        let held_to = config.streams.limits(&common);
        let drain = Duration::from_millis(held_to.drain_spread_ms + held_to.end_grace_ms);
        let (searching, relief) = relief::Search::new(drain);
        let reactor =
            Reactor::start(&held_to, &stats, &refills, &relief, store.clock(), &lifecycle)?;
        let searching = searching.run(replica.clone(), stats.clone(), lifecycle.clone());
        lifecycle.spawn("other replicas", searching);
        let proxies = common.proxies.trusted_proxies.clone().unwrap_or_default();
        let state = AppState::new(StateParts {
            auth: auth.clone(),
            store: Guarded::new(store.clone()),
            bus,
            hub: hub.clone(),
            presence,
            slots,
            trusted_proxies: proxies.clone(),
            jobs,
            answers: Answers::new(&proc),
            finder,
            lifecycle: lifecycle.clone(),
            chat: config.chat,
            streams: config.streams.clone(),
            reactor: reactor.clone(),
            stats: stats.clone(),
            replica: replica.clone(),
        });
        let metrics = Metrics::default();
        stats.tell(&metrics);
        store.health().tell(&metrics);
        let sweeps = Sweeps::new(store.clone(), &metrics);
        let internal_routes = streams::internal(state.clone(), metrics.clone());
        let (routes, document) = routes().split_for_parts();
        let document = document.to_json().context("failed to write the OpenAPI document")?;
        let routes = routes
            .route(
                "/openapi.json",
                axum::routing::get(async move || {
                    ([(http::header::CONTENT_TYPE, "application/json")], document)
                }),
            )
            .with_state(state);
        let gate = limits.gate(auth.clone(), proxies);
        let routes = limits.guard(routes, &gate);
        let routes = if config.enable_console {
            let beside =
                proc_public.map(|proc| Beside { ingress: public_addr.port(), proc: proc.port() });
            routes.merge(console::routes(&auth, beside))
        } else {
            routes
        };
        let routes =
            layered(routes, &lifecycle, &common.cors_origin, Some(&gate), auth.demo_access())?;
        let routes = metrics.watch(routes);
        let public = serve_public(public, routes, lifecycle.clone(), connections);
        lifecycle.serve("ingress http", public);
        let grpc = bulk::service(store.clone(), service_token, config.chat, &lifecycle)
            .merge(internal_routes);
        let hosts = common.internal_hosts.clone().unwrap_or_default();
        lifecycle.serve("ingress grpc", serve_internal(internal, grpc, hosts, lifecycle.clone()));
        lifecycle.spawn("proc replicas", proc.run(lifecycle.shutdown()));
        let ending = reactor.clone();
        let endings = endings.run(move |ended| ending.end_sessions(ended), lifecycle.shutdown());
        lifecycle.spawn("ended sessions", endings);
        let commands = RemoteCommands {
            hub: hub.clone(),
            store: store.clone(),
            replica: replica.id(),
            reactor,
        };
        let shutdown = lifecycle.shutdown();
        lifecycle.spawn("orders", async move {
            shutdown.run_until_cancelled(commands.run()).await;
        });
        let refill = refill::run(hub.clone(), store.clone(), wanted, lifecycle.shutdown());
        lifecycle.spawn("refills", refill);
        lifecycle.spawn("head poll", hub.poll(config.streams.head_poll_interval));
        lifecycle.spawn("presence", keeper.run(lifecycle.shutdown()));
        lifecycle.spawn("slots", releaser.run(lifecycle.shutdown()));
        lifecycle.spawn("replica", replica.run(move || stats.to_json(), lifecycle.shutdown()));
        let deps = SweepDeps { store, auth, retention: common.retention };
        deps.start(&sweeps, &lifecycle);
        Ok(())
    }
}

/// Dependencies of the periodic deletions; a clone is the same ones.
#[derive(Clone)]
struct SweepDeps {
    store: Store,
    auth: Auth,
    retention: RetentionConfig,
}

impl SweepDeps {
    /// Starts each periodic deletion as a task of its own.
    fn start(self, sweeps: &Sweeps, lifecycle: &Lifecycle) {
        let spawn = |name, every, work: fn(Self, Timestamp) -> BoxFuture<'static, Swept>| {
            let deps = self.clone();
            let work = move |now| work(deps.clone(), now);
            let sweep = sweeps.clone().run(name, every, lifecycle.shutdown(), work);
            lifecycle.spawn(name, sweep);
        };
        let minute = Duration::from_mins(1);
        spawn("journal", minute, |deps, now| {
            Box::pin(
                async move { Ok(journal::trim(&deps.store, &deps.retention, now).await?.rows) },
            )
        });
        spawn("sessions_and_tickets", minute, |deps, now| {
            Box::pin(async move {
                Ok(deps.auth.trim_sessions(now).await? + deps.auth.trim_tickets(now).await?)
            })
        });
        spawn("deleted_projects", projects::purge::INTERVAL, |deps, now| {
            Box::pin(async move { projects::purge::run(&deps.store, now).await })
        });
        spawn("replica_topics", minute * 10, |deps, now| {
            Box::pin(async move { replica::forget_left_topics(&deps.store, now).await })
        });
    }
}

/// Rows that a periodic deletion deleted.
type Swept = Result<usize, Error>;

fn routes() -> OpenApiRouter<AppState> {
    let chat = OpenApiRouter::new()
        .merge(projects::routes())
        .merge(members::routes())
        .merge(channels::routes())
        .merge(messages::routes())
        .merge(reactions::routes())
        .merge(typing::routes())
        .merge(presence::routes())
        .merge(read_marks::routes())
        .merge(search::routes())
        .merge(events::routes());
    OpenApiRouter::with_openapi(Document::openapi())
        .nest("/api/chat/projects", chat)
        .merge(answers::routes())
        .merge(me::routes())
        .merge(sessions::routes())
        .merge(streams::routes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_in_the_document_or_another_name_of_one() {
        let (routes, document) = super::routes().split_for_parts();
        // A router names its paths in its debug form alone.
        let shown = format!("{routes:?}");
        let (shown, _fallbacks) = shown.split_once("fallback_router").unwrap();
        let paths = shown.split(": \"/").skip(1).filter_map(|rest| rest.split('"').next());
        let routed: BTreeSet<String> = paths.map(|path| format!("/{path}")).collect();
        let mut documented: BTreeSet<String> = document.paths.paths.into_keys().collect();
        documented
            .extend(["/api/persistent-chat/stream", "/sse/jobs", "/sse/search"].map(String::from));
        assert_eq!(routed, documented);
    }
}
