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
        snoozed: Duration::ZERO,
        snoozed_at: None,
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
    let claim = Claim { worker: Some(WORKER), fence: job.fence };
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
    let lose =
        |job: &Job| Command::Lose { claim: Claim { worker: Some(WORKER), fence: job.fence } };
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
    let snooze = Command::Snooze { claim, wait, reason: None };
    let (job, event) = transition(job, snooze, now()).unwrap();
    assert_eq!((job.state, job.attempt, event), (State::Queued, 0, Some(Event::Retrying)));
    assert_eq!((job.run_after, job.error), (now().after(wait), None));
}

/// Puts a job back for a bundle that is away, and claims it again when its time has come.
fn snooze(job: Job, claim: Claim, wait: Duration, at: Timestamp) -> (Job, Option<Event>) {
    let reason = Some(JobError::transient("bundle_unreachable", "it is away"));
    transition(job, Command::Snooze { claim, wait, reason }, at).unwrap()
}

#[test]
fn a_job_waits_for_its_bundle_for_a_day_in_all_and_shows_why() {
    let (mut job, mut claim) = claimed();
    let (mut at, mut waits) = (now(), 0);
    loop {
        let wait = snooze_backoff(job.snoozed, 1.0);
        let (snoozed, event) = snooze(job, claim, wait, at);
        assert_eq!(snoozed.attempt, 0, "a wait counted as an attempt");
        assert_eq!(snoozed.error.as_ref().map(|error| &*error.code), Some("bundle_unreachable"));
        if snoozed.state == State::Failed {
            assert_eq!(event, Some(Event::Failed));
            assert!(snoozed.error.is_some_and(|error| error.message.contains("24 hours")));
            break;
        }
        // Its owner is told once.
        let expected = (waits == 0).then_some(Event::Retrying);
        assert_eq!((snoozed.state, event), (State::Queued, expected));
        assert_eq!(snoozed.run_after, at.after(wait));
        (at, waits) = (at.after(wait), waits + 1);
        (job, _) = transition(snoozed, Command::Claim { worker: WORKER }, at).unwrap();
        claim.fence = job.fence;
    }
    let waited = at.since(now());
    assert_eq!(waited, MAX_SNOOZE);
    assert!((1_000..2_000).contains(&waits), "{waits} waits of at most a minute and a quarter");
}

/// Applies a command and returns what the job's owner is told, in order.
fn told(job: &Job, command: Command, at: Timestamp) -> (Job, Vec<Event>) {
    let (after, event) = transition(job.clone(), command, at).unwrap();
    let start = tells_start(job, &after, event).then_some(Event::Started);
    (after, start.into_iter().chain(event).collect())
}

/// Returns a job that waits for its bundle and was claimed once more.
fn claimed_again() -> (Job, Claim, Timestamp) {
    let (job, claim) = claimed();
    let (job, _) = snooze(job, claim, Duration::from_secs(1), now());
    let at = job.run_after;
    let (job, events) = told(&job, Command::Claim { worker: WORKER }, at);
    assert!(events.is_empty(), "the bundle may still be away: {events:?}");
    let claim = Claim { fence: job.fence, ..claim };
    (job, claim, at)
}

#[test]
fn a_job_that_waited_tells_its_start_before_anything_else() {
    use Event::{Cancelled, Failed, Interrupted, Retrying, Started, Succeeded};
    let (job, claim, at) = claimed_again();
    let wait = Duration::from_secs(1);
    let reason = |code| Some(JobError::transient(code, "some words"));
    let announce = Command::Announce { claim };
    let advance = Command::Advance { claim, progress: Progress::default(), checkpoint: None };
    let error = JobError::permanent("broken", "it broke");
    let fail = Command::Fail { claim, error: error.clone(), backoff: wait };
    let same = Command::Snooze { claim, wait, reason: reason("bundle_unreachable") };
    let other = Command::Snooze { claim, wait, reason: reason("bundle_busy") };
    for (command, expected) in [
        (announce.clone(), &[][..]),
        (Command::Begin { claim }, &[Started]),
        (advance, &[Started]),
        (Command::Accept { claim }, &[Started]),
        (Command::Succeed { claim, result: json!(1).into() }, &[Started, Succeeded]),
        (fail, &[Started, Failed]),
        (same, &[]),
        (Command::Snooze { claim, wait, reason: None }, &[]),
        (other, &[Started, Retrying]),
        (Command::HandBack { claim }, &[Started, Interrupted]),
        (Command::Lose { claim }, &[Started, Interrupted]),
        (Command::Abandon { error }, &[Started, Failed]),
        (Command::Cancel, &[Cancelled]),
    ] {
        let name = format!("{command:?}");
        let (after, events) = told(&job, command, at);
        assert_eq!(events, expected, "{name}");
        let waits = after.snoozed_at.is_some();
        assert_eq!(
            waits,
            !after.state.is_terminal() && (events.is_empty() || events.ends_with(&[Retrying])),
            "{name}"
        );
    }
    let (job, events) = told(&job, announce.clone(), at.after(QUIET_ATTEMPT));
    assert_eq!(events, [Started, Event::Progress], "it takes longer than a connection");
    assert_eq!(told(&job, announce, at.after(QUIET_ATTEMPT)).1, [Event::Progress]);
}

#[test]
fn a_bundle_that_asks_for_more_than_is_left_of_a_day_fails_the_job_at_once() {
    let hours = Duration::from_hours;
    let (job, claim) = claimed();
    let (failed, _) = snooze(job.clone(), claim, hours(25), now());
    assert_eq!((failed.state, failed.attempt), (State::Failed, 0));
    let (snoozed, _) = snooze(job, claim, hours(20), now());
    // The job was picked up late, which was a wait too.
    let at = now().after(hours(21));
    let (job, _) = transition(snoozed, Command::Claim { worker: WORKER }, at).unwrap();
    let claim = Claim { fence: job.fence, ..claim };
    let (failed, _) = snooze(job.clone(), claim, hours(4), at);
    assert_eq!(failed.state, State::Failed);
    let (snoozed, _) = snooze(job, claim, hours(3), at);
    assert_eq!((snoozed.state, snoozed.run_after), (State::Queued, at.after(hours(3))));
    // Started over, it has a day again.
    let (over, _) = transition(failed, Command::Retry, at).unwrap();
    assert_eq!((over.snoozed, over.snoozed_at, over.error), (Duration::ZERO, None, None));
}

#[test]
fn an_accepted_job_keeps_all_but_its_worker_and_is_its_callbacks() {
    let (job, claim) = claimed();
    let (accepted, event) = transition(job.clone(), Command::Accept { claim }, now()).unwrap();
    assert_eq!(event, None);
    assert_eq!(accepted, Job { worker: None, ..job });
    let late = Command::Succeed { claim, result: json!("late").into() };
    assert_eq!(transition(accepted.clone(), late, now()).unwrap_err(), Refused::Stale);
    assert!(transition(accepted.clone(), Command::Claim { worker: WORKER }, now()).is_err());
    let callback = Claim { worker: None, ..claim };
    let stale = Claim { fence: claim.fence - 1, ..callback };
    let end = |claim| Command::Succeed { claim, result: json!("done").into() };
    assert_eq!(transition(accepted.clone(), end(stale), now()).unwrap_err(), Refused::Stale);
    let (ended, event) = transition(accepted.clone(), end(callback), now()).unwrap();
    assert_eq!((ended.state, event), (State::Succeeded, Some(Event::Succeeded)));
    let (cancelled, _) = transition(accepted, Command::Cancel, now()).unwrap();
    assert_eq!(transition(cancelled, end(callback), now()).unwrap_err(), Refused::Stale);
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
fn three_attempts_are_spread_over_the_time_at_least() {
    let retries = RetryPolicy { spread: Duration::from_mins(2) };
    for (jitter, most) in [(0.0, 120), (1.0, 150)] {
        let spread = retries.backoff(1, jitter) + retries.backoff(2, jitter);
        assert_eq!(spread, Duration::from_secs(most));
    }
    assert!(retries.backoff(1, 1.0) < retries.backoff(2, 0.0));
}

fn commands() -> impl Strategy<Value = Command> {
    let claim = (0..3_u128, 0..12_i64).prop_map(|(worker, fence)| Claim {
        worker: (worker > 0).then_some(Uuid::from_u128(worker)),
        fence,
    });
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
        1 => (claim.clone(), any::<bool>(), 0..30_u64).prop_map(|(claim, has_reason, hours)| Command::Snooze {
            claim,
            wait: Duration::from_hours(hours),
            reason: has_reason.then(|| JobError::transient("x", "x")),
        }),
        1 => claim.clone().prop_map(|claim| Command::Accept { claim }),
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
                    && before.worker == claim.worker
            });
            let Ok((after, event)) = transition(job.clone(), command.clone(), now()) else { continue };
            prop_assert!(owned, "a stale claim was taken: {command:?}");
            prop_assert!(after.fence >= before.fence);
            let is_accepted = matches!(command, Command::Accept { .. });
            prop_assert!(after.worker == before.worker || is_accepted || after.fence > before.fence);
            prop_assert!(after.state == before.state || event.is_some());
            if before.state.is_terminal() {
                prop_assert!(matches!(command, Command::Retry));
                prop_assert!(before.state != State::Succeeded);
            }
            prop_assert!((0..=after.max_attempts).contains(&after.attempt));
            prop_assert!(after.crashes <= MAX_CRASHES + 1);
            prop_assert!(after.worker.is_none() || after.state == State::Running);
            prop_assert!(after.state != State::Running || after.worker.is_some() || is_accepted || before.worker.is_none());
            prop_assert_eq!(after.finished_at.is_some(), after.state.is_terminal());
            prop_assert_eq!(after.result.is_some(), after.state == State::Succeeded);
            job = after;
        }
    }
}
