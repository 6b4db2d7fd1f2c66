//! Orders to a replica about one of its connections: entries of its topic, so that none is lost.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use shared::{
    ids::{ChannelName, ConnectionId, ReplicaId},
    journal::{
        Entry, Position, Topic,
        tail::{self, MANY_TAGS, Tail},
    },
    store::{Error, Reader, Store, Tx},
};
use tokio::time::{sleep, timeout};

use super::{
    control::Reason,
    hub::Hub,
    reactor::{Ask, Reactor},
};

/// Orders read at once.
const PAGE: i64 = 200;
/// After how long the topic is followed anew, in case it was replaced meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long nothing is read after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// The type of the entries.
const KIND: &str = "stream.order";

/// What is to be done with a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) connection: ConnectionId,
    pub(crate) what: What,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// Close it: its client has opened another in its place.
    Replaced,
    /// Close it: an admin says so.
    ClosedByAdmin,
    /// Change which channels it carries.
    Channels { add: Vec<ChannelName>, remove: Vec<ChannelName> },
}

impl Order {
    /// Tells the replica once the transaction is committed.
    pub(crate) fn give(&self, tx: &mut Tx<'_>, replica: ReplicaId) -> Result<(), Error> {
        let data = serde_json::to_string(self).map_err(|_| Error::Gone)?;
        tx.append(&Topic::replica(replica), KIND, &data)?;
        Ok(())
    }

    /// Reads the order that an entry is, `None` if it is none that this version knows.
    pub(crate) fn from_entry(entry: &Entry) -> Option<Self> {
        (&*entry.kind == KIND).then(|| serde_json::from_str(&entry.data).ok()).flatten()
    }
}

/// Carries out the commands to this replica, as its topic says them.
#[derive(Debug)]
pub(crate) struct RemoteCommands {
    pub(crate) hub: Hub,
    pub(crate) store: Store,
    pub(crate) replica: ReplicaId,
    pub(crate) reactor: Reactor,
}

impl RemoteCommands {
    /// Follows the topic for ever. Its follower is kept from one read to the next, so that no command waits for a poll.
    pub(crate) async fn run(self) {
        let topic = Topic::replica(self.replica);
        let mut tail = None;
        loop {
            if let Err(error) = self.follow(&topic, &mut tail).await {
                tracing::warn!(%error, "commands to this replica were not read");
                sleep(PAUSE).await;
            }
        }
    }

    /// Carries out commands until the topic has to be followed anew.
    async fn follow(&self, topic: &Topic, tail: &mut Option<Tail>) -> Result<(), Error> {
        let follower = self.hub.follow(topic).await?;
        let mut growth = follower.growth();
        while !follower.is_over() {
            growth.mark_unchanged();
            while self.carry_out(topic, tail).await? == PAGE {}
            // Without a sign the topic is looked at now and then.
            let _ = timeout(LOOK_AGAIN, growth.changed()).await;
        }
        Ok(())
    }

    /// Carries out the commands of a page; returns how many there were.
    async fn carry_out(&self, topic: &Topic, tail: &mut Option<Tail>) -> Result<i64, Error> {
        let (named, known) = (topic.clone(), tail.clone());
        let read = self.store.read(move |reader| read(reader, &named, known.clone()));
        let (read, commands) = read.await?;
        *tail = Some(read);
        for entry in &commands {
            if let Some(Order { connection, what }) = Order::from_entry(entry) {
                self.reactor.ask(connection, &what.into());
            }
        }
        Ok(i64::try_from(commands.len()).unwrap_or(PAGE))
    }
}

/// Reads the commands after those that were carried out. Where the topic lost its tail these are all that were not there
/// before; where it is another one, all of them. A command that is carried out again does no harm.
fn read(
    reader: &Reader<'_>,
    topic: &Topic,
    known: Option<Tail>,
) -> Result<(Tail, Vec<Arc<Entry>>), Error> {
    let head = reader.head(topic)?.ok_or(Error::Gone)?;
    let beginning = Tail::keeping(MANY_TAGS as usize, Position { seq: 0, tag: 0, ..head });
    let mut tail = known.unwrap_or_else(|| beginning.clone());
    let entries = match reader.follow(topic, tail.last(), PAGE)? {
        Ok(entries) => entries,
        Err(tail::Error::Diverged) if reader.rewind(topic, &mut tail)? => {
            reader.follow(topic, tail.last(), PAGE)?.unwrap_or_default()
        }
        Err(tail::Error::Expired) => {
            let after = tail.last().seq;
            let entries = reader.entries(topic, after, PAGE)?;
            tail = entries
                .first()
                .map_or(beginning, |first| Tail::keeping(MANY_TAGS as usize, first.position));
            let last = tail.last();
            entries
                .iter()
                .filter(|e| e.position.seq > last.seq)
                .for_each(|e| tail.push(e.position));
            return Ok((tail, entries));
        }
        Err(tail::Error::Diverged | tail::Error::EpochChanged) => {
            tail = beginning;
            reader.follow(topic, tail.last(), PAGE)?.unwrap_or_default()
        }
    };
    tail.extend(&entries);
    Ok((tail, entries))
}

impl From<What> for Ask {
    fn from(what: What) -> Self {
        match what {
            What::Replaced => Self::End(Reason::Replaced),
            What::ClosedByAdmin => Self::End(Reason::ClosedByAdmin),
            What::Channels { add, remove } => Self::Channels { add, remove },
        }
    }
}
