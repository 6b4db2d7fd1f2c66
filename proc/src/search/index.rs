//! The index on disk: documents, how far each log is in it, and both as one commit.

use std::{
    collections::HashMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use shared::{
    ids::{MessageId, ProjectId},
    journal::Position,
};
use tantivy::{
    Index as Files, IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, Term,
    collector::DocSetCollector,
    doc,
    indexer::IndexWriterOptions,
    merge_policy::LogMergePolicy,
    query::TermQuery,
    schema::{
        BytesOptions, FAST, Field, IndexRecordOption, STORED, Schema, TextFieldIndexing,
        TextOptions, Value as _,
    },
};

use super::words;

/// Documents deleted in a segment before it is written anew without them, as a share of all.
const MOST_DELETED: f32 = 0.3;

/// What a document has.
#[derive(Copy, Clone, Debug)]
pub(super) struct Fields {
    /// Which message, or which log.
    pub(super) id: Field,
    /// Which build of which project, or [`PLACES`].
    pub(super) scope: Field,
    pub(super) channel: Field,
    pub(super) text: Field,
    /// The two halves of the message's id, of which the first begins with its time.
    pub(super) high: Field,
    pub(super) low: Field,
    /// Whether the message is a question itself.
    pub(super) asks: Field,
    /// How far a log is in the index, as JSON.
    place: Field,
}

/// The scope of documents that say how far the logs are.
const PLACES: &[u8] = b"places";

impl Fields {
    fn schema() -> (Schema, Self) {
        let mut schema = Schema::builder();
        let words = TextFieldIndexing::default()
            .set_tokenizer(words::NAME)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let indexed = || BytesOptions::default().set_indexed();
        let name = TextFieldIndexing::default()
            .set_tokenizer("raw")
            .set_fieldnorms(false)
            .set_index_option(IndexRecordOption::Basic);
        let fields = Self {
            id: schema.add_bytes_field("id", indexed()),
            scope: schema.add_bytes_field("scope", indexed()),
            channel: schema
                .add_text_field("channel", TextOptions::default().set_indexing_options(name)),
            text: schema.add_text_field("text", TextOptions::default().set_indexing_options(words)),
            high: schema.add_u64_field("high", FAST),
            low: schema.add_u64_field("low", FAST),
            asks: schema.add_bool_field("asks", FAST),
            place: schema.add_text_field("place", STORED),
        };
        (schema.build(), fields)
    }
}

/// Which build of a project a document is of: what is being built is not found until it is whole.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) project: ProjectId,
    pub(super) build: u32,
}

impl Scope {
    pub(super) fn term(self, fields: Fields) -> Term {
        Term::from_field_bytes(fields.scope, &self.bytes())
    }

    fn bytes(self) -> Vec<u8> {
        [self.project.0.as_bytes().as_slice(), &self.build.to_be_bytes()].concat()
    }
}

/// How far a log is in the index.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Everything up to here is in the index; `None` if the project has to be built anew.
    #[serde(with = "position")]
    pub(super) position: Option<Position>,
    /// Which build of the project is searched, 0 if there is none yet.
    pub(super) build: u32,
    /// The last entry of the log of wishes that this build fulfils.
    pub(super) wish: i64,
}

mod position {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use shared::journal::Position;

    pub(super) fn serialize<S: Serializer>(
        position: &Option<Position>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        position.map(|Position { epoch, seq, tag }| (epoch, seq, tag)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Position>, D::Error> {
        let parts = Option::<(i64, i64, u32)>::deserialize(deserializer)?;
        Ok(parts.map(|(epoch, seq, tag)| Position { epoch, seq, tag }))
    }
}

/// A message as the index is told of it.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    pub(super) id: MessageId,
    pub(super) channel: String,
    pub(super) text: String,
}

/// The index, whose only writer this is.
pub(super) struct Index {
    pub(super) fields: Fields,
    folder: PathBuf,
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
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
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
        let folder = folder.join("index");
        let (schema, fields) = Fields::schema();
        let files = match files(&folder, &schema) {
            Ok(Some(files)) => files,
            found => {
                if let Err(error) = found {
                    tracing::warn!(%error, "the index cannot be read and is built anew");
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
        Ok(Self { fields, folder, reader, writer, changed: false, _lock: lock })
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

    /// Adds a message that is not in the index.
    pub(super) fn add(&mut self, of: Scope, message: &Told) -> anyhow::Result<()> {
        let Fields { id, scope, channel, text, high, low, asks, .. } = self.fields;
        let (first, second) = message.id.0.as_u64_pair();
        self.writer.add_document(doc!(
            id => message.id.0.as_bytes().as_slice(),
            scope => of.bytes(),
            channel => message.channel.as_str(),
            text => message.text.as_str(),
            high => first,
            low => second,
            asks => is_question(&message.text),
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

    /// Returns the folder of the index's files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for merges that were begun.
    pub(super) fn close(self) -> anyhow::Result<()> {
        Ok(self.writer.wait_merging_threads()?)
    }
}

/// Says whether somebody wants to know something, as far as a mark tells.
fn is_question(text: &str) -> bool {
    let ends = |rest: &str| rest.chars().next().is_none_or(char::is_whitespace);
    text.split('?').skip(1).any(ends)
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
