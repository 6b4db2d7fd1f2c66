//! What a page of another origin can read, in a real browser.

use std::process::Stdio;

use axum::{
    Json, Router,
    extract::State,
    response::Html,
    routing::{get, post},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::support::{PATIENCE, Parley};

/// Streams that keep a stopping server there for a while.
const STREAMS: usize = 30;

/// Says what it can read of each refusal to where it is from; of the last once the server stops.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Elsewhere</title><script>
const asked = async (path, token) => {
    const headers = token ? {authorization: `Bearer ${token}`} : {};
    const answer = await fetch(`INGRESS${path}`, {headers});
    if (answer.status === 200) return {status: 200};
    const body = await answer.json();
    const read = name => answer.headers.get(name);
    return {status: answer.status, error: body.error, retry_after_ms: body.retry_after_ms ?? null,
            retry_after: read('Retry-After'), traced: read('X-Trace-ID') === body.trace_id,
            limit: read('X-SSE-Connection-Limit')};
};
const say = seen => fetch('/seen', {method: 'POST', body: JSON.stringify(seen), headers: {'content-type': 'application/json'}});
(async () => {
    await say(await asked('/api/auth/me'));
    await say(await asked('/api/jobs/stream', 'dev-ada'));
    for (;;) {
        const seen = await asked('/api/auth/me', 'dev-ada');
        if (seen.status !== 200) return say(seen);
        await new Promise(soon => setTimeout(soon, 50));
    }
})().catch(error => say({failed: String(error)}));
</script>"#;

/// A site with one page, and what its visitors say.
struct Site {
    origin: String,
    listener: TcpListener,
}

impl Site {
    async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
        Self { origin, listener }
    }

    fn serve(self, page: String) -> (JoinSet<()>, mpsc::UnboundedReceiver<Value>) {
        let (seen, said) = mpsc::unbounded_channel();
        let hear = async |State(seen): State<mpsc::UnboundedSender<Value>>,
                          Json(said): Json<Value>| {
            let _ = seen.send(said);
        };
        let routes = Router::new()
            .route("/", get(async move || Html(page)))
            .route("/seen", post(hear))
            .with_state(seen);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(self.listener, routes).await.expect("it serves");
        });
        (serving, said)
    }
}

/// Opens a page in Chromium, which ends with what is returned.
fn visit(url: &str) -> (Child, TempDir) {
    let profile = tempfile::tempdir().expect("a folder for a profile");
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    chromium.args(["--no-first-run", "--no-proxy-server", "--remote-debugging-port=0"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    let chromium = chromium.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    (chromium.spawn().expect("chromium is installed"), profile)
}

#[tokio::test]
async fn a_page_of_another_origin_reads_every_refusal() {
    let site = Site::bind().await;
    let flags = ["--cors-origin", &site.origin, "--drain-spread", "5s"];
    let limits = ["--max-connections-per-user", "100", "--sse-max-conn-per-session", "0"];
    let mut parley = Parley::start_with(&[&flags[..], &limits[..]].concat()).await;
    let project = parley.as_user("grace").project().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(project.stream("").await);
    }
    let origin = site.origin.clone();
    let (_serving, mut said) = site.serve(PAGE.replace("INGRESS", &parley.ingress));
    let _browser = visit(&origin);
    let mut next = async || timeout(PATIENCE, said.recv()).await.expect("it says so").expect("so");

    let seen = next().await;
    assert_eq!(
        (&seen["status"], &seen["error"]),
        (&json!(401), &json!("unauthenticated")),
        "{seen}"
    );
    assert_eq!(seen["traced"], true, "{seen}");
    let seen = next().await;
    assert_eq!((&seen["status"], &seen["limit"]), (&json!(429), &json!("0")), "{seen}");
    assert_eq!(seen["error"], "too_many_connections", "{seen}");
    assert_eq!((&seen["retry_after"], &seen["retry_after_ms"]), (&json!("10"), &json!(10_000)));
    parley.signal();
    let seen = next().await;
    assert_eq!((&seen["status"], &seen["error"]), (&json!(503), &json!("draining")), "{seen}");
    assert!(seen["retry_after"].is_string() && seen["retry_after_ms"].is_u64(), "{seen}");
    drop(streams);
    assert!(parley.ended().await.success());
}
