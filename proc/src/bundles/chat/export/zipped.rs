//! Makes the archive on a thread of its own, while its pages come in and its bytes go out.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use proto::ExportOrder;
use serde_json::json;
use tokio::sync::mpsc;

use super::{archive::Archive, pages::Pages};
use crate::jobs::{JobContext, JobError};
use crate::raw_json::RawJson;

/// Pages and parts of the archive that wait for each other at most.
const AHEAD: usize = 2;
/// Bytes of the archive that are handed over at once.
const PART_BYTES: usize = 256 << 10;

/// What the thread makes.
enum Made {
    Part(Bytes),
    /// The archive is whole and has so many files.
    Whole(u64),
}

pub(super) async fn export(context: &JobContext, longest: Duration) -> Result<RawJson, JobError> {
    let mut pages = Pages::open(context, ExportOrder::ByChannel, longest).await?;
    let mut artifact = context.artifact("export.zip", "application/zip");
    let (lines, mut made) = start(context.blobs().scratch().to_owned()).map_err(|error| {
        tracing::error!(%error, "no thread for an export");
        JobError::transient("internal", "the export could not be begun")
    })?;
    let feed = async {
        while let Some(page) = pages.next().await? {
            if lines.send(page).await.is_err() {
                // The thread has said why.
                break;
            }
        }
        drop(lines);
        Ok(())
    };
    let store = async {
        loop {
            match made.recv().await {
                Some(Ok(Made::Part(part))) => artifact.write(part).await?,
                Some(Ok(Made::Whole(files))) => return Ok(files),
                Some(Err(error)) => {
                    tracing::error!(%error, "an archive could not be written");
                    return Err(JobError::transient("storage", "the archive could not be written"));
                }
                None => {
                    return Err(JobError::permanent("internal", "the writer of the archive broke"));
                }
            }
        }
    };
    let ((), files) = tokio::try_join!(feed, store)?;
    let artifact = artifact.finish().await?;
    Ok(json!({"artifact": artifact, "files": files, "messages": pages.messages()}).into())
}

type Parts = mpsc::Receiver<io::Result<Made>>;

/// Starts the thread; it ends with its pages, or when nobody wants what it makes.
fn start(scratch: PathBuf) -> io::Result<(mpsc::Sender<Bytes>, Parts)> {
    let (lines, pages) = mpsc::channel(AHEAD);
    let (out, made) = mpsc::channel(AHEAD);
    // A thread and not the runtime's blocking pool, whose threads the process would wait for when it ends.
    std::thread::Builder::new().name("slack-writer".into()).spawn(move || {
        let end = write(pages, &out, &scratch).map(Made::Whole);
        // Nobody listens any more when the job was stopped.
        let _ = out.blocking_send(end);
    })?;
    Ok((lines, made))
}

fn write(
    mut pages: mpsc::Receiver<Bytes>,
    out: &mpsc::Sender<io::Result<Made>>,
    scratch: &Path,
) -> io::Result<u64> {
    let mut archive = Archive::begin(Parted { out, part: Vec::new(), gone: false }, scratch)?;
    while let Some(page) = pages.blocking_recv() {
        for line in page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            archive.add(line)?;
        }
    }
    let (mut parted, files) = archive.finish()?;
    parted.flush()?;
    Ok(files)
}

/// Hands over what is written in parts.
struct Parted<'a> {
    out: &'a mpsc::Sender<io::Result<Made>>,
    part: Vec<u8>,
    /// Nobody wants it any more. Said once; a writer that is then dropped still writes its end.
    gone: bool,
}

impl Write for Parted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let part = Made::Part(std::mem::take(&mut self.part).into());
        if !self.gone && self.out.blocking_send(Ok(part)).is_err() {
            self.gone = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}
