//! Streams that are counted but not parked yet: what is asked of one meanwhile waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::{
    auth::Revocations,
    ids::{ConnectionId, SessionId, UserId},
};

use super::Ask;

/// All that are on their way; a clone is the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Coming(Arc<Mutex<HashMap<ConnectionId, Waiting>>>);

/// What waits for a stream.
#[derive(Debug)]
struct Waiting {
    user: UserId,
    session: SessionId,
    asks: Vec<Ask>,
    /// Endings that name its session; whether it was let in before them is known when it arrives.
    revocations: Vec<Revocations>,
}

/// Announces a stream until it arrives; if it never does, what was asked of it is forgotten.
#[derive(Debug)]
pub(crate) struct Announced {
    connection: ConnectionId,
    coming: Coming,
}

impl Coming {
    pub(super) fn announce(
        &self,
        connection: ConnectionId,
        user: &UserId,
        session: &SessionId,
    ) -> Announced {
        let (user, session) = (user.clone(), session.clone());
        let waiting = Waiting { user, session, asks: Vec::new(), revocations: Vec::new() };
        self.lock().insert(connection, waiting);
        Announced { connection, coming: self.clone() }
    }

    /// Keeps `ask` for a stream that is on its way; says whether it is.
    pub(super) fn keep(&self, connection: ConnectionId, ask: &Ask) -> bool {
        let mut coming = self.lock();
        let waiting = coming.get_mut(&connection);
        waiting.map(|waiting| waiting.asks.push(ask.clone())).is_some()
    }

    /// Keeps endings for the streams that they may be about.
    pub(super) fn ended(&self, all: &Revocations) {
        for Waiting { user, session, revocations, .. } in self.lock().values_mut() {
            let named = all.ended.iter().filter(|ended| ended.names(user, session)).cloned();
            let about = Revocations { rewound: all.rewound.clone(), ended: named.collect() };
            if about.rewound.is_some() || !about.ended.is_empty() {
                revocations.push(about);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announced {
    /// Passes what waits for the stream to `park`, and ends the announcement with it: what is asked later comes later.
    pub(super) fn arrive(self, park: impl FnOnce(ConnectionId, Vec<Ask>, Vec<Revocations>)) {
        let mut coming = self.coming.lock();
        let waiting = coming.remove(&self.connection);
        let (asks, revocations) =
            waiting.map(|waiting| (waiting.asks, waiting.revocations)).unwrap_or_default();
        park(self.connection, asks, revocations);
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.coming.lock().remove(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use shared::auth::Ended;

    use super::*;

    #[test]
    fn an_ending_waits_for_the_streams_that_it_is_about_and_ends_with_the_announcement() {
        let coming = Coming::default();
        let (ada, grace) = ("ada".parse().unwrap(), "grace".parse().unwrap());
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let announce = |user, session| coming.announce(ConnectionId::mint(), user, session);
        let announced = [(&ada, &one), (&ada, &two), (&grace, &one)].map(|(u, s)| announce(u, s));
        let arrived = announce(&ada, &one);
        arrived.arrive(|_, _, ended| assert!(ended.is_empty()));
        drop(announce(&ada, &one));
        let ended = |others: bool| -> Ended {
            let json = serde_json::json!({"user": ada, "session": one, "others": others});
            serde_json::from_value(json).unwrap()
        };
        let all = vec![ended(false), ended(true)];
        coming.ended(&Revocations { rewound: None, ended: all });
        let expected = [vec![ended(false)], vec![ended(true)], vec![]];
        for (announced, expected) in announced.into_iter().zip(expected) {
            announced.arrive(|_, asks, ended| {
                assert!(asks.is_empty());
                let ended: Vec<_> = ended.into_iter().flat_map(|all| all.ended).collect();
                assert_eq!(ended, expected);
            });
        }
        assert!(coming.lock().is_empty());
    }
}
