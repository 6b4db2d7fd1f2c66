//! Reads the journal for parked streams that the recent frames cannot serve.
//!
//! A topic that is followed anew may have lost its tail, and with it the right by which a stream was opened. So whenever a stream
//! gets another life of its project's topic, its user's membership is read in the same snapshot as the entries.

use std::sync::Arc;

use shared::{
    ids::{ConnectionId, TraceId, UserId},
    journal::{Position, ResetReason, Topic, tail},
    store::{Error, Reader, Store},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    frame::Frame,
    hub::{Follower, Hub},
    reactor::Inbox,
};
use crate::{
    access::{Caller, Viewer},
    error::ApiError,
};

/// Entries read at once, and their bytes: a stream holds a page until its client has read it.
const PAGE: i64 = 100;
const PAGE_BYTES: usize = 128 * 1024;
/// Streams read for at once.
const READS: usize = 16;

/// A stream that needs something of the journal.
#[derive(Debug)]
pub(crate) struct Refill {
    pub(super) inbox: Arc<Inbox>,
    pub(super) connection: ConnectionId,
    pub(super) user: UserId,
    /// The stream's number of resets: an answer to an earlier one is of no use.
    pub(super) resets: u32,
    pub(super) wanted: Wanted,
}

/// Read that a stream needs.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The entries that follow a place, if the life of the topic that it knew goes on there.
    After { topic: Topic, position: Position, life: u64 },
    /// The heads of its topics, at which it starts anew.
    Heads { topics: Vec<Topic>, reason: ResetReason },
}

/// What the journal had for a stream.
#[derive(Debug)]
pub(super) struct Fed {
    pub(super) connection: ConnectionId,
    pub(super) resets: u32,
    pub(super) found: Found,
}

/// Result of a read for a stream.
#[derive(Debug)]
pub(super) enum Found {
    Page(Page),
    /// The topic does not go on at the stream's place.
    Broken {
        topic: Topic,
        reason: ResetReason,
    },
    /// Where the stream starts anew in each of its topics.
    Heads {
        starts: Vec<(Follower, Position)>,
        member_at: Option<i64>,
        reason: ResetReason,
    },
    /// The user is no member of the project any more.
    NotMember,
    /// The journal could not be read.
    Nothing,
}

/// Entries that follow a place.
#[derive(Debug)]
pub(super) struct Page {
    /// Has followed the log since before it was read.
    pub(super) follower: Follower,
    pub(super) frames: Vec<Arc<Frame>>,
    /// The project's head when the user was seen to be a member, if that was looked at.
    pub(super) member_at: Option<i64>,
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
            let Refill { inbox, connection, user, resets, wanted } = refill;
            let found = match wanted {
                Wanted::After { topic, position, life } => {
                    after(&hub, &store, &user, &topic, position, life).await
                }
                Wanted::Heads { topics, reason } => heads(&hub, &store, &user, topics, reason).await,
            };
            let found = found.unwrap_or_else(|error| {
                tracing::warn!(connection.id = %connection, %error, "failed to read a stream's past");
                Found::Nothing
            });
            inbox.feed(Fed { connection, resets, found });
            drop(slot);
        });
    }
    reads.close();
    reads.wait().await;
}

async fn after(
    hub: &Hub,
    store: &Store,
    user: &UserId,
    topic: &Topic,
    position: Position,
    life: u64,
) -> Result<Found, ApiError> {
    // Listening begins before the journal is read: between the two nothing is lost.
    let Some(follower) = follow(hub, topic).await? else { return Ok(Found::NotMember) };
    let is_new = follower.life() != life;
    let (named, user) = (topic.clone(), user.clone());
    let read = store.read(move |reader| {
        let member_at = if is_new { member_at(reader, &named, &user)? } else { Some(None) };
        let Some(member_at) = member_at else { return Ok(None) };
        Ok::<_, ApiError>(Some((
            member_at,
            reader.follow_within(&named, position, PAGE, PAGE_BYTES)?,
        )))
    });
    Ok(match read.await? {
        None => Found::NotMember,
        Some((member_at, Ok(entries))) => {
            let frames = entries.iter().map(|entry| Frame::entry(entry)).collect();
            Found::Page(Page { follower, frames, member_at })
        }
        Some((_, Err(error))) => {
            let reason = match error {
                tail::Error::EpochChanged => ResetReason::UnknownEpoch,
                tail::Error::Diverged => ResetReason::Diverged,
                tail::Error::Expired => ResetReason::Expired,
            };
            Found::Broken { topic: topic.clone(), reason }
        }
    })
}

async fn heads(
    hub: &Hub,
    store: &Store,
    user: &UserId,
    topics: Vec<Topic>,
    reason: ResetReason,
) -> Result<Found, ApiError> {
    let mut followers = Vec::with_capacity(topics.len());
    for topic in &topics {
        let Some(follower) = follow(hub, topic).await? else { return Ok(Found::NotMember) };
        followers.push(follower);
    }
    let user = user.clone();
    let read = store.read(move |reader| {
        let (mut positions, mut project) = (Vec::with_capacity(topics.len()), None);
        for topic in &topics {
            let Some(member_at) = member_at(reader, topic, &user)? else { return Ok(None) };
            project = project.or(member_at);
            positions.push(reader.head(topic)?.ok_or(Error::Gone)?);
        }
        Ok::<_, ApiError>(Some((positions, project)))
    });
    Ok(match read.await? {
        None => Found::NotMember,
        Some((positions, member_at)) => {
            let starts = followers.into_iter().zip(positions).collect();
            Found::Heads { starts, member_at, reason }
        }
    })
}

/// Follows a topic, `None` for one of a project that is gone: such a topic is not made anew.
async fn follow(hub: &Hub, topic: &Topic) -> Result<Option<Follower>, Error> {
    if topic.project_id().is_some() {
        hub.find(topic).await
    } else {
        hub.follow(topic).await.map(Some)
    }
}

/// Returns the head of a project's topic at which the user is a member, `None` for a user who is not. Topics of other kinds
/// have no members.
#[expect(clippy::option_option, reason = "no member, no project, and a member at a head")]
fn member_at(
    reader: &Reader<'_>,
    topic: &Topic,
    user: &UserId,
) -> Result<Option<Option<i64>>, ApiError> {
    let Some(project) = topic.project_id() else { return Ok(Some(None)) };
    let caller = Caller { project, user: user.clone(), trace: TraceId::mint() };
    match caller.granted::<Viewer>(reader) {
        Ok(_) => Ok(Some(Some(reader.head(topic)?.map_or(0, |head| head.seq)))),
        Err(ApiError::NotFound(_) | ApiError::Forbidden(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use cluster::{on_both_stores, scratch::Home};
    use shared::{bus::Bus, ids::ProjectId, store::Tx};

    use super::*;

    on_both_stores!(a_page_of_what_was_missed_is_bounded_in_bytes);

    async fn a_page_of_what_was_missed_is_bounded_in_bytes(home: Home) {
        let folder = tempfile::tempdir().unwrap();
        let store = match home.url() {
            None => Store::open(folder.path(), &Bus::default()).unwrap(),
            Some(url) => Store::connect(&url, &Bus::default(), None).unwrap(),
        };
        let topic = Topic::project(ProjectId::mint());
        // Short ones in one row, long ones in rows of their own, one that is longer than a page.
        let lengths =
            [vec![1_000; 50], vec![60_000; 5], vec![PAGE_BYTES + 1], vec![10; 300]].concat();
        let (named, all) = (topic.clone(), lengths.clone());
        let append = move |tx: &mut Tx<'_>| {
            tx.ensure(&named)?;
            let data: Vec<String> = all.iter().map(|length| "x".repeat(*length)).collect();
            for group in data.chunk_by(|one, other| one.len() == other.len()) {
                let entries: Vec<_> = group.iter().map(|data| ("x", data.as_str())).collect();
                if group[0].len() == 60_000 {
                    for entry in entries {
                        tx.append_all(&named, &[entry])?;
                    }
                } else {
                    tx.append_all(&named, &entries)?;
                }
            }
            Ok::<_, Error>(())
        };
        store.write(append).await.unwrap();
        let (mut after, mut read) = (0, Vec::new());
        loop {
            let named = topic.clone();
            let page = store
                .read(move |reader| reader.entries_within(&named, after, PAGE, PAGE_BYTES))
                .await
                .unwrap();
            let Some(last) = page.last() else { break };
            after = last.position.seq;
            let bytes: usize = page.iter().map(|entry| entry.data.len()).sum();
            assert!(page.len() <= 100 && (bytes <= PAGE_BYTES || page.len() == 1), "{bytes}");
            read.extend(page.iter().map(|entry| entry.data.len()));
        }
        assert_eq!(read, lengths);
    }
}
