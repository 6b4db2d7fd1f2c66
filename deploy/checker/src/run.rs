//! One run: a cluster, clients, faults, and the verdict.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use cluster::Cluster;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    faults::drive,
    follower::{Follower, Standing},
    history::{History, Log, Rewind, Stream, Window},
    judge::judge,
    latency, log,
    report::Report,
    roster::{Roster, STRANGER, User},
    scenario::Scenario,
    sender::{self, Sends},
    visitor,
    world::World,
};

/// How long all streams may take to be open at first.
const OPENING: Duration = Duration::from_mins(1);
/// How long is waited for what should not come: what was delivered already.
const REST: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);
/// Projects whose streams the stranger asks for.
const STRANGE: usize = 3;
/// So many streams open within this time.
const BATCH: usize = 20;
const BATCH_PAUSE: Duration = Duration::from_millis(50);

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of all that is left to chance.
    pub seed: u64,
    /// Folder of the cluster and of what it is told.
    pub folder: PathBuf,
    /// Folder of the services' programs; where ours is if `None`.
    pub programs: Option<PathBuf>,
    /// The program of NATS; the installed one if `None`.
    pub nats_server: Option<PathBuf>,
    /// Told what is going on.
    pub progress: fn(&str),
}

/// The clients of a run.
struct Clients {
    world: Arc<World>,
    scenario: Scenario,
    /// Where each project's log was at the beginning.
    ends: Vec<String>,
    followers: JoinSet<(usize, Stream)>,
    /// How far each member's stream is.
    reached: Vec<(usize, Arc<AtomicI64>)>,
    sends: Arc<Sends>,
    over: CancellationToken,
}

/// Runs a scenario.
pub async fn run(scenario: Scenario, options: Options) -> anyhow::Result<Report> {
    let Options { seed, progress, .. } = options;
    let mut chance = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start(cluster(&scenario, &options)?).await?;
    progress(&format!("seed {seed}; logs are in {}", cluster.folder().path().display()));
    let mut clients = Clients::start(&cluster, &scenario).await?;
    progress(&clients.world.summary());
    let windows = clients.under_faults(&cluster, &mut chance, progress).await?;
    let logs = clients.settle().await?;
    let (world, mut history) = clients.end(logs).await?;
    history.rewinds = rewinds(&windows);
    history.held = windows.iter().filter(|window| window.holds_answers).copied().collect();
    let verdict = judge(&history);
    let latencies = latency::of(&history, &windows);
    let may_fail = scenario.requests_may_fail;
    let report = Report::new(seed, &history, verdict, latencies, world.failures(), may_fail);
    let stop = cluster.stop().await.map_err(|error| format!("{error:#}"));
    Ok(Report { stop, ..report })
}

fn rewinds(windows: &[Window]) -> Vec<Rewind> {
    let rewinds = windows.iter().filter(|window| window.rewinds);
    rewinds.map(|window| Rewind { copied: window.from, restored: window.to }).collect()
}

fn cluster(scenario: &Scenario, options: &Options) -> anyhow::Result<cluster::Options> {
    let Options { folder, programs, nats_server, progress, .. } = options;
    std::fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let users = folder.join("users.json");
    Roster::of(scenario).write(&users)?;
    let users = users.to_str().context("the folder's name is not text")?;
    let defaults = cluster::Options::new(folder.join("cluster"))
        .set("AUTH_USERS_FILE", users)
        // Silence is noticed soon.
        .set("KEEPALIVE_INTERVAL", "2s")
        // The limits are not what is checked.
        .set("MAX_CONNECTIONS_PER_USER", "50")
        .without_rate_limits();
    let settings = scenario.settings.iter();
    let mut all = settings.fold(defaults, |options, (name, value)| options.set(name, value));
    if let Some(sabotage) = &scenario.sabotage {
        all.flags = vec!["--sabotage".into(), sabotage.clone()];
    }
    Ok(cluster::Options {
        ingress: scenario.ingress,
        proc: scenario.proc,
        programs: programs.clone().unwrap_or_else(|| all.programs.clone()),
        nats_server: nats_server.clone(),
        nats_links: true,
        database_links: true,
        clock_skew: scenario.clock_skew,
        progress: *progress,
        ..all
    })
}

impl Clients {
    /// Makes projects and opens all streams.
    async fn start(cluster: &Cluster, scenario: &Scenario) -> anyhow::Result<Self> {
        let world = World::prepare(cluster.base_url(), scenario).await?;
        let mut ends = Vec::new();
        for project in 0..scenario.projects {
            ends.push(log::end(&world, project).await?);
        }
        let mut clients = Self {
            world,
            scenario: scenario.clone(),
            ends,
            followers: JoinSet::new(),
            reached: Vec::new(),
            sends: Arc::default(),
            over: CancellationToken::new(),
        };
        clients.open().await?;
        Ok(clients)
    }

    async fn open(&mut self) -> anyhow::Result<()> {
        let Self { world, scenario, .. } = &*self;
        let roster = world.roster;
        let members = (0..scenario.streams).map(|number| roster.stream(number));
        let (members, leavers): (Vec<_>, Vec<_>) = (members.collect(), roster.leavers().collect());
        let own = scenario.projects;
        for (number, (project, user)) in members.into_iter().enumerate() {
            let reached = self.follow(project, user, Standing::Member);
            self.reached.push((project, reached));
            if number % BATCH == BATCH - 1 {
                sleep(BATCH_PAUSE).await;
            }
        }
        for (project, user) in leavers {
            self.follow(project, user, Standing::Leaver);
        }
        self.follow(own, STRANGER, Standing::Member);
        let expected = self.followers.len();
        for project in 0..own.min(STRANGE) {
            self.follow(project, STRANGER, Standing::Stranger);
        }
        let deadline = Instant::now() + OPENING;
        while self.world.open_streams.load(Ordering::Relaxed) < expected
            || self.reached.iter().any(|(_, reached)| reached.load(Ordering::Relaxed) < 0)
        {
            let open = self.world.open_streams.load(Ordering::Relaxed);
            ensure!(Instant::now() < deadline, "only {open} of {expected} streams opened");
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn follow(&mut self, project: usize, user: User, standing: Standing) -> Arc<AtomicI64> {
        let number = self.followers.len();
        let follower = Follower::new(&self.world, number, project, user, standing);
        let reached = follower.reached.clone();
        let over = self.over.clone();
        self.followers.spawn(async move { (number, follower.run(over).await) });
        reached
    }

    /// Sends while faults happen, until the time is over and everything is there again.
    async fn under_faults(
        &mut self,
        cluster: &Cluster,
        chance: &mut StdRng,
        progress: fn(&str),
    ) -> anyhow::Result<Vec<Window>> {
        let Self { world, scenario, sends, .. } = self;
        let (over, began) = (CancellationToken::new(), Instant::now());
        let offset = *world.load_began.get_or_init(|| world.now());
        let mut senders = JoinSet::new();
        let senders_count = u32::try_from(scenario.senders)?;
        let interval = Duration::from_secs_f64(f64::from(senders_count) / scenario.sends_a_second);
        for _ in 0..senders_count {
            let (world, sends, over) = (world.clone(), sends.clone(), over.clone());
            let chance = StdRng::from_rng(chance);
            senders.spawn(sender::send(world, sends, scenario.members, interval, chance, over));
        }
        if scenario.reads_a_second > 0.0 {
            let pause = Duration::from_secs_f64(scenario.reads_a_second.recip());
            let chance = StdRng::from_rng(chance);
            senders.spawn(visitor::look(world.clone(), pause, chance, over.clone()));
        }
        let leavers: Vec<_> = world.roster.leavers().collect();
        let parts = u32::try_from(leavers.len() + 1)?;
        for ((project, user), part) in leavers.into_iter().zip(1..) {
            let after = scenario.lasts * part / parts;
            senders.spawn(visitor::remove(world.clone(), project, user, after));
        }
        let told = |at: Duration, what: &str| {
            progress(&format!("{:>6.1} s  {what}; {}", at.as_secs_f64(), world.summary()));
        };
        let lasts = scenario.lasts;
        let healed = CancellationToken::new();
        let load = async {
            sleep(lasts).await;
            over.cancel();
            while senders.join_next().await.transpose()?.is_some() {}
            healed.cancel();
            anyhow::Ok(())
        };
        let faults = drive(cluster, &scenario.faults, chance, began, &healed, told);
        let (loaded, windows) = tokio::join!(load, faults);
        loaded?;
        let shift = |window: Window| Window {
            from: window.from + offset,
            to: window.to + offset,
            ..window
        };
        Ok(windows?.into_iter().map(shift).collect())
    }

    /// Waits until every member's stream is at the end of its log, but not for ever. Returns the logs.
    async fn settle(&self) -> anyhow::Result<Vec<Log>> {
        let mut logs = Vec::new();
        for (project, after) in self.ends.iter().enumerate() {
            logs.push(log::read(&self.world, project, after).await?);
        }
        let deadline = Instant::now() + self.scenario.settle;
        let is_there = |(project, reached): &(usize, Arc<AtomicI64>)| {
            let last = logs[*project].entries.last().map_or(0, |entry| entry.seq);
            reached.load(Ordering::Relaxed) >= last
        };
        while !self.reached.iter().all(is_there) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        sleep(REST).await;
        // The stranger's own, where nothing is said.
        logs.push(Log::default());
        Ok(logs)
    }

    /// Ends all clients and returns what they saw.
    async fn end(self, logs: Vec<Log>) -> anyhow::Result<(Arc<World>, History)> {
        let Self { world, followers, sends, over, .. } = self;
        over.cancel();
        let mut streams = followers.join_all().await;
        streams.sort_unstable_by_key(|(number, _)| *number);
        let streams = streams.into_iter().map(|(_, stream)| stream).collect();
        let sends = std::mem::take(&mut *sends.lock().expect("no sender panicked"));
        let (rewinds, held) = (Vec::new(), Vec::new());
        Ok((world, History { logs, sends, streams, rewinds, held }))
    }
}

/// Returns the folder of the scenarios that come with the checker.
#[must_use]
pub fn scenarios() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))
}
