//! Search over chat: an index of every project's messages, kept by each proc for itself, and what is found in it.

mod feed;
mod index;
mod query;
mod retriever;
mod text;
mod words;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicU64},
};

use shared::{
    ids::{MessageId, ProjectId},
    store::Store,
    time::Timestamp,
};
use tantivy::Searcher;
use tokio::sync::{Semaphore, watch};

pub(crate) use self::feed::Feed;
pub(crate) use self::retriever::{Error, Passage, Retriever};
use self::{
    index::{Fields, Index, Place, Scope},
    text::Asked,
};

/// Searches that run at once; more wait.
const SEARCHES: usize = 4;

/// A message that was found; the higher the score, the better, within one answer.
#[derive(Copy, Clone, Debug, PartialEq)]
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
    fields: Fields,
    shown: RwLock<Shown>,
    running: Arc<Semaphore>,
    /// Told of each commit.
    commits: watch::Sender<()>,
    /// Projects that are being built: how many messages of how many.
    building: Mutex<HashMap<ProjectId, (u64, u64)>>,
    /// Entries of logs that are not in the index.
    lag: AtomicU64,
}

/// What can be searched now.
struct Shown {
    searcher: Searcher,
    places: HashMap<ProjectId, Place>,
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
            fields: index.fields,
            shown: RwLock::new(Shown { searcher: index.searcher(), places: HashMap::new() }),
            running: Arc::new(Semaphore::new(SEARCHES)),
            commits: watch::Sender::default(),
            building: Mutex::default(),
            lag: AtomicU64::new(0),
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
        let look = move || {
            let _permit = permit;
            let (asked, channel) = (Asked::read(&text), channel.as_deref());
            query::find(&searcher, fields, scope, channel, &asked, limit, Timestamp::now())
        };
        Ok(tokio::task::spawn_blocking(look).await??)
    }
}

impl Inner {
    fn shown(&self, project: ProjectId) -> Option<(Searcher, u32)> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let build = shown.places.get(&project)?.build;
        (build > 0).then(|| (shown.searcher.clone(), build))
    }

    /// Shows what was committed, all of it at once.
    fn show(&self, searcher: Searcher, places: impl IntoIterator<Item = (ProjectId, Place)>) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.searcher = searcher;
        shown.places.extend(places);
        drop(shown);
        self.commits.send_replace(());
    }

    fn building(&self) -> MutexGuard<'_, HashMap<ProjectId, (u64, u64)>> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
