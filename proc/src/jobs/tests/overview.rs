//! Tests what operators see of the queue.

use super::{
    super::{Filter, list, store::overview},
    *,
};

on_both_stores!(
    what_was_given_up_is_told_from_what_failed_for_good,
    every_job_that_has_not_ended_is_counted_where_it_is,
);

impl Fixture {
    /// Submits a job and claims it, as nothing else is due.
    async fn claimed(&self) -> (Job, Claim) {
        let job = self.submit("test", "broken", json!({})).await;
        let (claimed, claim) = self.claim(LONG).await;
        assert_eq!(claimed.id, job.id);
        (claimed, claim)
    }

    async fn fail(&self, (job, claim): (Job, Claim), error: JobError, backoff: Duration) -> Job {
        self.apply(job.id, Command::Fail { claim, error, backoff }).await.unwrap()
    }

    async fn parked(&self, filter: Filter) -> Vec<JobId> {
        let filter = Filter { parked: true, ..filter };
        let parked = self.tools.store.read(move |reader| list(reader, &filter, 10)).await;
        let parked = parked.map_err(|error: shared::store::Error| error).unwrap();
        parked.into_iter().map(|job| job.id).collect()
    }
}

async fn what_was_given_up_is_told_from_what_failed_for_good(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let code = "say \"100%\" \\ _";
    let mut tried = fixture.claimed().await;
    for attempt in 1..=3 {
        let error = JobError::transient(code, "not now");
        let failed = fixture.fail(tried.clone(), error, Duration::ZERO).await;
        assert_eq!((failed.attempt, failed.state == State::Failed), (attempt, attempt == 3));
        if attempt < 3 {
            tried = fixture.claim(LONG).await;
        }
    }
    let mut lost = fixture.claimed().await;
    while fixture.apply(lost.0.id, Command::Lose { claim: lost.1 }).await.unwrap().state
        != State::Failed
    {
        lost = fixture.claim(LONG).await;
    }
    let hopeless = JobError::permanent(code, "never");
    fixture.fail(fixture.claimed().await, hopeless, Duration::ZERO).await;
    let (tried, lost) = (tried.0.id, lost.0.id);

    assert_eq!(fixture.parked(Filter::default()).await, [lost, tried]);
    let before = Filter { before: Some(lost), ..Filter::default() };
    assert_eq!(fixture.parked(before).await, [tried]);
    let of = |code: &str| Filter { code: Some(code.into()), ..Filter::default() };
    assert_eq!(fixture.parked(of("worker_lost")).await, [lost]);
    assert_eq!(fixture.parked(of(code)).await, [tried]);
    for other in ["", "say", "%", "say \"100_", "worker_lost\",\"message", "\0"] {
        assert!(fixture.parked(of(other)).await.is_empty(), "{other}");
    }
    let named = |operation: &str| Filter {
        bundle: Some("test".into()),
        operation: Some(operation.into()),
        ..Filter::default()
    };
    assert_eq!(fixture.parked(named("broken")).await.len(), 2);
    assert!(fixture.parked(named("whole")).await.is_empty());
    let count = fixture.tools.store.read(overview::parked).await;
    assert_eq!(count.map_err(|error: shared::store::Error| error).unwrap(), 2);
}

async fn every_job_that_has_not_ended_is_counted_where_it_is(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let later = || JobError::transient("later", "not now");
    fixture.fail(fixture.claimed().await, later(), LONG).await;
    let (snoozed, claim) = fixture.claimed().await;
    fixture.apply(snoozed.id, Command::Snooze { claim, wait: LONG, reason: None }).await.unwrap();
    let (handed_back, claim) = fixture.claimed().await;
    fixture.apply(handed_back.id, Command::HandBack { claim }).await.unwrap();
    let (running, _) = fixture.claim(LONG).await;
    assert_eq!(running.id, handed_back.id);
    fixture.fail(fixture.claimed().await, JobError::permanent("no", "never"), LONG).await;
    let (handed_back, claim) = fixture.claimed().await;
    fixture.apply(handed_back.id, Command::HandBack { claim }).await.unwrap();
    fixture.submit("test", "broken", json!({})).await;
    fixture.submit("demo", "count", json!({"to": 1})).await;

    let now = Timestamp::now();
    let depths = fixture.tools.store.read(move |reader| overview::depths(reader, now)).await;
    let depths = depths.map_err(|error: shared::store::Error| error).unwrap();
    let counts: Vec<_> = depths
        .iter()
        .map(|d| {
            let name = format!("{}.{}", d.bundle, d.operation);
            (name, d.queued, d.interrupted, d.running, d.due, d.retrying, d.snoozed)
        })
        .collect();
    let (count, broken) = ("demo.count".to_owned(), "test.broken".to_owned());
    assert_eq!(counts, [(count, 1, 0, 0, 1, 0, 0), (broken, 3, 1, 1, 2, 1, 1)]);
    assert_eq!(depths[1].oldest, Some(handed_back.run_after));

    let workers = fixture.tools.store.read(move |reader| overview::workers(reader, now)).await;
    let workers = workers.map_err(|error: shared::store::Error| error).unwrap();
    assert!(workers.iter().any(|worker| Some(worker.id) == running.worker));
    let held = fixture.tools.store.read(overview::running).await;
    assert_eq!(held.map_err(|error: shared::store::Error| error).unwrap(), [running]);
    let after = now.after(LONG * 2);
    let gone = fixture.tools.store.read(move |reader| overview::workers(reader, after)).await;
    assert!(gone.map_err(|error: shared::store::Error| error).unwrap().is_empty());
}

#[tokio::test]
async fn what_has_not_ended_is_found_without_going_through_what_has() {
    let fixture = Fixture::new(Home::Sqlite, &[]);
    let owner = "ada".parse().ok();
    let all = Filter { owner, unfinished: true, ..Filter::default() };
    let page = Filter { before: Some(JobId::mint()), ..all.clone() };
    for filter in [all, page] {
        let plan = fixture.tools.store.read(move |reader| {
            let (sql, params) = store::listing(&filter, None, 10);
            reader.query(&format!("EXPLAIN QUERY PLAN {sql}"), &params, |row| row.get(3))
        });
        let plan: Result<Vec<String>, shared::store::Error> = plan.await;
        let plan = plan.unwrap().join("\n");
        let uses = |index: &str| plan.contains(&format!("INDEX {index} (owner=?)"));
        assert!(uses("jobs_to_run") && uses("jobs_running"), "{plan}");
        assert!(!plan.contains("jobs_by_owner"), "{plan}");
    }
}

#[tokio::test]
async fn deliveries_that_wait_are_found_without_going_through_other_jobs() {
    let fixture = Fixture::new(Home::Sqlite, &[]);
    let plan = fixture.tools.store.read(move |reader| {
        let sql = claims::waiting_owners_sql(Kind::Deliveries);
        let params = [Timestamp::now().into(), 1_i64.into()];
        reader.query(&format!("EXPLAIN QUERY PLAN {sql}"), &params, |row| row.get(3))
    });
    let plan: Result<Vec<String>, shared::store::Error> = plan.await;
    let plan = plan.unwrap().join("\n");
    assert!(plan.contains("deliveries_to_run") && !plan.contains("jobs_to_run"), "{plan}");
}
