//! A whole Slack export through the HTTP API, while another client goes on sending.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use http::Method;
use serde_json::{Value, json};

use crate::{client::Client, server::Server};

/// What is measured.
pub(crate) const IMPORT: &str = "chat/operations/import";

pub(crate) async fn run(archive: &Path) -> anyhow::Result<()> {
    let bytes =
        fs::read(archive).with_context(|| format!("failed to read {}", archive.display()))?;
    let server = Server::start()?;
    let mut chat = Client::connect(&server.ingress, "dev-ada").await?;
    let mut jobs = Client::connect(&server.proc, "dev-ada").await?;
    let (project, other) = (chat.project("history").await?, chat.project("present").await?);
    let upload = jobs.json(Method::POST, "/api/integrations/uploads", bytes).await?;
    let upload = json!({"upload_id": upload["upload_id"]});
    let cpu = server.process.cpu()?;

    let done = Arc::new(AtomicBool::new(false));
    let mut senders = tokio::task::JoinSet::new();
    senders.spawn(send_meanwhile(chat, other, done.clone()));
    let began = Instant::now();
    let job = operate(&mut jobs, IMPORT, &project, upload.clone()).await?;
    let took = began.elapsed();
    done.store(true, Ordering::Relaxed);
    let times = senders.join_next().await.context("no sender")???;

    println!(
        "imported {} in {:.1} s (reach: 221,592 messages in under 30 s)",
        job["result"]["messages"],
        took.as_secs_f64()
    );
    println!(
        "server: {:.1} s of CPU, {} MiB resident at most (reach: 300)",
        server.process.cpu()?.saturating_sub(cpu).as_secs_f64(),
        server.process.peak_mib()?
    );
    println!(
        "another client's sends meanwhile: {} sends, p50 {:.1} ms, p99 {:.1} ms (reach: 100), worst {:.1} ms",
        times.len(),
        ms(times.value_at_quantile(0.5)),
        ms(times.value_at_quantile(0.99)),
        ms(times.max()),
    );
    let began = Instant::now();
    let job = operate(&mut jobs, IMPORT, &project, upload).await?;
    println!(
        "imported again: {} in {:.1} s",
        job["result"]["messages"],
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    let job = operate(&mut jobs, "chat/operations/export", &project, json!({})).await?;
    println!("exported {} in {:.1} s", job["result"], began.elapsed().as_secs_f64());
    println!("data folder: {} MiB", size(server.process.folder.path())? >> 20);
    Ok(())
}

/// Sends every 5 ms until told that it is done.
async fn send_meanwhile(
    mut chat: Client,
    project: String,
    done: Arc<AtomicBool>,
) -> anyhow::Result<Histogram<u64>> {
    let path = format!("/api/chat/projects/{project}/messages");
    let mut times = Histogram::<u64>::new(3)?;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while !done.load(Ordering::Relaxed) {
        tick.tick().await;
        let sent = Instant::now();
        chat.json(Method::POST, &path, r#"{"text":"meanwhile"}"#).await?;
        times.record(u64::try_from(sent.elapsed().as_micros())?)?;
    }
    Ok(times)
}

/// Runs an operation to its end.
pub(crate) async fn operate(
    jobs: &mut Client,
    operation: &str,
    project: &str,
    data: Value,
) -> anyhow::Result<Value> {
    let path = format!("/api/integrations/bundles/{operation}");
    let body = json!({"project_id": project, "data": data}).to_string();
    let job = jobs.json(Method::POST, &path, body).await?;
    let path = format!("/api/integrations/jobs/{}", job["id"].as_str().context("a job has no id")?);
    loop {
        let job = jobs.json(Method::GET, &path, "").await?;
        match job["state"].as_str() {
            Some("succeeded") => return Ok(job),
            Some("failed" | "cancelled") => bail!("the job ended: {job}"),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(crate) fn ms(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64() * 1e3
}

pub(crate) fn size(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() { size(&entry.path())? } else { data.len() };
    }
    Ok(bytes)
}
