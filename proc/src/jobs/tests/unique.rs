//! Tests of jobs that are the only unfinished ones of their kind.

use futures_util::future::join_all;

use super::*;

on_both_stores!(
    submitted_again_it_is_the_same_job_until_that_has_ended,
    submitted_by_many_at_once_it_is_one_job,
    it_is_not_started_over_beside_its_successor,
);

/// A job that stands for `key` and never ends by itself, since nobody runs it.
async fn only(fixture: &Fixture, owner: &str, key: &str) -> Job {
    fixture.submit_as(owner, "test", "broken", json!({"only": key})).await
}

async fn submitted_again_it_is_the_same_job_until_that_has_ended(home: Home) {
    let fixture = Fixture::new(home, &["--proc-queue-limit=3"]);
    let first = only(&fixture, "ada", "a").await;
    let other = only(&fixture, "ada", "b").await;
    let hers = only(&fixture, "grace", "a").await;
    assert!(first.id != other.id && hers.id != first.id);
    // The queue is full, which one that is there already does not mind, in whichever state it is.
    assert_eq!(only(&fixture, "ada", "a").await.id, first.id);
    let (job, claim) = fixture.claim(LONG).await;
    assert_eq!(job.id, first.id);
    assert_eq!(only(&fixture, "ada", "a").await.state, State::Running);
    fixture.apply(first.id, Command::HandBack { claim }).await.unwrap();
    assert_eq!(only(&fixture, "ada", "a").await.state, State::Interrupted);
    fixture.apply(first.id, Command::Cancel).await.unwrap();
    let next = only(&fixture, "ada", "a").await;
    assert!(next.id != first.id && next.state == State::Queued);
}

async fn submitted_by_many_at_once_it_is_one_job(home: Home) {
    let fixture = Fixture::new(home, &[]);
    // Nobody has a log yet, either.
    let jobs = join_all((0..16).map(|_| only(&fixture, "ada", "a"))).await;
    assert!(jobs.iter().all(|job| job.id == jobs[0].id));
}

async fn it_is_not_started_over_beside_its_successor(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let first = only(&fixture, "ada", "a").await;
    fixture.apply(first.id, Command::Cancel).await.unwrap();
    let next = only(&fixture, "ada", "a").await;
    let refused = fixture.engine.retry(&first, Roles::default()).await;
    assert!(matches!(refused, Err(Error::Superseded)), "{refused:?}");
    fixture.apply(next.id, Command::Cancel).await.unwrap();
    assert_eq!(fixture.engine.retry(&first, Roles::default()).await.unwrap().id, first.id);
    // It has not ended: that is its own state's refusal.
    let refused = fixture.engine.retry(&first, Roles::default()).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
}
