//! A real cluster under real faults, and deliberate bugs that have to be noticed.

mod jobs;

use std::{fs, os::unix::fs::PermissionsExt};

use checker::{
    report::Report,
    run::{Options, run, scenarios},
    scenario::Scenario,
};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// Clusters are heavy: one at a time.
static ONE: Mutex<()> = Mutex::const_new(());
/// The tests differ in nothing from run to run but in time.
const SEED: u64 = 1;

fn read(name: &str) -> Scenario {
    Scenario::read(&scenarios().join(name).with_extension("json")).expect("it is sound")
}

/// A temporary folder that everybody may enter, since who runs PostgreSQL may not be who made it.
fn open_folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    dir
}

async fn report(scenario: Scenario) -> Report {
    let _one = ONE.lock().await;
    cluster::build_programs();
    let dir = open_folder();
    let options = Options {
        seed: SEED,
        folder: dir.path().to_owned(),
        programs: None,
        nats_server: None,
        progress: |step| println!("{step}"),
    };
    let report = run(scenario, options).await.expect("it runs");
    println!("{report}");
    report
}

#[test]
fn every_scenario_can_be_read() {
    let files = fs::read_dir(scenarios())
        .unwrap()
        .chain(fs::read_dir(scenarios().join("sabotage")).unwrap());
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    let about: Vec<String> = files.map(|file| Scenario::read(&file).unwrap().about).collect();
    assert!(about.len() >= 9, "{about:?}");
}

#[tokio::test]
async fn nothing_is_lost_whatever_is_taken_away() {
    let report = report(read("ci")).await;
    assert!(report.is_clean());
    assert!(report.acknowledged > 200 && report.deliveries > 2_000 && report.reopened > 0);
}

#[cfg(debug_assertions)]
mod sabotage {
    use checker::judge::Counts;

    use super::{read, report};

    /// Returns what is counted of a cluster with a deliberate bug.
    async fn counts(bug: &str) -> Counts {
        let scenario = read(&format!("sabotage/{bug}"));
        assert_eq!(scenario.sabotage.as_deref(), Some(bug));
        let report = report(scenario).await;
        assert!(!report.is_clean());
        report.counts()
    }

    #[tokio::test]
    async fn publish_early_is_noticed() {
        // Phantoms, unless no kill met a moment between the two; then what the log gave back and gave again.
        let Counts { phantom, duplicated, lost, resets, .. } = counts("publish-early").await;
        assert!(phantom + duplicated + lost + resets > 0);
    }

    #[tokio::test]
    async fn no_gap_fill_is_noticed() {
        assert!(counts("no-gap-fill").await.lost > 0);
    }

    #[tokio::test]
    async fn no_head_poll_is_noticed() {
        assert!(counts("no-head-poll").await.lost > 0);
    }

    #[tokio::test]
    async fn no_tag_check_is_noticed() {
        assert!(counts("no-tag-check").await.lost > 0);
    }

    #[tokio::test]
    async fn no_database_deadline_is_noticed() {
        assert!(counts("no-database-deadline").await.unanswered > 0);
    }

    #[tokio::test]
    async fn trust_lost_commit_is_noticed() {
        assert!(counts("trust-lost-commit").await.lost > 0);
    }

    #[tokio::test]
    async fn sequence_is_noticed() {
        let Counts { lost, reordered, resets, .. } = counts("sequence").await;
        assert!(lost + reordered + resets > 0);
    }
}
