//! Orders to a replica about one of its connections: entries of its topic, so that none is lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::{
    ids::{ChannelName, ConnectionId, ReplicaId},
    journal::{Entry, Topic},
    store::{Error, Store, Tx},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

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

/// Does what this replica is ordered to, as its topic says it, for ever.
pub(crate) async fn obey(hub: Hub, store: Store, replica: ReplicaId, reactor: Reactor) {
    let topic = Topic::replica(replica);
    let (mut epoch, mut done) = (None, 0);
    loop {
        let pause = match obey_new(&hub, &store, &topic, &reactor, &mut epoch, &mut done).await {
            Ok(mut growth) => timeout(LOOK_AGAIN, growth.changed()).await.is_ok_and(|r| r.is_err()),
            Err(error) => {
                tracing::warn!(%error, "orders to this replica were not read");
                true
            }
        };
        if pause {
            sleep(PAUSE).await;
        }
    }
}

async fn obey_new(
    hub: &Hub,
    store: &Store,
    topic: &Topic,
    reactor: &Reactor,
    epoch: &mut Option<i64>,
    done: &mut i64,
) -> Result<watch::Receiver<i64>, Error> {
    let follower = hub.follow(topic).await?;
    let mut growth = follower.growth();
    growth.mark_unchanged();
    let (named, known, after) = (topic.clone(), *epoch, *done);
    let (life, orders) = store
        .read(move |reader| {
            let head = reader.head(&named)?.ok_or(Error::Gone)?;
            // A replica that others gave up has a new topic when it is back.
            let after = if known == Some(head.epoch) { after } else { 0 };
            Ok::<_, Error>((head.epoch, reader.entries(&named, after, PAGE)?))
        })
        .await?;
    *epoch = Some(life);
    let more = i64::try_from(orders.len()) == Ok(PAGE);
    for entry in orders {
        *done = entry.position.seq;
        if let Some(Order { connection, what }) = Order::from_entry(&entry) {
            reactor.ask(connection, &what.into());
        }
    }
    if more {
        growth.mark_changed();
    }
    Ok(growth)
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
