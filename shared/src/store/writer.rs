//! The group commit: a thread with a connection, one transaction for all that is queued, one sync to disk.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, mpsc::SyncSender},
    time::{Duration, Instant},
};

use super::{
    Appended, Error, PATIENCE, PROBE_INTERVAL,
    connection::{Committed, Connection, Locking},
    progress::{Progress, Refusal},
    queue::{Queue, Taken},
    work::Write,
};
use crate::{
    bus::{Bus, News},
    journal::Topic,
    sabotage::Sabotage,
};

/// Writes in one transaction at most.
pub(super) const GROUP: usize = 128;
/// Writes with a savepoint in one transaction at most: beyond 64 of them `PostgreSQL` looks each of them up on its disk.
const SAVEPOINTS: usize = 60;
/// No write joins a group that has been running for this long, so that a bulk write delays others little.
const GROUP_TIME: Duration = Duration::from_millis(10);

/// One thread's part: its connection, and where entries are told of.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) queue: Arc<Queue>,
    pub(super) bus: Bus,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) progress: Arc<Progress>,
    pub(super) refusal: Arc<Refusal>,
    /// Part of the store, and gone with its last handle.
    pub(super) store: Weak<()>,
    /// Time that the thread rests before it asks the server for a sign of life.
    pub(super) probe_interval: Option<Duration>,
    /// Has the log of `SQLite` emptied, which still holds what was erased.
    pub(super) erased: Option<SyncSender<()>>,
}

impl Writer {
    /// Commits groups until every handle of the store is gone.
    ///
    /// A database with one writer is given more as it goes, see [`Writer::more`]; else every project that a group is
    /// about has to be known before it begins.
    pub(super) fn run(mut self) {
        let most = if self.connection.is_shared() { GROUP } else { 1 };
        loop {
            self.progress.rest();
            let is_refused = self.refusal.lasts().is_some();
            let probe_interval =
                if is_refused { Some(PROBE_INTERVAL) } else { self.probe_interval };
            let taken = self.queue.take(most, probe_interval);
            self.progress.work();
            match taken {
                Taken::Group(group) => {
                    for work in group.expired {
                        work.settle(Err(Error::expired()));
                    }
                    let locked = self.commit(group.writes, group.locking);
                    self.queue.done(&group.topics, group.locking, locked);
                }
                Taken::Nothing if is_refused => self.connection.probe_writes(),
                Taken::Nothing => self.connection.probe(),
                Taken::Closed => return,
            }
            self.connection.restore(|| self.store.strong_count() == 0);
        }
    }

    fn more(&self, count: usize, began: Instant) -> Option<Box<dyn Write>> {
        if self.connection.is_shared() || count >= GROUP {
            return None;
        }
        while began.elapsed() < GROUP_TIME {
            let work = self.queue.next()?;
            if work.deadline() > Instant::now() {
                return Some(work);
            }
            work.settle(Err(Error::expired()));
        }
        None
    }

    /// Commits a group, publishes its entries and answers its callers. Returns the writes whose topics another process has:
    /// nothing of them was done.
    fn commit(&mut self, writes: Vec<Box<dyn Write>>, locking: Locking) -> Vec<Box<dyn Write>> {
        let mut split = Split::default();
        self.commit_group(writes, locking, self.begins_with(), &mut split);
        for work in std::mem::take(&mut split.apart) {
            self.commit_group(vec![work], Locking::Wait, self.begins_with(), &mut split);
        }
        split.locked
    }

    /// Commits a group that is tried with `keep`. A group that failed without leaving anything is done again while there is
    /// hope.
    fn commit_group(
        &mut self,
        mut group: Vec<Box<dyn Write>>,
        locking: Locking,
        keep: Keep,
        split: &mut Split,
    ) {
        if group.is_empty() {
            return;
        }
        let until = Instant::now() + PATIENCE;
        // Appended by a transaction whose fate is not known.
        let mut lost: Option<Appended> = None;
        let outcome = loop {
            let mut appended = Appended::default();
            let attempt = match &lost {
                Some(before) => self.has_committed(before).map_err(Failed::Nothing),
                None => Ok(false),
            };
            let attempt = attempt.and_then(|has_committed| {
                if has_committed {
                    appended = lost.take().unwrap_or_default();
                    return Ok(());
                }
                lost = None;
                self.attempt(&mut group, &mut appended, locking, keep, split)
            });
            let error = match attempt {
                Ok(()) => break Ok(appended),
                Err(Failed::Unknown(_)) if self.sabotage == Some(Sabotage::TrustLostCommit) => {
                    break Ok(appended);
                }
                Err(Failed::Unknown(error)) if appended.news.is_empty() => break Err(error),
                Err(Failed::Unknown(error)) => {
                    lost = Some(appended);
                    error
                }
                Err(Failed::Refused) => {
                    while !group.is_empty() {
                        let rest = group.split_off(group.len().min(SAVEPOINTS));
                        self.commit_group(group, locking, Keep::Each, split);
                        group = rest;
                    }
                    return;
                }
                Err(Failed::Nothing(error)) => error,
            };
            // A refusal that lasts is not waited for: those behind would be answered late.
            let lasts = self.refusal.lasts().is_some_and(|lasts| lasts >= PATIENCE);
            let until = if lasts { until.min(Instant::now()) } else { until };
            if let Err(error) = self.connection.recover(error, until) {
                break Err(error);
            }
        };
        match outcome {
            Ok(appended) => {
                if appended.erases
                    && let Some(erased) = &self.erased
                {
                    // One that is full has been told already.
                    let _ = erased.try_send(());
                }
                self.bus.publish_all(appended.news);
                for work in group {
                    work.settle(Ok(()));
                }
            }
            Err(error) => {
                tracing::error!(%error, "a group of writes was not committed");
                let error = Arc::new(error);
                for work in group {
                    work.settle(Err(Error::Commit(error.clone())));
                }
            }
        }
    }

    /// Returns whether a transaction was committed whose `COMMIT` was not answered. Waits until it has ended.
    ///
    /// One of its topics tells: the transaction has it, by a lock or as a new row that nobody sees yet, so that to make the
    /// topic waits for either.
    fn has_committed(&mut self, before: &Appended) -> Result<bool, Error> {
        // Not the topics that are taken last: they are not to be taken first.
        let Some(entry) = before.news.first().map(News::last) else { return Ok(false) };
        self.connection.run("BEGIN")?;
        if self.sabotage != Some(Sabotage::NoCommitWait) {
            self.connection.tx(&mut Appended::default(), None).ensure(&entry.topic)?;
        }
        let has_committed = self.connection.reader().has(entry)?;
        self.connection.take_failure().map_or(Ok(()), Err)?;
        // The topic was made to find out, and for nothing else.
        self.connection.run("ROLLBACK")?;
        Ok(has_committed)
    }

    fn attempt(
        &mut self,
        group: &mut Vec<Box<dyn Write>>,
        appended: &mut Appended,
        locking: Locking,
        keep: Keep,
        split: &mut Split,
    ) -> Result<(), Failed> {
        let mut topics: Vec<&Topic> = group.iter().filter_map(|work| work.topic()).collect();
        topics.sort_unstable();
        topics.dedup();
        if self.sabotage == Some(Sabotage::Sequence) {
            topics.clear();
        }
        let is_one = topics.len() == 1;
        let absent = self.connection.begin(&topics, locking).map_err(Failed::Nothing)?;
        // A group makes its only topic without waiting for anybody who makes others.
        let absent: Vec<_> = absent.iter().filter(|absent| absent.is_locked || !is_one).collect();
        if !absent.is_empty() {
            for work in std::mem::take(group) {
                let absent = absent.iter().find(|absent| work.topic() == Some(&absent.topic));
                match absent {
                    None => group.push(work),
                    Some(absent) if absent.is_locked => split.locked.push(work),
                    // Topics that are made are locked in the order of the writes, so that two groups that make several would
                    // wait for each other.
                    Some(_) => split.apart.push(work),
                }
            }
            if group.is_empty() {
                return self.connection.run("ROLLBACK").map_err(Failed::Nothing);
            }
        }
        let began = Instant::now();
        let mut count = 0;
        loop {
            if count == group.len() {
                match self.more(count, began) {
                    Some(work) => group.push(work),
                    None => break,
                }
            }
            if !self.one(&mut *group[count], appended, keep).map_err(Failed::Nothing)? {
                self.connection.run("ROLLBACK").map_err(Failed::Nothing)?;
                *appended = Appended::default();
                // Alone, it has rolled back nobody else's.
                return if group.len() == 1 { Ok(()) } else { Err(Failed::Refused) };
            }
            count += 1;
        }
        self.append_last(appended).map_err(Failed::Nothing)?;
        match self.sabotage {
            Some(Sabotage::AnswerEarly) => {
                group.drain(..).for_each(|work| work.settle(Ok(())));
                std::thread::sleep(Duration::from_millis(100));
            }
            Some(Sabotage::PublishEarly) => {
                self.bus.publish_all(appended.news.clone());
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => {}
        }
        match self.connection.commit(!appended.news.is_empty()) {
            Committed::Yes => Ok(()),
            Committed::No(error) => Err(Failed::Nothing(error)),
            Committed::Unknown(error) => Err(Failed::Unknown(error)),
        }
    }

    /// Appends what was to wait until all writes are done.
    fn append_last(&self, appended: &mut Appended) -> Result<(), Error> {
        let last = std::mem::take(&mut appended.last);
        let mut tx = self.connection.tx(appended, self.sabotage);
        for some in last.chunk_by(|one, other| one.topic == other.topic) {
            let entries: Vec<_> = some.iter().map(|last| (last.kind, &*last.data)).collect();
            tx.append_all(&some[0].topic, &entries)?;
        }
        self.connection.take_failure().map_or(Ok(()), Err)
    }

    /// Runs one write, and says whether the transaction may go on. An error is the database's: the whole group is lost.
    fn one(
        &self,
        work: &mut dyn Write,
        appended: &mut Appended,
        keep: Keep,
    ) -> Result<bool, Error> {
        if keep == Keep::Each {
            self.connection.run("SAVEPOINT write")?;
        }
        self.connection.forget_changes();
        let (news, last) = (appended.news.len(), appended.last.len());
        let mut tx = self.connection.tx(appended, self.sabotage);
        // The panic hook has logged a panic; the caller hears that the write was not done.
        let is_kept = catch_unwind(AssertUnwindSafe(|| work.run(&mut tx))).unwrap_or(false);
        self.connection.take_failure().map_or(Ok(()), Err)?;
        if !is_kept {
            appended.news.truncate(news);
            appended.last.truncate(last);
        }
        match keep {
            // Most refusals come before anything was changed, and then there is nothing to roll back.
            Keep::All => Ok(is_kept || !self.connection.is_changed()),
            Keep::Each => {
                if !is_kept {
                    self.connection.run("ROLLBACK TO SAVEPOINT write")?;
                }
                self.connection.run("RELEASE SAVEPOINT write")?;
                Ok(true)
            }
        }
    }

    /// Says how a group is tried first. Savepoints are free where there is no way to the server; else they are a third of
    /// a send's round trips, and nearly every group has no write that fails.
    fn begins_with(&self) -> Keep {
        if self.connection.is_shared() { Keep::All } else { Keep::Each }
    }
}

/// Writes that could not be done with their group.
#[derive(Default)]
struct Split {
    /// Another process has their topics.
    locked: Vec<Box<dyn Write>>,
    /// Their topics do not exist.
    apart: Vec<Box<dyn Write>>,
}

/// What a group's transaction keeps when one of the writes is not to be kept.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Keep {
    /// All of the group or nothing.
    All,
    /// Each write has a savepoint of its own.
    Each,
}

/// What a failed attempt left behind.
enum Failed {
    Nothing(Error),
    /// Perhaps everything.
    Unknown(Error),
    /// Nothing: one of the writes was refused after it had changed something. Each has to have a savepoint.
    Refused,
}
