//! Random streams, gaps, sweeps and lost replicas, against a model that knows streams and graces alone.

use proptest::{prelude::*, test_runner::TestRunner};
use shared::{
    ids::{ConnectionId, ReplicaId},
    journal::Topic,
    sabotage::Sabotage,
    store::{Tx, Value},
    time::Timestamp,
};

use super::*;
use crate::streams::slots::Scope;

const REPLICAS: usize = 2;
const LONG_AGO: Timestamp = Timestamp::from_ms(0);
const GRACE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
enum Step {
    Open {
        replica: usize,
    },
    /// One of the open streams ends.
    Close(usize),
    /// The graces of a replica are over.
    Expire {
        replica: usize,
    },
    Sweep {
        replica: usize,
    },
    /// A replica dies, and another process starts in its stead.
    Lose {
        replica: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let replica = 0..REPLICAS;
    prop_oneof![
        4 => replica.clone().prop_map(|replica| Step::Open { replica }),
        4 => any::<usize>().prop_map(Step::Close),
        2 => replica.clone().prop_map(|replica| Step::Expire { replica }),
        2 => replica.clone().prop_map(|replica| Step::Sweep { replica }),
        1 => replica.prop_map(|replica| Step::Lose { replica }),
    ]
}

struct Stream {
    replica: usize,
    connection: ConnectionId,
    here: Here,
}

/// Two replicas over one database, and one user.
struct World {
    store: Store,
    caller: Caller,
    replicas: Vec<(ReplicaId, Keeper)>,
    streams: Vec<Stream>,
    /// Replicas on which the user has a grace.
    graces: [bool; REPLICAS],
    /// Replica that announced the user last: its grace is the one that counts.
    owner: Option<usize>,
    /// The deliberate bug: a sweep takes out whoever has no stream, as if no replica answered for the row.
    ignores_owners: bool,
}

impl World {
    async fn new(ignores_owners: bool, sabotage: Option<Sabotage>) -> (Self, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder for data");
        let store = Store::open_with(folder.path(), &Bus::default(), sabotage);
        let store = store.expect("the database opens");
        let project = ProjectId::mint();
        let user = "ada".parse().expect("a user id");
        let caller = Caller { project, user, trace: TraceId::mint() };
        let topic = Topic::project(project);
        store.write(move |tx| tx.ensure(&topic)).await.expect("the topic is made");
        let mut world = Self {
            store,
            caller,
            replicas: Vec::new(),
            streams: Vec::new(),
            graces: [false; REPLICAS],
            owner: None,
            ignores_owners,
        };
        for _ in 0..REPLICAS {
            let replica = world.start().await;
            world.replicas.push(replica);
        }
        (world, folder)
    }

    async fn start(&self) -> (ReplicaId, Keeper) {
        let replica = Replica::join(self.store.clone()).await.expect("the database is there");
        (replica.id(), Presence::new(self.store.clone(), Bus::default(), replica, GRACE).1)
    }

    async fn execute(
        &self,
        sql: &'static str,
        params: impl Fn() -> Vec<Value<'static>> + Send + 'static,
    ) {
        let written = self.store.write(move |tx| tx.execute(sql, &params()).map(drop));
        written.await.expect("the database is there");
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Open { replica } => {
                let (connection, id) = (ConnectionId::mint(), self.replicas[*replica].0);
                let n = i64::try_from(self.streams.len()).expect("few streams");
                let key = Scope::Project(self.caller.project, self.caller.user.clone()).key();
                let insert = move |tx: &mut Tx<'_>| {
                    let sql = "SELECT COALESCE(MAX(n), 0) + 1 + $1 FROM slots";
                    let n = tx.find(sql, &[n.into()], |row| row.get::<i64>(0))?.unwrap_or(n);
                    let sql = "INSERT INTO slots (scope, n, connection, replica, user_id, stream, about) \
                               VALUES ($1, $2, $3, $4, 'ada', $5, '{}')";
                    let stream = connection.to_string();
                    let params =
                        [(&*key).into(), n.into(), connection.into(), id.into(), (&stream).into()];
                    tx.execute(sql, &params).map(drop)
                };
                self.store.write(insert).await.expect("the database is there");
                let here = self.replicas[*replica].1.presence.enter(self.caller.clone());
                if !self.streams.iter().any(|stream| stream.replica == *replica) {
                    self.owner = Some(*replica);
                }
                self.streams.push(Stream { replica: *replica, connection, here });
                self.graces[*replica] = true;
            }
            Step::Close(index) if !self.streams.is_empty() => {
                let index = index % self.streams.len();
                let Stream { connection, here, .. } = self.streams.swap_remove(index);
                self.execute("DELETE FROM slots WHERE connection = $1", move || {
                    vec![connection.into()]
                })
                .await;
                drop(here);
            }
            Step::Close(_) => {}
            Step::Expire { replica } => {
                let over = Instant::now() + 2 * GRACE;
                self.replicas[*replica].1.presence.expire(over);
                self.graces[*replica] =
                    self.streams.iter().any(|stream| stream.replica == *replica);
                if self.owner == Some(*replica) && !self.graces[*replica] {
                    self.owner = self.streams.first().map(|stream| stream.replica);
                }
            }
            Step::Sweep { .. } if self.ignores_owners => {
                let absent = "DELETE FROM presence WHERE NOT EXISTS (SELECT 1 FROM slots WHERE scope = presence.scope)";
                self.execute(absent, Vec::new).await;
            }
            Step::Sweep { replica } => self.replicas[*replica].1.sweep().await,
            Step::Lose { replica } => {
                let id = self.replicas[*replica].0;
                self.execute("UPDATE replicas SET seen_at = $2 WHERE id = $1", move || {
                    vec![id.into(), LONG_AGO.into()]
                })
                .await;
                // A lost process writes nothing any more.
                let lost = self.start().await;
                let lost = std::mem::replace(&mut self.replicas[*replica], lost);
                self.streams.retain(|stream| stream.replica != *replica);
                drop(lost);
                self.graces[*replica] = false;
                self.owner = self.owner.filter(|owner| owner != replica);
            }
        }
        for (_, keeper) in &mut self.replicas {
            let mut batch = Vec::new();
            while let Ok(change) = keeper.changes.try_recv() {
                batch.push(change);
            }
            keeper.write_all(batch).await;
        }
    }

    async fn is_present(&self) -> bool {
        let caller = self.caller.clone();
        let found = self.store.read(move |reader| rows::get(reader, &caller));
        let found: Result<_, shared::store::Error> = found.await;
        found.expect("the database is there").is_some()
    }

    /// Returns what is wrong after the steps, `None` if nothing is.
    async fn run(mut self, steps: &[Step]) -> Option<String> {
        for (number, step) in steps.iter().enumerate() {
            self.take(step).await;
            let has_stream = !self.streams.is_empty();
            let has_grace = self.owner.is_some_and(|owner| self.graces[owner]);
            if (has_stream || has_grace) && !self.is_present().await {
                return Some(format!("the user is absent after step {number}: {step:?}"));
            }
        }
        while !self.streams.is_empty() {
            self.take(&Step::Close(0)).await;
        }
        // The second round is for a row that the first one handed to the other replica.
        for replica in [0, 1, 0, 1] {
            self.take(&Step::Expire { replica }).await;
            self.take(&Step::Sweep { replica }).await;
        }
        self.is_present().await.then(|| "the user stays present without a stream".to_owned())
    }
}

fn outcome(steps: &[Step], ignores_owners: bool) -> Option<String> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // No step waits until a replica may take over from others.
        let (world, _folder) = World::new(ignores_owners, Some(Sabotage::ReapAtOnce)).await;
        world.run(steps).await
    })
}

/// Returns whether a user is present after an outage of the database in which no replica could renew its lease, once the
/// first replica that is back has swept.
async fn outlasts_an_outage(sabotage: Option<Sabotage>) -> bool {
    let (mut world, _folder) = World::new(false, sabotage).await;
    world.take(&Step::Open { replica: 1 }).await;
    world.execute("UPDATE replicas SET seen_at = $1", || vec![LONG_AGO.into()]).await;
    world.take(&Step::Sweep { replica: 0 }).await;
    world.is_present().await
}

#[tokio::test]
async fn after_an_outage_a_user_of_another_replica_stays_present() {
    assert!(outlasts_an_outage(None).await);
    assert!(!outlasts_an_outage(Some(Sabotage::ReapAtOnce)).await, "the deliberate bug shows");
}

#[test]
fn a_user_with_a_stream_or_a_grace_is_present_whatever_sweeps_and_dies() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    runner
        .run(&proptest::collection::vec(step(), 1..40), |steps| {
            prop_assert_eq!(outcome(&steps, false), None);
            Ok(())
        })
        .expect("presence is right");
}

#[test]
fn the_model_notices_a_sweep_that_ignores_who_answers_for_a_row() {
    let steps = [Step::Open { replica: 0 }, Step::Close(0), Step::Sweep { replica: 1 }];
    assert_eq!(outcome(&steps, false), None, "the steps are fine as they are");
    assert!(outcome(&steps, true).is_some(), "the deliberate bug shows");
}

#[test]
fn a_user_of_a_lost_replica_is_taken_out_and_announced_again() {
    let lost = [Step::Open { replica: 0 }, Step::Lose { replica: 0 }, Step::Sweep { replica: 1 }];
    assert_eq!(outcome(&lost, false), None, "a sweep after the loss");
    let again = [&lost[..], &[Step::Open { replica: 1 }, Step::Sweep { replica: 0 }]].concat();
    assert_eq!(outcome(&again, false), None, "a stream after the loss");
}
