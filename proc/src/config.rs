//! Every setting of proc.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Uri;
use secrecy::SecretString;
use shared::{
    config::{duration, duration_ms},
    limits::PerRole,
    store::Store,
};

use crate::{
    jobs::machine::RetryPolicy,
    search::{Feed, Search},
    storage::StorageLimit,
};

/// Settings of proc.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)] // clap names groups after the type, and each service has a `Config`
pub struct Config {
    /// Address of the integrations API.
    #[arg(long, env = "PROC_LISTEN", default_value = "127.0.0.1:8020")]
    pub proc_listen: SocketAddr,
    /// Address of gRPC, for ingress alone; never behind the proxy.
    #[arg(long, env = "PROC_INTERNAL_LISTEN", default_value = "127.0.0.1:9020")]
    pub proc_internal_listen: SocketAddr,
    /// Where ingress' gRPC is, comma separated, such as `http://127.0.0.1:9010`; a name may have many addresses, and new ones at any time.
    #[arg(long, env = "INGRESS_GRPC_URL", value_delimiter = ',', value_parser = shared::grpc::url)]
    pub ingress_grpc_url: Vec<Uri>,
    #[command(flatten)]
    pub jobs: JobsConfig,
    #[command(flatten)]
    pub http_bundles: HttpBundlesConfig,
    #[command(flatten)]
    pub uploads: UploadsConfig,
    #[command(flatten)]
    pub answers: AnswersConfig,
    #[command(flatten)]
    pub search: SearchConfig,
}

/// Settings of the index.
#[derive(Clone, Debug, clap::Args)]
pub struct SearchConfig {
    /// Folder of the index of messages, for one proc alone, on a disk of its machine; without it, `search` in the data folder. What is lost of it is built anew.
    #[arg(long, env = "PROC_SEARCH_DIR")]
    pub proc_search_dir: Option<PathBuf>,
    /// How many bytes of the index may be in memory before they are on disk, 15000000 at least.
    #[arg(long, env = "PROC_SEARCH_MEMORY_BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(15_000_000..=4_000_000_000))]
    pub proc_search_memory_bytes: u32,
}

impl SearchConfig {
    /// Opens the index; without a folder of its own it is in the data folder.
    pub(crate) fn open(&self, data_dir: &Path, store: Store) -> anyhow::Result<(Search, Feed)> {
        let folder = self.proc_search_dir.clone().unwrap_or_else(|| data_dir.join("search"));
        Search::open(&folder, usize::try_from(self.proc_search_memory_bytes)?, store)
    }
}

/// Settings of the job engine.
#[derive(Clone, Debug, clap::Args)]
pub struct JobsConfig {
    /// Number of jobs that run at once, whoever owns them. Beyond them half as many, one at least, may run for owners of whom nothing runs in the process, and four deliveries to webhooks for each.
    #[arg(long, env = "PROC_WORKERS", default_value = "2")]
    pub proc_workers: NonZeroUsize,
    /// How many jobs may wait; more are refused. Roles may go further.
    #[arg(long, env = "PROC_QUEUE_LIMIT", default_value = "1000,admin=1200")]
    pub proc_queue_limit: PerRole<u32>,
    /// How long a job that has ended is kept, with its log and artifacts.
    #[arg(long, env = "PROC_JOB_MAX_AGE", default_value = "30d", value_parser = duration)]
    pub proc_job_max_age: Duration,
    /// Whether the bundle `demo` is offered; without it, only where the integrations API is on loopback.
    #[arg(long, env = "PROC_DEMO_BUNDLE", action = clap::ArgAction::Set)]
    pub proc_demo_bundle: Option<bool>,
    /// How long a worker that is not heard of keeps its job.
    #[arg(long, env = "PROC_LEASE", default_value = "30s", value_parser = duration)]
    pub proc_lease: Duration,
    /// Time over which the three attempts of a job are spread, at least, so that a bundle which restarts is back for the last; 12 hours at most.
    #[arg(long, env = "PROC_RETRY_SPREAD", default_value = "2m", value_parser = retry_spread)]
    pub proc_retry_spread: Duration,
}

impl JobsConfig {
    pub(crate) fn retries(&self) -> RetryPolicy {
        RetryPolicy { spread: self.proc_retry_spread }
    }
}

/// Settings of answers.
#[derive(Clone, Debug, clap::Args)]
pub struct AnswersConfig {
    /// Who writes answers: `extractive` quotes what was said, `openai` asks a language model about it.
    #[arg(long, env = "ANSWER_WRITER", value_enum, default_value = "extractive")]
    pub answer_writer: WriterKind,
    /// How long the extractive writer holds each chunk back, so that it can be read as it comes; a bare number is milliseconds.
    #[arg(long = "chunk-delay-ms", env = "CHUNK_DELAY_MS", default_value = "50", value_parser = duration_ms)]
    pub chunk_delay: Duration,
    /// Where the language model is: any endpoint that speaks the API of `OpenAI`, such as `https://api.openai.com/v1`.
    #[arg(long, env = "LLM_BASE_URL")]
    pub llm_base_url: Option<String>,
    /// The key for it, where it wants one.
    #[arg(long, env = "LLM_API_KEY", hide_env_values = true)]
    pub llm_api_key: Option<SecretString>,
    /// Which of its models answers.
    #[arg(long, env = "LLM_MODEL")]
    pub llm_model: Option<String>,
    /// How many answers may be written for a user at once.
    #[arg(long, env = "ANSWERS_PER_USER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub answers_per_user: u32,
    /// How many questions a user may ask in any minute.
    #[arg(long, env = "ANSWERS_PER_MINUTE", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub answers_per_minute: u32,
    /// How long an answer that has ended is kept.
    #[arg(long, env = "ANSWER_MAX_AGE", default_value = "7d", value_parser = duration)]
    pub answer_max_age: Duration,
}

/// Who writes answers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WriterKind {
    /// Quotes the best passages.
    Extractive,
    /// Asks a language model.
    Openai,
}

/// Settings of uploads.
#[derive(Clone, Debug, clap::Args)]
pub struct UploadsConfig {
    /// The largest upload in bytes.
    #[arg(long, env = "PROC_MAX_UPLOAD_BYTES", default_value_t = 2 << 30)]
    pub proc_max_upload_bytes: u64,
    /// Bytes that a user may store in all, as uploads and as artifacts of their jobs, exports among them: a number with `KiB`, `MiB`, `GiB` or `TiB`, or `off`.
    #[arg(long, env = "STORAGE_PER_USER", default_value = "10GiB")]
    pub storage_per_user: StorageLimit,
    /// Age at which the files of exports are deleted, even though their jobs are kept.
    #[arg(long, env = "EXPORT_MAX_AGE", default_value = "24h", value_parser = duration)]
    pub export_max_age: Duration,
    /// How long an upload is kept.
    #[arg(long, env = "PROC_UPLOAD_MAX_AGE", default_value = "7d", value_parser = duration)]
    pub proc_upload_max_age: Duration,
}

/// Settings of bundles behind a URL, and of all else that users have called.
#[derive(Clone, Debug, clap::Args)]
pub struct HttpBundlesConfig {
    /// Where bundles reach the integrations API to call back, such as `https://chat.example.org`; without it, its address.
    #[arg(long, env = "PROC_PUBLIC_URL")]
    pub proc_public_url: Option<Uri>,
    /// Ports at which bundles and webhooks may be, comma separated.
    #[arg(
        long,
        env = "PROC_HTTP_BUNDLES_PORTS",
        value_delimiter = ',',
        default_value = "443,8443"
    )]
    pub proc_http_bundles_ports: Vec<u16>,
    /// Whether bundles and webhooks may be on this machine, at any port and over plain HTTP. For development: whoever owns a project reaches all that listens on loopback.
    #[arg(long, env = "PROC_HTTP_BUNDLES_LOOPBACK", default_value_t = false, action = clap::ArgAction::Set)]
    pub proc_http_bundles_loopback: bool,
}

/// Longest time over which attempts are spread: with its jitter the last pause stays below the day for which a job may wait.
const MAX_RETRY_SPREAD: Duration = Duration::from_hours(12);

/// Reads the time over which the attempts of a job are spread.
fn retry_spread(text: &str) -> Result<Duration, String> {
    let spread = duration(text)?;
    if spread > MAX_RETRY_SPREAD {
        return Err("at most 12h, since a job waits for a day at most".into());
    }
    Ok(spread)
}
