//! Each fault that is put into a sound history is counted as what it is.

use super::*;

const JOB: Uuid = Uuid::from_u128(1);

fn history(kinds: &[&str]) -> History {
    let told = (1..).zip(kinds).map(|(seq, kind)| Told { seq, job: JOB, kind: (*kind).into() });
    let last = Last {
        state: "succeeded".into(),
        attempt: 1,
        counted: Some(4),
        operation: "demo.count".into(),
        error: None,
        run_after: None,
    };
    let owned = Owned {
        begins: Some(0),
        opened: 1,
        told: told.collect(),
        submitted: vec![JOB],
        last: [(JOB, last)].into(),
        ..Owned::default()
    };
    History { owners: vec![owned], counts: 4, excused: 1, calls: Calls::default() }
}

const WELL: [&str; 6] = [
    "job.queued",
    "job.started",
    "job.progress",
    "job.interrupted",
    "job.started",
    "job.succeeded",
];

fn changed(change: impl FnOnce(&mut Owned)) -> Counts {
    let mut history = history(&WELL);
    change(&mut history.owners[0]);
    judge(&history)
}

#[test]
fn a_life_is_as_it_should_be() {
    assert_eq!(judge(&history(&WELL)), Counts::default());
}

#[test]
fn each_fault_is_counted_as_what_it_is() {
    let none = Counts::default();
    let twice = judge(&history(&[&WELL[..], &["job.succeeded"]].concat()));
    assert_eq!(twice, Counts { ended_twice: 1, out_of_turn: 1, ..none });
    let twofold = judge(&history(&["job.queued", "job.started", "job.started", "job.succeeded"]));
    assert_eq!(twofold, Counts { out_of_turn: 1, ..none });
    assert_eq!(judge(&history(&WELL[..5])), Counts { lost: 1, ..none });
    assert_eq!(changed(|owned| drop(owned.told.remove(2))), Counts { holes: 1, ..none });
    let again = |owned: &mut Owned| owned.told.push(owned.told[1].clone());
    assert_eq!(changed(again), Counts { repeated: 1, ..none });
    assert_eq!(changed(|owned| owned.resets = 1), Counts { resets: 1, ..none });
    let merged = |owned: &mut Owned| owned.submitted.push(JOB);
    assert_eq!(changed(merged), Counts { merged: 1, ..none });
    assert_eq!(changed(|owned| owned.submitted.clear()), Counts { phantom: 1, ..none });
    assert_eq!(changed(|owned| owned.last.clear()), Counts { failed: 1, ..none });
    let interrupted = [&WELL[..5], &["job.interrupted", "job.started", "job.succeeded"]].concat();
    assert_eq!(judge(&history(&interrupted)), Counts { stolen: 1, ..none });
    let called = |change: fn(&mut Calls), kinds: &[&str]| {
        let mut history = history(kinds);
        change(&mut history.calls);
        judge(&history)
    };
    let uninterrupted =
        ["job.queued", "job.started", "job.retrying", "job.started", "job.succeeded"];
    let early = |calls: &mut Calls| calls.early.push(JOB);
    assert_eq!(called(early, &uninterrupted), Counts { early: 1, ..none });
    assert_eq!(called(early, &WELL), none, "its worker was taken away meanwhile");
    let again = |calls: &mut Calls| calls.again.push(JOB);
    assert_eq!(called(again, &WELL), Counts { called_again: 1, ..none });
    let charged = |owned: &mut Owned| owned.last.get_mut(&JOB).expect("it is there").attempt = 2;
    assert_eq!(changed(charged), Counts { charged: 1, ..none });
}
