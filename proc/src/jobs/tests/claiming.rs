//! Tests who gets which job, and what becomes of the jobs of a worker that is gone.

use super::*;

on_both_stores!(
    an_owner_with_nothing_running_goes_first,
    a_cancel_elsewhere_frees_the_worker_at_once,
    of_jobs_that_share_only_so_many_run,
    a_job_of_a_higher_priority_goes_first,
    jobs_that_were_claimed_unknowingly_are_handed_back,
    jobs_of_a_worker_that_is_not_heard_of_go_on_elsewhere,
    a_late_worker_can_change_nothing,
    many_jobs_of_many_owners_end_once_each_in_dense_logs,
);

async fn an_owner_with_nothing_running_goes_first(home: Home) {
    let fixture = Fixture::new(home, &[]);
    for _ in 0..2 {
        fixture.submit("demo", "count", json!({"to": 1})).await;
    }
    fixture.submit_as("grace", "demo", "count", json!({"to": 1})).await;
    let mut owners = Vec::new();
    for _ in 0..3 {
        owners.push(fixture.claim(LONG).await.0.owner.to_string());
    }
    assert_eq!(owners, ["ada", "grace", "ada"]);
}

async fn a_cancel_elsewhere_frees_the_worker_at_once(home: Home) {
    let mut fixture = Fixture::new(home, &["--proc-workers=1"]);
    fixture.start();
    let job = fixture.submit("demo", "count", json!({"to": 300, "delay_ms": 1000})).await;
    fixture.event("job.started").await;
    let next = fixture.submit("demo", "count", json!({"to": 1})).await;
    // Another replica, which runs nothing.
    let elsewhere = Engine::new(fixture.tools.clone(), &fixture.settings);
    elsewhere.cancel(&fixture.mine(&job)).await.unwrap();
    let next = fixture.engine.wait(next.id, &next.owner, Duration::from_millis(900)).await.unwrap();
    assert_eq!(next.state, State::Succeeded);
    fixture.stop().await;
}

async fn of_jobs_that_share_only_so_many_run(home: Home) {
    let fixture = Fixture::new(home, &[]);
    for owner in ["ada", "grace", "ada", "grace"] {
        fixture.submit_as(owner, "test", "broken", json!("share")).await;
    }
    let claimed = fixture.claim_some(LONG, 10).await;
    assert_eq!(claimed.len(), 2);
    assert!(fixture.claim_some(LONG, 10).await.is_empty());
    // However one ends, another may run.
    let (job, _) = &claimed[0];
    fixture.apply(job.id, Command::Cancel).await.unwrap();
    assert_eq!(fixture.claim_some(LONG, 10).await.len(), 1);
    let (job, claim) = &claimed[1];
    fixture.apply(job.id, Command::HandBack { claim: *claim }).await.unwrap();
    assert_eq!(fixture.claim_some(LONG, 10).await.len(), 1);
    // One that shares nothing does not wait for those that do.
    fixture.submit("demo", "count", json!({"to": 1})).await;
    assert_eq!(fixture.claim_some(LONG, 10).await.len(), 1);
}

async fn jobs_that_were_claimed_unknowingly_are_handed_back(home: Home) {
    let mut fixture = Fixture::new(home, &[]);
    let job = fixture.submit("demo", "count", json!({"to": 1})).await;
    // As if the answer to its claim had been lost.
    let places = fixture.engine.lane("demo").take(&job.owner, 1);
    let claimed = fixture.engine.claim(vec![(places, job.owner.clone())], Kind::Jobs).await;
    let claimed = claimed.into_iter().next().unwrap().1.unwrap();
    assert_eq!(claimed[0].id, job.id);
    fixture.engine.hand_back_unknown().await.unwrap();
    fixture.event("job.interrupted").await;
    fixture.start();
    let job = fixture.engine.wait(job.id, &job.owner, LONG).await.unwrap();
    assert_eq!((job.state, job.attempt), (State::Succeeded, 1));
    fixture.stop().await;
}

async fn a_job_of_a_higher_priority_goes_first(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let usual = fixture.submit("demo", "count", json!({"to": 1})).await;
    let urgent = fixture.submit("test", "broken", json!({})).await;
    assert_eq!(fixture.claim(LONG).await.0.id, urgent.id);
    assert_eq!(fixture.claim(LONG).await.0.id, usual.id);
}

async fn jobs_of_a_worker_that_is_not_heard_of_go_on_elsewhere(home: Home) {
    let fixture = Fixture::new(home, &["--proc-lease=300ms"]);
    let job = fixture.submit("demo", "count", json!({"to": 1})).await;
    let (_, frozen) = fixture.claim(Duration::from_millis(50)).await;
    fixture.start();
    let job = fixture.engine.wait(job.id, &job.owner, LONG).await.unwrap();
    assert_eq!((job.state, job.attempt, job.crashes), (State::Succeeded, 1, 0));
    let late = fixture.apply(job.id, Command::Announce { claim: frozen }).await;
    assert!(matches!(late, Err(Error::Refused(Refused::Stale))));
    fixture.stop().await;
}

async fn a_late_worker_can_change_nothing(home: Home) {
    let fixture = Fixture::new(home, &[]);
    let job = fixture.submit("demo", "count", json!({"to": 1})).await;
    let (_, late) = fixture.claim(Duration::ZERO).await;
    let now = Timestamp::now().after(Duration::from_secs(1));
    assert_eq!(fixture.engine.reap(now).await.unwrap(), 1);
    let (current, _) = fixture.claim(LONG).await;
    let result = json!("late");
    let refused =
        fixture.apply(job.id, Command::Succeed { claim: late, result: result.into() }).await;
    assert!(matches!(refused, Err(Error::Refused(Refused::Stale))));
    assert_eq!(fixture.find(job.id).await, current);
}

async fn many_jobs_of_many_owners_end_once_each_in_dense_logs(home: Home) {
    const OWNERS: [&str; 4] = ["ada", "grace", "linus", "margaret"];
    let fixture = Fixture::new(home, &["--proc-workers=16"]);
    fixture.start();
    let jobs = (0..160)
        .map(|n| fixture.submit_as(OWNERS[n % OWNERS.len()], "demo", "count", json!({"to": 1})));
    let jobs = futures_util::future::join_all(jobs).await;
    for job in &jobs {
        let job = fixture.engine.wait(job.id, &job.owner, LONG).await.unwrap();
        assert_eq!((job.state, job.attempt), (State::Succeeded, 1));
    }
    fixture.stop().await;
    let mut everybodys = 0;
    let logs = OWNERS.map(|owner| Topic::user(&owner.parse().unwrap()));
    for log in logs.into_iter().chain([Topic::jobs()]) {
        let read = fixture.tools.store.read(move |reader| reader.entries(&log, 0, 10_000)).await;
        let entries = read.map_err(|error: shared::store::Error| error).unwrap();
        let seqs: Vec<i64> = entries.iter().map(|entry| entry.position.seq).collect();
        assert_eq!(seqs, (1..).take(seqs.len()).collect::<Vec<_>>());
        let ended = entries.iter().filter(|entry| &*entry.kind == "job.succeeded").count();
        everybodys = ended;
        assert!(ended == 40 || ended == 160, "{ended}");
    }
    assert_eq!(everybodys, 160);
}
