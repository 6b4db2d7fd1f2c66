//! Every setting of ingress.

use std::{net::SocketAddr, time::Duration};

use http::Uri;
use shared::config::{duration, duration_ms};

/// Settings of ingress.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address of the public API and streams.
    #[arg(long, env = "INGRESS_LISTEN", default_value = "127.0.0.1:8010")]
    pub ingress_listen: SocketAddr,
    /// Address of gRPC, for proc alone; never behind the proxy.
    #[arg(long, env = "INGRESS_INTERNAL_LISTEN", default_value = "127.0.0.1:9010")]
    pub ingress_internal_listen: SocketAddr,
    /// Where proc's gRPC is, such as `http://127.0.0.1:9020`.
    #[arg(long, env = "PROC_GRPC_URL")]
    pub proc_grpc_url: Option<Uri>,
    #[command(flatten)]
    pub streams: StreamsConfig,
}

/// Settings of event streams.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct StreamsConfig {
    /// Whether event streams are served; without them clients use the long-poll fallback.
    #[arg(long, env = "ENABLE_SSE", default_value_t = true, action = clap::ArgAction::Set)]
    pub enable_sse: bool,
    /// How long a stream is silent at most.
    #[arg(long, env = "KEEPALIVE_INTERVAL", default_value = "15s", value_parser = duration)]
    pub keepalive_interval: Duration,
    /// How long a jobs stream lives without an application event; a bare number is milliseconds.
    #[arg(long, env = "SSE_IDLE_TIMEOUT_MS", default_value = "300000", value_parser = duration_ms)]
    pub sse_idle_timeout: Duration,
    /// How often the logs of open streams are compared with the database, in case a hint was lost.
    #[arg(long, env = "HEAD_POLL_INTERVAL", default_value = "2s", value_parser = duration)]
    pub head_poll_interval: Duration,
    /// How many streams this replica carries at most; others may have room for more.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 100_000)]
    pub max_connections: usize,
    /// How many streams of a project a user may have open on all replicas; 0 refuses all.
    #[arg(long, env = "MAX_CONNECTIONS_PER_USER", default_value_t = 5, value_parser = clap::value_parser!(i64).range(0..))]
    pub max_connections_per_user: i64,
    /// How many jobs streams a client address may have open on all replicas; 0 refuses all.
    #[arg(long, env = "SSE_MAX_CONN_PER_IP", default_value_t = 2, value_parser = clap::value_parser!(i64).range(0..))]
    pub sse_max_conn_per_ip: i64,
    /// How many jobs streams a session may have open on all replicas; 0 refuses all.
    #[arg(long, env = "SSE_MAX_CONN_PER_SESSION", default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..))]
    pub sse_max_conn_per_session: i64,
    /// How long a user who has left is still shown as present.
    #[arg(long, env = "PRESENCE_GRACE", default_value = "10s", value_parser = duration)]
    pub presence_grace: Duration,
}
