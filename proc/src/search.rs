//! Search over chat: an index of every project's messages, kept by each proc for itself, and what is found in it.

mod earlier;
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

use proto::Filter;
use serde::{Deserialize, Serialize};
use shared::{
    ids::{MessageId, ProjectId},
    journal::tail::Tail,
    store::Store,
};
use tantivy::{Searcher, collector::Count, query::TermQuery, schema::IndexRecordOption};
use tokio::sync::{Semaphore, watch};

use self::{
    earlier::Earlier,
    figures::Figures,
    index::Index,
    query::{Found, Searched},
    schema::{Fields, Place, Scope},
    statistics::{Statistics, TotalsCache},
    text::{Asked, Style},
};
pub(crate) use self::{
    feed::Feed,
    rebuild::Reindex,
    retriever::{Error, Passage, Retriever},
};

/// The share of a question's words, by their rarity, that the best message has to have to be an answer.
const MIN_STRENGTH: f32 = 0.33;
/// Searches that run at once; more wait.
const SEARCHES: usize = 4;

/// A message that was found; the higher the score, the better, within one answer.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hit {
    pub(crate) message: MessageId,
    pub(crate) score: f32,
}

/// The result of a search.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) hits: Vec<Hit>,
    /// The terms that were looked up; those that stand together are joined by spaces.
    pub(crate) words: Vec<String>,
    /// The share of the words, by their rarity, that the best message has.
    strength: f32,
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
    /// The index of an earlier version, for projects that are not built anew yet.
    earlier: RwLock<Option<Arc<Earlier>>>,
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
            earlier: RwLock::new(index.earlier.clone()),
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

    /// Returns at most `limit` messages of the project for what somebody typed, best first, of those that the filter lets pass.
    pub(crate) async fn find(
        &self,
        project: ProjectId,
        text: &str,
        filter: Filter,
        limit: usize,
    ) -> anyhow::Result<Results> {
        let is_narrowed = filter != Filter::default();
        let style = if is_narrowed { Style::Narrowed } else { Style::Typed };
        self.search(project, text.to_owned(), style, filter, limit).await
    }

    /// Returns at most `limit` messages of the project that may answer a question, best first; none if not even the best one
    /// has enough of the question's words.
    pub(crate) async fn answers(
        &self,
        project: ProjectId,
        question: &str,
        limit: usize,
    ) -> anyhow::Result<Vec<Hit>> {
        let filter = Filter::default();
        let found =
            self.search(project, question.to_owned(), Style::Question, filter, limit).await?;
        tracing::debug!(project.id = %project, found.strength, "looked for answers");
        Ok(if found.strength < MIN_STRENGTH { Vec::new() } else { found.hits })
    }

    async fn search(
        &self,
        project: ProjectId,
        text: String,
        style: Style,
        filter: Filter,
        limit: usize,
    ) -> anyhow::Result<Results> {
        let Some((searcher, build)) = self.inner.shown(project) else {
            let Some(earlier) = self.inner.earlier() else { return Ok(Results::default()) };
            let _permit = self.inner.running.clone().acquire_owned().await?;
            let look = move || earlier.find(project, &text, &filter, limit);
            return Ok(tokio::task::spawn_blocking(look).await??);
        };
        let (fields, scope) = (self.inner.fields, Scope { project, build });
        let permit = self.inner.running.clone().acquire_owned().await?;
        let now = self.inner.store.now();
        let inner = self.inner.clone();
        let look = move || {
            let _permit = permit;
            let began = Instant::now();
            let statistics = Statistics::read(&searcher, fields, scope, &inner.totals);
            let found = statistics.and_then(|statistics| {
                let searched =
                    Searched { searcher: &searcher, fields, scope, statistics: &statistics };
                searched.find(&filter, &Asked::read(&text, style), limit, now)
            });
            inner.figures.searches.observe(began.elapsed());
            found
        };
        let Found { hits, words, strength } = tokio::task::spawn_blocking(look).await??;
        Ok(Results { hits, words: words.into_iter().collect(), strength })
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
    fn earlier(&self) -> Option<Arc<Earlier>> {
        self.earlier.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes the index of an earlier version.
    fn drop_earlier(&self) {
        let earlier = self.earlier.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(earlier) = earlier {
            earlier.remove();
            tracing::info!("removed the index of an earlier version");
        }
    }

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
