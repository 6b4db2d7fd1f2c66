//! Cursors of readers who come back to a log that was appended to, trimmed, replaced, cut short or opened again.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{super::*, Evidence};
use crate::{
    bus::Bus,
    store::{Reader, Store},
};

/// How long a store may take to be closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ways to be wrong that the property must notice.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Sabotage {
    /// A log that was made anew is taken for the one before.
    IgnoreEpoch,
    /// An entry is taken for another one of the same number.
    IgnoreTag,
}

impl Sabotage {
    /// Returns epoch and tag as the place would have them.
    pub(super) fn pretend(
        self,
        place: Position,
        epoch: i64,
        tag: Option<u32>,
    ) -> (i64, Option<u32>) {
        match self {
            Self::IgnoreEpoch => (place.epoch, tag),
            Self::IgnoreTag => (epoch, tag.map(|_| place.tag)),
        }
    }
}

/// What becomes of a log, and readers who note where they are.
#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    /// So many are appended in one go.
    Together(usize),
    /// A reader leaves who has everything but the last so many.
    Leave(usize),
    /// The log is deleted and made anew.
    Replace,
    /// A failover lost some commits, those of so many entries or fewer; their numbers are used again.
    LoseTail(usize),
    Trim(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..4usize).prop_map(Step::Append),
        3 => (1..9usize).prop_map(Step::Together),
        4 => (0..4usize).prop_map(Step::Leave),
        1 => Just(Step::Replace),
        2 => (1..9usize).prop_map(Step::LoseTail),
        1 => (1..5i64).prop_map(Step::Trim),
        1 => Just(Step::Restart),
    ]
}

/// A reader who left.
#[derive(Debug)]
struct Left {
    cursor: String,
    life: u32,
    seen: Vec<String>,
}

/// The log as it should be, beside the one in the database.
struct World {
    folder: TempDir,
    store: Option<Store>,
    topic: Topic,
    life: u32,
    /// Every entry of this life that was not lost, trimmed ones too.
    entries: Vec<String>,
    /// How many there were after each commit that is left.
    commits: Vec<usize>,
    /// How many are gone for good, and the first that is promised.
    trimmed: usize,
    floor: usize,
    written: usize,
    left: Vec<Left>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &Bus::default()).unwrap();
        let topic = Topic::jobs();
        let named = topic.clone();
        store.write(move |tx| tx.ensure(&named)).await.unwrap();
        let (entries, commits, left) = (Vec::new(), Vec::new(), Vec::new());
        let store = Some(store);
        Self {
            folder,
            store,
            topic,
            life: 0,
            entries,
            commits,
            trimmed: 0,
            floor: 1,
            written: 0,
            left,
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open")
    }

    async fn take(&mut self, step: &Step) {
        let topic = self.topic.clone();
        match *step {
            Step::Append(count) => {
                for _ in 0..count {
                    let (topic, data) = (topic.clone(), self.write(1).remove(0));
                    let append = move |tx: &mut Tx<'_>| tx.append(&topic, "test", &data).map(drop);
                    self.store().write(append).await.unwrap();
                }
            }
            Step::Together(count) => {
                let all = self.write(count);
                let append = move |tx: &mut Tx<'_>| {
                    let all: Vec<_> = all.iter().map(|data| ("test", data.as_str())).collect();
                    tx.append_all(&topic, &all)
                };
                self.store().write(append).await.unwrap();
            }
            Step::Leave(unread) => {
                let seen = self.entries.len().saturating_sub(unread);
                if seen < self.entries.len() && seen <= self.trimmed {
                    return;
                }
                let at = i64::try_from(seen).unwrap();
                let read = self.store().read(move |reader| {
                    let head = reader.head(&topic)?.ok_or(Error::Gone)?;
                    Ok::<_, Error>((head, reader.entries(&topic, at - 1, 1)?))
                });
                let (head, entries) = read.await.unwrap();
                let place = if head.seq == at { head } else { entries[0].position };
                assert_eq!(place.seq, at);
                let cursor = Cursor::at(&self.topic, place).to_string();
                let seen = self.entries[..seen].to_vec();
                self.left.push(Left { cursor, life: self.life, seen });
            }
            Step::Replace => {
                let replace = move |tx: &mut Tx<'_>| {
                    tx.forget(&topic)?;
                    tx.ensure(&topic)
                };
                self.store().write(replace).await.unwrap();
                self.life += 1;
                (self.trimmed, self.floor) = (0, 1);
                (self.entries, self.commits) = (Vec::new(), Vec::new());
            }
            Step::LoseTail(count) => {
                // What is trimmed is older than what a failover loses.
                let least = if self.floor == 1 { 0 } else { self.floor };
                let most = self.entries.len().saturating_sub(count);
                let ends = self.commits.iter().copied().chain([0]);
                let end = ends.filter(|end| (most..).contains(end) && *end >= least).min();
                let end = end.unwrap_or(self.entries.len());
                self.entries.truncate(end);
                self.commits.retain(|commit| *commit <= end);
                let end = i64::try_from(end).unwrap();
                let lose = move |tx: &mut Tx<'_>| {
                    let params = [topic.as_str().into(), end.into()];
                    tx.execute("DELETE FROM entries WHERE topic = $1 AND seq > $2", &params)?;
                    // The row of the entry that is the last again has its tag.
                    tx.execute("UPDATE topics SET head = $2, tag = NULL WHERE name = $1", &params)
                        .map(drop)
                };
                self.store().write(lose).await.unwrap();
            }
            Step::Trim(most) => {
                let config = RetentionConfig {
                    journal_max_age: Duration::from_hours(1),
                    journal_max_entries: most,
                };
                trim(self.store(), &config, Timestamp::now()).await.unwrap();
                let most = usize::try_from(most).unwrap();
                let beyond = self.entries.len().saturating_sub(most);
                self.floor = self.floor.max(beyond + 1);
                // Of a commit all is kept as long as its last entry.
                let gone = self.commits.iter().filter(|commit| **commit < self.floor).max();
                self.trimmed = self.trimmed.max(gone.copied().unwrap_or(0));
            }
            Step::Restart => {
                drop(self.store.take());
                let began = Instant::now();
                // What was asked of the store last may hold it for a moment longer.
                self.store = loop {
                    match Store::open(self.folder.path(), &Bus::default()) {
                        Ok(store) => break Some(store),
                        Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
                    }
                    tokio::task::yield_now().await;
                };
            }
        }
    }

    /// Makes up so many entries that are committed together.
    fn write(&mut self, count: usize) -> Vec<String> {
        let new: Vec<_> =
            (self.written..self.written + count).map(|number| format!("entry {number}")).collect();
        self.written += count;
        self.entries.extend(new.iter().cloned());
        self.commits.push(self.entries.len());
        new
    }

    /// Holds the log to what each reader who comes back may expect: to go on without a hole, or to be told.
    async fn check(&self, sabotage: Option<Sabotage>) -> Result<(), String> {
        for left in &self.left {
            let (topic, cursor) = (self.topic.clone(), left.cursor.clone());
            let outcome = self.store().read(move |reader| {
                let start = reader.start(&topic, Some(&cursor))?.unwrap();
                let place = cursor.parse::<Cursor>().unwrap().position(&topic).unwrap();
                let sound = reader.evidence(&topic, head_of(reader, &topic)?, place)?;
                let judged = Evidence { sabotage, ..sound }.judge(place);
                let rest = reader.entries(&topic, place.seq, 1_000)?;
                let two = reader.entries(&topic, place.seq, 2)?;
                assert_eq!(two, rest[..rest.len().min(2)]);
                Ok::<_, Error>((start, judged, rest))
            });
            let (start, judged, rest) = outcome.await.unwrap();
            let seen = left.seen.len();
            let same = left.life == self.life && self.entries.get(..seen) == Some(&left.seen[..]);
            let is_kept = if seen == 0 { self.floor == 1 } else { seen > self.trimmed };
            let expected = same && is_kept;
            if sabotage.is_none() && start.reset != judged.err() {
                return Err(format!("{start:?} is not {judged:?}"));
            }
            if judged.is_ok() != expected {
                return Err(format!("{judged:?} for {left:?} in {:?}", self.entries));
            }
            let rest: Vec<&str> = rest.iter().map(|entry| &*entry.data).collect();
            if expected && rest != self.entries[seen..] {
                return Err(format!("{rest:?} after {left:?}"));
            }
        }
        Ok(())
    }
}

fn head_of(reader: &Reader<'_>, topic: &Topic) -> Result<Position, Error> {
    reader.head(topic)?.ok_or(Error::Gone)
}

fn outcome(steps: &[Step], sabotage: Option<Sabotage>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        for step in steps {
            world.take(step).await;
            world.check(sabotage).await?;
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_reader_goes_on_without_a_hole_or_is_told(steps in prop::collection::vec(step(), 1..16)) {
        prop_assert_eq!(outcome(&steps, None), Ok(()));
    }
}

#[test]
fn the_property_notices_every_sabotage() {
    use Step::{Append, Leave, LoseTail, Replace, Together};

    let begun = [Leave(0), Replace, Append(1)];
    let overwritten = [Append(2), Leave(0), LoseTail(1), Append(1)];
    let packed = [Append(1), Together(3), Leave(1), LoseTail(3), Together(3)];
    for (sabotage, steps) in [
        (Sabotage::IgnoreEpoch, &begun[..]),
        (Sabotage::IgnoreTag, &overwritten[..]),
        (Sabotage::IgnoreTag, &packed[..]),
    ] {
        assert_eq!(outcome(steps, None), Ok(()));
        assert!(outcome(steps, Some(sabotage)).is_err(), "{sabotage:?}");
    }
}
