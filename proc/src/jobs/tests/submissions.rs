//! Tests of jobs that are submitted together, and of jobs that begin as they are made.

use super::{store::submissions::*, *};

on_both_stores!(
    jobs_are_made_together_or_not_at_all,
    the_same_twice_in_a_submission_is_one_job,
    asked_again_it_is_the_jobs_that_it_made_whatever_there_was_before,
    a_batch_whose_first_job_was_deleted_is_the_jobs_that_are_left,
    where_nobody_waits_they_begin_as_they_are_made,
    nobody_is_overtaken,
    of_new_jobs_that_share_only_so_many_begin,
    what_began_goes_on_although_its_caller_has_gone,
    what_began_unknowingly_is_handed_back,
);

fn new(owner: &str, operation: &str, input: Value) -> Job {
    let bundle = if operation == "count" { "demo" } else { "test" };
    let (owner, trace) = (owner.parse().unwrap(), TraceId::mint());
    let (bundle, operation, project_id) = (bundle.into(), operation.into(), ProjectId::mint());
    NewJob { owner, project_id, bundle, operation, input, trace }.into()
}

fn counts(owner: &str, number: usize) -> Vec<Job> {
    (0..number).map(|_| new(owner, "count", json!({"to": 0}))).collect()
}

fn ids(jobs: &[Arc<Job>]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

impl Fixture {
    async fn submit_all(&self, jobs: Vec<Job>) -> Result<Vec<Arc<Job>>, Error> {
        self.engine.submit_all(jobs, Roles::default(), None).await
    }

    /// Submits for a worker with so many places, and others for those who wait, and returns which of the jobs begin.
    async fn begin(
        &self,
        worker: Uuid,
        (free, spare): (usize, usize),
        jobs: Vec<Job>,
    ) -> Vec<bool> {
        let limit = self.engine.limit(Roles::default());
        let log = Topic::user(&jobs[0].owner);
        let submitted = self.tools.store.write_in(log, move |tx| {
            submit_all(tx, &jobs, None, &limit, Some(Places { worker, free, spare }))
        });
        submitted.await.unwrap().iter().map(|submitted| submitted.begins).collect()
    }

    /// Waits until the engine has run a job and has so many places free again.
    async fn is_at_work(&mut self, places: usize) {
        self.submit("demo", "count", json!({"to": 0})).await;
        self.event("job.succeeded").await;
        // The end is told before its place is free.
        let lane = self.engine.lane("demo");
        while lane.room().open < places || !lane.is_idle(&"ada".parse().unwrap()) {
            tokio::task::yield_now().await;
        }
    }
}

async fn jobs_are_made_together_or_not_at_all(home: Home) {
    let fixture = Fixture::new(home, &["--proc-queue-limit=4"]);
    let key = |byte| Some(Idempotency { key: "k".parse().unwrap(), request: [byte; 32] });
    let submit = async |jobs, key| fixture.engine.submit_all(jobs, Roles::default(), key).await;
    let first = submit(counts("ada", 3), key(1)).await.unwrap();
    assert!(first.iter().all(|job| job.state == State::Queued));
    let full = submit(counts("ada", 2), key(2)).await;
    assert!(matches!(full, Err(Error::IdempotencyConflict)), "{full:?}");
    let full = fixture.submit_all(counts("ada", 2)).await;
    assert!(matches!(full, Err(Error::QueueFull { .. })), "{full:?}");
    let waiting = fixture.claim_some(LONG, 10).await;
    assert_eq!(waiting.iter().map(|(job, _)| job.id).collect::<Vec<_>>(), ids(&first));
    // They were made, and are the same ones whatever has become of them.
    let again = submit(counts("ada", 3), key(1)).await.unwrap();
    assert_eq!(ids(&again), ids(&first));
    assert_eq!(fixture.submit_all(counts("ada", 4)).await.unwrap().len(), 4);
    assert!(fixture.submit_all(Vec::new()).await.unwrap().is_empty());
}

async fn the_same_twice_in_a_submission_is_one_job(home: Home) {
    let fixture = Fixture::new(home, &["--proc-queue-limit=3"]);
    let only = |key: &str| new("ada", "broken", json!({"only": key}));
    let before = fixture.submit_all(vec![only("a")]).await.unwrap();
    // Two of them are new, for which there is room.
    let jobs = fixture.submit_all(vec![only("b"), only("a"), only("b"), only("c")]).await.unwrap();
    assert_eq!(jobs[1].id, before[0].id);
    assert_eq!(jobs[2].id, jobs[0].id);
    assert_eq!(fixture.claim_some(LONG, 10).await.len(), 3);
}

async fn asked_again_it_is_the_jobs_that_it_made_whatever_there_was_before(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let only = |key: &str| new("ada", "broken", json!({"only": key}));
    let before = fixture.submit_all(vec![only("a")]).await.unwrap();
    let key = || Some(Idempotency { key: "k".parse().unwrap(), request: [1; 32] });
    let submit = async || {
        let jobs = vec![only("a"), only("b")];
        fixture.engine.submit_all(jobs, Roles::default(), key()).await.unwrap()
    };
    let first = submit().await;
    assert_eq!(first[0].id, before[0].id);
    for job in &first {
        fixture.apply(job.id, Command::Cancel).await.unwrap();
    }
    assert_eq!(ids(&submit().await), ids(&first[1..]));
}

async fn a_batch_whose_first_job_was_deleted_is_the_jobs_that_are_left(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let submit = async |number, key: &str| {
        let key = Some(Idempotency { key: key.parse().unwrap(), request: [1; 32] });
        fixture.engine.submit_all(counts("ada", number), Roles::default(), key).await
    };
    let first = submit(5, "k").await.unwrap();
    for deleted in 1..=4 {
        let id = first[deleted - 1].id;
        let delete = fixture
            .tools
            .store
            .write(move |tx| tx.execute("DELETE FROM jobs WHERE id = $1", &[id.into()]));
        let deleted_rows: Result<usize, shared::store::Error> = delete.await;
        assert_eq!(deleted_rows.unwrap(), 1);
        let again = submit(5, "k").await.unwrap();
        assert_eq!(ids(&again), ids(&first[deleted..]), "{deleted} were deleted");
    }
    // A key that begins like it is another one.
    assert_eq!(submit(3, "k2").await.unwrap().len(), 3);
}

async fn where_nobody_waits_they_begin_as_they_are_made(home: Home) {
    let mut fixture = Fixture::new(home, &["--proc-workers=2"]);
    fixture.start();
    fixture.is_at_work(2).await;
    let slow = || new("ada", "count", json!({"to": 300, "delay_ms": 1000}));
    let jobs = fixture.submit_all(vec![slow(), slow(), slow()]).await.unwrap();
    let states: Vec<State> = jobs.iter().map(|job| job.state).collect();
    assert_eq!(states, [State::Running, State::Running, State::Queued]);
    let queued = fixture.event("job.queued").await;
    assert_eq!((&queued["id"], &queued["state"]), (&json!(jobs[0].id), &json!("queued")));
    let started = fixture.event("job.started").await;
    assert_eq!((&started["id"], &started["attempt"]), (&json!(jobs[0].id), &json!(1)));
    fixture.stop().await;
    for job in &jobs[..2] {
        let job = fixture.find(job.id).await;
        assert_eq!((job.state, job.attempt), (State::Interrupted, 1));
    }
}

async fn nobody_is_overtaken(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let worker = Uuid::now_v7();
    assert_eq!(fixture.begin(worker, (0, 0), counts("grace", 1)).await, [false]);
    assert_eq!(fixture.begin(worker, (3, 0), counts("ada", 1)).await, [false]);
    // There are enough for both.
    assert_eq!(fixture.begin(worker, (3, 2), counts("ada", 1)).await, [true]);
    assert_eq!(fixture.begin(worker, (3, 1), counts("ada", 1)).await, [false]);
    let claimed = fixture.claim_some(LONG, 3).await;
    assert_eq!(claimed.len(), 3);
    assert_eq!(fixture.begin(worker, (1, 0), counts("ada", 2)).await, [true, false]);
    let (waiting, claim) = fixture.claim(LONG).await;
    let wait = Duration::from_hours(1);
    fixture.apply(waiting.id, Command::Snooze { claim, wait, reason: None }).await.unwrap();
    // One that cannot begin yet is not overtaken.
    assert_eq!(fixture.begin(worker, (1, 0), counts("ada", 1)).await, [true]);
}

async fn of_new_jobs_that_share_only_so_many_begin(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let share = || {
        let mut job = new("ada", "broken", json!("share"));
        job.share = Some(Share { name: "test.broken".into(), limit: 2 });
        job
    };
    let begun = fixture.begin(Uuid::now_v7(), (9, 0), vec![share(), share(), share()]).await;
    assert_eq!(begun, [true, true, false]);
    assert!(fixture.claim_some(LONG, 10).await.is_empty());
}

async fn what_began_goes_on_although_its_caller_has_gone(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    fixture.start();
    fixture.is_at_work(2).await;
    let jobs = counts("ada", 2);
    let all = jobs.iter().map(|job| job.id).collect::<Vec<_>>();
    tokio::select! {
        biased;
        _ = fixture.submit_all(jobs) => panic!("it waits for the database"),
        () = tokio::task::yield_now() => {}
    }
    for _ in &all {
        let ended = fixture.event("job.succeeded").await;
        assert!(all.iter().any(|id| json!(id) == ended["id"]));
    }
    fixture.stop().await;
}

async fn what_began_unknowingly_is_handed_back(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    // As if the answer to the submission had been lost.
    let begun = fixture.begin(fixture.engine.worker(), (1, 0), counts("ada", 1)).await;
    assert_eq!(begun, [true]);
    fixture.engine.hand_back_unknown().await.unwrap();
    let job = fixture.event("job.interrupted").await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("interrupted"), &json!(1)));
}
