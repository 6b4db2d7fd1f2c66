//! A database that is away for longer than all leases: nobody takes over from the living.

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{support::PATIENCE, whole::Whole};

const JOBS: usize = 6;
const POLL: Duration = Duration::from_millis(50);
const COUNT: &str = "/api/integrations/bundles/demo/operations/count";

/// Runs six jobs on three procs and freezes PostgreSQL meanwhile. One of the procs is back only `late` after the others.
/// Returns how many of the jobs changed hands; each has succeeded.
async fn taken_over(flags: &[&str], lease: Duration, outage: Duration, late: Duration) -> usize {
    let whole = Whole::start(|options| {
        (options.ingress, options.proc) = (1, 3);
        options.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        options.settings.push(("PROC_LEASE".into(), format!("{}s", lease.as_secs())));
        options.settings.push(("PROC_WORKERS".into(), "2".into()));
    })
    .await;
    let project = whole.project().await;
    let until = async |condition: &str| {
        let sql = format!("SELECT count(*) FROM jobs WHERE {condition}");
        let reached = async {
            while whole.query(&sql) < JOBS {
                sleep(POLL).await;
            }
        };
        let in_time = timeout(PATIENCE, reached).await.is_ok();
        let states = "SELECT string_agg(state || ' ' || fence || ' ' || crashes, ', ') FROM jobs";
        assert!(in_time, "not all {condition}: {}", whole.query_text(states));
    };
    let body = json!({"project_id": project, "data": {"to": 40, "delay_ms": 150}});
    for number in 0..JOBS {
        let made = whole.post(&whole.cluster.proc_url(number % 3), COUNT, body.clone()).await;
        assert_eq!(made.status(), 202);
    }
    until("state = 'running'").await;
    whole.cluster.postgres().freeze().expect("it runs");
    sleep(outage).await;
    let proc = whole.cluster.proc(0);
    proc.freeze().expect("it runs");
    whole.cluster.postgres().thaw().expect("it is frozen");
    sleep(late).await;
    proc.thaw().expect("it is frozen");
    until("state = 'succeeded'").await;
    println!(
        "after {outage:?} without the database, state, attempt, fence and crashes: {}",
        whole.query_text(
            "SELECT string_agg(concat_ws(' ', state, attempt, fence, crashes), ', ') FROM jobs"
        )
    );
    let taken =
        whole.query("SELECT count(*) FROM jobs WHERE fence > 2 OR attempt > 1 OR crashes > 0");
    whole.stop().await;
    taken
}

#[tokio::test]
async fn no_job_is_taken_from_a_live_worker_after_an_outage_longer_than_the_lease() {
    // The default lease of 30 s.
    let (lease, outage) = (Duration::from_secs(30), Duration::from_secs(34));
    assert_eq!(taken_over(&[], lease, outage, Duration::ZERO).await, 0);
}

#[tokio::test]
async fn procs_that_reap_at_once_are_noticed() {
    let (lease, outage) = (Duration::from_secs(5), Duration::from_secs(6));
    // The others have renewed by then, and not yet for a lease.
    let late = Duration::from_secs(2);
    assert_eq!(taken_over(&[], lease, outage, late).await, 0, "sound procs took jobs over");
    let taken = taken_over(&["--sabotage", "reap-at-once"], lease, outage, late).await;
    assert!(taken > 0, "no job was taken over");
}
