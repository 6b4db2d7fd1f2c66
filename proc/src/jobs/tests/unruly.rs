//! Tests operations that do not do as they are told: they hold their thread, or leave work behind.

use super::*;
use crate::raw_json::RawJson;

on_both_stores!(what_an_operation_leaves_behind_changes_nothing);

/// How long a thread is held: longer than anything that is waited for here.
const HELD: Duration = Duration::from_secs(4);

/// An operation that nobody should write.
pub(super) struct Unruly;

#[async_trait]
impl Operation for Unruly {
    fn name(&self) -> &'static str {
        "unruly"
    }

    fn description(&self) -> &'static str {
        "Holds its thread, or leaves work behind."
    }

    fn role(&self) -> Role {
        Role::Viewer
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn schema(&self) -> Value {
        json!({})
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError> {
        if input == "hold" {
            // Neither a cancel nor the timeout reaches it.
            std::thread::sleep(HELD);
            return Ok(json!("late").into());
        }
        let left = context.clone();
        #[expect(clippy::disallowed_methods, reason = "it is what is tested")]
        tokio::spawn(async move {
            loop {
                let progress = Progress::of(1, 2, "things", "still at it");
                if left.advance(progress, Some(json!("left"))).await.is_err() {
                    break;
                }
            }
            drop(left);
        });
        Ok(json!("done").into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_holds_its_thread_holds_nothing_else() {
    let mut fixture = Fixture::new(Home::Sqlite, &["--proc-workers=2"]);
    fixture.start();
    let held = fixture.submit("test", "unruly", json!("hold")).await;
    fixture.event("job.started").await;
    let next = fixture.submit("demo", "count", json!({"to": 1})).await;
    let next = fixture.engine.wait(next.id, &next.owner, Duration::from_secs(2)).await.unwrap();
    assert_eq!(next.state, State::Succeeded);
    fixture.engine.cancel(&fixture.mine(&held)).await.unwrap();
    let began = Instant::now();
    fixture.stop().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(fixture.find(held.id).await.state, State::Cancelled);
}

async fn what_an_operation_leaves_behind_changes_nothing(home: Home) {
    let fixture = Fixture::new(home, &[]);
    fixture.start();
    let job = fixture.submit("test", "unruly", json!("leave")).await;
    let ended = fixture.engine.wait(job.id, &job.owner, Duration::from_secs(5)).await.unwrap();
    assert_eq!((ended.state, &ended.result), (State::Succeeded, &Some(json!("done").into())));
    fixture.stop().await;
    let (last, topic) = (fixture.find(job.id).await, Topic::user(&job.owner));
    assert_eq!((last.fence, last.finished_at), (ended.fence, ended.finished_at));
    let read = fixture.tools.store.read(move |reader| reader.entries(&topic, 0, 1000)).await;
    let entries = read.map_err(|error: shared::store::Error| error).unwrap();
    assert_eq!(entries.last().map(|entry| &*entry.kind), Some("job.succeeded"));
}
