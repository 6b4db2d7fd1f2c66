//! A sound history is clean, and each fault that is put into it is counted: once, and as what it is.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::history::{Answer, Begin, Removal, Rewind, Window};

/// What a sound history is made of.
#[derive(Clone, Debug)]
struct Plan {
    projects: usize,
    /// Each send's project, and whether it was acknowledged, got lost with its answer, or was never done.
    sends: Vec<(usize, Fate)>,
    /// Each stream's project and how many sends there were before it was open.
    streams: Vec<(usize, usize)>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    DoneUnknown,
    NotDone,
}

fn plan() -> impl Strategy<Value = Plan> {
    (1..4usize).prop_flat_map(|projects| {
        let fate = prop_oneof![
            6 => Just(Fate::Acknowledged),
            1 => Just(Fate::DoneUnknown),
            1 => Just(Fate::NotDone)
        ];
        let sends = prop::collection::vec((0..projects, fate), 20..80);
        let streams = prop::collection::vec((0..projects, 0..10usize), 1..6);
        (sends, streams).prop_map(move |(sends, streams)| Plan { projects, sends, streams })
    })
}

fn message(number: usize) -> Uuid {
    Uuid::from_u128(1_000 + number as u128)
}

fn time(ms: usize) -> Duration {
    Duration::from_millis(ms as u64)
}

/// Entry numbers of a log, between which there is room for what is no message.
fn seq(number: usize) -> i64 {
    i64::try_from(number).unwrap() * 2 + 10
}

impl Plan {
    /// A send begins each 10 ms and is answered 5 ms later; streams get it at once.
    fn history(&self) -> History {
        let mut history =
            History { logs: vec![Log::default(); self.projects], ..History::default() };
        for (number, (project, fate)) in self.sends.iter().enumerate() {
            let answer = Answer { at: time(number * 10 + 5), message: message(number) };
            let answer = (*fate == Fate::Acknowledged).then_some(answer);
            let began = time(number * 10);
            let slowest = Try { began, ended: time(number * 10 + 5) };
            history.sends.push(Send { project: *project, began, answer, slowest });
            if *fate != Fate::NotDone {
                let entry =
                    Entry { seq: seq(number), message: message(number), send: Some(number) };
                history.logs[*project].entries.push(entry);
            }
        }
        for (user, (project, before)) in self.streams.iter().enumerate() {
            let begin = Begin { at: time(before * 10), after: seq(*before) - 1 };
            let entries = history.logs[*project].entries.iter();
            let seen = entries.filter(|entry| entry.seq > begin.after).map(|entry| Seen {
                at: time(0),
                seq: entry.seq,
                message: entry.message,
                send: entry.send,
            });
            history.streams.push(Stream {
                project: *project,
                user,
                is_member: true,
                is_leaver: false,
                begins: Some(begin),
                seen: seen.collect(),
                opened: 1,
                ..Stream::default()
            });
        }
        history
    }
}

/// Places of deliveries, `apart` from each other, as streams and numbers.
fn places(history: &History, at: &[usize], apart: usize) -> Vec<(usize, usize)> {
    let streams = history.streams.iter().enumerate();
    let all: Vec<(usize, usize)> = streams
        .flat_map(|(stream, seen)| {
            let count = seen.seen.len().saturating_sub(apart - 1);
            (0..count).step_by(apart).map(move |number| (stream, number))
        })
        .collect();
    let mut chosen: Vec<(usize, usize)> =
        at.iter().filter_map(|at| all.get(at % all.len().max(1)).copied()).collect();
    chosen.sort_unstable();
    chosen.dedup();
    // The last ones first, so that what is put in or taken out moves none of the others.
    chosen.reverse();
    chosen
}

fn choices() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<usize>(), 0..8)
}

fn counts(history: &History) -> Counts {
    judge(history).counts
}

proptest! {
    #[test]
    fn a_sound_history_is_clean(plan in plan()) {
        prop_assert_eq!(judge(&plan.history()), Verdict::default());
    }

    #[test]
    fn what_is_not_delivered_is_lost(plan in plan(), at in choices()) {
        let mut history = plan.history();
        let places = places(&history, &at, 1);
        for (stream, number) in &places {
            history.streams[*stream].seen.remove(*number);
        }
        prop_assert_eq!(counts(&history), Counts { lost: places.len(), ..Counts::default() });
        let by_stream: usize = judge(&history).by_stream.iter().map(|(_, counts)| counts.lost).sum();
        prop_assert_eq!(by_stream, places.len());
    }

    #[test]
    fn what_comes_twice_is_duplicated(plan in plan(), at in choices(), later in any::<usize>()) {
        let mut history = plan.history();
        let places = places(&history, &at, 1);
        for (stream, number) in &places {
            let seen = &mut history.streams[*stream].seen;
            let again = number + 1 + later % (seen.len() - number);
            seen.insert(again, seen[*number]);
        }
        prop_assert_eq!(counts(&history), Counts { duplicated: places.len(), ..Counts::default() });
    }

    #[test]
    fn what_comes_too_late_is_reordered(plan in plan(), at in choices()) {
        let mut history = plan.history();
        let places = places(&history, &at, 2);
        for (stream, number) in &places {
            history.streams[*stream].seen.swap(*number, number + 1);
        }
        prop_assert_eq!(counts(&history), Counts { reordered: places.len(), ..Counts::default() });
    }

    #[test]
    fn another_number_than_the_log_s_is_reordered(plan in plan(), at in choices()) {
        let mut history = plan.history();
        let places = places(&history, &at, 1);
        for (stream, number) in &places {
            history.streams[*stream].seen[*number].seq += 1;
        }
        prop_assert_eq!(counts(&history), Counts { reordered: places.len(), ..Counts::default() });
    }

    #[test]
    fn what_is_not_in_the_log_or_was_not_sent_is_a_phantom(plan in plan(), at in choices(), unsent: bool) {
        let mut history = plan.history();
        let places = places(&history, &at, 1);
        for (stream, number) in &places {
            let seen = &mut history.streams[*stream].seen;
            let mut phantom = seen[*number];
            if unsent {
                phantom.send = None;
            } else {
                phantom.message = Uuid::from_u128(7);
            }
            seen.insert(*number, phantom);
        }
        prop_assert_eq!(counts(&history), Counts { phantom: places.len(), ..Counts::default() });
    }

    #[test]
    fn whoever_is_no_member_may_see_nothing(plan in plan()) {
        let mut history = plan.history();
        let stranger = Stream { is_member: false, refused: 9, ..history.streams[0].clone() };
        let seen = stranger.seen.len();
        history.streams.push(stranger);
        prop_assert_eq!(counts(&history), Counts { unauthorised: seen + 1, ..Counts::default() });
        history.streams.push(Stream { is_member: false, refused: 9, ..Stream::default() });
        prop_assert_eq!(counts(&history).unauthorised, seen + 1, "it was never opened");
    }

    #[test]
    fn nothing_comes_after_a_removal(plan in plan(), at in any::<usize>()) {
        let mut history = plan.history();
        let stream = history.streams[0].clone();
        let last = at % (stream.seen.len() + 1);
        let seq = if last == 0 { 0 } else { stream.seen[last - 1].seq };
        history.logs[stream.project].removals.push(Removal { seq, user: stream.user });
        let unauthorised = stream.seen.len() - last;
        prop_assert_eq!(counts(&history), Counts { unauthorised, ..Counts::default() });
        // What went before may be missing, and afterwards every door is closed.
        history.streams[0].seen.clear();
        history.streams[0].refused = 5;
        prop_assert_eq!(counts(&history), Counts::default());
    }

    #[test]
    fn what_was_acknowledged_and_is_not_in_the_log_is_lost(plan in plan(), at in any::<usize>()) {
        let mut history = plan.history();
        let answered = |number: &usize| history.sends[*number].answer.is_some();
        let numbers: Vec<usize> = (0..history.sends.len()).filter(answered).collect();
        prop_assume!(!numbers.is_empty());
        let lost = numbers[at % numbers.len()];
        for log in &mut history.logs {
            log.entries.retain(|entry| entry.send != Some(lost));
        }
        let mut on_streams = 0;
        for stream in &mut history.streams {
            let before = stream.seen.len();
            stream.seen.retain(|seen| seen.send != Some(lost));
            on_streams += before - stream.seen.len();
        }
        prop_assert_eq!(counts(&history), Counts { lost: on_streams + 1, ..Counts::default() });
    }
}

#[test]
fn a_key_that_made_two_messages_is_a_duplicate() {
    let plan = Plan { projects: 1, sends: vec![(0, Fate::Acknowledged)], streams: vec![(0, 0)] };
    let mut history = plan.history();
    let again = Entry { seq: seq(1), message: message(1), send: Some(0) };
    history.logs[0].entries.push(again);
    let seen = Seen { at: time(0), seq: again.seq, message: again.message, send: again.send };
    history.streams[0].seen.push(seen);
    assert_eq!(counts(&history), Counts { duplicated: 2, ..Counts::default() });
}

#[test]
fn a_send_that_waits_too_long_is_unanswered_unless_nobody_could_answer() {
    let sends = vec![(0, Fate::Acknowledged), (0, Fate::NotDone), (0, Fate::Acknowledged)];
    let mut history = Plan { projects: 1, sends, streams: vec![] }.history();
    for (send, took) in history.sends.iter_mut().zip([8_001, 9_000, 8_000]) {
        send.slowest.ended = send.slowest.began + Duration::from_millis(took);
    }
    assert_eq!(counts(&history), Counts { unanswered: 2, ..Counts::default() });
    let window =
        Window { from: time(8_500), to: time(9_500), holds_answers: true, ..Window::default() };
    history.held.push(window);
    assert_eq!(counts(&history), Counts { unanswered: 1, ..Counts::default() });
}

#[test]
fn resets_refusals_and_holes_count() {
    let plan = Plan { projects: 1, sends: vec![], streams: vec![(0, 0)] };
    let mut history = plan.history();
    history.streams[0].resets = 2;
    history.streams[0].refused = 3;
    history.logs[0].holes = 4;
    let expected = Counts { resets: 2, refused: 3, lost: 4, ..Counts::default() };
    assert_eq!(counts(&history), expected);
    assert!(!expected.is_clean());
}

#[test]
fn a_lost_tail_is_rewound_and_each_stream_may_be_reset_once() {
    let acknowledged = (0, Fate::Acknowledged);
    let plan = Plan { projects: 1, sends: vec![acknowledged; 6], streams: vec![(0, 0); 2] };
    let mut history = plan.history();
    // Sends 2 and 3 were acknowledged at 25 and 35 ms and delivered, and are not in the log any more.
    history.logs[0].entries.retain(|entry| ![Some(2), Some(3)].contains(&entry.send));
    for stream in &mut history.streams {
        stream.seen.iter_mut().for_each(|seen| seen.at = time(seen.send.unwrap() * 10 + 6));
    }
    // Each of the two streams lacks them too.
    let phantoms = Counts { lost: 6, phantom: 4, ..Counts::default() };
    assert_eq!(counts(&history), phantoms, "without a rewind they are lost");
    history.rewinds = vec![Rewind { copied: time(21), restored: time(39) }];
    let verdict = judge(&history);
    assert_eq!((verdict.counts, verdict.rewound), (Counts::default(), 2));
    history.streams[0].resets = 1;
    history.streams[0].reset = Some(Begin { at: time(45), after: seq(4) });
    history.streams[0].seen.retain(|seen| seen.send != Some(4));
    assert_eq!(counts(&history), Counts::default(), "what came before the reset is fetched");
    history.streams[0].resets = 2;
    history.streams[1].seen.retain(|seen| seen.send != Some(4));
    let silent = Counts { resets: 1, lost: 1, ..Counts::default() };
    assert_eq!(counts(&history), silent, "a second reset, and a silent hole");
    history.streams[0].refused = 2;
    assert_eq!(counts(&history), Counts { refused: 2, ..silent }, "a member is refused");
    history.streams[0].is_leaver = true;
    assert_eq!(counts(&history), silent, "a member whose removal the database lost");
}

#[test]
fn what_the_database_lost_was_delivered_before_a_removal_that_got_an_earlier_number() {
    let acknowledged = (0, Fate::Acknowledged);
    let plan = Plan { projects: 1, sends: vec![acknowledged; 4], streams: vec![(0, 0)] };
    let mut history = plan.history();
    // Sends 2 and 3 were delivered before the database lost them, and the removal has a number from before theirs.
    history.logs[0].entries.truncate(2);
    let user = history.streams[0].user;
    history.logs[0].removals.push(Removal { seq: seq(2) - 1, user });
    for seen in &mut history.streams[0].seen {
        seen.at = time(seen.send.unwrap() * 10 + 6);
    }
    let unexcused = Counts { lost: 2, unauthorised: 2, ..Counts::default() };
    assert_eq!(counts(&history), unexcused, "without a rewind they came after the removal");
    history.rewinds = vec![Rewind { copied: time(21), restored: time(39) }];
    assert_eq!(counts(&history), Counts::default());
}
