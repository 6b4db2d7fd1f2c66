//! The index on disk: documents, how far each log is in it, and both as one commit.

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use shared::ids::MessageId;
use tantivy::{
    Index as Files, IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, Term,
    collector::DocSetCollector,
    doc,
    indexer::IndexWriterOptions,
    merge_policy::LogMergePolicy,
    query::TermQuery,
    schema::{IndexRecordOption, Schema, Value as _},
};

use super::{
    earlier::Earlier,
    schema::{Fields, PLACES, Place, Scope, Told},
    words,
};

/// Documents deleted in a segment before it is written anew without them, as a share of all.
const MOST_DELETED: f32 = 0.3;

/// The index, whose only writer this is.
pub(super) struct Index {
    pub(super) fields: Fields,
    folder: PathBuf,
    /// The index of an earlier version, if that was there.
    pub(super) earlier: Option<Arc<Earlier>>,
    reader: IndexReader,
    writer: IndexWriter,
    /// Something was written since the last commit.
    changed: bool,
    /// Held while the index is open, so that a second process refuses to start.
    _lock: File,
}

impl Index {
    /// Opens the index in `folder`. One that is damaged or of another version is begun anew: all of it can be read again.
    pub(super) fn open(folder: &Path, memory: usize) -> anyhow::Result<Self> {
        shared::files::private_folder(folder)?;
        let lock = File::create(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "the index in {} is in use by another proc: give each its own PROC_SEARCH_DIR",
                folder.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).context("failed to lock the index");
            }
        }
        let (folder, earlier) = (folder.join("index"), folder.join("index-old"));
        let (schema, fields) = Fields::schema();
        let files = match files(&folder, &schema) {
            Ok(Some(files)) => files,
            found => {
                match found {
                    Err(error) => {
                        tracing::warn!(%error, "the index cannot be read and is built anew");
                    }
                    Ok(_) if folder.join("meta.json").exists() && !earlier.exists() => {
                        tracing::info!(
                            "the index is of an earlier version: it is searched until a new one is built"
                        );
                        fs::rename(&folder, &earlier)?;
                    }
                    Ok(_) => {}
                }
                if folder.exists() {
                    fs::remove_dir_all(&folder)?;
                }
                fs::create_dir_all(&folder)?;
                Files::create_in_dir(&folder, schema)?
            }
        };
        files.tokenizers().register(words::NAME, words::analyzer());
        let reader = reader(&files)?;
        let writer = writer(&files, memory)?;
        let earlier = Earlier::open(&earlier).map(Arc::new);
        Ok(Self { fields, folder, earlier, reader, writer, changed: false, _lock: lock })
    }

    /// Returns how far each log is.
    pub(super) fn places(&self) -> anyhow::Result<HashMap<String, Place>> {
        let searcher = self.reader.searcher();
        let term = Term::from_field_bytes(self.fields.scope, PLACES);
        let found =
            searcher.search(&TermQuery::new(term, IndexRecordOption::Basic), &DocSetCollector)?;
        let places = found.into_iter().map(|address| {
            let document: TantivyDocument = searcher.doc(address)?;
            let place = document.get_first(self.fields.place).and_then(|value| value.as_str());
            let place: (String, Place) = serde_json::from_str(place.unwrap_or_default())?;
            Ok(place)
        });
        places.collect()
    }

    /// Notes how far a log is.
    pub(super) fn put(&mut self, log: &str, place: Place) -> anyhow::Result<()> {
        let Fields { id, scope, place: field, .. } = self.fields;
        self.writer.delete_term(Term::from_field_bytes(id, log.as_bytes()));
        let text = serde_json::to_string(&(log, place))?;
        self.writer.add_document(doc!(id => log.as_bytes(), scope => PLACES, field => text))?;
        self.changed = true;
        Ok(())
    }

    /// Drops what says how far a log is.
    pub(super) fn drop_place(&mut self, log: &str) {
        self.writer.delete_term(Term::from_field_bytes(self.fields.id, log.as_bytes()));
        self.changed = true;
    }

    /// Adds a message that is not in the index.
    pub(super) fn add(&mut self, of: Scope, message: &Told) -> anyhow::Result<()> {
        let Fields { id, scope, channel, author, text, high, low, asks, .. } = self.fields;
        let (first, second) = message.id.0.as_u64_pair();
        self.writer.add_document(doc!(
            id => message.id.0.as_bytes().as_slice(),
            scope => of.bytes(),
            channel => message.channel.as_str(),
            author => message.author.as_str(),
            text => of.header() + &message.text,
            high => first,
            low => second,
            asks => message.asks(),
        ))?;
        self.changed = true;
        Ok(())
    }

    /// Takes a message out, if it is there.
    pub(super) fn remove(&mut self, message: MessageId) {
        self.writer.delete_term(Term::from_field_bytes(self.fields.id, message.0.as_bytes()));
        self.changed = true;
    }

    /// Takes a whole build out.
    pub(super) fn remove_all(&mut self, scope: Scope) {
        self.writer.delete_term(scope.term(self.fields));
        self.changed = true;
    }

    /// Says whether there is something to commit.
    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    /// Makes everything durable that was written, and returns what can be searched now.
    pub(super) fn commit(&mut self) -> anyhow::Result<Searcher> {
        self.writer.commit()?;
        self.changed = false;
        self.reader.reload()?;
        Ok(self.reader.searcher())
    }

    /// Returns what can be searched now.
    pub(super) fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }

    /// Forgets what was not committed, after a failure that may have ended the writer.
    pub(super) fn begin_again(&mut self) -> anyhow::Result<()> {
        self.writer.rollback()?;
        self.changed = false;
        Ok(())
    }

    /// Commits, and merges all segments into one unless a merge of some is under way.
    #[cfg(test)]
    pub(super) fn merge(&mut self) -> anyhow::Result<Searcher> {
        let searcher = self.commit()?;
        let segments = searcher.segment_readers().iter();
        let segments: Vec<_> = segments.map(tantivy::SegmentReader::segment_id).collect();
        if !segments.is_empty()
            && let Err(error) = self.writer.merge(&segments).wait()
        {
            tracing::debug!(%error, "the segments are being merged already");
        }
        self.reader.reload()?;
        Ok(self.reader.searcher())
    }

    /// Returns the folder of the index's files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for merges that were begun.
    pub(super) fn close(self) -> anyhow::Result<()> {
        Ok(self.writer.wait_merging_threads()?)
    }
}

/// Opens what is in the folder, `None` if that is nothing, or of another version.
fn files(folder: &Path, schema: &Schema) -> anyhow::Result<Option<Files>> {
    if !folder.join("meta.json").exists() {
        return Ok(None);
    }
    let files = Files::open_in_dir(folder)?;
    if files.schema() != *schema {
        return Ok(None);
    }
    let damaged = files.validate_checksum()?;
    anyhow::ensure!(damaged.is_empty(), "files are damaged: {damaged:?}");
    reader(&files)?;
    Ok(Some(files))
}

fn reader(files: &Files) -> anyhow::Result<IndexReader> {
    Ok(files.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?)
}

fn writer(files: &Files, memory: usize) -> anyhow::Result<IndexWriter> {
    let options =
        IndexWriterOptions::builder().memory_budget_per_thread(memory).num_merge_threads(1).build();
    let writer = files.writer_with_options(options)?;
    let mut policy = LogMergePolicy::default();
    policy.set_del_docs_ratio_before_merge(MOST_DELETED);
    writer.set_merge_policy(Box::new(policy));
    Ok(writer)
}
