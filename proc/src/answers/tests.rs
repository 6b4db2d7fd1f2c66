//! Tests what becomes of questions over real stores.

use cluster::{on_both_stores, scratch::Home};
use shared::{
    answers::{ASKED, Asked, CHUNK, COMPLETE},
    bus::Bus,
    ids::{ProjectId, TraceId},
};
use tempfile::TempDir;

use super::*;

on_both_stores!(
    a_name_is_one_question_and_limits_are_exact_among_many_who_ask_at_once,
    one_of_many_takes_an_answer_over_and_the_one_before_writes_no_more,
    a_pen_with_which_nobody_writes_is_taken_anew_once,
    what_is_cancelled_stays_so_and_is_forgotten_in_time,
);

const LIMITS: Limits = Limits { at_once: 2, a_minute: 3 };

/// What the store has done, whose errors have no other place to be named.
trait Sound<T> {
    fn sound(self) -> T;
}

impl<T> Sound<T> for Result<T, Error> {
    fn sound(self) -> T {
        self.unwrap()
    }
}

/// A store, and what is kept for it.
fn open(home: Home) -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let store = match home.url() {
        None => Store::open(folder.path(), &bus).unwrap(),
        Some(url) => Store::connect(&url, &bus, None).unwrap(),
    };
    (store, folder)
}

fn question(stream_id: &str, text: &str) -> Question {
    let asked = Asked {
        owner: "ada".parse().unwrap(),
        project_id: ProjectId(Uuid::nil()),
        stream_id: stream_id.into(),
        trace_id: TraceId::mint(),
        max_ms: 60_000,
    };
    Question { asked, text: text.into(), max_tokens: 100, temperature: 200 }
}

async fn start(store: &Store, question: &Question, now: Timestamp) -> (Outcome, Pen) {
    let pen = Pen { id: AnswerId::mint(), writer: Uuid::now_v7(), writers: 1 };
    let question = question.clone();
    let outcome = store
        .write(move |tx| asking::start(tx, &question, (pen.id, pen.writer), LIMITS, now))
        .await;
    (outcome.unwrap(), pen)
}

async fn append(store: &Store, pen: Pen) -> bool {
    let chunks = [(CHUNK, "{}".to_owned())];
    let added = store
        .write_in(Topic::answer(pen.id), move |tx| store::append(tx, pen, &chunks, Some("[]")));
    added.await.unwrap()
}

async fn kinds(store: &Store, id: AnswerId) -> Vec<String> {
    let entries = store.read(move |reader| reader.entries(&Topic::answer(id), 0, 100)).await;
    entries.sound().iter().map(|e| e.kind.to_string()).collect()
}

async fn a_name_is_one_question_and_limits_are_exact_among_many_who_ask_at_once(home: Home) {
    let (store, _folder) = open(home);
    let now = Timestamp::now();
    let same = question("same", "what?");
    let asked = (0..8).map(|_| start(&store, &same, now));
    let outcomes = futures_util::future::join_all(asked).await;
    let began = |(outcome, _): &&(Outcome, Pen)| matches!(outcome, Outcome::Started(_));
    assert_eq!(outcomes.iter().filter(began).count(), 1);
    let known = |(outcome, _): &&(Outcome, Pen)| matches!(outcome, Outcome::Known(_));
    assert_eq!(outcomes.iter().filter(known).count(), 7);
    let other = start(&store, &question("same", "who?"), now).await.0;
    assert!(matches!(other, Outcome::OtherQuestion), "{other:?}");

    let many: Vec<Question> =
        (0..8).map(|number| question(&format!("q{number}"), "what?")).collect();
    let outcomes = futures_util::future::join_all(many.iter().map(|q| start(&store, q, now))).await;
    assert_eq!(outcomes.iter().filter(began).count(), 1);
    let full = |(outcome, _): &&(Outcome, Pen)| {
        matches!(outcome, Outcome::TooMany { running: 2, limit: 2 })
    };
    assert_eq!(outcomes.iter().filter(full).count(), 7);
    let (_, pen) = outcomes.iter().find(began).unwrap();
    let answer = find(&store, &many, pen.id).await;
    store.write_in(Topic::answer(pen.id), move |tx| store::cancel(tx, &answer, now)).await.unwrap();

    let later = now.after(Duration::from_secs(10));
    let third = start(&store, &question("third", "what?"), later).await.0;
    assert!(matches!(third, Outcome::Started(_)), "{third:?}");
    // Not because two are running: the minute is looked at when there is room.
    let same = store.read(|reader| store::find(reader, &"ada".parse().unwrap(), "same")).await;
    let same = same.sound().unwrap();
    store.write_in(Topic::answer(same.id), move |tx| store::cancel(tx, &same, now)).await.unwrap();
    let fourth = start(&store, &question("fourth", "what?"), later).await.0;
    let Outcome::TooOften { retry_after } = fourth else { panic!("{fourth:?}") };
    assert_eq!(retry_after, Duration::from_secs(50));
    let after = later.after(retry_after);
    let fourth = start(&store, &question("fourth", "what?"), after).await.0;
    assert!(matches!(fourth, Outcome::Started(_)), "{fourth:?}");
}

async fn find(store: &Store, among: &[Question], id: AnswerId) -> Answer {
    for question in among {
        let Asked { owner, stream_id, .. } = question.asked.clone();
        let found = store.read(move |reader| store::find(reader, &owner, &stream_id)).await;
        let found: Option<Answer> = found.sound();
        if let Some(found) = found.filter(|found| found.id == id) {
            return found;
        }
    }
    panic!("{id} is not there");
}

async fn one_of_many_takes_an_answer_over_and_the_one_before_writes_no_more(home: Home) {
    let (store, _folder) = open(home);
    let now = Timestamp::now();
    let (_, first) = start(&store, &question("one", "what?"), now).await;
    assert!(append(&store, first).await);
    let lost = |now: Timestamp| {
        let abandoned = store.read(move |reader| store::abandoned(reader, now));
        async move { abandoned.await.sound() }
    };
    let renew = |writer, at: Timestamp| {
        store.write(move |tx| store::renew(tx, writer, at.after(WRITER_LEASE)))
    };
    assert_eq!(renew(first.writer, now).await.sound(), Some(vec![first]));
    assert!(lost(now).await.is_empty());
    let late = now.after(Duration::from_secs(10));
    assert_eq!(lost(late).await, [first.id]);
    let take = async || {
        let writer = Uuid::now_v7();
        renew(writer, late).await.sound();
        let take = store.write_in(Topic::answer(first.id), move |tx| {
            store::take_over(tx, first.id, writer, late)
        });
        take.await
    };
    let taken = futures_util::future::join_all((0..6).map(|_| take())).await;
    let taken: Vec<_> = taken.into_iter().filter_map(|taken| taken.unwrap()).collect();
    let [(answer, second)] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((second.writers, answer.passages.as_deref()), (2, Some(&[][..])));
    assert!(!append(&store, first).await);
    assert!(append(&store, *second).await);
    assert_eq!(kinds(&store, first.id).await, [ASKED, CHUNK, CHUNK]);
    // Who stops gives back; who says that it is there keeps what it has.
    let now_mine = second.writer;
    assert_eq!(renew(now_mine, late).await.sound(), Some(vec![*second]));
    assert_eq!(renew(first.writer, late).await.sound(), Some(Vec::new()));
    store.write(move |tx| store::release(tx, now_mine)).await.sound();
    assert_eq!(lost(now).await, [first.id]);
}

async fn a_pen_with_which_nobody_writes_is_taken_anew_once(home: Home) {
    let (store, _folder) = open(home);
    let (_, pen) = start(&store, &question("one", "what?"), store.now()).await;
    let take = || store.write_in(Topic::answer(pen.id), move |tx| store::take_again(tx, pen));
    let (_, second) = take().await.sound().unwrap();
    assert_eq!((second.writer, second.writers), (pen.writer, 2));
    assert!(take().await.sound().is_none(), "the same pen was taken twice");
    assert!(!append(&store, pen).await, "the task that had the pen before still writes");
    assert!(append(&store, second).await);
}

async fn what_is_cancelled_stays_so_and_is_forgotten_in_time(home: Home) {
    let (store, _folder) = open(home);
    let now = Timestamp::now();
    let asked = question("one", "what?");
    let (_, pen) = start(&store, &asked, now).await;
    let answer = find(&store, &[asked], pen.id).await;
    for ended in [true, false] {
        let answer = answer.clone();
        let cancel =
            store.write_in(Topic::answer(pen.id), move |tx| store::cancel(tx, &answer, now));
        assert_eq!(cancel.await.unwrap().is_some(), ended);
    }
    assert!(!append(&store, pen).await);
    assert_eq!(kinds(&store, pen.id).await, [ASKED, COMPLETE]);
    for (oldest, forgotten) in [(now, 0), (now.after(Duration::from_secs(1)), 1)] {
        let forget = store.write(move |tx| store::forget(tx, oldest)).await;
        assert_eq!(forget.sound(), forgotten);
    }
    let head = store.read(move |reader| reader.head(&Topic::answer(pen.id))).await;
    assert_eq!(head.sound(), None);
}
