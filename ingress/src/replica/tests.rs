//! Replicas over a real store.

use cluster::{on_both_stores, scratch::Home};
use shared::ids::{ConnectionId, ProjectId, UserId};

use super::*;
use crate::streams::slots::{Holder, Lease, Scope, Slots, Wanted, tests::open};

async fn take(store: &Store, slots: &Slots, stream: &str, oldest: Timestamp) -> Option<Lease> {
    let user: UserId = "ada".parse().unwrap();
    let scope = Scope::Project(
        ProjectId("00000000-0000-7000-8000-000000000001".parse().unwrap()),
        user.clone(),
    );
    let (connection, stream, slots) = (ConnectionId::mint(), stream.to_owned(), slots.clone());
    let holder = Holder { connection, user, stream, about: "{}".into(), channels: None };
    store
        .write(move |tx| {
            slots.take(tx, &[Wanted { scope: scope.clone(), limit: 1 }], &holder, oldest)
        })
        .await
        .ok()
}

async fn count(store: &Store, table: &'static str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    store.read(move |reader| reader.find(&sql, &[], |row| row.get(0))).await.unwrap().unwrap()
}

on_both_stores!(
    others_are_told_apart_by_when_they_were_seen,
    what_a_dead_replica_leaves_is_cleared_away_and_a_thawed_one_comes_back,
    a_replica_that_stops_leaves_nothing,
    a_replica_is_relieved_by_another_one_that_serves,
);

#[tokio::test]
async fn after_a_crash_the_next_process_on_the_file_starts_with_every_slot_free() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Sqlite, folder.path());
    let replica = Replica::join(store.clone()).await.unwrap();
    let (slots, releaser) = Slots::new(replica.id(), store.clone());
    std::mem::forget(take(&store, &slots, "a", store.now().before(REPLICA_LEASE)).await.unwrap());
    let sharing = Replica::join(store.clone()).await.unwrap();
    assert_eq!(count(&store, "slots").await, 1, "who shares the process clears nothing");
    drop((replica, sharing, slots, releaser, store));

    let store = open(Home::Sqlite, folder.path());
    let replica = Replica::join(store.clone()).await.unwrap();
    let (slots, _releaser) = Slots::new(replica.id(), store.clone());
    assert!(take(&store, &slots, "b", store.now().before(REPLICA_LEASE)).await.is_some());
    assert_eq!(count(&store, "replicas").await, 1);
    assert_eq!(count(&store, "topics").await, 1);
}

/// Has it be so long ago that the replica was seen.
async fn age(store: &Store, replica: ReplicaId, by: Duration) {
    let sql = "UPDATE replicas SET seen_at = seen_at - $2 WHERE id = $1";
    let by = i64::try_from(by.as_millis()).unwrap();
    store.write(move |tx| tx.execute(sql, &[replica.into(), by.into()])).await.unwrap();
}

async fn others_are_told_apart_by_when_they_were_seen(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, folder.path());
    let one = Replica::join(store.clone()).await.unwrap();
    let two = Replica::join(store.clone()).await.unwrap();
    two.renew("{\"streams\":7}".into()).await.unwrap();
    let seen_at = "SELECT seen_at FROM replicas WHERE id = $1";
    let id = two.id.into();
    let seen_at = store.read(move |reader| reader.find(seen_at, &[id], |row| row.get(0))).await;
    let seen_at: Timestamp = seen_at.unwrap().unwrap();
    let others = |oldest| {
        let one = one.clone();
        store.read(move |reader| one.others(reader, oldest))
    };
    let expected = [(two.id, "{\"streams\":7}".to_owned())];
    assert_eq!(others(seen_at).await.unwrap(), expected);
    let late = seen_at.after(Duration::from_millis(1));
    assert!(others(late).await.unwrap().is_empty(), "a replica that was not seen is there");
    let oldest = one.oldest(seen_at.after(Duration::from_hours(1)));
    let is_known = others(oldest).await.unwrap() == expected;
    assert!(is_known, "a replica that has only just come takes another one for gone");
}

async fn a_replica_is_relieved_by_another_one_that_serves(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, folder.path());
    let one = Replica::join(store.clone()).await.unwrap();
    assert!(!one.is_relieved().await.unwrap(), "it is alone");
    let two = Replica::join(store.clone()).await.unwrap();
    assert!(one.is_relieved().await.unwrap(), "the other one has just come");
    let stats = crate::streams::stats::Stats::default();
    two.tell(stats.to_json()).await.unwrap();
    assert!(one.is_relieved().await.unwrap(), "the other one serves");
    stats.drain();
    two.tell(stats.to_json()).await.unwrap();
    assert!(!one.is_relieved().await.unwrap(), "the other one is stopping, too");
    assert!(two.is_relieved().await.unwrap());
}

async fn what_a_dead_replica_leaves_is_cleared_away_and_a_thawed_one_comes_back(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, folder.path());
    let frozen = Replica::join(store.clone()).await.unwrap();
    let (slots, mut releaser) = Slots::new(frozen.id(), store.clone());
    let oldest = || store.now().before(REPLICA_LEASE);
    let lease = take(&store, &slots, "a", oldest()).await.unwrap();
    let other = Replica::join(store.clone()).await.unwrap();

    let gone = frozen.id();
    other.clear(gone, store.now().before(FORGOTTEN)).await.unwrap();
    assert_eq!(count(&store, "slots").await, 1, "it was seen again while it was cleared away");

    age(&store, gone, FORGOTTEN + Duration::from_secs(1)).await;
    other.sweep(store.now()).await.unwrap();
    assert_eq!(count(&store, "slots").await, 0);
    assert_eq!(count(&store, "replicas").await, 1);
    assert_eq!(count(&store, "topics").await, 1);

    // Somebody else has the slot by the time it is back; the old stream's end does not free it.
    let (others, _others) = Slots::new(other.id(), store.clone());
    let _successor = take(&store, &others, "b", oldest()).await.unwrap();
    frozen.renew("{}".into()).await.unwrap();
    assert_eq!(count(&store, "replicas").await, 2);
    drop(lease);
    let freed = releaser.queued();
    store.write(move |tx| slots::release(tx, &freed)).await.unwrap();
    assert_eq!(count(&store, "slots").await, 1);
    assert!(take(&store, &others, "c", oldest()).await.is_none());
}

async fn a_replica_that_stops_leaves_nothing(home: Home) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, folder.path());
    let replica = Replica::join(store.clone()).await.unwrap();
    let (slots, _releaser) = Slots::new(replica.id(), store.clone());
    let _lease = take(&store, &slots, "a", store.now().before(REPLICA_LEASE)).await.unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    replica.run(|| "{}".into(), shutdown).await;
    for table in ["slots", "replicas", "topics", "entries"] {
        assert_eq!(count(&store, table).await, 0, "{table}");
    }
}
