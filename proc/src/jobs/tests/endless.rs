//! A job that was lost and claimed again by the same process: its first attempt stops, and its second one can be stopped.

use std::sync::LazyLock;

use tokio::sync::watch;

use super::*;
use crate::raw_json::RawJson;

/// Number of attempts that run now.
static RUNNING: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// An operation that ends only when it is stopped.
pub(super) struct Endless;

/// Counts an attempt while it runs.
struct Counted;

impl Counted {
    fn new() -> Self {
        RUNNING.send_modify(|running| *running += 1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.send_modify(|running| *running -= 1);
    }
}

#[async_trait]
impl Operation for Endless {
    fn name(&self) -> &'static str {
        "endless"
    }

    fn description(&self) -> &'static str {
        "Waits until it is stopped."
    }

    fn role(&self) -> Role {
        Role::Viewer
    }

    fn timeout(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn schema(&self) -> Value {
        json!({})
    }

    async fn run(&self, _: JobContext, _: Value) -> Result<RawJson, JobError> {
        let _counted = Counted::new();
        std::future::pending().await
    }
}

async fn running_is(expected: usize) {
    let mut running = RUNNING.subscribe();
    let reached = running.wait_for(|running| *running == expected);
    let is_reached = tokio::time::timeout(Duration::from_secs(10), reached).await.is_ok();
    let now = *RUNNING.borrow();
    assert!(is_reached, "{now} attempts run instead of {expected}");
}

#[tokio::test]
async fn a_job_that_was_claimed_again_here_runs_once_and_can_be_stopped() {
    let mut fixture = Fixture::new(Home::Sqlite, &["--proc-workers=2"]);
    fixture.start();
    let job = fixture.submit("test", "endless", json!({})).await;
    fixture.event("job.started").await;
    running_is(1).await;
    // As if the lease had ended and another process had freed the job.
    assert_eq!(fixture.engine.reap(Timestamp::from_ms(i64::MAX)).await.unwrap(), 1);
    fixture.event("job.started").await;
    // The end of the first attempt gives its worker back.
    let lane = fixture.engine.lane("test");
    let first_ends = async {
        while lane.room().open < 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), first_ends).await.expect("the first one stops");
    assert_eq!(fixture.engine.attempts(job.id), 1, "the second one is out of reach");
    running_is(1).await;
    fixture.engine.cancel(&fixture.mine(&job)).await.unwrap();
    running_is(0).await;
    fixture.stop().await;
}
