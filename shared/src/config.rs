//! The settings that both services have, from flags and environment.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

use crate::{
    auth::AuthConfig,
    bus::NatsConfig,
    http::{Hosts, ListenConfig, TrustedProxies},
    journal::RetentionConfig,
    limits::LimitsConfig,
    sabotage::Sabotage,
    secrets::SecretsConfig,
    service_token::ServiceTokenConfig,
};

/// Settings of both services.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Folder of the embedded database and of uploads and artifacts.
    #[arg(long, env = "DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// Database of services that run apart: `postgres://…`. Without it, the embedded one in the data folder.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,
    #[command(flatten)]
    pub nats: NatsConfig,
    #[command(flatten)]
    pub secrets: SecretsConfig,
    #[command(flatten)]
    pub service_token: ServiceTokenConfig,
    /// A deliberate bug for a test to notice.
    #[cfg(debug_assertions)]
    #[arg(long, value_enum, hide = true)]
    pub sabotage: Option<Sabotage>,
    #[command(flatten)]
    pub auth: AuthConfig,
    #[command(flatten)]
    pub retention: RetentionConfig,
    #[command(flatten)]
    pub listen: ListenConfig,
    #[command(flatten)]
    pub limits: LimitsConfig,
    #[command(flatten)]
    pub drain: DrainConfig,
    #[command(flatten)]
    pub log: LogConfig,
    #[command(flatten)]
    pub proxies: ProxyConfig,
    /// Names by which `/metrics` and `/v1/debug` of the internal listeners may be asked for, comma separated, such as `proc.internal`. Addresses and `localhost` always may; a request that names another host is refused.
    #[arg(long, env = "INTERNAL_HOSTS")]
    pub internal_hosts: Option<Hosts>,
    /// Origins whose pages may call the API, comma separated, such as `http://localhost:5173`.
    #[arg(long, env = "CORS_ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<String>,
}

impl Config {
    /// Returns the deliberate bug to have; none in a release build.
    #[must_use]
    pub fn sabotage(&self) -> Option<Sabotage> {
        #[cfg(debug_assertions)]
        return self.sabotage;
        #[cfg(not(debug_assertions))]
        return None;
    }
}

/// What stands before the public listeners.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct ProxyConfig {
    /// Proxies whose `X-Forwarded-For` is believed: addresses and networks, comma separated, such as `10.0.0.0/8`.
    #[arg(long, env = "TRUSTED_PROXIES")]
    pub trusted_proxies: Option<TrustedProxies>,
}

/// How a process goes.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct DrainConfig {
    /// How long requests are still served after a stop signal, while load balancers learn of it.
    #[arg(long, env = "DRAIN_DELAY", default_value = "0s", value_parser = duration)]
    pub drain_delay: Duration,
    /// Over how long open streams are closed.
    #[arg(long, env = "DRAIN_SPREAD", default_value = "2s", value_parser = duration)]
    pub drain_spread: Duration,
    /// When the process exits at the latest.
    #[arg(long, env = "DRAIN_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub drain_timeout: Duration,
}

/// What is logged.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct LogConfig {
    /// What to log, as `tracing` filters say it: `info`, `ingress=debug,info`.
    #[arg(long, env = "LOG", default_value = "info")]
    pub log: String,
    /// How log lines look.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(Copy, Clone, Debug, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Reads a duration: a bare number is seconds, else a number with its unit, such as `15s`, `500ms`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Reads a duration whose bare number is milliseconds, for settings named `…_MS`.
pub fn duration_ms(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).or_else(|_| duration(text))
}
