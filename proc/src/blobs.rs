//! Uploads and artifacts: large objects that are no rows.

use std::{path::Path as Folder, sync::Arc};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt, buffered::BufWriter,
    local::LocalFileSystem, path::Path,
};
use sha2::{Digest, Sha256};
use shared::time::Timestamp;
use std::fs::File;
use tokio::io::AsyncWriteExt;

/// Bytes collected before they are written, which is the least that S3 takes as a part.
const PART_BYTES: usize = 5 << 20;

/// The store of blobs; a clone is the same one.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Folder of the blobs.
    folder: Arc<Folder>,
    /// Where files go that are gone when closed: copies of blobs, and parts of what is to be one.
    scratch: Arc<Folder>,
}

/// A blob that is being written; dropped before [`Writer::finish`] it leaves nothing.
pub(crate) struct Writer {
    out: BufWriter,
    digest: Sha256,
    bytes: u64,
}

/// What a finished blob is.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    /// In hexadecimal.
    pub(crate) sha256: String,
}

impl Blobs {
    /// Opens the blobs in a folder beside the database.
    pub(crate) fn open(data_dir: &Folder) -> anyhow::Result<Self> {
        let folder = data_dir.join("blobs");
        shared::files::private_folder(data_dir)?;
        shared::files::private_folder(&folder)?;
        let local = LocalFileSystem::new_with_prefix(&folder)
            .with_context(|| format!("failed to open {}", folder.display()))?;
        let store = Arc::new(local.with_fsync(true));
        Ok(Self { store, folder: folder.into(), scratch: data_dir.into() })
    }

    /// Begins a blob.
    pub(crate) fn writer(&self, path: &str) -> Writer {
        let out = BufWriter::with_capacity(self.store.clone(), path.into(), PART_BYTES);
        Writer { out: out.with_max_concurrency(1), digest: Sha256::new(), bytes: 0 }
    }

    /// Returns the bytes in `range`, or all, as they are read.
    pub(crate) async fn read(
        &self,
        path: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, object_store::Error> {
        let options = GetOptions { range: range.map(Into::into), ..GetOptions::default() };
        Ok(self.store.get_opts(&path.into(), options).await?.into_stream())
    }

    /// Returns the blob as a file: its own if it is one, else a copy that is gone when closed.
    pub(crate) async fn file(&self, path: &str) -> anyhow::Result<File> {
        let blob = self.store.get(&path.into()).await?;
        let mut stream = match blob.payload {
            GetResultPayload::File(file, _) => return Ok(file),
            GetResultPayload::Stream(stream) => stream,
        };
        let mut copy = tokio::fs::File::from_std(tempfile::tempfile_in(&self.scratch)?);
        while let Some(part) = stream.try_next().await? {
            copy.write_all(&part).await?;
        }
        copy.flush().await?;
        let mut copy = copy.into_std().await;
        std::io::Seek::rewind(&mut copy)?;
        Ok(copy)
    }

    /// Returns the folder for what is on its way to be a blob.
    pub(crate) fn scratch(&self) -> &Folder {
        &self.scratch
    }

    /// Returns the names of the folders right under `prefix`.
    pub(crate) async fn folders(&self, prefix: &str) -> object_store::Result<Vec<String>> {
        let listed = self.store.list_with_delimiter(Some(&Path::from(prefix))).await?;
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename());
        Ok(names.map(str::to_owned).collect())
    }

    /// Deletes every blob under `prefix`, whatever the clock of the store of blobs says of it.
    pub(crate) async fn delete_all(&self, prefix: &str) -> object_store::Result<()> {
        self.sweep(prefix, Timestamp::from_ms(i64::MAX)).await?;
        let folder = self.folder.join(prefix);
        // A folder that stays because somebody writes to it again is not an error.
        let _ = tokio::task::spawn_blocking(move || remove_empty(&folder)).await;
        Ok(())
    }

    /// Deletes a blob; one that is not there is none.
    pub(crate) async fn delete(&self, path: &str) -> object_store::Result<()> {
        match self.store.delete(&path.into()).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }

    /// Deletes the blobs under `prefix` that were written before `oldest`, by the clock of the store of blobs, and what a
    /// process left of a blob that it was killed in writing.
    pub(crate) async fn sweep(&self, prefix: &str, oldest: Timestamp) -> object_store::Result<()> {
        let mut blobs = self.store.list(Some(&Path::from(prefix)));
        while let Some(blob) = blobs.next().await.transpose()? {
            if blob.last_modified.timestamp_millis() < oldest.as_ms() {
                self.store.delete(&blob.location).await?;
            }
        }
        let folder = self.folder.join(prefix);
        let removal = tokio::task::spawn_blocking(move || remove_unfinished(&folder, oldest));
        removal.await.map_err(std::io::Error::other).flatten().map_err(|source| {
            object_store::Error::Generic { store: "LocalFileSystem", source: source.into() }
        })
    }
}

/// Removes a folder and those in it, as far as they are empty.
fn remove_empty(folder: &Folder) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_empty(&path)?;
        }
    }
    std::fs::remove_dir(folder)
}

/// Deletes files below a folder that are no whole blobs and were written to before `oldest` for the last time.
fn remove_unfinished(folder: &Folder, oldest: Timestamp) -> std::io::Result<()> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(folder) {
        Err(error) if gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            remove_unfinished(&path, oldest)?;
            continue;
        }
        if !is_unfinished(&path) {
            continue;
        }
        // A writer that ends meanwhile gives the file its name.
        let removed = std::fs::metadata(&path).and_then(|metadata| {
            let written = metadata.modified()?.duration_since(std::time::UNIX_EPOCH);
            let written = written.unwrap_or_default().as_millis();
            if i64::try_from(written).is_ok_and(|written| written < oldest.as_ms()) {
                std::fs::remove_file(&path)?;
            }
            Ok(())
        });
        match removed {
            Err(error) if gone(&error) => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Returns whether a file is a blob that is being written: `object_store` adds `#` and a number to its name, and leaves such
/// files out of its lists.
fn is_unfinished(path: &Folder) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

impl Writer {
    /// Adds bytes.
    pub(crate) async fn write(&mut self, part: Bytes) -> object_store::Result<()> {
        self.digest.update(&part);
        self.bytes += part.len() as u64;
        self.out.put(part).await
    }

    /// Makes the blob appear, whole.
    pub(crate) async fn finish(mut self) -> std::io::Result<Written> {
        self.out.shutdown().await?;
        Ok(Written { bytes: self.bytes, sha256: hex(&self.digest.finalize()) })
    }
}

/// Returns the digest in hexadecimal.
pub(crate) fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;

    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
