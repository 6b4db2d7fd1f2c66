//! `make check-faults`: takes parts of a cluster away under load and says what its clients saw of it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use checker::{
    jobs::{Database, Load},
    run::{Options, run, scenarios},
    scenario::Scenario,
};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

/// How far clocks are apart under the bug `wall-clock`: longer than any lease of the run.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Takes parts of a cluster away under load and counts what was lost, doubled, reordered, made up or shown to the wrong
/// people. Ends with 1 if anything was.
#[derive(Clone, Debug, Parser)]
#[command(name = "checker", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Seed of all that is left to chance; another one each time if it is not given.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Folder of the cluster, with all logs.
    #[arg(long, global = true, default_value = "data/checker")]
    folder: PathBuf,
    /// Folder of the programs `ingress` and `proc`; by default where `checker` is.
    #[arg(long, global = true)]
    programs: Option<PathBuf>,
    /// Program of NATS, 2.9 or later; by default the installed `nats-server`.
    #[arg(long, global = true)]
    nats_server: Option<PathBuf>,
    /// Puts the clocks of every second ingress and proc (`ingress-1`, `proc-1` …) ahead by this much, such as `30s`. Needs
    /// libfaketime. Jobs then run on PostgreSQL alone, since SQLite has one process. Overrides what the scenario says.
    #[arg(long, global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    clock_skew: Option<Duration>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Runs a scenario: a file, or the name of one that comes with the checker, such as `short`.
    Run { scenario: PathBuf },
    /// Runs jobs while their workers are killed, frozen for longer than their lease, and asked to end.
    Jobs {
        /// On which database; on one after the other if it is not given.
        #[arg(long)]
        database: Option<Database>,
        /// The deliberate bug of the services, such as `no-fence`; of debug builds only.
        #[arg(long)]
        sabotage: Option<String>,
        #[command(flatten)]
        load: Load,
    },
    /// Runs each scenario with its deliberate bug and without: the bug has to be noticed, and nothing else.
    Sabotage,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    raise_descriptors();
    let as_promised = match &arguments.what {
        What::Run { scenario } => check(&arguments, Scenario::read(&file(scenario))?).await?,
        What::Jobs { database, sabotage, load } => {
            jobs(&arguments, *database, sabotage.as_ref(), load).await?
        }
        What::Sabotage => sabotage(&arguments).await?,
    };
    Ok(if as_promised { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn file(scenario: &Path) -> PathBuf {
    if scenario.is_file() {
        return scenario.to_owned();
    }
    scenarios().join(scenario).with_extension("json")
}

async fn check(arguments: &Arguments, scenario: Scenario) -> anyhow::Result<bool> {
    let Arguments { seed, folder, programs, nats_server, clock_skew, .. } = arguments;
    let scenario = Scenario { clock_skew: clock_skew.or(scenario.clock_skew), ..scenario };
    println!("{}", scenario.about);
    let options = Options {
        seed: seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
        folder: folder.clone(),
        programs: programs.clone(),
        nats_server: nats_server.clone(),
        progress: |step| println!("{step}"),
    };
    let report = run(scenario, options).await?;
    println!("{report}");
    Ok(report.is_clean())
}

async fn jobs(
    arguments: &Arguments,
    database: Option<Database>,
    sabotage: Option<&String>,
    load: &Load,
) -> anyhow::Result<bool> {
    let mut as_promised = true;
    let clock_skew = arguments.clock_skew;
    let databases = match (database, clock_skew) {
        (Some(Database::Sqlite), Some(_)) => {
            anyhow::bail!("--clock-skew needs two processes, and SQLite has one")
        }
        (Some(database), _) => vec![database],
        (None, Some(_)) => vec![Database::Postgres],
        (None, None) => vec![Database::Sqlite, Database::Postgres],
    };
    for database in databases {
        let report = checker::jobs::run(checker::jobs::Options {
            database,
            load: load.clone(),
            seed: arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
            folder: arguments.folder.clone(),
            programs: arguments.programs.clone(),
            sabotage: sabotage.cloned(),
            clock_skew,
            progress: |step| println!("{step}"),
        })
        .await?;
        println!("{report}");
        as_promised &= report.is_clean();
    }
    Ok(as_promised)
}

async fn sabotage(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut noticed = true;
    for file in std::fs::read_dir(scenarios().join("sabotage"))? {
        let scenario = Scenario::read(&file?.path())?;
        let sound = Scenario { sabotage: None, ..scenario.clone() };
        println!("\nwith the bug:");
        noticed &= !check(arguments, scenario).await?;
        println!("\nwithout the bug:");
        noticed &= check(arguments, sound).await?;
    }
    noticed &= sabotage_clocks(arguments).await?;
    println!("{}", if noticed { "every bug is noticed" } else { "A BUG IS NOT NOTICED" });
    Ok(noticed)
}

/// Returns whether workers that go by clocks of their own are noticed, and sound ones are not.
async fn sabotage_clocks(arguments: &Arguments) -> anyhow::Result<bool> {
    let load = Load {
        jobs: 200,
        lasts: Duration::from_secs(15),
        every: Duration::from_millis(1_500),
        counts: 40,
    };
    let clock_skew = Some(arguments.clock_skew.unwrap_or(CLOCK_SKEW));
    let arguments = Arguments { clock_skew, ..arguments.clone() };
    println!("\nclocks apart, with the bug:");
    let bug = jobs(&arguments, None, Some(&"wall-clock".to_owned()), &load).await?;
    println!("\nclocks apart, without the bug:");
    Ok(!bug & jobs(&arguments, None, None, &load).await?)
}

/// Streams are many; what the system allows is taken.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, it stays as it was, which is enough for most scenarios.
    let _ = setrlimit(Resource::Nofile, limit);
}
