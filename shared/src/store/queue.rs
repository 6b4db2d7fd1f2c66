//! Writes that wait for a thread. Writes of one topic are with one thread at a time: together if they came while it was
//! busy, and without waiting for each other in the database.
//!
//! A topic may be locked by another process, and for long. A transaction of several topics skips such a topic, which is tried
//! again soon, with others: most locks are held for a commit. A thread waits for a lock only if its transaction holds no
//! other, at most half of the threads do, and a topic that was tried with others is waited for after a while only. So writes
//! of other topics go on, and few transactions are of one topic.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, QUEUE, QUEUE_WAIT, WRITERS, connection::Locking, work::Write};
use crate::journal::Topic;

/// Threads that may wait for a topic's lock at once. The others serve the topics that are free.
const MAX_WAITING_THREADS: usize = WRITERS / 2;
/// How soon a locked topic is tried again while no thread waits for it.
const LOCKED_RETRY: Duration = Duration::from_millis(4);
/// Time for which a locked topic is tried again with others, before a thread waits for it.
const LOCK_WAIT_AFTER: Duration = Duration::from_millis(20);

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

/// Work for a thread.
pub(super) enum Taken {
    Group(Group),
    /// Nothing came within the time that the thread wanted to wait.
    Nothing,
    /// There will be no more.
    Closed,
}

/// Writes of one transaction. Their topics are the taker's until [`Queue::done`].
pub(super) struct Group {
    pub(super) writes: Vec<Box<dyn Write>>,
    /// Writes whose callers have stopped waiting, never to begin.
    pub(super) expired: Vec<Box<dyn Write>>,
    pub(super) topics: Vec<Topic>,
    pub(super) locking: Locking,
}

#[derive(Default)]
struct State {
    leases: VecDeque<Waiting>,
    waiting: VecDeque<Waiting>,
    /// Topics that a thread is writing to.
    busy: HashSet<Topic>,
    /// Topics that another process had.
    locked: HashMap<Topic, Locked>,
    /// Threads that may be waiting for a topic's lock.
    waiting_threads: usize,
    is_closed: bool,
}

/// A topic that another process had when it was tried.
#[derive(Copy, Clone, Debug)]
struct Locked {
    since: Instant,
    /// When the topic may be tried again with others.
    retry_at: Instant,
}

struct Waiting {
    work: Box<dyn Write>,
    /// `None` for a write that was handed back.
    _room: Option<OwnedSemaphorePermit>,
}

impl Writes {
    pub(super) fn new(queue: Arc<Queue>, lane: Lane) -> Self {
        Self { queue, room: Arc::new(Semaphore::new(QUEUE)), lane }
    }

    /// Queues a write once there is room.
    pub(super) async fn send(&self, work: Box<dyn Write>) -> Result<(), Error> {
        let room = tokio::time::timeout(QUEUE_WAIT, self.room.clone().acquire_owned()).await;
        let room = room.map_err(|_| Error::Overloaded)?.map_err(|_| Error::Gone)?;
        self.queue.lock().lane(self.lane).push_back(Waiting { work, _room: Some(room) });
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
    /// Waits for writes that may be done now, at most for `patience`, and takes the first with what can share its transaction,
    /// at most `most`.
    pub(super) fn take(&self, most: usize, patience: Option<Duration>) -> Taken {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if let Some(group) = state.take(most, now) {
                if !state.is_empty() {
                    self.came.notify_one();
                }
                return Taken::Group(group);
            }
            if state.is_closed && state.is_empty() {
                self.came.notify_one();
                return Taken::Closed;
            }
            if until.is_some_and(|until| until <= now) {
                return Taken::Nothing;
            }
            let retry = (!state.locked.is_empty() && !state.is_empty()).then(|| now + LOCKED_RETRY);
            state = match retry.into_iter().chain(until).min() {
                None => self.came.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let wait = until.saturating_duration_since(now);
                    self.came.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes the first write, whatever it is of: for the one thread of a database with one writer.
    pub(super) fn next(&self) -> Option<Box<dyn Write>> {
        let mut state = self.lock();
        let next = state.leases.pop_front().or_else(|| state.waiting.pop_front());
        Some(next?.work)
    }

    /// Gives back the topics of a group that was taken with `locking`, and writes whose topics another process has.
    pub(super) fn done(&self, topics: &[Topic], locking: Locking, locked: Vec<Box<dyn Write>>) {
        self.lock().done(topics, locking, locked, Instant::now());
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

    fn done(
        &mut self,
        topics: &[Topic],
        locking: Locking,
        locked: Vec<Box<dyn Write>>,
        now: Instant,
    ) {
        if locking == Locking::Wait {
            self.waiting_threads -= 1;
        }
        let mut locked_before = HashMap::new();
        for topic in topics {
            self.busy.remove(topic);
            locked_before.extend(self.locked.remove(topic).map(|locked| (topic, locked)));
        }
        for work in locked.into_iter().rev() {
            if let Some(topic) = work.topic() {
                let since = locked_before.get(topic).map_or(now, |locked| locked.since);
                self.locked.insert(topic.clone(), Locked { since, retry_at: now + LOCKED_RETRY });
            }
            self.waiting.push_front(Waiting { work, _room: None });
        }
    }

    fn take(&mut self, most: usize, now: Instant) -> Option<Group> {
        let may_wait = self.waiting_threads < MAX_WAITING_THREADS;
        let (mut writes, mut expired) = (Vec::<Box<dyn Write>>::new(), Vec::new());
        // The topic that the thread waits for.
        let mut awaited: Option<Topic> = None;
        // Nothing goes before a write of its topic that has to wait.
        let mut passed: HashSet<Topic> = HashSet::new();
        let mut is_full = false;
        for waiting in [&mut self.leases, &mut self.waiting] {
            let mut left = Vec::new();
            while !is_full && let Some(next) = waiting.pop_front() {
                if next.work.deadline() <= now {
                    expired.push(next.work);
                    continue;
                }
                let topic = next.work.topic();
                let locked = topic.and_then(|topic| self.locked.get(topic));
                let waits = locked.is_some_and(|locked| locked.since + LOCK_WAIT_AFTER <= now)
                    && may_wait
                    && writes.is_empty();
                let is_alone = is_alone(&*next.work);
                let is_held = topic
                    .is_some_and(|topic| self.busy.contains(topic) || passed.contains(topic))
                    || (awaited.is_some() && awaited.as_ref() != topic)
                    || (awaited.is_none()
                        && !waits
                        && locked.is_some_and(|locked| locked.retry_at > now));
                if is_held || (is_alone && !writes.is_empty()) {
                    passed.extend(topic.cloned());
                    left.push(next);
                    continue;
                }
                if waits {
                    awaited = topic.cloned();
                }
                writes.push(next.work);
                is_full = is_alone || writes.len() == most;
            }
            left.into_iter().rev().for_each(|next| waiting.push_front(next));
        }
        if writes.is_empty() && expired.is_empty() {
            return None;
        }
        let mut topics: Vec<Topic> =
            writes.iter().filter_map(|work| work.topic().cloned()).collect();
        topics.sort_unstable();
        topics.dedup();
        self.busy.extend(topics.iter().cloned());
        // A transaction that wants one topic holds no other while it waits.
        let locking = if may_wait && topics.len() == 1 { Locking::Wait } else { Locking::Skip };
        if locking == Locking::Wait {
            self.waiting_threads += 1;
        }
        Some(Group { writes, expired, topics, locking })
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

    fn later() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    fn fixture() -> Fixture {
        let queue = Arc::new(Queue::default());
        Fixture { writes: Writes::new(queue.clone(), Lane::Requests), queue }
    }

    impl Fixture {
        async fn add(&self, topic: Option<&Topic>, is_bulk: bool) {
            let (call, _) = Call::new(nothing, later());
            let call = match topic {
                Some(topic) => call.of(topic.clone(), is_bulk),
                None => call,
            };
            self.writes.send(Box::new(call)).await.unwrap();
        }

        /// Takes what can be done now; another thread does.
        fn group(&self) -> Option<Group> {
            self.group_at(Instant::now())
        }

        fn group_at(&self, now: Instant) -> Option<Group> {
            self.queue.lock().take(8, now)
        }

        /// Hands all writes of a group back, as other processes have their topics.
        fn locked_at(&self, group: Group, now: Instant) {
            self.queue.lock().done(&group.topics, group.locking, group.writes, now);
        }

        fn take(&self) -> Vec<Option<Topic>> {
            let group = self.group().map(|group| group.writes).unwrap_or_default();
            group.iter().map(|work| work.topic().cloned()).collect()
        }

        fn done(&self, topic: &Topic) {
            self.queue.done(std::slice::from_ref(topic), Locking::Wait, Vec::new());
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
        fixture.done(&one);
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
        fixture.done(&one);
        assert_eq!(fixture.take(), [Some(one)]);
    }

    #[tokio::test]
    async fn locked_topics_are_tried_again_together_before_threads_wait_for_them_alone() {
        let fixture = fixture();
        let topics = [(); 4].map(|()| Topic::project(ProjectId::mint()));
        for topic in &topics {
            fixture.add(Some(topic), false).await;
        }
        let began = Instant::now();
        let group = fixture.group_at(began).expect("all are free");
        assert_eq!((group.writes.len(), group.locking), (4, Locking::Skip));
        fixture.locked_at(group, began);
        assert!(fixture.group_at(began).is_none(), "a locked topic is not tried again at once");
        let retry_at = began + LOCKED_RETRY;
        let group = fixture.group_at(retry_at).expect("they are tried again");
        assert_eq!((group.writes.len(), group.locking), (4, Locking::Skip), "tried together");
        let wait_at = began + LOCK_WAIT_AFTER;
        fixture.locked_at(group, wait_at);
        for topic in &topics[..MAX_WAITING_THREADS] {
            let group = fixture.group_at(wait_at).expect("they were handed back");
            assert_eq!((&group.topics[..], group.locking), (&[topic.clone()][..], Locking::Wait));
        }
        let idle = Topic::jobs();
        fixture.add(Some(&idle), false).await;
        let group = fixture.group_at(wait_at).expect("a topic is free");
        assert_eq!(group.topics, [idle], "the locked ones are tried again later");
        let again = fixture.group_at(wait_at + LOCKED_RETRY).expect("it is later");
        assert_eq!((&again.topics[..], again.locking), (&sorted(&topics[2..])[..], Locking::Skip));
    }

    fn sorted(topics: &[Topic]) -> Vec<Topic> {
        let mut topics = topics.to_vec();
        topics.sort();
        topics
    }

    #[tokio::test]
    async fn a_write_whose_caller_has_given_up_never_begins() {
        let fixture = fixture();
        let (call, _) = Call::new(nothing, Instant::now());
        fixture.writes.send(Box::new(call.of(Topic::jobs(), false))).await.unwrap();
        fixture.add(None, false).await;
        let group = fixture.group().expect("writes");
        assert_eq!((group.writes.len(), group.expired.len()), (1, 1));
        assert!(group.topics.is_empty());
    }

    #[tokio::test]
    async fn a_lease_is_renewed_before_every_request() {
        let fixture = fixture();
        let (request, lease) = (Topic::jobs(), Topic::replica(ReplicaId::mint()));
        fixture.add(Some(&request), false).await;
        fixture.add(None, false).await;
        let leases = Writes::new(fixture.queue.clone(), Lane::Leases);
        for topic in [&lease, &request] {
            let (call, _) = Call::new(nothing, later());
            leases.send(Box::new(call.of(topic.clone(), false))).await.unwrap();
        }
        assert_eq!(fixture.queue.next().unwrap().topic(), Some(&lease), "the one thread's next");
        assert_eq!(fixture.take(), [Some(request.clone()), Some(request)], "the lease's is first");
        assert_eq!(fixture.take(), [None]);
    }

    #[tokio::test]
    async fn what_is_closed_is_emptied_and_lets_every_thread_go() {
        let Fixture { writes, queue } = fixture();
        let (call, _) = Call::new(nothing, later());
        writes.send(Box::new(call.of(Topic::jobs(), false))).await.unwrap();
        let Taken::Group(taken) = queue.take(8, None) else { panic!("there is a write") };
        let (call, _) = Call::new(nothing, later());
        writes.send(Box::new(call.of(Topic::jobs(), false))).await.unwrap();
        let threads = [(); 3].map(|()| {
            let queue = queue.clone();
            tokio::task::spawn_blocking(move || {
                let mut count = 0;
                while let Taken::Group(group) = queue.take(8, None) {
                    count += group.writes.len();
                    queue.done(&group.topics, group.locking, Vec::new());
                }
                count
            })
        });
        drop((writes, taken));
        queue.done(&[Topic::jobs()], Locking::Wait, Vec::new());
        let all = futures_util::future::join_all(threads);
        let counts = tokio::time::timeout(Duration::from_secs(10), all).await.expect("they end");
        assert_eq!(counts.into_iter().map(Result::unwrap).sum::<usize>(), 1);
    }
}
