//! Search over chat: an index of every project's messages, kept by each proc for itself, and what is found in it.

mod feed;
mod figures;
mod index;
#[cfg(test)]
mod isolation;
mod query;
mod ranking;
mod rebuild;
mod retriever;
mod schema;
mod statistics;
mod text;
mod wish;
mod words;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use shared::{
    ids::{MessageId, ProjectId},
    journal::tail::Tail,
    store::Store,
};
use tantivy::{Searcher, collector::Count, query::TermQuery, schema::IndexRecordOption};
use tokio::sync::{Semaphore, watch};

pub(crate) use self::{
    feed::Feed,
    rebuild::Reindex,
    retriever::{Error, Passage, Retriever},
};
use self::{
    figures::Figures,
    index::Index,
    query::Searched,
    schema::{Fields, Place, Scope},
    statistics::{Statistics, TotalsCache},
    text::Asked,
};

/// Searches that run at once; more wait.
const SEARCHES: usize = 4;

/// A message that was found; the higher the score, the better, within one answer.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hit {
    pub(crate) message: MessageId,
    pub(crate) score: f32,
}

/// Asks this proc's index; a clone asks the same one.
#[derive(Clone)]
pub(crate) struct Search {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    fields: Fields,
    shown: RwLock<Shown>,
    running: Arc<Semaphore>,
    /// Told of each commit.
    commits: watch::Sender<()>,
    /// Projects that are being built: how many messages of how many.
    building: Mutex<HashMap<ProjectId, (u64, u64)>>,
    folder: PathBuf,
    figures: Figures,
    totals: TotalsCache,
}

/// What can be searched now.
struct Shown {
    searcher: Searcher,
    places: HashMap<ProjectId, Place>,
    /// The last entries of the log of wishes that were heard.
    wishes: Option<Tail>,
    /// Documents that say how far a log is.
    logs: usize,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").finish_non_exhaustive()
    }
}

impl Search {
    /// Opens the index in `folder`, with so many bytes for what is not on disk yet; the feed is to be run.
    pub(crate) fn open(folder: &Path, memory: usize, store: Store) -> anyhow::Result<(Self, Feed)> {
        let index = Index::open(folder, memory)?;
        let inner = Inner {
            store: store.clone(),
            fields: index.fields,
            shown: RwLock::new(Shown {
                searcher: index.searcher(),
                places: HashMap::new(),
                wishes: None,
                logs: 0,
            }),
            running: Arc::new(Semaphore::new(SEARCHES)),
            commits: watch::Sender::default(),
            building: Mutex::default(),
            folder: index.folder().to_owned(),
            figures: Figures::default(),
            totals: TotalsCache::default(),
        };
        let inner = Arc::new(inner);
        let feed = Feed::new(index, inner.clone(), store)?;
        Ok((Self { inner }, feed))
    }

    /// Returns at most `limit` messages of the project for what a user wrote, best first; only of `channel` if there is one.
    pub(crate) async fn find(
        &self,
        project: ProjectId,
        text: &str,
        channel: Option<&str>,
        limit: usize,
    ) -> anyhow::Result<Vec<Hit>> {
        let Some((searcher, build)) = self.inner.shown(project) else { return Ok(Vec::new()) };
        let (text, channel) = (text.to_owned(), channel.map(ToOwned::to_owned));
        let (fields, scope) = (self.inner.fields, Scope { project, build });
        let permit = self.inner.running.clone().acquire_owned().await?;
        let searches = self.inner.figures.searches.clone();
        let now = self.inner.store.now();
        let inner = self.inner.clone();
        let look = move || {
            let _permit = permit;
            let began = Instant::now();
            let (asked, channel) = (Asked::read(&text), channel.as_deref());
            let statistics = Statistics::read(&searcher, fields, scope, &inner.totals);
            let found = statistics.and_then(|statistics| {
                let searched =
                    Searched { searcher: &searcher, fields, scope, statistics: &statistics };
                searched.find(channel, &asked, limit, now)
            });
            searches.observe(began.elapsed());
            found
        };
        Ok(tokio::task::spawn_blocking(look).await??)
    }

    /// Returns how many messages of the project can be found.
    async fn count(&self, project: ProjectId) -> anyhow::Result<usize> {
        let Some((searcher, build)) = self.inner.shown(project) else { return Ok(0) };
        let term = Scope { project, build }.term(self.inner.fields);
        let all = TermQuery::new(term, IndexRecordOption::Basic);
        Ok(tokio::task::spawn_blocking(move || searcher.search(&all, &Count)).await??)
    }
}

impl Inner {
    fn shown(&self, project: ProjectId) -> Option<(Searcher, u32)> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let build = shown.places.get(&project)?.build;
        (build > 0).then(|| (shown.searcher.clone(), build))
    }

    /// Says whether what can be searched was built after a wish for it.
    fn fulfils(&self, project: ProjectId, wish: i64, tag: Option<u32>) -> bool {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        // The wish itself was heard, not another one with its number that the database has lost.
        let was_heard =
            |heard: &Tail, tag| heard.tag(wish).map_or(wish < heard.oldest(), |known| known == tag);
        let place = shown.places.get(&project);
        tag.is_none_or(|tag| shown.wishes.as_ref().is_some_and(|heard| was_heard(heard, tag)))
            && place.is_some_and(|place| place.wish >= wish && place.position.is_some())
    }

    /// Shows what was committed, all of it at once; of its documents `logs` are no messages.
    fn show(
        &self,
        searcher: Searcher,
        places: impl IntoIterator<Item = (ProjectId, Place)>,
        logs: usize,
        wishes: Option<Tail>,
    ) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.searcher = searcher;
        shown.places.extend(places);
        shown.logs = logs;
        shown.wishes = wishes;
        drop(shown);
        self.commits.send_replace(());
    }

    /// Shows a project that is gone no more.
    fn drop_place(&self, project: ProjectId) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.places.remove(&project);
    }

    fn building(&self) -> MutexGuard<'_, HashMap<ProjectId, (u64, u64)>> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
