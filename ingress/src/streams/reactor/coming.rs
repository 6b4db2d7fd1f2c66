//! Streams that are counted but not parked yet: what is asked of one meanwhile waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::ids::ConnectionId;

use super::Ask;

/// All that are on their way; a clone is the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Coming(Arc<Mutex<HashMap<ConnectionId, Vec<Ask>>>>);

/// Announces a stream until it arrives; if it never does, what was asked of it is forgotten.
#[derive(Debug)]
pub(crate) struct Announced {
    connection: ConnectionId,
    coming: Coming,
}

impl Coming {
    pub(super) fn announce(&self, connection: ConnectionId) -> Announced {
        self.lock().insert(connection, Vec::new());
        Announced { connection, coming: self.clone() }
    }

    /// Keeps `ask` for a stream that is on its way; says whether it is.
    pub(super) fn keep(&self, connection: ConnectionId, ask: &Ask) -> bool {
        let mut coming = self.lock();
        let asks = coming.get_mut(&connection);
        asks.map(|asks| asks.push(ask.clone())).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Vec<Ask>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announced {
    /// Passes what was asked of the stream to `park`, and ends the announcement with it: what is asked later comes later.
    pub(super) fn arrive(self, park: impl FnOnce(ConnectionId, Vec<Ask>)) {
        let mut coming = self.coming.lock();
        let asks = coming.remove(&self.connection).unwrap_or_default();
        park(self.connection, asks);
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.coming.lock().remove(&self.connection);
    }
}
