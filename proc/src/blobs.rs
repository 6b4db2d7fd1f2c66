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
        Ok(Self { store: Arc::new(local.with_fsync(true)), scratch: data_dir.into() })
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

    /// Deletes every blob under `prefix`, whatever the clock of the store of blobs says of it.
    pub(crate) async fn delete_all(&self, prefix: &str) -> object_store::Result<()> {
        self.sweep(prefix, Timestamp::from_ms(i64::MAX)).await
    }

    /// Deletes a blob; one that is not there is none.
    pub(crate) async fn delete(&self, path: &str) -> object_store::Result<()> {
        match self.store.delete(&path.into()).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }

    /// Deletes the blobs under `prefix` that were written before `oldest`, by the clock of the store of blobs.
    pub(crate) async fn sweep(&self, prefix: &str, oldest: Timestamp) -> object_store::Result<()> {
        let mut blobs = self.store.list(Some(&Path::from(prefix)));
        while let Some(blob) = blobs.next().await.transpose()? {
            if blob.last_modified.timestamp_millis() < oldest.as_ms() {
                self.store.delete(&blob.location).await?;
            }
        }
        Ok(())
    }
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
