//! `checker jobs`: many jobs while their workers are killed, frozen for longer than their lease, and asked to end. Each
//! job's whole life is read off its owner's stream, so it holds for either database in the same way.

pub mod bundle;
mod follower;
mod home;
pub mod judge;
mod submitter;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::ensure;
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub use self::home::Database;
use self::{
    bundle::Bundles,
    follower::follow,
    home::{Home, Taken},
    judge::{Counts, History, Owned, judge},
};

/// Whose jobs they are.
const OWNERS: [&str; 2] = ["ada", "grace"];
/// Clients that submit for each owner.
const SUBMITTERS: usize = 4;
/// How long it may last until the streams are open.
const OPENING: Duration = Duration::from_mins(1);
/// Time without the end of a job after which the rest counts as lost, beside the longest time for which a job is put back.
const STILL: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// How long is waited for what should not come: an event of a job that has ended.
const REST: Duration = Duration::from_secs(2);

/// Number of unfinished jobs that a report describes at most.
const SHOWN: usize = 10;

/// How much there is of everything.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// How many jobs, of two owners together.
    #[arg(long, default_value_t = 5_000)]
    pub jobs: usize,
    /// How long workers are taken away; jobs are submitted evenly within the first nine tenths of it.
    #[arg(long = "for", default_value = "2m", value_parser = humantime::parse_duration)]
    pub lasts: Duration,
    /// How often one is.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub every: Duration,
    /// How far each job counts, 15 ms a number, each with a checkpoint.
    #[arg(long, default_value_t = 4)]
    pub counts: u64,
}

/// How it is run.
#[derive(Clone, Debug)]
pub struct Options {
    pub database: Database,
    pub load: Load,
    /// Of all that is left to chance.
    pub seed: u64,
    /// Folder of the processes.
    pub folder: PathBuf,
    /// Folder of the programs; where ours is if `None`.
    pub programs: Option<PathBuf>,
    /// The deliberate bug that the services have.
    pub sabotage: Option<String>,
    /// How far the clock of the second proc is ahead.
    pub clock_skew: Option<Duration>,
    /// Told what is going on.
    pub progress: fn(&str),
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Report {
    pub database: Database,
    pub seed: u64,
    pub jobs: usize,
    /// How often something was taken away, by what it was.
    pub taken: BTreeMap<&'static str, usize>,
    /// How often a job was taken from its worker, or handed back by it.
    pub interrupted: usize,
    /// Number of calls to bundles behind a URL.
    pub calls: usize,
    pub counts: Counts,
    /// Describes each job that was lost or failed.
    pub unfinished: Vec<String>,
    /// Where the processes ended well when they were asked to.
    pub stop: Result<(), String>,
}

impl Report {
    /// Says whether everything was as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts == Counts::default() && self.stop.is_ok()
    }
}

/// What clients have seen so far.
#[derive(Debug, Default)]
struct Seen(Mutex<History>);

impl Seen {
    fn with<T>(&self, with: impl FnOnce(&mut History) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ended(&self) -> usize {
        self.with(|history| history.owners.iter().map(Owned::ended).sum())
    }
}

/// Runs jobs while their workers are taken away, and counts what went wrong.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let Options { database, load, seed, progress, .. } = options.clone();
    let home = Home::start(&options).await?;
    progress(&format!("{database}, seed {seed}"));
    let bundles = Bundles::start(&home.proc_url(), load.counts)?;
    for (name, url) in &bundles.urls {
        submitter::register(&home, name, url).await?;
    }
    let seen = Arc::new(Seen::default());
    seen.with(|history| {
        let owners = OWNERS.map(|_| Owned::default()).into();
        *history = History { owners, counts: load.counts, ..History::default() };
    });
    // Before the streams open: a membership is an entry of the owner's topic that no stream shows, and would count as a hole.
    let mut projects = Vec::new();
    for owner in OWNERS {
        projects.push(submitter::project(&home, owner).await?);
    }
    let over = CancellationToken::new();
    let mut clients = JoinSet::new();
    for (number, owner) in OWNERS.into_iter().enumerate() {
        let (url, seen, over) = (home.ingress_url(), seen.clone(), over.clone());
        clients.spawn(follow(url, number, owner, seen, over));
    }
    let began = Instant::now();
    while seen.with(|history| history.owners.iter().any(|owner| owner.begins.is_none())) {
        ensure!(began.elapsed() < OPENING, "the streams do not open");
        sleep(LOOK).await;
    }

    let mut submitters = JoinSet::new();
    let pause = load.lasts.mul_f64(0.9) / u32::try_from(load.jobs)?.max(1);
    for (number, (owner, project)) in OWNERS.into_iter().zip(&projects).enumerate() {
        for client in 0..SUBMITTERS {
            let place = number + client * OWNERS.len();
            let mine = submitter::Submitter::new(&home, number, owner, project, load.counts, pause);
            let numbers = (place..load.jobs).step_by(OWNERS.len() * SUBMITTERS);
            submitters.spawn(mine.submit(numbers, seen.clone()));
        }
    }
    let taken = take_away(&home, &load, seed, &seen, progress).await?;
    while let Some(submitted) = submitters.join_next().await {
        submitted??;
    }
    bundles.stay();
    // A job whose bundle was away each time is put back for half as long again, with up to a quarter of jitter.
    let still = STILL + load.lasts;
    let (mut ended, mut at) = (seen.ended(), Instant::now());
    // The judge counts the jobs that did not end.
    while ended < load.jobs && at.elapsed() < still {
        sleep(LOOK).await;
        if seen.ended() > ended {
            (ended, at) = (seen.ended(), Instant::now());
        }
    }
    sleep(REST).await;
    submitter::read_all(&home, &OWNERS, &seen).await?;
    over.cancel();
    clients.join_all().await;
    let mut history = seen.with(std::mem::take);
    history.excused = taken.values().sum::<usize>() * home.jobs_a_process();
    history.calls = bundles.calls();
    let calls = history.calls.calls;
    let interrupted = history.owners.iter().map(Owned::interrupted).sum();
    let stop = home.stop().await.map_err(|error| format!("{error:#}"));
    let (counts, unfinished) = (judge(&history), judge::describe_unfinished(&history));
    let jobs = load.jobs;
    Ok(Report { database, seed, jobs, taken, interrupted, calls, counts, unfinished, stop })
}

/// Takes workers away until the time is over, then leaves all there.
async fn take_away(
    home: &Home,
    load: &Load,
    seed: u64,
    seen: &Seen,
    progress: fn(&str),
) -> anyhow::Result<BTreeMap<&'static str, usize>> {
    let mut chance = StdRng::seed_from_u64(seed);
    let (began, mut taken) = (Instant::now(), BTreeMap::new());
    while began.elapsed() < load.lasts {
        sleep(load.every.mul_f64(chance.random_range(0.5..1.5))).await;
        let what = [Taken::Killed, Taken::Frozen, Taken::Stopped][chance.random_range(0..3)];
        let (process, pause) = (chance.random_range(0..home.workers()), chance.random());
        let at = began.elapsed().as_secs_f64();
        progress(&format!("{at:>6.1} s  {what} {}; {} ended", home.name(process), seen.ended()));
        home.take_away(what, process, pause).await?;
        *taken.entry(what.as_str()).or_default() += 1;
    }
    Ok(taken)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, seed, jobs, taken, interrupted, calls, counts, unfinished, stop } =
            self;
        writeln!(
            f,
            "{database}, seed {seed}: {jobs} jobs, {calls} calls, {interrupted} interruptions"
        )?;
        for (what, count) in taken {
            writeln!(f, "{count:>14} times {what}")?;
        }
        for (what, count) in counts.named() {
            writeln!(f, "{count:>14} {what}")?;
        }
        for job in unfinished.iter().take(SHOWN) {
            writeln!(f, "unfinished: {job}")?;
        }
        if let Err(error) = stop {
            writeln!(f, "{error}")?;
        }
        f.write_str(if self.is_clean() { "as promised" } else { "NOT AS PROMISED" })
    }
}
