//! Reads the journal for parked streams that the recent frames cannot serve.

use std::sync::Arc;

use shared::{
    ids::ConnectionId,
    journal::{Cursor, Position, ResetReason, Start, Topic},
    store::{Error, Store},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    frame::Frame,
    hub::{Follower, Hub},
    reactor::Inbox,
};

/// Entries read at once.
const PAGE: i64 = 100;
/// Streams read for at once.
const READS: usize = 16;

/// A stream that needs what comes after a place in a log.
#[derive(Debug)]
pub(crate) struct Refill {
    pub(super) inbox: Arc<Inbox>,
    pub(super) connection: ConnectionId,
    pub(super) topic: Topic,
    pub(super) position: Position,
}

/// What the journal had for a stream.
#[derive(Debug)]
pub(super) struct Fed {
    pub(super) connection: ConnectionId,
    pub(super) topic: Topic,
    /// `None` if it could not be read.
    pub(super) page: Option<Page>,
}

/// Entries that follow a place.
#[derive(Debug)]
pub(super) struct Page {
    /// Has followed the log since before it was read.
    pub(super) follower: Follower,
    /// The place that the entries follow: another one than asked for if there is a reset.
    pub(super) position: Position,
    pub(super) reset: Option<ResetReason>,
    pub(super) frames: Vec<Arc<Frame>>,
}

/// Serves refills until shutdown.
pub(crate) async fn run(
    hub: Hub,
    store: Store,
    mut refills: mpsc::UnboundedReceiver<Refill>,
    shutdown: CancellationToken,
) {
    let reads = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(READS));
    while let Some(Some(refill)) = shutdown.run_until_cancelled(refills.recv()).await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (hub, store) = (hub.clone(), store.clone());
        reads.spawn(async move {
            let Refill { inbox, connection, topic, position } = refill;
            let page = read(&hub, &store, &topic, position).await;
            if let Err(error) = &page {
                tracing::warn!(%topic, %error, "a stream's past was not read");
            }
            inbox.feed(Fed { connection, topic, page: page.ok() });
            drop(slot);
        });
    }
    reads.close();
    reads.wait().await;
}

async fn read(hub: &Hub, store: &Store, topic: &Topic, place: Position) -> Result<Page, Error> {
    // Listening begins before the journal is read: between the two nothing is lost.
    let follower = hub.follow(topic).await?;
    let named = topic.clone();
    let (start, entries) = store
        .read(move |reader| {
            let cursor = Cursor::at(&named, place).to_string();
            let start = reader.start(&named, Some(&cursor))?.ok_or(Error::Gone)?;
            let entries = reader.entries(&named, start.position.seq, PAGE)?;
            Ok::<_, Error>((start, entries))
        })
        .await?;
    let Start { position, reset } = start;
    Ok(Page {
        follower,
        position,
        reset,
        frames: entries.iter().map(|e| Frame::entry(e)).collect(),
    })
}
