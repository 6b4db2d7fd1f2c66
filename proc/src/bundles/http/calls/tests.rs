//! Calls over both databases: how many there are, which belong to nobody, what came back.

use cluster::{on_both_stores, scratch::Home};
use serde_json::json;
use shared::{
    bus::Bus,
    store::{Store, Value},
};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;

on_both_stores!(
    as_many_run_as_may_and_a_call_ends_with_its_job,
    callbacks_are_kept_once_and_in_order_for_whoever_waits,
    a_call_that_was_accepted_outlives_its_worker_and_no_other_does,
    a_cancel_is_sent_by_one_replica_at_a_time_and_ever_less_often_for_a_day,
);

struct Scratch {
    store: Store,
    _folder: TempDir,
}

impl Scratch {
    async fn new(home: Home) -> Self {
        let (folder, bus) = (tempfile::tempdir().unwrap(), Bus::default());
        let store = match home.url() {
            Some(url) => Store::connect(&url, &bus, None).unwrap(),
            None => Store::open(folder.path(), &bus).unwrap(),
        };
        let scratch = Self { store, _folder: folder };
        let sql = "INSERT INTO http_bundles (name, revision, url, secret, manifest, updated_at) \
                   VALUES ('b', $1, 'https://example.org', '', '', 0)";
        scratch.execute(sql, Uuid::now_v7()).await;
        scratch
    }

    async fn execute(&self, sql: &'static str, id: Uuid) {
        let write = self.store.write(move |tx| tx.execute(sql, &[Value::Uuid(id)]));
        assert_eq!(write.await.unwrap(), 1, "{sql}");
    }

    /// Makes a running job and returns its attempt.
    async fn job(&self) -> Attempt {
        let job = JobId::mint();
        let sql = "INSERT INTO jobs (id, owner, project_id, bundle, operation, input, state, attempt, max_attempts, crashes, \
                   fence, worker, run_after, progress, trace_id, created_at, started_at) \
                   VALUES ($1, 'ada', $1, 'b', 'o', '{}', 'running', 1, 3, 0, 7, $1, 0, '{}', 't', 0, 5)";
        self.execute(sql, job.0).await;
        let (bundle, operation) = ("b".to_owned(), "o".to_owned());
        let started_at = Timestamp::from_ms(5);
        Attempt { job, bundle, operation, fence: 7, number: 1, started_at }
    }

    async fn begin(&self, attempt: &Attempt, most: u32) -> Begun {
        let attempt = attempt.clone();
        self.store.write(move |tx| begin(tx, &attempt, most)).await.unwrap()
    }

    async fn accept(&self, job: JobId) -> Vec<(i64, Line)> {
        let deadline = Timestamp::from_ms(9);
        self.store.write(move |tx| accept(tx, job, 7, deadline)).await.unwrap()
    }

    async fn deliver(&self, attempt: &Attempt, id: &'static str, line: &str) -> Delivered {
        let (job, fence, line) = (attempt.job, attempt.fence, line.to_owned());
        let line = move || serde_json::from_str(&line).unwrap();
        let retries = RetryPolicy { spread: std::time::Duration::ZERO };
        self.store.write(move |tx| deliver(tx, job, fence, id, line(), retries)).await.unwrap()
    }

    async fn dead(&self) -> Vec<Dead> {
        self.store.read(|reader| dead(reader, 10)).await.unwrap()
    }
}

async fn as_many_run_as_may_and_a_call_ends_with_its_job(home: Home) {
    let scratch = Scratch::new(home).await;
    let (one, two, three) = (scratch.job().await, scratch.job().await, scratch.job().await);
    assert_eq!(scratch.begin(&one, 2).await, Begun::Call);
    assert_eq!(scratch.begin(&two, 2).await, Begun::Call);
    assert_eq!(scratch.begin(&three, 2).await, Begun::Full);
    assert_eq!(scratch.begin(&three, 1_000).await, Begun::Call);
    // The attempt failed and is to be tried again.
    scratch.execute("UPDATE jobs SET state = 'queued', fence = 8 WHERE id = $1", one.job.0).await;
    scratch.execute("UPDATE jobs SET state = 'succeeded' WHERE id = $1", three.job.0).await;
    let four = scratch.job().await;
    assert_eq!(scratch.begin(&four, 2).await, Begun::Call);
    let mut dead = scratch.dead().await;
    dead.sort_by_key(|dead| dead.job);
    assert_eq!(dead.iter().map(|dead| dead.job).collect::<Vec<_>>(), [one.job, three.job]);
    assert!(dead.iter().all(|dead| !dead.is_at_work && dead.fence == 7 && dead.bundle == "b"));
    for dead in dead {
        scratch.store.write(move |tx| forget(tx, &dead)).await.unwrap();
    }
    assert!(scratch.dead().await.is_empty());
    let gone = Attempt { bundle: "none".into(), ..four };
    assert_eq!(scratch.begin(&gone, 1_000).await, Begun::Gone);
}

async fn callbacks_are_kept_once_and_in_order_for_whoever_waits(home: Home) {
    let scratch = Scratch::new(home).await;
    let job = scratch.job().await;
    let log = r#"{"log":"x"}"#;
    assert_eq!(scratch.deliver(&job, "early", log).await, Delivered::TooLate);
    scratch.begin(&job, 1_000).await;
    // Before the bundle has even said that it accepts.
    assert_eq!(scratch.deliver(&job, "1", log).await, Delivered::Yes);
    assert_eq!(scratch.deliver(&job, "1", log).await, Delivered::Yes);
    let stale = Attempt { fence: 6, ..job.clone() };
    assert_eq!(scratch.deliver(&stale, "2", log).await, Delivered::TooLate);
    let (id, fence) = (job.job, job.fence);
    assert_eq!(scratch.accept(id).await.len(), 1, "the line that came before it");
    assert_eq!(scratch.deliver(&job, "2", r#"{"result":1}"#).await, Delivered::Yes);
    assert_eq!(scratch.deliver(&job, "2", r#"{"result":1}"#).await, Delivered::Yes);
    assert_eq!(scratch.deliver(&job, "3", r#"{"result":2}"#).await, Delivered::TooLate);
    let read = async || scratch.store.read(move |reader| read(reader, id, fence)).await.unwrap();
    let lines: Vec<_> = read().await.into_iter().map(|(_, line)| json!(line)).collect();
    assert_eq!(lines, [json!({"log": "x"}), json!({"result": 1})]);
    scratch.store.write(move |tx| clear(tx, id, fence, 1)).await.unwrap();
    assert_eq!(read().await.len(), 1);
    // What was read may still come again.
    let other = scratch.job().await;
    scratch.begin(&other, 1_000).await;
    let (id, fence) = (other.job, other.fence);
    for _ in 0..2 {
        assert_eq!(scratch.deliver(&other, "1", log).await, Delivered::Yes);
        scratch.store.write(move |tx| clear(tx, id, fence, 1)).await.unwrap();
        let read = scratch.store.read(move |reader| super::read(reader, id, fence)).await.unwrap();
        assert!(read.is_empty());
    }
    assert_eq!(scratch.deliver(&other, "2", log).await, Delivered::Yes);
    let read = scratch.store.read(move |reader| super::read(reader, id, fence)).await.unwrap();
    assert_eq!(read.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2]);
}

async fn a_call_that_was_accepted_outlives_its_worker_and_no_other_does(home: Home) {
    let scratch = Scratch::new(home).await;
    let (accepted, open) = (scratch.job().await, scratch.job().await);
    for job in [&accepted, &open] {
        scratch.begin(job, 1_000).await;
    }
    let id = accepted.job;
    assert!(scratch.accept(id).await.is_empty());
    let lost = "UPDATE jobs SET state = 'interrupted', fence = 8 WHERE id = $1";
    for job in [&accepted, &open] {
        scratch.execute(lost, job.job.0).await;
    }
    assert_eq!(scratch.dead().await.iter().map(|dead| dead.job).collect::<Vec<_>>(), [open.job]);
    // The bundle goes on meanwhile, and the next worker goes on with it.
    assert_eq!(scratch.deliver(&accepted, "1", r#"{"log":"x"}"#).await, Delivered::Yes);
    assert_eq!(scratch.deliver(&open, "1", r#"{"log":"x"}"#).await, Delivered::TooLate);
    scratch.execute("UPDATE jobs SET state = 'running', fence = 9 WHERE id = $1", id.0).await;
    let next = Attempt { fence: 9, ..accepted.clone() };
    assert!(matches!(scratch.begin(&next, 1).await, Begun::Accepted { fence: 7, .. }));
    // Another attempt calls anew, and so does a job that somebody has started over.
    let attempt = Attempt { number: 2, ..next.clone() };
    assert_eq!(scratch.begin(&attempt, 1_000).await, Begun::Call);
    let again = Attempt { started_at: Timestamp::from_ms(6), fence: 10, ..next };
    assert_eq!(scratch.begin(&again, 1_000).await, Begun::Call);
    scratch.execute("UPDATE jobs SET state = 'cancelled' WHERE id = $1", id.0).await;
    let dead = scratch.dead().await;
    assert!(dead.iter().any(|dead| dead.job == id && dead.fence == 7 && dead.is_at_work));
}

async fn a_cancel_is_sent_by_one_replica_at_a_time_and_ever_less_often_for_a_day(home: Home) {
    let scratch = Scratch::new(home).await;
    let job = scratch.job().await;
    scratch.begin(&job, 1_000).await;
    let id = job.job;
    assert!(scratch.accept(id).await.is_empty());
    scratch.execute("UPDATE jobs SET state = 'cancelled' WHERE id = $1", id.0).await;
    let begin = async |dead: &Dead| {
        let dead = dead.clone();
        scratch.store.write(move |tx| begin_cancel(tx, &dead)).await.unwrap()
    };
    for number in 0..12 {
        let dead = scratch.dead().await.pop().expect("the bundle has not heard");
        assert_eq!(dead.cancels, number);
        assert!(!dead.is_given_up(scratch.store.now()), "given up after {number}");
        assert!(dead.interval() <= MAX_CANCEL_INTERVAL, "{:?}", dead.interval());
        assert!(begin(&dead).await, "nobody tells the bundle");
        assert!(!begin(&dead).await, "two replicas tell the bundle");
        assert!(scratch.dead().await.is_empty(), "told again at once, after {number}");
        // Its time has come.
        scratch.execute("UPDATE http_calls SET next_cancel_at = 0 WHERE job_id = $1", id.0).await;
    }
    let dead = scratch.dead().await.pop().expect("the bundle has not heard");
    let now = scratch.store.now();
    assert!(!dead.is_given_up(now.after(CANCEL_FOR / 2)), "given up after half a day");
    assert!(dead.is_given_up(now.after(CANCEL_FOR)), "never given up");
}
