//! Jobs a second, in turn with the other queues on the same PostgreSQL.

use std::time::{Duration, Instant};

use ::cluster::Cluster;

use super::{
    Options,
    home::Home,
    peers::{self, Driver, Peer},
    turn::Turn,
};
use crate::cluster::{cpu, table::median};

/// Jobs a second, and what each cost.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Spent {
    pub(super) rate: f64,
    /// CPU time a job of the process that runs the jobs, in microseconds.
    own: f64,
    /// The same of the database.
    postgres: f64,
}

/// One turn.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Figures {
    /// Added while nobody works.
    pub(super) enqueue: Spent,
    /// Done of those that wait.
    pub(super) drain: Spent,
    /// Done while they are being added.
    pub(super) through: Spent,
}

impl Spent {
    pub(super) fn since(
        before: (Instant, (Duration, Duration)),
        (own, postgres): (Duration, Duration),
        jobs: usize,
    ) -> Self {
        let (began, (own_before, postgres_before)) = before;
        let jobs = f64::from(u32::try_from(jobs).unwrap_or(u32::MAX));
        let each =
            |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() * 1e6 / jobs;
        Self {
            rate: jobs / began.elapsed().as_secs_f64(),
            own: each(own, own_before),
            postgres: each(postgres, postgres_before),
        }
    }

    fn median(of: &(impl Iterator<Item = Self> + Clone)) -> Self {
        let middle = |part: fn(Self) -> f64| median(of.clone().map(part).collect());
        Self {
            rate: middle(|spent| spent.rate),
            own: middle(|spent| spent.own),
            postgres: middle(|spent| spent.postgres),
        }
    }
}

impl Figures {
    fn median(rounds: &[Self]) -> Self {
        let of = |part: fn(&Self) -> Spent| Spent::median(&rounds.iter().map(part));
        Self {
            enqueue: of(|one| one.enqueue),
            drain: of(|one| one.drain),
            through: of(|one| one.through),
        }
    }
}

/// One row.
enum Who {
    Parley { owners: usize, batch: bool },
    Peer { peer: Peer, batch: bool },
}

/// Measures Parley on a file of its own.
pub(super) async fn sqlite(options: &Options) -> anyhow::Result<()> {
    println!("\nSQLite");
    head();
    for (name, owners, batch) in parley(options) {
        if !options.wants(&name) {
            continue;
        }
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            let turn = Turn { options, owners: 0..owners, batch };
            rounds.push(turn.run(&mut Home::file(owners.max(2))?).await?);
        }
        row(&name, Figures::median(&rounds), None);
    }
    Ok(())
}

/// Measures everybody on one `PostgreSQL`, each in a database of its own.
pub(super) async fn postgres(options: &Options, cluster: &Cluster) -> anyhow::Result<()> {
    let postgres = cluster.postgres();
    let parley = parley(options).map(|(name, owners, batch)| (name, Who::Parley { owners, batch }));
    let mut cases = Vec::from(parley);
    if peers::are_installed() {
        for (name, peer) in [("graphile-worker", Peer::Graphile), ("pg-boss", Peer::Boss)] {
            cases.push((format!("{name}, batches"), Who::Peer { peer, batch: true }));
            cases.push((format!("{name}, one by one"), Who::Peer { peer, batch: false }));
        }
    } else {
        println!("without the other queues: bench/peers/setup installs them");
    }
    cases.retain(|(name, _)| options.wants(name));
    let mut figures = vec![Vec::new(); cases.len()];
    for round in 0..options.rounds {
        for (number, (_, who)) in cases.iter().enumerate() {
            figures[number].push(match *who {
                Who::Parley { owners, batch } => {
                    let turn = Turn { options, owners: 0..owners, batch };
                    turn.run(&mut Home::Cluster(cluster)).await?
                }
                Who::Peer { peer, batch } => {
                    let jobs = options.jobs_of(batch);
                    let url = postgres.make_database(&format!("case_{number}_{round}"))?;
                    Driver::start(peer, &url)?.run(jobs, batch, || cpu::below(postgres))?
                }
            });
        }
    }
    println!("\nPostgreSQL");
    head();
    let medians: Vec<Figures> = figures.iter().map(|rounds| Figures::median(rounds)).collect();
    let best = |part: fn(&Figures) -> f64| {
        let peers =
            cases.iter().zip(&medians).filter(|((_, who), _)| matches!(who, Who::Peer { .. }));
        peers.map(|(_, figures)| part(figures)).fold(f64::NAN, f64::max)
    };
    let has_peers = cases.iter().any(|(_, who)| matches!(who, Who::Peer { .. }));
    let best = has_peers
        .then(|| (best(|figures| figures.drain.rate), best(|figures| figures.through.rate)));
    for ((name, _), figures) in cases.iter().zip(&medians) {
        row(name, *figures, best);
    }
    Ok(())
}

/// Returns the cases of Parley: a name, how many owners, and whether jobs are submitted in batches.
fn parley(options: &Options) -> [(String, usize, bool); 3] {
    [
        ("**Parley**, batches, one owner".into(), 1, true),
        (format!("**Parley**, batches, {} owners", options.owners), options.owners, true),
        ("**Parley**, one by one, one owner".into(), 1, false),
    ]
}

fn head() {
    println!(
        "| | added a second | CPU µs: own | PostgreSQL | done a second | × best peer | CPU µs: own | PostgreSQL | \
         both at once | × best peer | CPU µs: own | PostgreSQL |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
}

fn row(name: &str, figures: Figures, best: Option<(f64, f64)>) {
    let Figures { enqueue, drain, through } = figures;
    let ratio = |rate: f64, best: Option<f64>| {
        best.map_or("–".into(), |best| format!("{:.2}", rate / best))
    };
    let spent = |spent: Spent| format!("{:.0} | {:.0}", spent.own, spent.postgres);
    println!(
        "| {name} | {:.0} | {} | {:.0} | {} | {} | {:.0} | {} | {} |",
        enqueue.rate,
        spent(enqueue),
        drain.rate,
        ratio(drain.rate, best.map(|best| best.0)),
        spent(drain),
        through.rate,
        ratio(through.rate, best.map(|best| best.1)),
        spent(through),
    );
}
