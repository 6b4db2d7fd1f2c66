//! Bundles that jobs wait for: one that accepts and calls back later, one that asks for time, one that is away now and then.
//! They remember each call, and count calls that should not have come.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::FutureExt as _;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt as _;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Duration, Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// Operations of the bundles, each as `bundle.operation`.
pub(super) const OPERATIONS: [&str; 3] = ["steady.later", "steady.busy", "flaky.away"];
const SECRET: &str = "whsec_Y2hlY2tlci1jaGVja2VyLWNoZWNrZXItY2hlY2tlcg==";

/// Shortest time for which an accepted job is worked on; the longest is half as long again.
const SHORTEST_WORK: Duration = Duration::from_secs(6);
/// Time that is asked for.
const ASKED: Duration = Duration::from_secs(2);
/// Time by which a call may seem to be early: bundle and checker see the call at two moments.
const SLACK: Duration = Duration::from_millis(50);
/// Times for which the flaky bundle is up, and down.
const THERE: Duration = Duration::from_secs(2);
const AWAY: Duration = Duration::from_millis(1_500);
/// Time for which a callback is sent again.
const CALLBACK_TRIES: usize = 300;
const CALLBACK_PAUSE: Duration = Duration::from_millis(200);

/// Calls and callbacks as the bundles saw them.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Jobs that were called sooner than the bundle had asked for.
    pub early: Vec<Uuid>,
    /// Jobs that were called again although the call before was accepted and its callback taken.
    pub again: Vec<Uuid>,
    /// Number of calls.
    pub calls: usize,
}

/// A job as its bundle knows it.
#[derive(Debug, Default)]
struct Known {
    /// Fence of the last call.
    fence: i64,
    not_before: Option<Instant>,
    /// A callback of the last call was taken.
    is_taken: bool,
}

#[derive(Debug, Default)]
struct State {
    calls: Calls,
    jobs: HashMap<Uuid, Known>,
}

/// The bundles while they run; they end when dropped.
#[derive(Debug)]
pub(super) struct Bundles {
    seen: Seen,
    /// URL of each bundle, by name.
    pub(super) urls: [(&'static str, String); 2],
    /// Cancelled once the flaky bundle is to stay up.
    stays: CancellationToken,
    _running: JoinSet<()>,
}

#[derive(Clone, Debug)]
struct Seen {
    state: Arc<Mutex<State>>,
    http: Client,
    /// Base URL of callbacks, which any replica takes.
    base: Arc<str>,
    /// Result of every job.
    counts: u64,
    tasks: TaskTracker,
}

#[derive(Deserialize)]
struct Message {
    r#type: String,
    job: Uuid,
    fence: i64,
    #[serde(default)]
    operation: String,
}

impl Bundles {
    pub(super) fn start(base: &str, counts: u64) -> anyhow::Result<Self> {
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(8)).build()?;
        let seen = Seen {
            state: Arc::default(),
            http,
            base: base.into(),
            counts,
            tasks: TaskTracker::new(),
        };
        let (steady, flaky) = (listen(0)?, listen(0)?);
        let (at, flaky_at) = (steady.local_addr()?, flaky.local_addr()?);
        let urls =
            [("steady", at), ("flaky", flaky_at)].map(|(n, at)| (n, format!("http://{at}/")));
        let mut running = JoinSet::new();
        running.spawn(seen.clone().serve(steady));
        let (flakily, stays) = (seen.clone(), CancellationToken::new());
        let stay = stays.clone();
        running.spawn(async move {
            let mut listener = Ok(flaky);
            while !stay.is_cancelled() {
                if let Ok(here) = listener {
                    flakily.clone().serve_for(here, THERE).await;
                }
                stay.run_until_cancelled(sleep(AWAY)).await;
                listener = listen(flaky_at.port());
            }
            if let Ok(here) = listener {
                flakily.serve(here).await;
            }
        });
        Ok(Self { seen, urls, stays, _running: running })
    }

    /// Lets the flaky bundle stay up from now on.
    pub(super) fn stay(&self) {
        self.stays.cancel();
    }

    /// Returns the registration of a bundle.
    pub(super) fn registration(name: &str, url: &str) -> Value {
        let of_it = OPERATIONS.iter().filter_map(|operation| operation.split_once('.'));
        let operations = of_it.filter(|(bundle, _)| *bundle == name).map(|(_, operation)| {
            json!({"name": operation, "description": "For the checker.", "role": "member",
                "timeout_seconds": 60, "input": {"type": "object"}})
        });
        json!({"url": url, "secret": SECRET, "version": "1", "description": "For the checker.",
            "operations": operations.collect::<Value>()})
    }

    pub(super) fn calls(&self) -> Calls {
        self.seen.state().calls.clone()
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    socket.listen(1_024)
}

impl Seen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            connections.spawn(self.clone().answer(socket));
            while connections.try_join_next().is_some() {}
        }
    }

    /// Serves for a while, then lets no connection in any more; those that are there are answered.
    async fn serve_for(self, listener: TcpListener, time: Duration) {
        let end = sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                    self.tasks.spawn(self.clone().answer(socket));
                },
                () = &mut end => break,
            }
        }
        // Connections that came just now are let in too, as a connection that is cut is another fault.
        while let Some(Ok((socket, _))) = listener.accept().now_or_never() {
            self.tasks.spawn(self.clone().answer(socket));
        }
    }

    async fn answer(self, mut socket: TcpStream) {
        let mut request = Vec::new();
        let message: Message = loop {
            match socket.read_buf(&mut request).await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
            let body = request.windows(4).position(|end| end == b"\r\n\r\n");
            let body = body.map(|at| &request[at + 4..]).unwrap_or_default();
            if let Ok(message) = serde_json::from_slice(body) {
                break message;
            }
        };
        let answer = self.decide(&message);
        // A caller that was killed hears nothing.
        let _ = socket.write_all(answer.as_bytes()).await;
        let _ = socket.shutdown().await;
    }

    fn decide(&self, message: &Message) -> String {
        if message.r#type != "run" {
            return status("200 OK", "");
        }
        let mut state = self.state();
        state.calls.calls += 1;
        let known = state.jobs.entry(message.job).or_default();
        let (asked, was_taken) = (known.not_before.take(), known.is_taken);
        let is_first = known.fence == 0;
        (known.fence, known.is_taken) = (message.fence, false);
        if message.operation == "busy" && is_first {
            known.not_before = Some(Instant::now() + ASKED);
        }
        if was_taken {
            state.calls.again.push(message.job);
        }
        if asked.is_some_and(|asked| Instant::now() + SLACK < asked) {
            state.calls.early.push(message.job);
        }
        match &*message.operation {
            "later" => {
                drop(state);
                self.tasks.spawn(self.clone().work(message.job, message.fence));
                status("202 Accepted", "")
            }
            "busy" if is_first => {
                status("503 Service Unavailable", &format!("retry-after: {}\r\n", ASKED.as_secs()))
            }
            _ => {
                let line = json!({"result": {"counted": self.counts}});
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{line}\n")
            }
        }
    }

    /// Works on an accepted job and calls back, until somebody has taken it or nobody waits for it.
    async fn work(self, job: Uuid, fence: i64) {
        let pause = SHORTEST_WORK.mul_f64(rand::rng().random_range(0.5..0.75));
        for line in [
            json!({"progress": {"done": 1, "total": 2}}),
            json!({"result": {"counted": self.counts}}),
        ] {
            sleep(pause).await;
            let mut body = line;
            body["fence"] = json!(fence);
            let is_taken = self.call_back(job, &body).await.unwrap_or(false);
            if let Some(known) =
                self.state().jobs.get_mut(&job).filter(|known| known.fence == fence)
            {
                known.is_taken |= is_taken;
            }
            if !is_taken {
                break;
            }
        }
    }

    /// Sends a callback to whichever replica takes it, and says whether one has.
    async fn call_back(&self, job: Uuid, body: &Value) -> anyhow::Result<bool> {
        let (id, body) = (Uuid::now_v7().to_string(), body.to_string());
        let url = format!("{}/api/integrations/callbacks/{job}", self.base);
        for _ in 0..CALLBACK_TRIES {
            let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let request = self.http.post(&url).header("webhook-id", &id);
            let request = request.header("webhook-timestamp", at.to_string());
            let request = request.header("webhook-signature", sign(&id, at, &body)?);
            match request.body(body.clone()).send().await.map(|answer| answer.status().as_u16()) {
                Ok(204) => return Ok(true),
                Ok(status) if status < 500 && status != 429 => return Ok(false),
                _ => sleep(CALLBACK_PAUSE).await,
            }
        }
        Ok(false)
    }
}

fn status(line: &str, more: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n{more}\r\n")
}

fn sign(id: &str, at: u64, body: &str) -> anyhow::Result<String> {
    let key = BASE64_STANDARD.decode(SECRET.trim_start_matches("whsec_"))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok().context("a key")?;
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    Ok(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
}
