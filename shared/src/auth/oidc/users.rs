//! Users who have signed in, so that others can find them; the issuer is not asked who exists.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::{
    ids::UserId,
    store::{Error, Store},
};

/// Names kept in memory, to write only what has changed.
const CACHED: usize = 100_000;

#[derive(Debug)]
pub(in crate::auth) struct Users {
    store: Store,
    written: Cache<UserId, Arc<str>>,
}

impl Users {
    pub(super) fn new(store: Store) -> Self {
        Self { store, written: Cache::new(CACHED) }
    }

    /// Writes down that there is such a user, unless this process has done so.
    pub(in crate::auth) async fn remember(&self, user: &UserId, name: &str) -> Result<(), Error> {
        if self.written.get(user).is_some_and(|written| *written == *name) {
            return Ok(());
        }
        let (id, new): (_, Arc<str>) = (user.clone(), name.into());
        let written = new.clone();
        self.store
            .write(move |tx| {
                let sql = "INSERT INTO users (id, name) VALUES ($1, $2) \
                           ON CONFLICT (id) DO UPDATE SET name = excluded.name";
                tx.execute(sql, &[(&id).into(), (&*new).into()])
            })
            .await?;
        self.written.insert(user.clone(), written);
        Ok(())
    }

    pub(in crate::auth) async fn name(&self, user: &UserId) -> Result<Option<String>, Error> {
        let user = user.clone();
        let sql = "SELECT name FROM users WHERE id = $1";
        self.store.read(move |reader| reader.find(sql, &[(&user).into()], |row| row.get(0))).await
    }
}

#[cfg(test)]
mod tests {
    use cluster::{on_both_stores, scratch::Home};

    use super::*;
    use crate::bus::Bus;

    on_both_stores!(users_are_known_by_their_last_name);

    async fn users_are_known_by_their_last_name(home: Home) {
        let folder = tempfile::tempdir().unwrap();
        let bus = Bus::default();
        let store = match home.url() {
            None => Store::open(folder.path(), &bus).unwrap(),
            Some(url) => Store::connect(&url, &bus, None).unwrap(),
        };
        // Two replicas, which remember on their own what they wrote.
        let replicas = [Users::new(store.clone()), Users::new(store)];
        let ada: UserId = "auth0|ada".parse().unwrap();
        assert_eq!(replicas[0].name(&ada).await.unwrap(), None);
        for (replica, name) in [(0, "Ada"), (0, "Ada"), (1, "Ada L."), (1, "Ada"), (0, "A. L.")] {
            replicas[replica].remember(&ada, name).await.unwrap();
            assert_eq!(replicas[1 - replica].name(&ada).await.unwrap().as_deref(), Some(name));
        }
    }
}
