//! One server in one scenario: sends without streams, the opening, quiet, and then events.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;

use super::{
    marks,
    reader::Reader,
    target::{Publish, Target},
};

/// How many streams, and how many events a second each of them gets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) streams: usize,
    pub(super) rate: u32,
}

/// How long the parts of a measurement take.
#[derive(Copy, Clone, Debug)]
pub(super) struct Times {
    /// Sends before there is a stream.
    pub(super) sends: Duration,
    /// Streams without an event.
    pub(super) quiet: Duration,
    /// Events that are not counted.
    pub(super) warm_up: Duration,
    /// Events that are.
    pub(super) events: Duration,
}

/// What came out. Times are in microseconds.
#[derive(Debug)]
pub(super) struct Figures {
    /// Deliveries a second, of those that were asked for.
    pub(super) kept: f64,
    /// Streams that the server ended.
    pub(super) lost: usize,
    pub(super) bytes: f64,
    /// CPU time a delivery, less what the server takes when nothing is sent.
    pub(super) cpu: f64,
    /// The same, less what the sends take when nobody listens.
    pub(super) cpu_without_sends: f64,
    pub(super) kib_a_stream: f64,
    pub(super) p50: u64,
    pub(super) p99: u64,
    /// Publish to the arrival at the last stream; `None` if no event reached all.
    pub(super) last: Option<(u64, u64)>,
    pub(super) opens_a_second: f64,
    pub(super) cpu_an_open: f64,
}

/// Streams that are being opened at once.
const AT_ONCE: usize = 64;
/// How long what was sent may take to arrive.
const LATEST: Duration = Duration::from_secs(10);

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn run(mut target: Target, scenario: Scenario, times: Times) -> anyhow::Result<Figures> {
    let Scenario { streams, rate } = scenario;
    let mut sent = AtomicU32::new(0);
    // The first sends warm caches up; the rest say what a send takes when nobody listens.
    pace(&mut target.publish, rate, times.warm_up, &sent)?;
    let (cpu, before) = (cpu_us(&target)?, *sent.get_mut());
    pace(&mut target.publish, rate, times.sends, &sent)?;
    let cpu_a_send = (cpu_us(&target)? - cpu) / f64::from((*sent.get_mut() - before).max(1));

    Reader::new()?.open(&target.door, target.rehearsals, AT_ONCE, false)?;
    let mut reader = Reader::new()?;
    thread::sleep(Duration::from_millis(500));
    let (kib, cpu) = (target.process.resident_kib()?, cpu_us(&target)?);
    let took = reader.open(&target.door, streams, AT_ONCE, true)?;
    let cpu_an_open = (cpu_us(&target)? - cpu) / streams as f64;
    reader.settle(LATEST)?;
    let kib = target.process.resident_kib()?.saturating_sub(kib);

    let cpu = cpu_us(&target)?;
    reader.read_for(times.quiet)?;
    let idle = (cpu_us(&target)? - cpu) / times.quiet.as_secs_f64();

    publish_and_read(&mut reader, &mut target.publish, scenario, times.warm_up, &sent)?;
    let before = *sent.get_mut();
    reader.marks.restart(before);
    let (cpu, bytes, began) = (cpu_us(&target)?, reader.bytes, Instant::now());
    let ended = publish_and_read(&mut reader, &mut target.publish, scenario, times.events, &sent)?;
    let cpu = (cpu_us(&target)? - cpu) - idle * began.elapsed().as_secs_f64();
    let arrived = reader.marks.times.len().max(1) as f64;
    let sends = f64::from(*sent.get_mut() - before);
    let asked = f64::from(rate) * streams as f64;
    let last = reader.marks.last(reader.open_count().max(1))?;
    Ok(Figures {
        kept: arrived / (ended - began).max(times.events).as_secs_f64() / asked,
        lost: streams - reader.open_count(),
        bytes: (reader.bytes - bytes) as f64 / arrived,
        cpu: cpu / arrived,
        cpu_without_sends: (cpu - sends * cpu_a_send) / arrived,
        kib_a_stream: kib as f64 / streams as f64,
        p50: reader.marks.times.value_at_quantile(0.5),
        p99: reader.marks.times.value_at_quantile(0.99),
        last: (!last.is_empty()).then(|| (last.value_at_quantile(0.5), last.max())),
        opens_a_second: streams as f64 / took.as_secs_f64(),
        cpu_an_open,
    })
}

/// Publishes from a thread of its own and reads until everything has arrived. Returns when the last of it did.
fn publish_and_read(
    reader: &mut Reader,
    publish: &mut Publish,
    scenario: Scenario,
    time: Duration,
    sent: &AtomicU32,
) -> anyhow::Result<Instant> {
    let first = sent.load(Ordering::Relaxed);
    reader.marks.restart(first);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let result = pace(publish, scenario.rate, time, sent);
            done.store(true, Ordering::Release);
            result
        });
        let mut latest = None;
        let mut arrived = (0, Instant::now());
        loop {
            reader.read(Duration::from_millis(20))?;
            let now = Instant::now();
            if reader.marks.times.len() > arrived.0 {
                arrived = (reader.marks.times.len(), now);
            }
            if !done.load(Ordering::Acquire) {
                continue;
            }
            let sends = u64::from(sent.load(Ordering::Relaxed) - first);
            let all = sends * reader.open_count() as u64;
            let silent = now - arrived.1 > Duration::from_secs(1);
            if arrived.0 >= all || silent || now > *latest.get_or_insert(now + LATEST) {
                break;
            }
        }
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        Ok(arrived.1)
    })
}

/// Publishes at a rate, or as fast as the server answers, if that is slower.
fn pace(publish: &mut Publish, rate: u32, time: Duration, sent: &AtomicU32) -> anyhow::Result<()> {
    let (began, every) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut next = began;
    while next < began + time {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        // The number is the bench's own order: what is sent late is not made up for.
        publish(&marks::text(sent.load(Ordering::Relaxed)))?;
        sent.fetch_add(1, Ordering::Relaxed);
        next = (next + every).max(Instant::now());
    }
    Ok(())
}

fn cpu_us(target: &Target) -> anyhow::Result<f64> {
    Ok(target.process.cpu()?.as_secs_f64() * 1e6)
}
