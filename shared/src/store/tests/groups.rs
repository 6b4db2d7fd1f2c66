//! Writes of one transaction: a refusal, a missing topic or a locked one costs the others nothing.

use std::{collections::HashMap, task::Poll};

use super::*;
use crate::ids::ProjectId;

/// How soon a write is answered whose topic nobody else wants.
const SOON: Duration = Duration::from_secs(1);

fn topics(count: usize) -> Vec<Topic> {
    (0..count).map(|_| Topic::project(ProjectId::mint())).collect()
}

async fn make(store: &Store, topics: &[Topic]) {
    let topics = topics.to_vec();
    store.write(move |tx| topics.iter().try_for_each(|topic| tx.ensure(topic))).await.unwrap();
}

/// Why a write is not done.
#[derive(Debug)]
enum Refusal {
    Conflict,
    Store(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// A write that adds up to which transaction it was in, and how often it has run.
#[derive(Clone)]
enum Case {
    Fine,
    /// Refused before it has changed anything.
    Refused,
    /// Refused after it has.
    RefusedLate,
}

/// The transactions of a group's writes, and how often each write has run.
struct Runs {
    transactions: HashMap<i64, usize>,
    most: usize,
    refused: usize,
}

/// Queues the writes while every thread is busy, so that they are taken together.
async fn run_together(store: &Store, writes: Vec<(Topic, Case)>) -> Runs {
    let busy =
        (0..WRITERS).map(|_| store.write(|tx| tx.find("SELECT pg_sleep(0.3)", &[], |_| Ok(()))));
    let mut counters = Vec::new();
    let calls = writes.into_iter().map(|(topic, case)| {
        let runs = Arc::new(AtomicUsize::new(0));
        counters.push(runs.clone());
        let log = topic.clone();
        Box::pin(store.write_in(topic, move |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            let current = tx.find("SELECT txid_current()", &[], |row| row.get::<i64>(0))?;
            if matches!(case, Case::Refused) {
                return Err(Refusal::Conflict);
            }
            tx.append(&log, "test", "{}")?;
            match case {
                Case::RefusedLate => Err(Refusal::Conflict),
                _ => Ok(current.unwrap_or_default()),
            }
        }))
    });
    let mut calls: Vec<_> = calls.collect();
    let queued = tokio::task::unconstrained(std::future::poll_fn(|context| {
        let are_queued = calls.iter_mut().all(|call| call.as_mut().poll(context).is_pending());
        Poll::Ready(are_queued)
    }));
    let (busy, are_queued) = tokio::join!(futures_util::future::try_join_all(busy), queued);
    assert!(busy.is_ok() && are_queued);
    let (mut transactions, mut refused) = (HashMap::new(), 0);
    for outcome in futures_util::future::join_all(calls).await {
        match outcome {
            Ok(transaction) => *transactions.entry(transaction).or_default() += 1,
            Err(Refusal::Conflict) => refused += 1,
            Err(Refusal::Store(error)) => panic!("{error}"),
        }
    }
    let most = counters.iter().map(|runs| runs.load(Ordering::Relaxed)).max().unwrap_or_default();
    Runs { transactions, most, refused }
}

#[tokio::test]
async fn a_refused_write_does_not_repeat_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    let topics = topics(10);
    make(&store, &topics).await;
    let case = |n: usize| if n % 10 == 3 { Case::Refused } else { Case::Fine };
    let writes = (0..writer::GROUP).map(|n| (topics[n % 10].clone(), case(n / 10)));
    let Runs { transactions, most, refused } = run_together(&store, writes.collect()).await;
    assert_eq!((transactions.len(), most), (1, 1), "{transactions:?}");
    assert_eq!(refused, 10);
}

#[tokio::test]
async fn a_write_to_a_topic_that_does_not_exist_goes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    let topics = topics(12);
    make(&store, &topics[..10]).await;
    let writes = (0..60).map(|n| (topics[n % 12].clone(), Case::Fine));
    let Runs { transactions, most, .. } = run_together(&store, writes.collect()).await;
    assert_eq!(transactions.values().max(), Some(&50), "{transactions:?}");
    assert_eq!((transactions.len(), most), (11, 1), "{transactions:?}");
}

#[tokio::test]
async fn a_write_that_is_undone_goes_with_few_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    let topics = topics(10);
    make(&store, &topics).await;
    let case = |n: usize| if n % 25 == 7 { Case::RefusedLate } else { Case::Fine };
    let writes = (0..writer::GROUP).map(|n| (topics[n % 10].clone(), case(n)));
    let Runs { transactions, most, refused } = run_together(&store, writes.collect()).await;
    assert_eq!(refused, 5);
    assert_eq!((transactions.len(), most), (3, 2), "{transactions:?}");
    // 64 subtransactions are what the server keeps in memory.
    assert!(transactions.values().all(|count| *count <= 60), "{transactions:?}");
}

#[tokio::test]
async fn a_topic_that_nobody_else_wants_does_not_wait_for_locked_ones() {
    let folder = tempfile::tempdir().unwrap();
    let url = Home::Postgres.url().unwrap();
    let store = Store::connect(&url, &Bus::default(), None).unwrap();
    let other = Store::connect(&url, &Bus::default(), None).unwrap();
    drop(folder);
    let topics = topics(3 * WRITERS);
    make(&store, &topics).await;
    let (locked, free) = topics.split_at(WRITERS + 2);
    let (held, release) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let (held_there, released) = (held.clone(), release.clone());
    let names = locked.to_vec();
    // Another process that does something long in many projects.
    let holding = other.write(move |tx| {
        for topic in &names {
            tx.ensure(topic)?;
        }
        held_there.wait();
        while !released.load(Ordering::Relaxed) {
            tx.find("SELECT pg_sleep(0.01)", &[], |_| Ok(()))?;
        }
        Ok::<_, Error>(())
    });
    let load = async {
        tokio::task::spawn_blocking(move || held.wait()).await.unwrap();
        let append = |topic: &Topic| {
            let (store, topic) = (store.clone(), topic.clone());
            async move {
                let (began, log) = (Instant::now(), topic.clone());
                store.write_in(topic, move |tx| tx.append(&log, "test", "{}")).await.unwrap();
                began.elapsed()
            }
        };
        let waiting = futures_util::future::join_all(locked.iter().map(append));
        let load = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..20 {
                let took = futures_util::future::join_all(free.iter().map(append)).await;
                slowest = slowest.max(took.into_iter().max().unwrap_or_default());
            }
            release.store(true, Ordering::Relaxed);
            slowest
        };
        tokio::join!(waiting, load)
    };
    let (held, (waited, slowest)) = tokio::join!(holding, load);
    held.unwrap();
    println!("idle topics: at most {slowest:?}; locked topics: {waited:?}");
    assert!(slowest < SOON, "an idle topic has waited {slowest:?}");
}
