//! Tests the machine by rule and by chance.

use proptest::prelude::*;
use serde_json::json;
use shared::ids::{JobId, ProjectId, TraceId};

use super::*;

const WORKER: Uuid = Uuid::from_u128(1);

pub(crate) fn fresh() -> Job {
    let now = Timestamp::from_ms(1_000);
    Job {
        id: JobId::mint(),
        owner: "ada".parse().unwrap(),
        project_id: ProjectId::mint(),
        bundle: "demo".into(),
        operation: "count".into(),
        input: json!({}).into(),
        state: State::Queued,
        attempt: 0,
        max_attempts: 3,
        crashes: 0,
        fence: 0,
        worker: None,
        run_after: now,
        priority: 0,
        share: None,
        unique_key: None,
        progress: Progress::default(),
        checkpoint: None,
        result: None,
        error: None,
        trace_id: TraceId::mint(),
        created_at: now,
        started_at: None,
        finished_at: None,
    }
}

fn now() -> Timestamp {
    Timestamp::from_ms(2_000)
}

fn claimed() -> (Job, Claim) {
    let command = Command::Claim { worker: WORKER };
    let (job, event) = transition(fresh(), command, now()).unwrap();
    assert_eq!(event, Some(Event::Started));
    let claim = Claim { worker: WORKER, fence: job.fence };
    (job, claim)
}

#[test]
fn a_late_success_cannot_overwrite_a_cancel() {
    let (job, claim) = claimed();
    let (job, event) = transition(job, Command::Cancel, now()).unwrap();
    assert_eq!((job.state, event), (State::Cancelled, Some(Event::Cancelled)));
    let late = transition(job, Command::Succeed { claim, result: json!(1).into() }, now());
    assert_eq!(late.unwrap_err(), Refused::Stale);
}

#[test]
fn a_drain_counts_no_attempt_and_keeps_the_checkpoint() {
    let (job, claim) = claimed();
    let checkpoint = Some(json!(7));
    let advance = Command::Advance { claim, progress: Progress::default(), checkpoint };
    let (job, _) = transition(job, advance, now()).unwrap();
    let (job, _) = transition(job, Command::HandBack { claim }, now()).unwrap();
    assert_eq!((job.state, job.attempt, job.crashes), (State::Interrupted, 1, 0));
    let again = Command::Claim { worker: Uuid::from_u128(2) };
    let (job, _) = transition(job, again, now()).unwrap();
    assert_eq!((job.attempt, job.checkpoint), (1, Some(json!(7))));
}

#[test]
fn a_job_that_kills_workers_is_given_up() {
    let (mut job, _) = claimed();
    let lose = |job: &Job| Command::Lose { claim: Claim { worker: WORKER, fence: job.fence } };
    for crash in 1..=MAX_CRASHES {
        let lost = lose(&job);
        (job, _) = transition(job, lost, now()).unwrap();
        assert_eq!((job.state, job.crashes), (State::Interrupted, crash));
        let again = Command::Claim { worker: WORKER };
        (job, _) = transition(job, again, now()).unwrap();
    }
    let lost = lose(&job);
    (job, _) = transition(job, lost, now()).unwrap();
    assert_eq!(job.state, State::Failed);
    assert_eq!(job.error.unwrap().code, "worker_lost");
}

#[test]
fn a_retryable_error_waits_and_the_last_attempt_fails() {
    let (mut job, mut claim) = claimed();
    for attempt in 1..=3 {
        assert_eq!(job.attempt, attempt);
        let error = JobError::transient("unavailable", "later");
        let fail = Command::Fail { claim, error, backoff: Duration::from_secs(2) };
        let event;
        (job, event) = transition(job, fail, now()).unwrap();
        if attempt == 3 {
            assert_eq!((job.state, event), (State::Failed, Some(Event::Failed)));
            break;
        }
        assert_eq!((job.state, event), (State::Queued, Some(Event::Retrying)));
        let early = Command::Claim { worker: WORKER };
        assert!(transition(job.clone(), early.clone(), now()).is_err());
        (job, _) = transition(job, early, now().after(Duration::from_secs(2))).unwrap();
        claim.fence = job.fence;
    }
}

#[test]
fn a_snooze_waits_and_counts_no_attempt() {
    let (job, claim) = claimed();
    let wait = Duration::from_secs(5);
    let (job, event) = transition(job, Command::Snooze { claim, wait }, now()).unwrap();
    assert_eq!((job.state, job.attempt, event), (State::Queued, 0, Some(Event::Retrying)));
    assert_eq!(job.run_after, now().after(wait));
}

#[test]
fn what_has_waited_goes_before_a_higher_priority() {
    let urgent = |minutes| Job {
        priority: 5,
        run_after: now().after(Duration::from_mins(minutes)),
        ..fresh()
    };
    let patient = Job { run_after: now(), ..fresh() };
    assert!(urgent(4).rank() < patient.rank());
    assert!(urgent(6).rank() > patient.rank());
}

#[test]
fn backoff_grows_and_is_bounded() {
    assert_eq!(backoff(1, 0.5), Duration::from_secs(2));
    assert_eq!(backoff(2, 0.5), Duration::from_secs(4));
    assert!(backoff(i64::MAX, 1.0) <= Duration::from_secs(90));
}

fn commands() -> impl Strategy<Value = Command> {
    let claim = (1..3_u128, 0..12_i64)
        .prop_map(|(worker, fence)| Claim { worker: Uuid::from_u128(worker), fence });
    let fail = (claim.clone(), any::<bool>()).prop_map(|(claim, retryable)| Command::Fail {
        claim,
        error: JobError { retryable, ..JobError::permanent("x", "x") },
        backoff: Duration::ZERO,
    });
    let advance = (claim.clone(), 0..3).prop_map(|(claim, at)| Command::Advance {
        claim,
        progress: Progress::default(),
        checkpoint: (at > 0).then(|| json!(at)),
    });
    let take = (1..3_u128).prop_map(|worker| Command::Claim { worker: Uuid::from_u128(worker) });
    prop_oneof![
        4 => take,
        2 => advance,
        1 => claim.clone().prop_map(|claim| Command::Announce { claim }),
        2 => claim.clone().prop_map(|claim| Command::Succeed { claim, result: json!(1).into() }),
        2 => fail,
        2 => claim.clone().prop_map(|claim| Command::HandBack { claim }),
        1 => claim.clone().prop_map(|claim| Command::Snooze { claim, wait: Duration::ZERO }),
        2 => claim.prop_map(|claim| Command::Lose { claim }),
        1 => Just(Command::Cancel),
        1 => Just(Command::Retry),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_life_keeps_the_rules(commands in prop::collection::vec(commands(), 0..40)) {
        let mut job = fresh();
        for command in commands {
            let before = job.clone();
            let owned = command.claim().is_none_or(|claim| {
                before.state == State::Running
                    && before.fence == claim.fence
                    && before.worker == Some(claim.worker)
            });
            let Ok((after, event)) = transition(job.clone(), command.clone(), now()) else { continue };
            prop_assert!(owned, "a stale claim was taken: {command:?}");
            prop_assert!(after.fence >= before.fence);
            prop_assert!(after.worker == before.worker || after.fence > before.fence);
            prop_assert!(after.state == before.state || event.is_some());
            if before.state.is_terminal() {
                prop_assert!(matches!(command, Command::Retry));
                prop_assert!(before.state != State::Succeeded);
            }
            prop_assert!((0..=after.max_attempts).contains(&after.attempt));
            prop_assert!(after.crashes <= MAX_CRASHES + 1);
            prop_assert_eq!(after.worker.is_some(), after.state == State::Running);
            prop_assert_eq!(after.finished_at.is_some(), after.state.is_terminal());
            prop_assert_eq!(after.result.is_some(), after.state == State::Succeeded);
            job = after;
        }
    }
}
