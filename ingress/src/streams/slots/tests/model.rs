//! Random takes, closes, freezes and thaws, against a model that knows connections and nothing of SQL.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{TestCaseError, TestRunner},
};

use super::*;

const REPLICAS: usize = 3;
const LIMITS: [i64; 4] = [2, 3, 1, 0];

#[derive(Clone, Debug)]
enum Step {
    /// A stream opens on a replica: by its name, and in which of the scopes.
    Take { replica: usize, stream: &'static str, scopes: &'static [usize] },
    /// An open stream ends.
    Close(Index),
    /// A replica is not seen any more.
    Freeze(usize),
    /// A replica is seen again.
    Thaw(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let streams = select(&["a", "b", "c", "d", "e"][..]);
    let scopes: &[&[usize]] = &[&[0], &[0, 1], &[1, 2], &[0, 1, 2], &[0, 3]];
    prop_oneof![
        6 => (0..REPLICAS, streams, select(scopes))
            .prop_map(|(replica, stream, scopes)| Step::Take { replica, stream, scopes }),
        3 => any::<Index>().prop_map(Step::Close),
        1 => (0..REPLICAS).prop_map(Step::Freeze),
        1 => (0..REPLICAS).prop_map(Step::Thaw),
    ]
}

#[derive(Clone, Debug)]
struct Conn {
    id: ConnectionId,
    replica: usize,
    stream: &'static str,
}

/// Who sits where, by scope.
#[derive(Default)]
struct Model {
    scopes: [BTreeMap<i64, Conn>; 4],
    frozen: [bool; REPLICAS],
    orders: Vec<(usize, ConnectionId)>,
}

impl Model {
    /// Returns, if it refuses, which scope is full and how many it counts.
    fn take(&mut self, conn: &Conn, wanted: &[usize]) -> Result<(), (usize, i64)> {
        let is_live = |held: &Conn| held.replica == conn.replica || !self.frozen[held.replica];
        let mut seats = Vec::new();
        for &scope in wanted {
            let seated = &self.scopes[scope];
            let live = seated.values().filter(|held| is_live(held)).count();
            let own = seated.iter().find(|(_, held)| held.stream == conn.stream).map(|(n, _)| *n);
            let free = (0..LIMITS[scope]).find(|n| seated.get(n).is_none_or(|held| !is_live(held)));
            let n = own.or(free).ok_or((scope, i64::try_from(live).unwrap()))?;
            seats.push((scope, n, own.is_some()));
        }
        let mut orders = Vec::new();
        for (scope, n, replaces) in seats {
            let before = self.scopes[scope].insert(n, conn.clone());
            orders.extend(before.filter(|_| replaces).map(|before| (before.replica, before.id)));
        }
        orders.sort_unstable();
        orders.dedup();
        self.orders.extend(orders);
        Ok(())
    }

    fn rows(&self, keys: &[Box<str>; 4]) -> Vec<(String, i64, ConnectionId)> {
        let mut rows = Vec::new();
        for (key, seated) in keys.iter().zip(&self.scopes) {
            rows.extend(seated.iter().map(|(n, conn)| (key.to_string(), *n, conn.id)));
        }
        rows
    }
}

/// Plays `steps` in one transaction.
fn play(tx: &mut Tx<'_>, steps: &[Step], sabotage: Option<Sabotage>) -> Result<(), TestCaseError> {
    let (freed, mut given_up) = mpsc::unbounded_channel();
    let replicas: [Slots; REPLICAS] = std::array::from_fn(|_| Slots {
        replica: ReplicaId::mint(),
        freed: freed.clone(),
        sabotage,
    });
    for slots in &replicas {
        seen(tx, slots.replica, SEEN);
    }
    // In the order of their keys, as rows are read.
    let scopes = [
        Scope::Address("203.0.113.1".into()),
        Scope::Address("203.0.113.2".into()),
        Scope::Session("s".parse().unwrap()),
        Scope::Project(ProjectId::mint(), ada()),
    ];
    let keys = scopes.each_ref().map(Scope::key);
    let mut model = Model::default();
    let mut open: Vec<(Lease, ConnectionId)> = Vec::new();
    for step in steps {
        match step {
            Step::Take { replica, stream, scopes: chosen } => {
                let want = |&scope: &usize| {
                    let limit = LIMITS[scope];
                    Wanted { scope: scopes[scope].clone(), limit }
                };
                let wanted = chosen.iter().map(want).collect::<Vec<_>>();
                let (holder, slots) = (holder(stream), &replicas[*replica]);
                let conn = Conn { id: holder.connection, replica: *replica, stream };
                let expected = model.take(&conn, chosen).map_err(|(scope, current)| Full {
                    scope: scopes[scope].kind(),
                    current,
                    limit: LIMITS[scope],
                });
                let checked = slots.check(tx, &wanted, &ada(), stream, OLDEST);
                prop_assert_eq!(verdict(checked), expected);
                let taken = slots.take(tx, &wanted, &holder, OLDEST);
                let taken = taken.map(|lease| open.push((lease, conn.id)));
                prop_assert_eq!(verdict(taken), expected);
            }
            Step::Close(index) if !open.is_empty() => {
                let (lease, id) = open.swap_remove(index.index(open.len()));
                drop(lease);
                release(tx, &[given_up.try_recv().unwrap()]).unwrap();
                model.scopes.iter_mut().for_each(|seated| seated.retain(|_, conn| conn.id != id));
            }
            Step::Close(_) => {}
            Step::Freeze(replica) | Step::Thaw(replica) => {
                let frozen = matches!(step, Step::Freeze(_));
                model.frozen[*replica] = frozen;
                seen(tx, replicas[*replica].replica, if frozen { UNSEEN } else { SEEN });
            }
        }
        prop_assert_eq!(rows(tx), model.rows(&keys));
    }
    for (index, slots) in replicas.iter().enumerate() {
        let given = orders(tx, slots.replica).into_iter().map(|order| order.connection);
        let expected = model.orders.iter().filter(|(replica, _)| *replica == index);
        let expected = expected.map(|(_, id)| *id).collect::<Vec<_>>();
        prop_assert_eq!(given.collect::<Vec<_>>(), expected);
    }
    Ok(())
}

fn verdict(outcome: Result<(), Refused>) -> Result<(), Full> {
    outcome.map_err(full)
}

/// Carries what was found out of a transaction that is rolled back.
enum Undo {
    Played(Result<(), TestCaseError>),
    Store(Error),
}

impl From<Error> for Undo {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

fn run(home: Home, cases: u32, sabotage: Option<Sabotage>) -> Result<(), String> {
    let fixture = fixture(home);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let steps = prop::collection::vec(step(), 0..40);
    let played = TestRunner::new(config).run(&steps, |steps| {
        let undo = move |tx: &mut Tx<'_>| Err::<(), _>(Undo::Played(play(tx, &steps, sabotage)));
        match runtime.block_on(fixture.store.write(undo)) {
            Err(Undo::Played(outcome)) => outcome,
            Err(Undo::Store(error)) => panic!("{error}"),
            Ok(()) => unreachable!("it is rolled back"),
        }
    });
    played.map_err(|error| error.to_string())
}

#[test]
fn slots_are_what_the_model_says() {
    run(Home::Sqlite, 400, None).unwrap();
}

#[test]
fn slots_in_postgres_are_what_the_model_says() {
    run(Home::Postgres, 40, None).unwrap();
}

#[test]
fn the_model_notices_every_sabotage() {
    for sabotage in [Sabotage::CountAgain, Sabotage::DeadAreLive, Sabotage::LiveAreDead] {
        assert!(run(Home::Sqlite, 400, Some(sabotage)).is_err(), "{sabotage:?}");
    }
}
