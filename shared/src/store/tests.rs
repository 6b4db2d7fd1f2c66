//! What both databases do alike, and what only PostgreSQL has to.

mod groups;
mod meetings;
mod rows;
mod silence;

use std::sync::{
    Barrier,
    atomic::{AtomicBool, AtomicUsize},
};

use cluster::{on_both_stores, scratch::Home};
use uuid::Uuid;

use self::rows::many_rows_are_written_changed_and_found_at_once;
use super::*;
use crate::{bus::Notice, ids::ReplicaId};

on_both_stores!(
    values_come_back_as_they_were_given,
    many_rows_are_written_changed_and_found_at_once,
    a_write_that_fails_leaves_the_others_of_its_group,
    a_write_that_fails_leaves_no_hole_in_its_log,
    a_write_is_seen_by_every_later_read,
    a_lease_is_renewed_however_many_requests_wait,
);

async fn open(home: Home, folder: &tempfile::TempDir, bus: &Bus) -> Store {
    let store = match home.url() {
        None => Store::open(folder.path(), bus).unwrap(),
        Some(url) => Store::connect(&url, bus, None).unwrap(),
    };
    let table = "CREATE TABLE things (id UUID PRIMARY KEY, count BIGINT, name TEXT, bytes BYTEA)";
    store.write(move |tx| tx.execute(table, &[])).await.unwrap();
    store
}

fn insert(tx: &mut Tx<'_>, id: Uuid, count: i64) -> Result<usize, Error> {
    let sql = "INSERT INTO things (id, count) VALUES ($1, $2)";
    tx.execute(sql, &[Value::Uuid(id), count.into()])
}

async fn counts(store: &Store) -> Vec<i64> {
    let sql = "SELECT count FROM things ORDER BY count";
    store.read(move |reader| reader.query(sql, &[], |row| row.get(0))).await.unwrap()
}

async fn values_come_back_as_they_were_given(home: Home) {
    type Thing = (Uuid, Option<i64>, Option<String>, Option<Vec<u8>>);
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, &folder, &Bus::default()).await;
    let things: Vec<Thing> = vec![
        (Uuid::nil(), None, None, None),
        (Uuid::now_v7(), Some(i64::MAX), Some("a\u{2028}'\"\\\r\n😀".into()), Some(vec![0, 255])),
        (Uuid::max(), Some(i64::MIN), Some(String::new()), Some(Vec::new())),
    ];
    for (id, count, name, bytes) in things.clone() {
        let sql = "INSERT INTO things (id, count, name, bytes) VALUES ($1, $2, $3, $4)";
        let write = store.write(move |tx| {
            let params =
                [Value::Uuid(id), count.into(), name.as_ref().into(), bytes.as_deref().into()];
            tx.execute(sql, &params)
        });
        assert_eq!(write.await.unwrap(), 1);
    }
    let sql = "SELECT id, count, name, bytes FROM things ORDER BY id";
    let read = store.read(move |reader| {
        reader.query(sql, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
    });
    assert_eq!(read.await.unwrap(), things);
    let wrong = store
        .read(|reader| reader.find("SELECT name FROM things", &[], |row| row.get::<i64>(0)))
        .await;
    assert!(matches!(wrong, Err(Error::Column { column: 0 })), "{wrong:?}");
}

async fn a_write_that_fails_leaves_the_others_of_its_group(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, &folder, &Bus::default()).await;
    let writes = (0..60).map(|n: i64| {
        let store = store.clone();
        async move {
            store
                .write(move |tx| {
                    insert(tx, Uuid::from_u128(n.unsigned_abs().into()), n)?;
                    match n % 3 {
                        // A failure of the caller's, and one of the database's in the middle.
                        1 => Err(Error::Gone),
                        2 => insert(tx, Uuid::from_u128(n.unsigned_abs().into()), n),
                        _ => Ok(1),
                    }
                })
                .await
                .is_ok()
        }
    });
    let kept = futures_util::future::join_all(writes).await;
    assert_eq!(kept.iter().filter(|kept| **kept).count(), 20);
    assert_eq!(counts(&store).await, (0..60).step_by(3).collect::<Vec<_>>());
}

async fn a_write_that_fails_leaves_no_hole_in_its_log(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let store = open(home, &folder, &bus).await;
    store.write(|tx| tx.ensure(&Topic::jobs())).await.unwrap();
    let mut heard = bus.subscribe(&Topic::jobs());
    let writes = (0..60).map(|n: i64| {
        let store = store.clone();
        async move {
            let id = Uuid::from_u128(n.unsigned_abs().into());
            store
                .write_in(Topic::jobs(), move |tx| {
                    tx.append(&Topic::jobs(), "test", &n.to_string())?;
                    insert(tx, id, n)?;
                    match n % 20 {
                        7 => Err(Error::Gone),
                        13 => insert(tx, id, n),
                        _ => Ok(1),
                    }
                })
                .await
                .is_ok()
        }
    });
    let kept = futures_util::future::join_all(writes).await;
    assert_eq!(kept.iter().filter(|kept| **kept).count(), 54);
    let expected: Vec<i64> = (0..60).filter(|n| ![7, 13].contains(&(n % 20))).collect();
    assert_eq!(counts(&store).await, expected);
    let log = store.read(|reader| reader.entries(&Topic::jobs(), 0, 100)).await.unwrap();
    assert_eq!(
        log.iter().map(|entry| entry.position.seq).collect::<Vec<_>>(),
        (1..=54).collect::<Vec<_>>()
    );
    let mut told = Vec::new();
    for _ in &log {
        let Notice::Entry(entry) = heard.next().await.unwrap() else { panic!() };
        told.push(entry);
    }
    told.sort_by_key(|entry| entry.position.seq);
    assert_eq!(told, log);
}

#[tokio::test]
async fn a_write_that_keeps_quiet_about_a_failed_statement_is_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    let quiet = store.write(|tx| {
        insert(tx, Uuid::nil(), 1)?;
        // The server gives the transaction up, and says yes to its commit.
        let _ = insert(tx, Uuid::nil(), 1);
        Ok::<_, Error>(())
    });
    quiet.await.unwrap_err();
    assert_eq!(counts(&store).await, [0; 0]);
}

async fn a_write_is_seen_by_every_later_read(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, &folder, &Bus::default()).await;
    for n in 0..50 {
        store.write(move |tx| insert(tx, Uuid::now_v7(), n)).await.unwrap();
        assert_eq!(counts(&store).await.last(), Some(&n));
    }
}

async fn a_lease_is_renewed_however_many_requests_wait(home: Home) {
    const REQUESTS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, &folder, &Bus::default()).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let requests = (0..REQUESTS).map(|_| {
        let begun = begun.clone();
        store.write(move |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
            Ok::<_, Error>(())
        })
    });
    let lease = async {
        while begun.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        store.write_lease(|tx| insert(tx, Uuid::nil(), 1)).await.unwrap();
        store.write_lease_in(Topic::jobs(), |tx| insert(tx, Uuid::max(), 2)).await.unwrap();
        begun.load(Ordering::Relaxed)
    };
    let (requests, begun) = tokio::join!(futures_util::future::try_join_all(requests), lease);
    assert_eq!(requests.unwrap().len(), REQUESTS);
    assert!(begun < REQUESTS / 2, "{begun} requests went before the leases");
    assert_eq!(counts(&store).await, [1, 2]);
}

#[tokio::test]
async fn a_write_whose_connection_is_lost_is_done_again_once() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let store = open(Home::Postgres, &folder, &bus).await;
    let mut heard = bus.subscribe(&Topic::jobs());
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let write = store.write(move |tx| {
        insert(tx, Uuid::nil(), 7)?;
        tx.append(&Topic::jobs(), "test", "x")?;
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            tx.find("SELECT 1 WHERE pg_terminate_backend(pg_backend_pid())", &[], |_| Ok(()))?;
        }
        Ok::<_, Error>(())
    });
    write.await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert_eq!(counts(&store).await, [7]);
    let Notice::Entry(entry) = heard.next().await.unwrap() else { panic!() };
    assert_eq!(entry.position.seq, 1);
}

#[tokio::test]
async fn writes_that_wait_for_each_other_in_a_ring_are_both_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
    store
        .write(move |tx| ids.iter().try_for_each(|id| insert(tx, *id, 0).map(drop)))
        .await
        .unwrap();
    let both = Arc::new(Barrier::new(2));
    // Bulk, so that they do not share a transaction.
    let write = |order: [Uuid; 2]| {
        let (both, first) = (both.clone(), AtomicBool::new(true));
        store.write_bulk(Topic::replica(ReplicaId::mint()), move |tx| {
            let sql = "UPDATE things SET count = count + 1 WHERE id = $1";
            tx.execute(sql, &[Value::Uuid(order[0])])?;
            if first.swap(false, Ordering::Relaxed) {
                both.wait();
            }
            tx.execute(sql, &[Value::Uuid(order[1])])
        })
    };
    let (one, other) = tokio::join!(write(ids), write([ids[1], ids[0]]));
    assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
    assert_eq!(counts(&store).await, [2, 2]);
}

#[tokio::test]
async fn what_a_write_finds_in_its_topic_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    store.write(|tx| tx.ensure(&Topic::jobs())).await.unwrap();
    // Each counts the rows and writes the next number: without the lock some would count the same.
    let writes = (0..40).map(|_| {
        store.write_in(Topic::jobs(), |tx| {
            let count = tx.find("SELECT COUNT(*) FROM things", &[], |row| row.get::<i64>(0))?;
            insert(tx, Uuid::now_v7(), count.unwrap_or_default())
        })
    });
    futures_util::future::try_join_all(writes).await.unwrap();
    assert_eq!(counts(&store).await, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_store_holds_as_many_connections_as_the_documents_say() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    let sql = "SELECT COUNT(*) FROM pg_stat_activity \
               WHERE datname = current_database() AND application_name = 'parley'";
    let count = store.read(move |reader| reader.find(sql, &[], |row| row.get::<i64>(0)));
    assert_eq!(count.await.unwrap(), Some(9), "`deploy/README.md` counts with it, under \"Sizes\"");
}

#[tokio::test]
async fn a_write_that_was_set_aside_waits_for_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    store.write(|tx| tx.ensure(&Topic::jobs())).await.unwrap();
    let slow = |tx: &mut Tx<'_>, seconds: &str| {
        tx.find(&format!("SELECT pg_sleep({seconds})"), &[], |_| Ok(()))
    };
    for n in 0..5 {
        // While all writers are busy two more come, which the first that is free takes together. When it has done the one,
        // the others are waiting for more.
        let busy = (0..WRITERS).map(|_| store.write(move |tx| slow(tx, "0.02")));
        let grouped = store.write_in(Topic::jobs(), move |tx| {
            slow(tx, "0.05")?;
            insert(tx, Uuid::now_v7(), n)
        });
        let alone = store.write(move |tx| insert(tx, Uuid::now_v7(), n));
        let all = async { tokio::join!(futures_util::future::join_all(busy), grouped, alone) };
        let (_, grouped, alone) = tokio::time::timeout(Duration::from_secs(5), all)
            .await
            .expect("nothing has to come after it");
        assert_eq!((grouped.unwrap(), alone.unwrap()), (1, 1));
    }
}
