//! Every setting of ingress.

use std::{net::SocketAddr, time::Duration};

use http::Uri;
use shared::config::{duration, duration_ms};

use crate::streams::reactor::Limits;

/// How long a stream that was told its end may take to read that: revoked ones are gone within five seconds.
const END_GRACE: Duration = Duration::from_secs(3);

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
    /// Where proc's gRPC is, comma separated, such as `http://127.0.0.1:9020`; a name may have many addresses, and new ones at any time.
    #[arg(long, env = "PROC_GRPC_URL", value_delimiter = ',', value_parser = shared::grpc::url)]
    pub proc_grpc_url: Vec<Uri>,
    /// Whether the console is served, at `/`.
    #[arg(long, env = "ENABLE_CONSOLE", default_value_t = true, action = clap::ArgAction::Set)]
    pub enable_console: bool,
    #[command(flatten)]
    pub chat: ChatConfig,
    #[command(flatten)]
    pub streams: StreamsConfig,
}

/// Settings of projects.
#[derive(Copy, Clone, Debug, clap::Args)]
#[group(skip)]
pub struct ChatConfig {
    /// Number of projects that a user may own and still make another.
    #[arg(long, env = "PROJECTS_PER_USER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub projects_per_user: u32,
    /// Number of channels that a project may have. An import leaves out the others.
    #[arg(long, env = "CHANNELS_PER_PROJECT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub channels_per_project: u32,
}

impl StreamsConfig {
    /// Returns what the reactor holds streams to.
    pub(crate) fn limits(&self, common: &shared::config::Config) -> Limits {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Limits {
            threads: match self.stream_threads {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                threads => threads,
            },
            keepalive_ms: ms(self.keepalive_interval),
            write_timeout_ms: ms(common.listen.write_timeout),
            max_age_ms: Some(ms(self.stream_max_age)).filter(|age| *age > 0),
            lag_events: self.stream_max_lag_events,
            lag_bytes: self.stream_max_lag_bytes,
            send_buffer_bytes: self.stream_send_buffer_bytes,
            drain_spread_ms: ms(common.drain.drain_spread),
            end_grace_ms: ms(END_GRACE),
            refuses_until: 0,
        }
    }
}

/// Settings of event streams.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct StreamsConfig {
    /// Whether event streams are served; without them clients use the long-poll fallback.
    #[arg(long, env = "ENABLE_SSE", default_value_t = true, action = clap::ArgAction::Set)]
    pub enable_sse: bool,
    /// How long a stream is silent at most.
    #[arg(long, env = "KEEPALIVE_INTERVAL", default_value = "15s", value_parser = interval)]
    pub keepalive_interval: Duration,
    /// How often the stream of an answer has a heartbeat, which comes half a second early.
    #[arg(long, env = "HEARTBEAT_INTERVAL", default_value = "5s", value_parser = interval)]
    pub heartbeat_interval: Duration,
    /// How long an answer may take; then it ends where it is.
    #[arg(long, env = "STREAM_MAX_SECONDS", default_value = "60", value_parser = duration)]
    pub stream_max_seconds: Duration,
    /// How long a jobs stream lives without an application event; a bare number is milliseconds.
    #[arg(long, env = "SSE_IDLE_TIMEOUT_MS", default_value = "300000", value_parser = duration_ms)]
    pub sse_idle_timeout: Duration,
    /// How often the logs of open streams are compared with the database, in case a hint was lost.
    #[arg(long, env = "HEAD_POLL_INTERVAL", default_value = "2s", value_parser = duration)]
    pub head_poll_interval: Duration,
    /// Whether streams are compressed for clients that ask for it: each event once, for all of them.
    #[arg(long, env = "ENABLE_COMPRESSION", default_value_t = false, action = clap::ArgAction::Set)]
    pub enable_compression: bool,
    /// After how long a stream is closed for its client to come back, perhaps elsewhere; each a little earlier. 0 is never.
    #[arg(long, env = "STREAM_MAX_AGE", default_value = "4h", value_parser = duration)]
    pub stream_max_age: Duration,
    /// How many events a stream may be behind while its client does not read; then it is closed and can resume.
    #[arg(long, env = "STREAM_MAX_LAG_EVENTS", default_value_t = 512)]
    pub stream_max_lag_events: usize,
    /// How many bytes a stream may be behind.
    #[arg(long, env = "STREAM_MAX_LAG_BYTES", default_value_t = 512 * 1024)]
    pub stream_max_lag_bytes: usize,
    /// How many bytes the system may hold for a client that does not read.
    #[arg(long, env = "STREAM_SEND_BUFFER_BYTES", default_value_t = 16 * 1024)]
    pub stream_send_buffer_bytes: usize,
    /// How many streams this replica carries at most; others may have room for more.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 100_000)]
    pub max_connections: u64,
    /// How many streams of a project a user may have open on all replicas; 0 refuses all.
    #[arg(long, env = "MAX_CONNECTIONS_PER_USER", default_value_t = 5, value_parser = clap::value_parser!(i64).range(0..))]
    pub max_connections_per_user: i64,
    /// How many jobs streams a client address may have open on all replicas; 0 refuses all.
    #[arg(long, env = "SSE_MAX_CONN_PER_IP", default_value_t = 2, value_parser = clap::value_parser!(i64).range(0..))]
    pub sse_max_conn_per_ip: i64,
    /// How many jobs streams a session may have open on all replicas; 0 refuses all.
    #[arg(long, env = "SSE_MAX_CONN_PER_SESSION", default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..))]
    pub sse_max_conn_per_session: i64,
    /// Threads that write to streams; 0 is one a core.
    #[arg(long, env = "STREAM_THREADS", default_value_t = 0)]
    pub stream_threads: usize,
    /// How long a user who has left is still shown as present.
    #[arg(long, env = "PRESENCE_GRACE", default_value = "10s", value_parser = duration)]
    pub presence_grace: Duration,
}

/// Shortest pause between two heartbeats.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Reads how often something is sent.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < MIN_INTERVAL {
        return Err(format!("at least {}ms", MIN_INTERVAL.as_millis()));
    }
    Ok(interval)
}
