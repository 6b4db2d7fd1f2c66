//! Keeps the index up with the projects' logs; what a log does not have any more, or never had, is read from ingress.

mod build;
mod entries;
mod wishes;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use proto::{ReadMessagesRequest, ReadMessagesResponse};
use shared::{
    ids::{MessageId, ProjectId},
    journal::{Position, Topic, tail::Tail},
    store::{self, Reader, Store},
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::build::Building;
use super::{
    Inner,
    index::Index,
    schema::{Place, Scope, Told},
};
use crate::{answers, ingress::Ingress};

/// How often the logs are looked at: with a commit a new message is found within two seconds.
const LOOK: Duration = Duration::from_secs(1);
/// How long is read before there is a commit, if there is so much.
const TURN: Duration = Duration::from_millis(700);

/// Why a log was not read to its end.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The index can be written no more.
    #[error("the index cannot be written: {0:#}")]
    Index(#[from] anyhow::Error),
    /// What it is read from does not answer; the others may.
    #[error("the database did not answer: {0}")]
    Store(#[from] store::Error),
    #[error("ingress did not answer: {0}")]
    Ingress(Box<tonic::Status>),
    /// The process stops.
    #[error("it stops")]
    Stopped,
}

impl From<tonic::Status> for Fault {
    fn from(status: tonic::Status) -> Self {
        Self::Ingress(Box::new(status))
    }
}

/// The index's only writer; it has a thread of its own.
pub(crate) struct Feed {
    index: Index,
    shared: Arc<Inner>,
    store: Store,
    places: HashMap<ProjectId, Place>,
    /// The last entries of the log of wishes that were heard.
    wishes: Option<Tail>,
    building: HashMap<ProjectId, Building>,
    /// Messages that were deleted or edited, until the answers that rest on them are redacted.
    redacted: HashMap<ProjectId, HashSet<MessageId>>,
    /// Projects whose places were changed since the last commit.
    moved: HashSet<ProjectId>,
    /// Turns that were made, so that not always the same project is the first.
    turns: usize,
}

/// What a running feed has besides.
struct Sources {
    handle: Handle,
    ingress: Ingress,
    shutdown: CancellationToken,
    /// It did not answer in this turn.
    ingress_away: bool,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    pub(super) fn new(index: Index, shared: Arc<Inner>, store: Store) -> anyhow::Result<Self> {
        let mut feed = Self {
            index,
            shared,
            store,
            places: HashMap::new(),
            wishes: None,
            building: HashMap::new(),
            redacted: HashMap::new(),
            moved: HashSet::new(),
            turns: 0,
        };
        feed.recall()?;
        Ok(feed)
    }

    /// Takes over what the last commit says of the logs.
    fn recall(&mut self) -> anyhow::Result<()> {
        let places = self.index.places()?;
        let wishes = places.get(Topic::search().as_str()).and_then(|place| place.position);
        self.wishes = wishes.map(Tail::at);
        let project = |log: &str| log.strip_prefix("project/")?.parse::<ProjectId>().ok();
        let places = places.into_iter().filter_map(|(log, place)| Some((project(&log)?, place)));
        self.places = places.collect();
        if let Some(earlier) = self.shared.earlier() {
            for (project, Place { wish, .. }) in earlier.projects() {
                let new = Place { position: None, build: 0, wish };
                self.places.entry(project).or_insert(new);
            }
        }
        self.building.clear();
        self.shared.building().clear();
        self.moved.clear();
        let wishes = self.wishes.clone();
        self.shared.show(self.index.searcher(), self.places.clone(), self.logs(), wishes);
        Ok(())
    }

    /// Follows the logs until shutdown.
    pub(crate) async fn run(self, ingress: Ingress, shutdown: CancellationToken) {
        let handle = Handle::current();
        let sources = Sources { handle, ingress, shutdown, ingress_away: false };
        let follow = tokio::task::spawn_blocking(move || self.follow(sources));
        if let Err(error) = follow.await {
            tracing::error!(%error, "the index's thread broke");
        }
    }

    fn follow(mut self, mut sources: Sources) {
        let mut recalled = true;
        while !sources.shutdown.is_cancelled() {
            recalled = recalled || self.begin_again();
            let turned = if recalled { self.turn(&mut sources) } else { Ok(false) };
            let is_more = match turned {
                Ok(is_more) => is_more,
                Err(Fault::Stopped) => break,
                Err(fault) => {
                    tracing::warn!(%fault, "the index was not kept up");
                    recalled = !matches!(fault, Fault::Index(_));
                    false
                }
            };
            if !is_more {
                let pause = sources.shutdown.run_until_cancelled(tokio::time::sleep(LOOK));
                sources.handle.block_on(pause);
            }
        }
        // What was not committed is in the logs.
        if let Err(error) = self.index.close() {
            tracing::warn!(%error, "the index was not closed");
        }
    }

    fn begin_again(&mut self) -> bool {
        let begun = self.index.begin_again().and_then(|()| self.recall());
        begun.inspect_err(|error| tracing::warn!(%error, "the index cannot be written")).is_ok()
    }

    /// Reads what is new, for a while, and commits it; says whether there is more.
    fn turn(&mut self, sources: &mut Sources) -> Result<bool, Fault> {
        let until = Instant::now() + TURN;
        sources.ingress_away = false;
        self.hear_wishes(sources)?;
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method is of readers of one lifetime, the closure of all"
        )]
        let heads = sources.read(&self.store, |reader| reader.project_heads())?;
        self.drop_projects(&heads);
        let mut behind = Vec::new();
        let mut lag = 0;
        for (project, head) in heads {
            let at = self.places.get(&project).and_then(|place| place.position);
            // The number alone proves nothing: a lost tail uses it again.
            let beginning = Position { seq: 0, tag: 0, ..head };
            let at = at.filter(|at| at.epoch == head.epoch).unwrap_or(beginning);
            if at != head || self.needs_build(project) {
                lag += head.seq.abs_diff(at.seq);
                behind.push((project, head.epoch));
            }
        }
        self.shared.figures.lag.store(lag, Ordering::Relaxed);
        self.turns = self.turns.wrapping_add(1);
        let first = self.turns % behind.len().max(1);
        behind.rotate_left(first);
        let mut is_more = false;
        for (project, epoch) in behind {
            is_more |= match self.catch_up(project, epoch, until, sources) {
                Ok(is_done) => !is_done,
                Err(fault @ (Fault::Index(_) | Fault::Stopped)) => return Err(fault),
                Err(fault) => {
                    sources.ingress_away |= matches!(fault, Fault::Ingress(_));
                    tracing::warn!(%fault, project.id = %project, "a project was not kept up");
                    false
                }
            };
        }
        // Before the commit, so that a process that is killed meanwhile reads the deletions again.
        while let Some((project, messages)) = self.redacted.iter().next() {
            let project = *project;
            let redact = answers::redact(&self.store, project, messages.clone());
            let count = sources.wait(redact)?;
            self.redacted.remove(&project);
            if count > 0 {
                tracing::info!(project.id = %project, count, "redacted answers");
            }
        }
        self.commit()?;
        Ok(is_more)
    }

    /// Drops projects whose topics are gone, from the index and from the list of positions.
    fn drop_projects(&mut self, heads: &[(ProjectId, Position)]) {
        if self.places.len() <= heads.len() {
            return;
        }
        let there: HashSet<ProjectId> = heads.iter().map(|(project, ..)| *project).collect();
        let gone: Vec<ProjectId> =
            self.places.keys().filter(|project| !there.contains(project)).copied().collect();
        for project in gone {
            let build = self.places.remove(&project).map_or(0, |place| place.build);
            self.building.remove(&project);
            self.shared.building().remove(&project);
            self.moved.remove(&project);
            // A build that was under way has the next number.
            for build in [build, build + 1] {
                self.index.remove_all(Scope { project, build });
            }
            self.index.drop_place(Topic::project(project).as_str());
            self.shared.drop_place(project);
            tracing::info!(project.id = %project, "dropped the index of a project that is gone");
        }
    }

    fn needs_build(&self, project: ProjectId) -> bool {
        self.places.get(&project).is_some_and(|place| place.position.is_none())
    }

    /// Reads one project's log; says whether to its end.
    fn catch_up(
        &mut self,
        project: ProjectId,
        epoch: i64,
        until: Instant,
        sources: &Sources,
    ) -> Result<bool, Fault> {
        // A project that is new here is read from its log, if that still has all.
        let beginning = Position { epoch, seq: 0, tag: 0 };
        let wish = self.wishes.as_ref().map_or(0, |wishes| wishes.last().seq);
        let new = Place { position: Some(beginning), build: 1, wish };
        self.places.entry(project).or_insert(new);
        while Instant::now() < until {
            let is_done = if self.needs_build(project) {
                // It need not be asked again for each project.
                sources.ingress_away || self.build(project, until, sources)?
            } else {
                self.read_log(project, until, sources)?
            };
            if is_done {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes how far a project's log is in the index.
    fn put(&mut self, project: ProjectId, place: Place) -> Result<(), Fault> {
        self.index.put(Topic::project(project).as_str(), place)?;
        self.places.insert(project, place);
        self.moved.insert(project);
        Ok(())
    }

    fn add(&mut self, scope: Scope, message: &Told) -> Result<(), Fault> {
        self.index.add(scope, message)?;
        self.shared.figures.indexed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        if self.index.has_changed() {
            let searcher = self.index.commit()?;
            let (places, logs) = (&self.places, self.logs());
            let moved = self.moved.drain().filter_map(|id| Some((id, *places.get(&id)?)));
            self.shared.show(searcher, moved, logs, self.wishes.clone());
        }
        if let Some(earlier) = self.shared.earlier() {
            let is_built = |project| self.places.get(&project).is_none_or(|place| place.build > 0);
            if earlier.projects().all(|(project, _)| is_built(project)) {
                self.shared.drop_earlier();
            }
        }
        Ok(())
    }

    /// Returns how many documents say how far a log is.
    fn logs(&self) -> usize {
        self.places.len() + usize::from(self.wishes.is_some())
    }
}

impl Sources {
    fn read<T: Send + 'static>(
        &self,
        store: &Store,
        work: impl Fn(&Reader<'_>) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, Fault> {
        self.wait(store.read(work))
    }

    fn wait<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Fault>
    where
        Fault: From<E>,
    {
        let done = self.handle.block_on(self.shutdown.run_until_cancelled(work));
        Ok(done.ok_or(Fault::Stopped)??)
    }

    fn messages(&self, request: ReadMessagesRequest) -> Result<ReadMessagesResponse, Fault> {
        self.wait(self.ingress.read_messages(request))
    }
}
