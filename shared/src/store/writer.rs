//! The group commit: a thread with a connection, one transaction for all that is queued, one sync to disk.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Appended, Error, PATIENCE,
    connection::{Committed, Connection},
    queue::Queue,
    work::Write,
};
use crate::{
    bus::{Bus, News},
    journal::Topic,
    sabotage::Sabotage,
};

/// Writes in one transaction at most.
pub(super) const GROUP: usize = 128;
/// No write joins a group that has been running for this long, so that a bulk write delays others little.
const GROUP_TIME: Duration = Duration::from_millis(10);

/// One thread's part: its connection, and where entries are told of.
pub(super) struct Writer {
    connection: Connection,
    queue: Arc<Queue>,
    bus: Bus,
    sabotage: Option<Sabotage>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        queue: Arc<Queue>,
        bus: Bus,
        sabotage: Option<Sabotage>,
    ) -> Self {
        Self { connection, queue, bus, sabotage }
    }

    /// Commits groups until every handle of the store is gone.
    ///
    /// A database with one writer is given more as it goes, see [`Writer::more`]; else every project that a group is
    /// about has to be known before it begins.
    pub(super) fn run(mut self) {
        let most = if self.connection.is_shared() { GROUP } else { 1 };
        while let Some(group) = self.queue.take(most) {
            let topics: Vec<Topic> =
                group.iter().filter_map(|work| work.topic().cloned()).collect();
            self.commit(group);
            self.queue.done(&topics);
        }
    }

    fn more(&self, count: usize, began: Instant) -> Option<Box<dyn Write>> {
        if self.connection.is_shared() || count >= GROUP || began.elapsed() >= GROUP_TIME {
            return None;
        }
        self.queue.next()
    }

    /// Commits a group, publishes its entries and answers its callers. A group that failed without leaving anything is
    /// done again while there is hope.
    fn commit(&mut self, mut group: Vec<Box<dyn Write>>) {
        let until = Instant::now() + PATIENCE;
        // What a transaction appended whose fate is not known.
        let mut lost = Appended::default();
        let outcome = loop {
            let mut appended = Appended::default();
            match self.attempt(&mut group, &mut appended, &lost, self.begins_with()) {
                Ok(Done::Now) => break Ok(appended),
                Ok(Done::Before) => break Ok(lost),
                Err(Failed::Unknown(error)) => {
                    if appended.news.is_empty() {
                        break Err(error);
                    }
                    lost = appended;
                    if let Err(error) = self.connection.recover(error, until) {
                        break Err(error);
                    }
                }
                Err(Failed::Apart) => {
                    for work in group {
                        self.commit(vec![work]);
                    }
                    return;
                }
                Err(Failed::Nothing(error)) => {
                    if let Err(error) = self.connection.recover(error, until) {
                        break Err(error);
                    }
                }
            }
        };
        match outcome {
            Ok(appended) => {
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

    fn attempt(
        &mut self,
        group: &mut Vec<Box<dyn Write>>,
        appended: &mut Appended,
        before: &Appended,
        keep: Keep,
    ) -> Result<Done, Failed> {
        let of_group = group.iter().filter_map(|work| work.topic());
        // One log of the lost transaction tells its fate; the ones that are taken last are not to be taken first.
        let lost = before.news.first().map(News::last);
        let of_lost = lost.map(|entry| &entry.topic);
        let mut topics: Vec<&Topic> = of_group.chain(of_lost).collect();
        topics.sort_unstable();
        topics.dedup();
        if self.sabotage == Some(Sabotage::Sequence) {
            topics.clear();
        }
        let are_there = self.connection.begin(&topics).map_err(Failed::Nothing)?;
        if !are_there && lost.is_none() && group.len() > 1 {
            self.connection.run("ROLLBACK").map_err(Failed::Nothing)?;
            return Err(Failed::Apart);
        }
        // The log is ours now, so the transaction before this one has ended one way or the other.
        if let Some(entry) = lost
            && self.connection.reader().has(entry).map_err(Failed::Nothing)?
        {
            self.connection.run("ROLLBACK").map_err(Failed::Nothing)?;
            return Ok(Done::Before);
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
                if group.len() == 1 {
                    return Ok(Done::Now);
                }
                return self.attempt(group, appended, before, Keep::Each);
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
        match self.connection.commit() {
            Committed::Yes => Ok(Done::Now),
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
        let (news, last) = (appended.news.len(), appended.last.len());
        let mut tx = self.connection.tx(appended, self.sabotage);
        // The panic hook has logged a panic; the caller hears that the write was not done.
        let is_kept = catch_unwind(AssertUnwindSafe(|| work.run(&mut tx))).unwrap_or(false);
        self.connection.take_failure().map_or(Ok(()), Err)?;
        if keep == Keep::All {
            return Ok(is_kept);
        }
        if !is_kept {
            self.connection.run("ROLLBACK TO SAVEPOINT write")?;
            appended.news.truncate(news);
            appended.last.truncate(last);
        }
        self.connection.run("RELEASE SAVEPOINT write")?;
        Ok(true)
    }

    /// Says how a group is tried first. Savepoints are free where there is no way to the server; else they are a third of
    /// a send's round trips, and nearly every group has no write that fails.
    fn begins_with(&self) -> Keep {
        if self.connection.is_shared() { Keep::All } else { Keep::Each }
    }
}

/// What a group's transaction keeps when one of the writes is not to be kept.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Keep {
    /// All of the group or nothing.
    All,
    /// Each write has a savepoint of its own.
    Each,
}

/// When a group was committed.
enum Done {
    Now,
    /// By the attempt before, whose answer was lost.
    Before,
}

/// What a failed attempt left behind.
enum Failed {
    Nothing(Error),
    /// Perhaps everything.
    Unknown(Error),
    /// Nothing: a log of the group is to be made, which locks it in the order of the writes, so that two groups that make
    /// several would wait for each other. Each write has to have its own transaction.
    Apart,
}
