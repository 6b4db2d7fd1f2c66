//! The bus between replicas: NATS core, at most once, one connection a process and one subscription a topic.
//!
//! The client's own buffers are no place to wait: while the server is away a publish is dropped here, and after a
//! reconnect every subscriber is told that it may have missed something. Nothing that arrives is trusted to be all there
//! is; the journal is.

mod wire;

use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, connection::State};
use futures_util::StreamExt as _;
use percent_encoding::percent_decode_str;
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Bus, Heard};
use crate::{journal::Topic, lifecycle::Lifecycle};

/// Notices that may wait to go out; more are dropped.
const OUTGOING: usize = 4096;
/// Messages of one topic that may wait to come in; more are dropped by the client, which then says so.
const INCOMING: usize = 8192;
/// A dead server is noticed after about three of these.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the client may take a message before it counts as gone.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is asked whether the connection is another: the client's own word for it may be lost.
const LOOK: Duration = Duration::from_millis(500);
/// A larger notice is not sent: the others find its entry in the journal. NATS itself takes 1 MiB by default.
const MAX_NOTICE_BYTES: usize = 512 * 1024;

/// The bus of services that run apart.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct NatsConfig {
    /// Bus of services that run apart: `nats://host:4222`, `tls://…`, several comma separated; `user:password@` or
    /// `token@` before the first host is for all of them.
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    pub nats_url: Option<SecretString>,
    /// File of certificate authorities, PEM, besides the machine's.
    #[arg(long, env = "NATS_CA_FILE")]
    pub nats_ca_file: Option<PathBuf>,
    /// First part of all subjects, for several installations on one NATS.
    #[arg(long, env = "NATS_SUBJECT_PREFIX", default_value = "parley", value_parser = prefix)]
    pub nats_subject_prefix: String,
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits { Ok(text.into()) } else { Err("letters, digits, `-` and `_` only".into()) }
}

/// This process's end of the bus.
#[derive(Debug)]
pub(super) struct Link {
    outgoing: mpsc::Sender<(Topic, Heard)>,
    /// Topics that somebody began or ceased to hear. Without a bound, since whoever subscribes cannot wait; each open
    /// subscription is in it twice at most.
    changed: mpsc::UnboundedSender<Topic>,
}

impl Link {
    pub(super) fn publish(&self, topic: &Topic, heard: Heard) {
        // A full queue drops it: the others will find it in the journal.
        let _ = self.outgoing.try_send((topic.clone(), heard));
    }

    pub(super) fn changed(&self, topic: &Topic) {
        let _ = self.changed.send(topic.clone());
    }
}

impl Bus {
    /// Joins the other replicas over NATS. A server that is away is no error: it is waited for beside the work.
    pub async fn join(config: &NatsConfig, lifecycle: &Lifecycle) -> anyhow::Result<Self> {
        let url = config.nats_url.as_ref().context("NATS_URL is not set")?;
        let addresses = addresses(url.expose_secret())?;
        let bus = Self::default();
        let connected = Arc::new(Notify::new());
        let told = connected.clone();
        let mut options = ConnectOptions::new()
            .name("parley")
            .no_echo()
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(INCOMING)
            .reconnect_delay_callback(|attempts| {
                let most = 50u64 << attempts.min(5);
                Duration::from_millis(rand::rng().random_range(most / 2..=most))
            })
            .event_callback(move |event| {
                tracing::info!(%event, "NATS");
                if matches!(event, Event::Connected | Event::SlowConsumer(_)) {
                    told.notify_one();
                }
                std::future::ready(())
            });
        options = with_credentials(options, &addresses);
        if let Some(file) = &config.nats_ca_file {
            options = options.add_root_certificates(file.clone());
        }
        // The error names the address; whatever is before its `@` is not for the log.
        let client = options
            .connect(addresses)
            .await
            .map_err(|error| anyhow::anyhow!("NATS_URL cannot be used: {}", error.kind()))?;
        let (outgoing, to_send) = mpsc::channel(OUTGOING);
        let (changed, to_look_at) = mpsc::unbounded_channel();
        let _ = bus.inner.others.set(Link { outgoing, changed });
        let subject: Arc<str> = config.nats_subject_prefix.as_str().into();
        let shutdown = lifecycle.shutdown();
        lifecycle
            .spawn("nats-out", send(client.clone(), subject.clone(), to_send, shutdown.clone()));
        lifecycle.spawn(
            "nats-in",
            subscribe(client.clone(), subject, bus.clone(), to_look_at, shutdown.clone()),
        );
        lifecycle.spawn("nats-look", look(client, bus.clone(), connected, shutdown));
        Ok(bus)
    }
}

/// Reads the addresses; the client's own error would name what is before an `@`.
fn addresses(urls: &str) -> anyhow::Result<Vec<ServerAddr>> {
    let read =
        |url: &str| url.trim().parse().map_err(|_| anyhow::anyhow!("NATS_URL has no such form"));
    urls.split(',').map(read).collect()
}

/// Shows the servers who we are, which the client does not read from an address by itself.
fn with_credentials(options: ConnectOptions, addresses: &[ServerAddr]) -> ConnectOptions {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut shown = addresses.iter().filter(|address| address.has_user_pass());
    let Some(address) = shown.next() else { return options };
    let user = decoded(address.username().unwrap_or_default());
    match address.password() {
        Some(password) => options.user_and_password(user, decoded(password)),
        None => options.token(user),
    }
}

/// Sends what is published until shutdown, then what is still queued.
async fn send(
    client: Client,
    prefix: Arc<str>,
    mut queue: mpsc::Receiver<(Topic, Heard)>,
    shutdown: CancellationToken,
) {
    loop {
        let next = shutdown.run_until_cancelled(queue.recv()).await;
        let next = next.unwrap_or_else(|| queue.try_recv().ok());
        let Some((topic, heard)) = next else { break };
        let message = wire::encode(&topic, &heard);
        if client.connection_state() != State::Connected || message.len() > MAX_NOTICE_BYTES {
            continue;
        }
        let subject = wire::subject(&prefix, &topic);
        let sent = timeout(PUBLISH_TIMEOUT, client.publish(subject, message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(%topic, "a notice was not sent");
        }
    }
    let _ = timeout(PUBLISH_TIMEOUT, client.flush()).await;
}

/// Keeps a subscription for each topic that somebody in this process hears.
async fn subscribe(
    client: Client,
    prefix: Arc<str>,
    bus: Bus,
    mut changes: mpsc::UnboundedReceiver<Topic>,
    shutdown: CancellationToken,
) {
    let (tasks, mut heard) = (TaskTracker::new(), HashMap::<Topic, AbortHandle>::new());
    while let Some(Some(topic)) = shutdown.run_until_cancelled(changes.recv()).await {
        // By what is so now and not by the change, of which there may be many in a row.
        let wanted = bus.is_heard(&topic);
        match heard.entry(topic) {
            Slot::Occupied(hearing) if !wanted => hearing.remove().abort(),
            Slot::Vacant(slot) if wanted => {
                let (subject, topic) = (wire::subject(&prefix, slot.key()), slot.key().clone());
                let task = tasks.spawn(hear(client.clone(), subject, topic, bus.clone()));
                slot.insert(task.abort_handle());
            }
            _ => {}
        }
    }
    for hearing in heard.into_values() {
        hearing.abort();
    }
    tasks.close();
    tasks.wait().await;
}

/// Hands on what arrives for one topic. The client subscribes again by itself after a reconnect.
async fn hear(client: Client, subject: String, topic: Topic, bus: Bus) {
    let mut messages = match client.subscribe(subject).await {
        Ok(messages) => messages,
        Err(error) => return tracing::warn!(%topic, %error, "a topic is not heard of"),
    };
    while let Some(message) = messages.next().await {
        if let Some(heard) = wire::decode(&topic, message.payload) {
            bus.deliver(&topic, heard);
        } else {
            tracing::warn!(%topic, "a notice cannot be read");
        }
    }
}

/// Tells every subscriber when the connection is another than before, or the client has dropped something.
async fn look(client: Client, bus: Bus, told: Arc<Notify>, shutdown: CancellationToken) {
    let mut tick = interval(LOOK);
    let mut before = client.statistics().connects.load(Ordering::Relaxed);
    while !shutdown.is_cancelled() {
        let said = tokio::select! {
            () = shutdown.cancelled() => return,
            () = told.notified() => true,
            _ = tick.tick() => false,
        };
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        if said || connects != before {
            before = connects;
            bus.lose();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster::{Folder, Nats, Ports};

    use super::*;

    #[tokio::test]
    async fn the_url_has_the_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path(), false).unwrap();
        let nats = Nats::plan(&folder, &mut Ports::default(), None).unwrap();
        nats.start().await.unwrap();
        let addr = nats.addr();
        let url = nats.url_by(addr);
        // As anybody may write it who has a `%` in the password.
        let encoded = url.replacen("parley", "%70arley", 1);
        for url in [format!("{url},nats://127.0.0.1:1"), encoded] {
            let addresses = addresses(&url).unwrap();
            let options = with_credentials(ConnectOptions::new(), &addresses);
            let client = options.connect(addresses).await.expect("it lets us in");
            tokio::time::timeout(Duration::from_secs(10), client.flush()).await.unwrap().unwrap();
        }
        let error = addresses("nats://user:secret@host:port").unwrap_err();
        assert!(!format!("{error:?}").contains("secret"));
    }
}
