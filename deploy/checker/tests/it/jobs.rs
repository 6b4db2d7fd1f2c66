//! Jobs whose workers are taken away, on both databases, and a deliberate bug that has to be noticed.

use std::time::Duration;

use checker::jobs::{Database, Load, Options, Report, run};

use crate::{ONE, SEED, open_folder};

/// The long form is `checker jobs`.
const LOAD: Load = Load {
    jobs: 200,
    lasts: Duration::from_secs(15),
    every: Duration::from_millis(1_500),
    counts: 12,
};

/// How often a bug is looked for, each time with other faults.
#[cfg(debug_assertions)]
const TRIES: u64 = 4;

async fn report(database: Database, load: Load, seed: u64, sabotage: Option<&str>) -> Report {
    skewed_report(database, load, seed, sabotage, None).await
}

async fn skewed_report(
    database: Database,
    load: Load,
    seed: u64,
    sabotage: Option<&str>,
    clock_skew: Option<Duration>,
) -> Report {
    let _one = ONE.lock().await;
    cluster::build_programs();
    let dir = open_folder();
    let options = Options {
        database,
        load,
        seed,
        folder: dir.path().to_owned(),
        programs: None,
        sabotage: sabotage.map(str::to_owned),
        clock_skew,
        progress: |step| println!("{step}"),
    };
    let report = run(options).await.expect("it runs");
    println!("{report}");
    report
}

async fn end_once(database: Database) {
    let report = report(database, LOAD, SEED, None).await;
    assert!(report.is_clean());
    assert!(report.taken.values().sum::<usize>() > 3 && report.interrupted > 0);
}

#[tokio::test]
async fn jobs_end_once_whatever_becomes_of_their_workers_on_postgres() {
    end_once(Database::Postgres).await;
}

#[tokio::test]
async fn jobs_end_once_whatever_becomes_of_their_workers_on_sqlite() {
    end_once(Database::Sqlite).await;
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn workers_that_go_by_clocks_of_their_own_are_noticed() {
    // Further than the lease, so that the process which is ahead takes whatever the other one runs.
    let skew = Some(Duration::from_secs(30));
    let load = Load { counts: 40, ..LOAD };
    let sound = skewed_report(Database::Postgres, load.clone(), SEED, None, skew).await;
    assert!(sound.is_clean());
    let bug = Some("wall-clock");
    let report = skewed_report(Database::Postgres, load, SEED, bug, skew).await;
    assert!(report.counts.stolen > 0);
}

/// Reads from a report how often a bug was noticed.
#[cfg(debug_assertions)]
type Count = fn(&checker::jobs::judge::Counts) -> usize;

#[cfg(debug_assertions)]
#[tokio::test]
async fn waits_that_are_no_waits_are_noticed() {
    let counted: [(&str, Count); 2] = [
        ("snooze-counts", |counts| counts.charged + counts.failed),
        ("call-early", |counts| counts.early),
    ];
    for (bug, count) in counted {
        let report = report(Database::Sqlite, LOAD, SEED, Some(bug)).await;
        assert!(count(&report.counts) > 0, "{bug} was not noticed");
    }
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn workers_that_are_believed_without_a_fence_are_noticed() {
    // Long jobs and few, so that one is frozen with its worker and ends elsewhere meanwhile; if none did, once more.
    let load = Load { jobs: 60, counts: 40, every: Duration::from_secs(1), ..LOAD };
    for number in 0..TRIES {
        let (load, seed) = (load.clone(), SEED + number);
        let report = report(Database::Postgres, load, seed, Some("no-fence")).await;
        let counts = report.counts;
        if counts.ended_twice + counts.out_of_turn > 0 {
            return;
        }
    }
    panic!("nobody saw two workers of one job");
}
