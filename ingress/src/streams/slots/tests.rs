//! Slots over a real store.

mod leases;
mod model;

use cluster::{on_both_stores, scratch::Home};
use futures_util::future::join_all;
use shared::{bus::Bus, ids::ProjectId, journal::Topic};
use tempfile::TempDir;

use super::*;

on_both_stores!(
    of_64_at_once_exactly_the_limit_get_in,
    the_lowest_number_that_is_free_is_taken_again,
    a_stream_that_comes_back_replaces_itself_and_is_ordered_to_go_once,
    the_slots_of_a_dead_replica_are_free_and_of_a_live_one_are_not,
    several_scopes_are_taken_all_or_none,
    a_limit_of_none_refuses_all_and_a_lowered_one_counts_what_is_beyond,
    of_many_that_race_the_limit_gets_in,
);

/// A deliberate bug, which the model must notice.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// A stream that comes back is counted again.
    CountAgain,
    /// The slots of a replica that is gone stay taken.
    DeadAreLive,
    /// The slots of a live replica can be had.
    LiveAreDead,
}

impl Sabotage {
    pub(super) fn is_live(self) -> Option<bool> {
        match self {
            Self::CountAgain => None,
            Self::DeadAreLive => Some(true),
            Self::LiveAreDead => Some(false),
        }
    }
}

/// Replicas that were not seen since are gone.
const OLDEST: Timestamp = Timestamp::from_ms(990_000);
const SEEN: Timestamp = OLDEST;
const UNSEEN: Timestamp = Timestamp::from_ms(989_999);

struct Fixture {
    store: Store,
    project: ProjectId,
    _folder: TempDir,
}

/// Opens a database of this kind for a test.
pub(crate) fn open(home: Home, folder: &std::path::Path) -> Store {
    match home.url() {
        None => Store::open(folder, &Bus::default()).unwrap(),
        Some(url) => Store::connect(&url, &Bus::default(), None).unwrap(),
    }
}

fn fixture(home: Home) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, folder.path());
    Fixture { store, project: ProjectId::mint(), _folder: folder }
}

fn ada() -> UserId {
    "ada".parse().unwrap()
}

fn holder(stream: &str) -> Holder {
    let (connection, about) = (ConnectionId::mint(), format!("{{\"tab\":\"{stream}\"}}"));
    Holder { connection, user: ada(), stream: stream.into(), about, channels: None }
}

fn seen(tx: &mut Tx<'_>, replica: ReplicaId, at: Timestamp) {
    let sql = "INSERT INTO replicas (id, started_at, seen_at, stats) VALUES ($1, $2, $2, '{}') \
               ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at";
    tx.execute(sql, &[replica.into(), at.into()]).unwrap();
}

fn orders(reader: &Reader<'_>, replica: ReplicaId) -> Vec<Order> {
    let entries = reader.entries(&Topic::replica(replica), 0, 100).unwrap();
    entries.iter().map(|entry| Order::from_entry(entry).unwrap()).collect()
}

fn full(refused: Refused) -> Full {
    match refused {
        Refused::Full(full) => full,
        Refused::Store(error) => panic!("{error}"),
    }
}

fn rows(reader: &Reader<'_>) -> Vec<(String, i64, ConnectionId)> {
    let sql = "SELECT scope, n, connection FROM slots ORDER BY scope, n";
    reader.query(sql, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

impl Fixture {
    /// A replica that was just seen.
    async fn replica(&self) -> (Slots, Releaser) {
        let (slots, releaser) = Slots::new(ReplicaId::mint(), self.store.clone());
        self.seen(&slots, SEEN).await;
        (slots, releaser)
    }

    async fn seen(&self, slots: &Slots, at: Timestamp) {
        let replica = slots.replica;
        let seen = move |tx: &mut Tx<'_>| {
            seen(tx, replica, at);
            Ok::<_, Error>(())
        };
        self.store.write(seen).await.unwrap();
    }

    fn wanted(&self, limit: i64) -> Vec<Wanted> {
        vec![Wanted { scope: Scope::Project(self.project, ada()), limit }]
    }

    async fn take(
        &self,
        slots: &Slots,
        wanted: Vec<Wanted>,
        holder: &Holder,
    ) -> Result<Lease, Full> {
        let (slots, holder) = (slots.clone(), holder.clone());
        let taken = self.store.write(move |tx| slots.take(tx, &wanted, &holder, OLDEST)).await;
        taken.map_err(full)
    }

    async fn read<T: Send + 'static>(&self, read: impl Fn(&Reader<'_>) -> T + Send + 'static) -> T {
        self.store.read(move |reader| Ok::<_, Error>(read(reader))).await.unwrap()
    }

    async fn numbers(&self) -> Vec<i64> {
        self.read(|reader| rows(reader).iter().map(|row| row.1).collect()).await
    }

    async fn orders(&self, slots: &Slots) -> Vec<Order> {
        let replica = slots.replica;
        self.read(move |reader| orders(reader, replica)).await
    }

    async fn release(&self, releaser: &mut Releaser) {
        let freed = releaser.queued();
        self.store.write(move |tx| release(tx, &freed)).await.unwrap();
    }
}

async fn of_64_at_once_exactly_the_limit_get_in(home: Home) {
    let fixture = fixture(home);
    let (one, _one) = fixture.replica().await;
    let (two, _two) = fixture.replica().await;
    let attempts = (0..64).map(|index| {
        let slots = if index % 2 == 0 { &one } else { &two };
        let (holder, fixture) = (holder(&index.to_string()), &fixture);
        async move { fixture.take(slots, fixture.wanted(5), &holder).await }
    });
    let taken = join_all(attempts).await;
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 5);
    let full = Full { scope: Kind::User, current: 5, limit: 5 };
    assert!(taken.iter().filter_map(|taken| taken.as_ref().err()).all(|refused| *refused == full));
    assert_eq!(fixture.numbers().await, [0, 1, 2, 3, 4]);
}

async fn the_lowest_number_that_is_free_is_taken_again(home: Home) {
    let fixture = fixture(home);
    let (slots, mut releaser) = fixture.replica().await;
    let mut leases = Vec::new();
    for stream in ["a", "b", "c"] {
        leases.push(fixture.take(&slots, fixture.wanted(3), &holder(stream)).await.unwrap());
    }
    drop(leases.remove(1));
    fixture.release(&mut releaser).await;
    assert_eq!(fixture.numbers().await, [0, 2]);
    leases.push(fixture.take(&slots, fixture.wanted(3), &holder("d")).await.unwrap());
    assert_eq!(fixture.numbers().await, [0, 1, 2]);
}

async fn a_stream_that_comes_back_replaces_itself_and_is_ordered_to_go_once(home: Home) {
    let fixture = fixture(home);
    let (one, mut releaser) = fixture.replica().await;
    let (two, _two) = fixture.replica().await;
    let wanted = || {
        let session = Wanted { scope: Scope::Session("s".parse().unwrap()), limit: 1 };
        let address = Wanted { scope: Scope::Address("203.0.113.9".into()), limit: 2 };
        vec![session, address]
    };
    let (first, second) = (holder("tab"), holder("tab"));
    let lease = fixture.take(&one, wanted(), &first).await.unwrap();
    let _second = fixture.take(&two, wanted(), &second).await.unwrap();
    let order = Order { connection: first.connection, what: What::Replaced };
    assert_eq!(fixture.orders(&one).await, [order]);
    assert!(fixture.orders(&two).await.is_empty());

    // The one that was replaced closes only now: the slots are its successor's.
    drop(lease);
    fixture.release(&mut releaser).await;
    let rows = fixture.read(rows).await;
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.2 == second.connection));
    let other = fixture.take(&one, wanted(), &holder("other")).await.unwrap_err();
    assert_eq!(other, Full { scope: Kind::Session, current: 1, limit: 1 });
}

async fn the_slots_of_a_dead_replica_are_free_and_of_a_live_one_are_not(home: Home) {
    let fixture = fixture(home);
    let (one, _one) = fixture.replica().await;
    let (two, mut releaser) = fixture.replica().await;
    let lease = fixture.take(&two, fixture.wanted(1), &holder("a")).await.unwrap();
    assert!(fixture.take(&one, fixture.wanted(1), &holder("b")).await.is_err());
    fixture.seen(&two, UNSEEN).await;
    // To itself it is not dead.
    assert!(fixture.take(&two, fixture.wanted(1), &holder("b")).await.is_err());
    let _b = fixture.take(&one, fixture.wanted(1), &holder("b")).await.unwrap();
    assert!(fixture.orders(&two).await.is_empty(), "a stranger's stream is not closed");
    drop(lease);
    fixture.release(&mut releaser).await;
    assert_eq!(fixture.numbers().await, [0]);

    let gone = Slots { replica: ReplicaId::mint(), ..two };
    let (three, _three) = fixture.replica().await;
    let _c = fixture.take(&gone, fixture.wanted(2), &holder("c")).await.unwrap();
    let _d = fixture.take(&three, fixture.wanted(2), &holder("d")).await.unwrap();
    assert_eq!(fixture.numbers().await, [0, 1]);
}

async fn several_scopes_are_taken_all_or_none(home: Home) {
    let fixture = fixture(home);
    let (slots, _releaser) = fixture.replica().await;
    let session = |name: &str| Wanted { scope: Scope::Session(name.parse().unwrap()), limit: 1 };
    let address = || Wanted { scope: Scope::Address("203.0.113.9".into()), limit: 1 };
    let _lease = fixture.take(&slots, vec![session("a"), address()], &holder("a")).await.unwrap();
    let wanted = vec![session("b"), address()];
    let (giver, taker) = (slots.clone(), holder("b"));
    // The transaction is kept although the slot was refused.
    let kept = fixture.store.write(move |tx| {
        let refused = giver.take(tx, &wanted, &taker, OLDEST);
        assert!(matches!(
            refused,
            Err(Refused::Full(Full { scope: Kind::Ip, current: 1, limit: 1 }))
        ));
        Ok::<_, Error>(())
    });
    kept.await.unwrap();
    assert_eq!(fixture.read(rows).await.len(), 2);
}

async fn a_limit_of_none_refuses_all_and_a_lowered_one_counts_what_is_beyond(home: Home) {
    let fixture = fixture(home);
    let (slots, mut releaser) = fixture.replica().await;
    let none = fixture.take(&slots, fixture.wanted(0), &holder("a")).await.unwrap_err();
    assert_eq!(none, Full { scope: Kind::User, current: 0, limit: 0 });
    let mut leases = Vec::new();
    for stream in ["a", "b", "c"] {
        leases.push(fixture.take(&slots, fixture.wanted(3), &holder(stream)).await.unwrap());
    }
    leases.remove(0);
    fixture.release(&mut releaser).await;
    let full = fixture.take(&slots, fixture.wanted(2), &holder("d")).await.unwrap_err();
    assert_eq!(full, Full { scope: Kind::User, current: 2, limit: 2 });
    assert!(fixture.take(&slots, fixture.wanted(0), &holder("c")).await.is_err());
}

#[tokio::test]
async fn who_loses_a_race_takes_the_next_slot() {
    let fixture = fixture(Home::Sqlite);
    let (slots, _releaser) = fixture.replica().await;
    let replica = slots.replica;
    let rival = move |tx: &mut Tx<'_>| {
        let sql = "CREATE TRIGGER rival BEFORE INSERT ON slots WHEN NEW.n = 0 BEGIN \
                   INSERT INTO slots SELECT NEW.scope, 0, zeroblob(16), NEW.replica, 'eve', 'x', '{}', NULL; END";
        tx.execute(sql, &[]).map(drop)
    };
    fixture.store.write(rival).await.unwrap();
    let _lease = fixture.take(&slots, fixture.wanted(2), &holder("a")).await.unwrap();
    assert_eq!(fixture.numbers().await, [0, 1]);
    assert_eq!(fixture.read(move |reader| held_by(reader, replica).unwrap().len()).await, 2);
}

#[tokio::test]
async fn a_stream_that_two_replicas_open_at_once_has_one_slot() {
    let url = Home::Postgres.url().unwrap();
    let connect = || Store::connect(&url, &Bus::default(), None).unwrap();
    let fixture = Fixture { store: connect(), ..fixture(Home::Sqlite) };
    let other = Fixture {
        store: connect(),
        project: fixture.project,
        _folder: tempfile::tempdir().unwrap(),
    };
    let (one, mut releaser) = fixture.replica().await;
    let (two, _two) = other.replica().await;
    let taken = fixture.take(&one, fixture.wanted(3), &holder("x")).await.unwrap();

    // A third transaction holds slot 1, and gives it up later.
    let (begun, has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let (rival, ended) = (connect(), std::sync::Mutex::new(ended));
    let (key, replica) = (fixture.wanted(3)[0].scope.key(), one.replica);
    let mut has_begun = has_begun;
    let blocking = rival.write(move |tx| {
        let sql = "INSERT INTO slots (scope, n, connection, replica, user_id, stream, about) \
                   VALUES ($1, 1, $2, $3, 'eve', 'x', '{}')";
        tx.execute(sql, &[(&*key).into(), ConnectionId::mint().into(), replica.into()])?;
        let _ = begun.send(());
        let _ = ended.lock().unwrap().recv();
        Err::<(), _>(Error::Gone)
    });
    let (first, second) = (holder("tab"), holder("tab"));
    let opening = async {
        has_begun.recv().await.unwrap();
        // Slot 0 is taken, so it wants slot 1 and waits for it.
        let opening = fixture.take(&one, fixture.wanted(3), &first);
        let meanwhile = async {
            let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
            let waits = async || {
                let count =
                    other.read(move |reader| reader.find(sql, &[], |row| row.get::<i64>(0)));
                count.await.unwrap() == Some(1)
            };
            while !waits().await {}
            drop(taken);
            let freed = releaser.queued();
            other.store.write(move |tx| release(tx, &freed)).await.unwrap();
            let lease = other.take(&two, other.wanted(3), &second).await.unwrap();
            end.send(()).unwrap();
            lease
        };
        tokio::join!(opening, meanwhile)
    };
    let (_, (opened, _lease)) = tokio::join!(blocking, opening);
    let _opened = opened.unwrap();
    let rows = fixture.read(rows).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].2, first.connection, "the last one has the slot");
    let replaced = Order { connection: second.connection, what: What::Replaced };
    assert_eq!(fixture.orders(&two).await, [replaced], "and the one before is told");
}

async fn of_many_that_race_the_limit_gets_in(home: Home) {
    let fixture = fixture(home);
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(fixture.replica().await);
    }
    let holders: Vec<Holder> = (0..24).map(|n| holder(&n.to_string())).collect();
    let takes = holders.iter().zip(replicas.iter().cycle());
    let taken = takes.map(|(holder, (slots, _))| fixture.take(slots, fixture.wanted(5), holder));
    let taken: Vec<_> = join_all(taken).await;
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 5);
    let rows = fixture.store.read(|reader| Ok::<_, Error>(rows(reader))).await.unwrap();
    assert_eq!(rows.iter().map(|(_, n, _)| *n).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}
