//! Tests the engine over a real store, with no ingress to ask.

mod claiming;
mod endless;
mod fixture;
mod overview;
mod submissions;
mod unique;
mod unruly;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use clap::Parser;
use cluster::{on_both_stores, scratch::Home};
use serde_json::{Value, json};
use shared::{
    auth::Roles,
    bus::{Bus, Subscription},
    grpc::Peer,
    ids::{JobId, ProjectId, TraceId},
    journal::Topic,
    lifecycle::Lifecycle,
    service_token::{Service, ServiceToken},
    store::Store,
    time::Timestamp,
};
use tempfile::TempDir;
use uuid::Uuid;

use self::fixture::Fixture;
use super::{
    Engine, Error, Idempotency, JobContext, JobError, NewJob, Progress, Tools,
    engine::lanes::Kind,
    logs,
    machine::{Claim, Command, Job, Refused, Share, State},
    retention,
    store::{self, claims},
};
use crate::{
    JobsConfig,
    access::{Content, Mine, ProjectRoles},
    blobs::Blobs,
    bundles::{Operation, Registry},
    ingress::{Ingress, Role},
    storage::{Quota, StorageLimit},
};

on_both_stores!(
    a_job_is_claimed_run_and_told_of,
    progress_is_told_while_work_goes_on,
    a_cancel_while_running_is_final,
    a_panic_fails_the_job_and_nothing_else,
    a_retryable_failure_is_queued_again_and_can_be_read_up,
    a_drain_hands_back_with_the_checkpoint,
    a_failure_says_when_to_come_back_and_a_snooze_is_none,
    a_job_that_ended_long_ago_goes_with_its_log,
    a_full_queue_refuses_and_a_repeated_submission_is_the_first,
);

const LONG: Duration = Duration::from_mins(1);

async fn a_job_is_claimed_run_and_told_of(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    let job = fixture.submit("demo", "count", json!({"to": 5})).await;
    for kind in ["job.queued", "job.started", "job.succeeded"] {
        assert_eq!(fixture.event(kind).await["id"], json!(job.id));
    }
    let job = fixture.engine.wait(job.id, &job.owner, LONG).await.unwrap();
    assert_eq!((job.state, job.result), (State::Succeeded, Some(json!({"counted": 5}).into())));
    let topic = Topic::jobs();
    let read = fixture.tools.store.read(move |reader| reader.entries(&topic, 0, 100)).await;
    let entries: Vec<_> = read.map_err(|error: shared::store::Error| error).unwrap();
    assert_eq!(entries.last().unwrap().kind.as_ref(), "job.succeeded");
    fixture.stop().await;
}

async fn progress_is_told_while_work_goes_on(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    fixture.submit("demo", "count", json!({"to": 10_000, "delay_ms": 20})).await;
    let first = fixture.event("job.progress").await["progress"]["done"].as_u64().unwrap();
    let second = fixture.event("job.progress").await["progress"]["done"].as_u64().unwrap();
    assert!(second > first);
    fixture.stop().await;
}

async fn a_cancel_while_running_is_final(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    let job = fixture.submit("demo", "count", json!({"to": 6_000, "delay_ms": 50})).await;
    fixture.event("job.progress").await;
    let cancelled = fixture.engine.cancel(&fixture.mine(&job)).await.unwrap();
    assert_eq!(cancelled.state, State::Cancelled);
    // The slot is free again: the next job runs, and the cancelled one is as it was.
    let next = fixture.submit("demo", "count", json!({"to": 1})).await;
    fixture.engine.wait(next.id, &next.owner, LONG).await.unwrap();
    assert_eq!(fixture.find(job.id).await, cancelled);
    fixture.stop().await;
}

async fn a_panic_fails_the_job_and_nothing_else(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    fixture.submit("test", "broken", json!({})).await;
    let job = fixture.event("job.failed").await;
    assert_eq!(job["error"]["code"], "internal");
    let next = fixture.submit("demo", "count", json!({"to": 1})).await;
    let next = fixture.engine.wait(next.id, &next.owner, LONG).await.unwrap();
    assert_eq!(next.state, State::Succeeded);
    fixture.stop().await;
}

async fn a_retryable_failure_is_queued_again_and_can_be_read_up(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    let job = fixture.submit("test", "broken", json!("fail")).await;
    let told = fixture.event("job.retrying").await;
    assert_eq!((told["state"].as_str(), told["attempt"].as_i64()), (Some("queued"), Some(1)));
    let logs = fixture.content(&job).read(|reader, job| logs::read(reader, job, 0, 10)).await;
    assert_eq!(logs.map_err(|error: shared::store::Error| error).unwrap().len(), 1);
    fixture.stop().await;
}

/// Where others may be alive, the lease has to end first.
#[tokio::test]
async fn a_restart_goes_on_from_the_checkpoint() {
    let home = Home::Sqlite;
    let fixture = Fixture::new(home, &[]);
    let job = fixture.submit("demo", "count", json!({"to": 3})).await;
    let (_, claim) = fixture.claim(LONG).await;
    let checkpoint = Some(json!({"counted": 2}));
    let advance = Command::Advance { claim, progress: super::Progress::default(), checkpoint };
    fixture.apply(job.id, advance).await.unwrap();
    // The claim is a process's that is no more; its lease has long to go.
    fixture.start();
    let job = fixture.engine.wait(job.id, &job.owner, Duration::from_secs(5)).await.unwrap();
    assert_eq!((job.state, job.attempt, job.crashes), (State::Succeeded, 1, 0));
    fixture.stop().await;
}

async fn a_drain_hands_back_with_the_checkpoint(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    let job = fixture.submit("demo", "count", json!({"to": 10_000, "delay_ms": 10})).await;
    fixture.event("job.progress").await;
    let stopping = Instant::now();
    fixture.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(1), "{:?}", stopping.elapsed());
    let job = fixture.find(job.id).await;
    assert_eq!((job.state, job.attempt, job.crashes), (State::Interrupted, 1, 0));
    assert!(job.checkpoint.unwrap()["counted"].as_u64().unwrap() > 0);
}

async fn a_full_queue_refuses_and_a_repeated_submission_is_the_first(home: Home) {
    let fixture = Fixture::new(home, &["--proc-queue-limit=1"]);
    let job = fixture.find(fixture.submit("demo", "count", json!({"to": 1})).await.id).await;
    let again = Job { id: JobId::mint(), ..job.clone() };
    let full = fixture.engine.submit(again.clone(), Roles::default(), None).await;
    assert!(matches!(full, Err(Error::QueueFull { .. })));
    fixture.engine.cancel(&fixture.mine(&job)).await.unwrap();
    let key = |byte| Some(Idempotency { key: "k".parse().unwrap(), request: [byte; 32] });
    let first = fixture.engine.submit(again.clone(), Roles::default(), key(1)).await.unwrap();
    let third = Job { id: JobId::mint(), ..again };
    let repeated = fixture.engine.submit(third.clone(), Roles::default(), key(1)).await.unwrap();
    assert_eq!(repeated.id, first.id);
    let other = fixture.engine.submit(third, Roles::default(), key(2)).await;
    assert!(matches!(other, Err(Error::IdempotencyConflict)));
}

async fn a_failure_says_when_to_come_back_and_a_snooze_is_none(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    for (input, attempt, hours) in [("snooze", 0, 1), ("busy", 1, 2)] {
        let before = Timestamp::now().after(Duration::from_hours(hours));
        let job = fixture.submit("test", "broken", json!(input)).await;
        fixture.event("job.retrying").await;
        let job = fixture.find(job.id).await;
        assert_eq!((job.state, job.attempt), (State::Queued, attempt));
        assert!(job.run_after >= before && job.run_after <= before.after(LONG));
    }
    fixture.stop().await;
}

async fn a_job_that_ended_long_ago_goes_with_its_log(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    let waiting = fixture.submit("test", "broken", json!("snooze")).await;
    fixture.event("job.retrying").await;
    let ended = fixture.submit("test", "broken", json!({})).await;
    fixture.event("job.failed").await;
    let Tools { store, blobs, .. } = &fixture.tools;
    let sweep =
        async |oldest| retention::sweep(store, blobs, retention::Kind::Any, oldest).await.unwrap();
    let others =
        retention::sweep(store, blobs, retention::Kind::Delivery, Timestamp::now().after(LONG))
            .await;
    assert_eq!(others.unwrap(), 0);
    assert_eq!(sweep(Timestamp::now().before(LONG)).await, 0);
    assert_eq!(sweep(Timestamp::now().after(LONG)).await, 1);
    let id = ended.id;
    let gone = store.read(move |reader| store::find(reader, id)).await;
    assert!(matches!(gone, Err(Error::NotFound)));
    let logs = fixture.content(&ended).read(|reader, job| logs::read(reader, job, 0, 10)).await;
    assert!(logs.map_err(|error: shared::store::Error| error).unwrap().is_empty());
    assert_eq!(fixture.find(waiting.id).await.state, State::Queued);
    // A process was killed between the deletion of the job and that of its files.
    for job in [ended.id, waiting.id] {
        let mut part = blobs.writer(&format!("{}/1/part", crate::artifacts::folder(job)));
        part.write("left".into()).await.unwrap();
        part.finish().await.unwrap();
    }
    retention::run(store, blobs, LONG, Timestamp::now()).await.unwrap();
    let file = async |job| blobs.file(&format!("{}/1/part", crate::artifacts::folder(job))).await;
    assert!(file(ended.id).await.is_err(), "no sweep finds it");
    let left = blobs.folders("artifacts").await.unwrap();
    assert_eq!(left, [waiting.id.to_string()], "an empty folder is looked at again and again");
    assert!(file(waiting.id).await.is_ok(), "the job is still there");
    fixture.stop().await;
}
