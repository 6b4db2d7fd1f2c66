//! Writes that wait for a thread. Those of one log are with one thread at a time: together if they came while it was busy,
//! and without waiting for each other in the database.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, QUEUE, QUEUE_WAIT, work::Write};
use crate::journal::Topic;

/// The end where writes come in. The queue is closed when it is gone.
pub(super) struct Writes {
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    lane: Lane,
}

/// Which writes of a queue a thread takes first.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Renewals of leases and heartbeats: taken before all requests.
    Leases,
    Requests,
}

/// The end where threads take them.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    leases: VecDeque<Waiting>,
    waiting: VecDeque<Waiting>,
    /// Logs that a thread is writing to.
    busy: HashSet<Topic>,
    is_closed: bool,
}

struct Waiting {
    work: Box<dyn Write>,
    _room: OwnedSemaphorePermit,
}

impl Writes {
    pub(super) fn new(queue: Arc<Queue>, lane: Lane) -> Self {
        Self { queue, room: Arc::new(Semaphore::new(QUEUE)), lane }
    }

    /// Queues a write once there is room.
    pub(super) async fn send(&self, work: Box<dyn Write>) -> Result<(), Error> {
        let room = tokio::time::timeout(QUEUE_WAIT, self.room.clone().acquire_owned()).await;
        let room = room.map_err(|_| Error::Overloaded)?.map_err(|_| Error::Gone)?;
        self.queue.lock().lane(self.lane).push_back(Waiting { work, _room: room });
        self.queue.came.notify_one();
        Ok(())
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.came.notify_all();
    }
}

impl Queue {
    /// Waits for writes that may be done now, and takes the first with what can share its transaction, at most `most`. Returns
    /// `None` when there will be no more. Their logs are the caller's until it calls [`Queue::done`].
    pub(super) fn take(&self, most: usize) -> Option<Vec<Box<dyn Write>>> {
        let mut state = self.lock();
        loop {
            let group = state.take(most);
            if !group.is_empty() {
                if !state.is_empty() {
                    self.came.notify_one();
                }
                return Some(group);
            }
            if state.is_closed && state.is_empty() {
                self.came.notify_one();
                return None;
            }
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the first write, whatever it is of: for the one thread of a database with one writer.
    pub(super) fn next(&self) -> Option<Box<dyn Write>> {
        let mut state = self.lock();
        let next = state.leases.pop_front().or_else(|| state.waiting.pop_front());
        Some(next?.work)
    }

    /// Gives logs back whose writes are done.
    pub(super) fn done(&self, topics: &[Topic]) {
        let mut state = self.lock();
        for topic in topics {
            state.busy.remove(topic);
        }
        drop(state);
        self.came.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Waiting> {
        match lane {
            Lane::Leases => &mut self.leases,
            Lane::Requests => &mut self.waiting,
        }
    }

    fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.waiting.is_empty()
    }

    fn take(&mut self, most: usize) -> Vec<Box<dyn Write>> {
        let mut group: Vec<Box<dyn Write>> = Vec::new();
        // Nothing goes before a write of its log that has to wait.
        let mut passed: HashSet<Topic> = HashSet::new();
        let mut is_full = false;
        for waiting in [&mut self.leases, &mut self.waiting] {
            let mut left = Vec::new();
            while !is_full && let Some(next) = waiting.pop_front() {
                let topic = next.work.topic();
                let is_held =
                    topic.is_some_and(|topic| self.busy.contains(topic) || passed.contains(topic));
                let is_alone = is_alone(&*next.work);
                if is_held || (is_alone && !group.is_empty()) {
                    passed.extend(topic.cloned());
                    left.push(next);
                    continue;
                }
                group.push(next.work);
                is_full = is_alone || group.len() == most;
            }
            left.into_iter().rev().for_each(|next| waiting.push_front(next));
        }
        self.busy.extend(group.iter().filter_map(|work| work.topic().cloned()));
        group
    }
}

/// Says whether a write shares its transaction with no other, where several transactions may write at once: what names no
/// log locks its rows in an order of its own, so that two groups with several of them would wait for each other.
fn is_alone(work: &dyn Write) -> bool {
    work.is_bulk() || work.topic().is_none()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{connection::Tx, work::Call},
        *,
    };
    use crate::ids::{ProjectId, ReplicaId};

    struct Fixture {
        writes: Writes,
        queue: Arc<Queue>,
    }

    #[expect(clippy::unnecessary_wraps, reason = "as a write is")]
    fn nothing(_: &mut Tx<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn fixture() -> Fixture {
        let queue = Arc::new(Queue::default());
        Fixture { writes: Writes::new(queue.clone(), Lane::Requests), queue }
    }

    impl Fixture {
        async fn add(&self, topic: Option<&Topic>, is_bulk: bool) {
            let (call, _) = Call::new(nothing);
            let call = match topic {
                Some(topic) => call.of(topic.clone(), is_bulk),
                None => call,
            };
            self.writes.send(Box::new(call)).await.unwrap();
        }

        /// Takes what can be done now; another thread does.
        fn take(&self) -> Vec<Option<Topic>> {
            let group = self.queue.lock().take(8);
            group.iter().map(|work| work.topic().cloned()).collect()
        }
    }

    #[tokio::test]
    async fn writes_of_a_log_are_with_one_thread_at_a_time() {
        let fixture = fixture();
        let (one, other) = (Topic::project(ProjectId::mint()), Topic::jobs());
        fixture.add(Some(&one), false).await;
        assert_eq!(fixture.take(), [Some(one.clone())]);
        for topic in [&one, &other, &one] {
            fixture.add(Some(topic), false).await;
        }
        assert_eq!(fixture.take(), [Some(other.clone())]);
        assert!(fixture.take().is_empty());
        fixture.queue.done(std::slice::from_ref(&one));
        // What came meanwhile is together.
        assert_eq!(fixture.take(), [Some(one.clone()), Some(one)]);
    }

    #[tokio::test]
    async fn nothing_goes_before_a_write_of_its_log_that_has_to_be_alone() {
        let fixture = fixture();
        let (one, other) = (Topic::jobs(), Topic::replica(ReplicaId::mint()));
        for (topic, is_bulk) in [
            (Some(&other), false),
            (Some(&one), true),
            (None, false),
            (Some(&one), false),
            (Some(&other), false),
        ] {
            fixture.add(topic, is_bulk).await;
        }
        assert_eq!(fixture.take(), [Some(other.clone()), Some(other)]);
        assert_eq!(fixture.take(), [Some(one.clone())]);
        assert_eq!(fixture.take(), [None]);
        assert!(fixture.take().is_empty());
        fixture.queue.done(std::slice::from_ref(&one));
        assert_eq!(fixture.take(), [Some(one)]);
    }

    #[tokio::test]
    async fn a_lease_is_renewed_before_every_request() {
        let fixture = fixture();
        let (request, lease) = (Topic::jobs(), Topic::replica(ReplicaId::mint()));
        fixture.add(Some(&request), false).await;
        fixture.add(None, false).await;
        let leases = Writes::new(fixture.queue.clone(), Lane::Leases);
        for topic in [&lease, &request] {
            let (call, _) = Call::new(nothing);
            leases.send(Box::new(call.of(topic.clone(), false))).await.unwrap();
        }
        assert_eq!(fixture.queue.next().unwrap().topic(), Some(&lease), "the one thread's next");
        assert_eq!(fixture.take(), [Some(request.clone()), Some(request)], "the lease's is first");
        assert_eq!(fixture.take(), [None]);
    }

    #[tokio::test]
    async fn what_is_closed_is_emptied_and_lets_every_thread_go() {
        let Fixture { writes, queue } = fixture();
        let (call, _) = Call::new(nothing);
        writes.send(Box::new(call.of(Topic::jobs(), false))).await.unwrap();
        let taken = queue.take(8).expect("a write");
        let (call, _) = Call::new(nothing);
        writes.send(Box::new(call.of(Topic::jobs(), false))).await.unwrap();
        let threads = [(); 3].map(|()| {
            let queue = queue.clone();
            tokio::task::spawn_blocking(move || {
                let mut count = 0;
                while let Some(group) = queue.take(8) {
                    count += group.len();
                    queue.done(&[Topic::jobs()]);
                }
                count
            })
        });
        drop((writes, taken));
        queue.done(&[Topic::jobs()]);
        let all = futures_util::future::join_all(threads);
        let counts = tokio::time::timeout(Duration::from_secs(10), all).await.expect("they end");
        assert_eq!(counts.into_iter().map(Result::unwrap).sum::<usize>(), 1);
    }
}
