//! How long a message takes from its send to streams on other replicas, and what its delivery costs.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval_at},
};

use super::{
    cpu::Cpu,
    place::{INGRESS, Place},
    table::median,
};
use crate::{
    client::Client,
    streams::{marks, parley, reader::Reader, target::Door},
    users::{OWNER, STREAMS_A_USER, token, user},
};

/// Clients that send; enough that none waits for an answer when it is to send again.
const SENDERS: u32 = 16;
/// Streams that are being opened at once.
const AT_ONCE: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
/// How long what was sent may take to arrive.
const LATEST: Duration = Duration::from_secs(5);

/// How much is done.
pub(super) struct Plan {
    pub(super) streams: usize,
    pub(super) rate: u32,
    pub(super) rounds: usize,
    pub(super) time: Duration,
}

/// Where the streams are and where it is sent.
#[derive(Copy, Clone, Debug)]
enum Way {
    /// Both by way of nginx, with so many ingress.
    Nginx(usize),
    /// Streams on every ingress, all sends to the first of them.
    Past,
}

/// One way in one round.
struct Sample {
    /// Sends a second.
    rate: f64,
    /// Microseconds from the start of a send to its 201.
    answers: Histogram<u64>,
    /// Microseconds from the start of a send to its arrival on a stream.
    deliveries: Histogram<u64>,
    missing: u64,
    cpu: Cpu,
    took: Duration,
}

/// Returns how many members a project has for its part of the streams.
pub(super) fn members(streams: usize, projects: usize) -> usize {
    streams.div_ceil(projects).div_ceil(STREAMS_A_USER)
}

/// Measures deliveries to streams of the projects, and prints a table.
pub(super) async fn run(place: &Place, projects: &[String], plan: &Plan) -> anyhow::Result<()> {
    let mut ways: Vec<Way> = (1..=INGRESS).map(Way::Nginx).collect();
    ways.push(Way::Past);
    let mut samples: Vec<Vec<Sample>> = ways.iter().map(|_| Vec::new()).collect();
    for round in 1..=plan.rounds {
        for (way, samples) in ways.iter().zip(&mut samples) {
            let sample = measure(place, projects, *way, plan).await?;
            let p99 = ms(&sample.deliveries, 0.99);
            eprintln!("round {round}: {}: delivered within {p99:.1} ms (p99)", way.name());
            samples.push(sample);
        }
    }
    let streams = plan.streams / projects.len();
    println!(
        "\n{} streams, {} sends a second, {} projects: {streams} streams get each message\n",
        plan.streams,
        plan.rate,
        projects.len(),
    );
    println!(
        "| | sends kept | 201 p50 ms | p99 ms | delivery p50 ms | p99 ms | max ms | missing \
         | CPU µs a delivery: nginx | ingress | cores in use: nginx | ingress | PostgreSQL | NATS | clients |"
    );
    println!("|{}", " --- |".repeat(15));
    for (way, samples) in ways.iter().zip(&samples) {
        println!("| {} | {} |", way.name(), row(samples, plan.rate));
    }
    Ok(())
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::Nginx(ingress) => format!("nginx, {ingress} ingress"),
            Self::Past => format!("past nginx, {INGRESS} ingress, sends to one"),
        }
    }
}

async fn measure(
    place: &Place,
    projects: &[String],
    way: Way,
    plan: &Plan,
) -> anyhow::Result<Sample> {
    let (addresses, host) = match way {
        Way::Nginx(ingress) => {
            let addr = place.front(ingress).addr();
            (vec![addr], addr)
        }
        Way::Past => (place.ingress_addrs(), place.ingress_addrs()[0]),
    };
    let (ids, members) = (projects.to_vec(), members(plan.streams, projects.len()));
    let door = Door {
        addresses,
        request: Box::new(move |number| {
            let (project, place) = (number % ids.len(), number / ids.len());
            parley::request(&ids[project], &user(project * members + place % members))
        }),
        greeting: parley::GREETING,
    };
    let streams = plan.streams;
    let reader = spawn_blocking(move || {
        let mut reader = Reader::new()?;
        reader.open(&door, streams, AT_ONCE, true)?;
        reader.settle(LATEST)?;
        anyhow::Ok(reader)
    });
    let mut load = Load { reader: reader.await??, host: host.to_string(), sent: Arc::default() };
    load.run(projects, plan, WARM_UP).await?;
    load.reader.marks.restart(load.sent.load(Ordering::Relaxed));
    let (before, began) = (Cpu::now(place)?, Instant::now());
    let (answers, expected) = load.run(projects, plan, plan.time).await?;
    let (cpu, took) = (Cpu::now(place)? - before, began.elapsed());
    ensure!(load.reader.open_count() == streams, "streams were closed meanwhile");
    let deliveries = load.reader.marks.times.clone();
    let rate = f64::from(u32::try_from(answers.len())?) / plan.time.as_secs_f64();
    let missing = expected.saturating_sub(deliveries.len());
    Ok(Sample { rate, answers, deliveries, missing, cpu, took })
}

/// The streams' other end and who sends to them.
struct Load {
    reader: Reader,
    host: String,
    /// Sends so far, which is the next one's number.
    sent: Arc<AtomicU32>,
}

impl Load {
    /// Sends and reads until everything has arrived. Returns how long the 201s took and how many deliveries there are to be.
    async fn run(
        &mut self,
        projects: &[String],
        plan: &Plan,
        time: Duration,
    ) -> anyhow::Result<(Histogram<u64>, u64)> {
        let expected = Arc::new(OnceLock::new());
        let senders = self.senders(projects, plan, time).await?;
        let (reader, all) = (std::mem::replace(&mut self.reader, Reader::new()?), expected.clone());
        let reading = spawn_blocking(move || read(reader, &all));
        let answers = answers(senders).await;
        // Set whatever came of it, or the reader would wait.
        let sends = answers.as_ref().map_or(0, Histogram::len);
        let deliveries = sends * u64::try_from(plan.streams / projects.len())?;
        let _ = expected.set(deliveries);
        self.reader = reading.await??;
        Ok((answers?, deliveries))
    }

    async fn senders(
        &self,
        projects: &[String],
        plan: &Plan,
        time: Duration,
    ) -> anyhow::Result<JoinSet<anyhow::Result<Histogram<u64>>>> {
        let paths = projects.iter().map(|id| format!("/api/chat/projects/{id}/messages"));
        let paths: Arc<[String]> = paths.collect();
        let every = Duration::from_secs(1) * SENDERS / plan.rate;
        let mut clients = Vec::new();
        for _ in 0..SENDERS {
            clients.push(Client::connect(&self.host, &token(OWNER)).await?);
        }
        let began = tokio::time::Instant::now();
        let mut senders = JoinSet::new();
        for (place, mut client) in (0..SENDERS).zip(clients) {
            let mut ticks = interval_at(began + every * place / SENDERS, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (paths, sent) = (paths.clone(), self.sent.clone());
            senders.spawn(async move {
                let mut times = Histogram::<u64>::new(3)?;
                loop {
                    ticks.tick().await;
                    if began.elapsed() >= time {
                        return Ok(times);
                    }
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    let path = &paths[number as usize % paths.len()];
                    let began = Instant::now();
                    let body = format!(r#"{{"text":"{}"}}"#, marks::text(number));
                    let (status, body) = client.call(Method::POST, path, body).await?;
                    ensure!(
                        status == StatusCode::CREATED,
                        "{status}: {}",
                        String::from_utf8_lossy(&body)
                    );
                    times.record(u64::try_from(began.elapsed().as_micros())?)?;
                }
            });
        }
        Ok(senders)
    }
}

async fn answers(
    mut senders: JoinSet<anyhow::Result<Histogram<u64>>>,
) -> anyhow::Result<Histogram<u64>> {
    let mut answers = Histogram::<u64>::new(3)?;
    while let Some(sender) = senders.join_next().await {
        answers.add(sender??)?;
    }
    Ok(answers)
}

/// Reads until as much has arrived as is expected, or for some time after that is known.
fn read(mut reader: Reader, expected: &OnceLock<u64>) -> anyhow::Result<Reader> {
    let mut until = None;
    loop {
        reader.read(Duration::from_millis(20))?;
        if let Some(all) = expected.get()
            && (reader.marks.times.len() >= *all
                || Instant::now() > *until.get_or_insert_with(|| Instant::now() + LATEST))
        {
            return Ok(reader);
        }
    }
}

fn row(samples: &[Sample], rate: u32) -> String {
    let middle = |of: &dyn Fn(&Sample) -> f64| median(samples.iter().map(of).collect());
    let times = |of: fn(&Sample) -> &Histogram<u64>, quantile: f64| {
        middle(&|sample| ms(of(sample), quantile))
    };
    let answers: fn(&Sample) -> &Histogram<u64> = |sample| &sample.answers;
    let deliveries: fn(&Sample) -> &Histogram<u64> = |sample| &sample.deliveries;
    let cores = |of: fn(&Cpu) -> Duration| {
        middle(&|sample| of(&sample.cpu).as_secs_f64() / sample.took.as_secs_f64())
    };
    let us = |of: fn(&Cpu) -> Duration| {
        middle(&|sample| {
            let arrived = u32::try_from(sample.deliveries.len()).unwrap_or(u32::MAX).max(1);
            of(&sample.cpu).as_secs_f64() * 1e6 / f64::from(arrived)
        })
    };
    let missing: u64 = samples.iter().map(|sample| sample.missing).sum();
    format!(
        "{:.0} % | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {missing} | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2}",
        middle(&|sample| sample.rate * 100.0 / f64::from(rate)),
        times(answers, 0.5),
        times(answers, 0.99),
        times(deliveries, 0.5),
        times(deliveries, 0.99),
        times(deliveries, 1.0),
        us(|cpu| cpu.nginx),
        us(|cpu| cpu.ingress),
        cores(|cpu| cpu.nginx),
        cores(|cpu| cpu.ingress),
        cores(|cpu| cpu.postgres),
        cores(|cpu| cpu.nats),
        cores(|cpu| cpu.clients),
    )
}

fn ms(times: &Histogram<u64>, quantile: f64) -> f64 {
    Duration::from_micros(times.value_at_quantile(quantile)).as_secs_f64() * 1e3
}
