//! The index of a whole Slack export: how soon it is there, how large it is, how long a search and an answer take.

mod answers;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use hdrhistogram::Histogram;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::Client,
    import::{IMPORT, ms, operate, size},
    server::Server,
};

/// What is asked, again and again.
const QUESTIONS: [&str; 12] = [
    "how do I mount a windows partition",
    "wireless card is not recognised after upgrade",
    "which package do I need to play mp3 files",
    "sudo apt-get install fails with unmet dependencies",
    "no sound after suspend",
    "how can I change the resolution of my screen",
    "recover grub after installing windows",
    "what is the difference between ubuntu and kubuntu",
    "\"permission denied\" when writing to a usb stick",
    "configure network interface with a static ip",
    "upgarde to edgy from daper",
    "printer",
];

#[derive(Args)]
pub(crate) struct Options {
    /// The export's ZIP.
    archive: PathBuf,
    /// How often each question is asked.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Messages whose way into the index is timed.
    #[arg(long, default_value_t = 10)]
    sends: u32,
    /// Answers that are being written while others begin.
    #[arg(long, default_value_t = 50)]
    answers: usize,
    /// Asks only this, and prints what is found.
    #[arg(long)]
    ask: Vec<String>,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let Options { archive, rounds, sends, answers, ask } = options;
    let bytes =
        fs::read(&archive).with_context(|| format!("failed to read {}", archive.display()))?;
    let server = Server::start_with(|command, _| {
        command.args(["--chunk-delay-ms=0", "--answers-per-minute=1000000"]);
        command.args(["--answers-per-user=1000", "--max-connections-per-user=1000"]);
        Ok(())
    })?;
    let mut chat = Client::connect(&server.ingress, "dev-ada").await?;
    let mut jobs = Client::connect(&server.proc, "dev-ada").await?;
    let project = chat.project("history").await?;
    let upload = jobs.json(Method::POST, "/api/integrations/uploads", bytes).await?;
    let upload = json!({"upload_id": upload["upload_id"]});
    let began = Instant::now();
    let job = operate(&mut jobs, IMPORT, &project, upload).await?;
    println!("imported {} in {:.1} s", job["result"]["messages"], began.elapsed().as_secs_f64());
    wait_for(&mut chat, &project, "the last words of all", Instant::now()).await?;
    println!(
        "all of it can be found {:.1} s after the import began",
        began.elapsed().as_secs_f64()
    );

    let before = (server.process.resident_kib()?, server.process.cpu()?);
    let job = operate(&mut jobs, "search/operations/reindex", &project, json!({})).await?;
    let result = &job["result"];
    println!(
        "built anew: {} messages in {} ms (reach: 221,592 in 20,000), {:.1} s of CPU, {} MiB on disk, of {} MiB in all",
        result["messages"],
        result["duration_ms"],
        server.process.cpu()?.saturating_sub(before.1).as_secs_f64(),
        result["index_bytes"].as_u64().unwrap_or(0) >> 20,
        size(server.process.folder.path())? >> 20,
    );
    println!(
        "resident: {} MiB before, {} MiB after, {} MiB at most",
        before.0 / 1024,
        server.process.resident_kib()? / 1024,
        server.process.peak_mib()?
    );
    if !ask.is_empty() {
        for question in &ask {
            show(question, &find(&mut chat, &project, question, 10).await?);
        }
        return Ok(());
    }
    let mut soon = Histogram::<u64>::new(3)?;
    for number in 0..sends {
        let sent = Instant::now();
        let took = wait_for(&mut chat, &project, &format!("novelty{number}"), sent).await?;
        soon.record(u64::try_from(took.as_micros())?)?;
    }
    println!(
        "a new message can be found after p50 {:.0} ms, worst {:.0} ms (reach: 2,000)",
        ms(soon.value_at_quantile(0.5)),
        ms(soon.max())
    );
    let mut times = Histogram::<u64>::new(3)?;
    for _ in 0..rounds {
        for question in QUESTIONS {
            let asked = Instant::now();
            find(&mut chat, &project, question, 10).await?;
            times.record(u64::try_from(asked.elapsed().as_micros())?)?;
        }
    }
    println!(
        "{} searches one after the other: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
        times.len(),
        ms(times.value_at_quantile(0.5)),
        ms(times.value_at_quantile(0.99)),
        ms(times.max())
    );
    answers::measure(&server, &project, answers).await
}

/// Sends a message and returns how long after `sent` it is found.
async fn wait_for(
    chat: &mut Client,
    project: &str,
    text: &str,
    sent: Instant,
) -> anyhow::Result<Duration> {
    let path = format!("/api/chat/projects/{project}/messages");
    chat.json(Method::POST, &path, json!({"text": text}).to_string()).await?;
    while !find(chat, project, &format!("\"{text}\""), 1)
        .await?
        .iter()
        .any(|hit| hit["text"] == text)
    {
        sleep(Duration::from_millis(5)).await;
    }
    Ok(sent.elapsed())
}

async fn find(
    chat: &mut Client,
    project: &str,
    question: &str,
    limit: u32,
) -> anyhow::Result<Vec<Value>> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.append_pair("q", question).append_pair("limit", &limit.to_string()).finish();
    let path = format!("/api/chat/projects/{project}/search?{query}");
    let mut found = chat.json(Method::GET, &path, "").await?;
    Ok(serde_json::from_value(found["messages"].take())?)
}

fn show(question: &str, hits: &[Value]) {
    println!("\n{question}");
    for hit in hits {
        let text = |field: &str| hit[field].as_str().unwrap_or_default();
        println!(
            "  {:6.2} {} {}: {}",
            hit["score"],
            text("created_at"),
            text("author_name"),
            text("text")
        );
    }
}
