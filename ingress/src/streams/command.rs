//! Orders to a replica about one of its connections: entries of its topic, so that none is lost.

use serde::{Deserialize, Serialize};
use shared::{
    ids::{ChannelName, ConnectionId, ReplicaId},
    journal::{Entry, Topic},
    store::{Error, Tx},
};

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
