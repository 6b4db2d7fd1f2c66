//! OpenID Connect: an access token that says what its bearer may do, and an ID token that says who that is.

mod claims;
mod fetch;
mod keys;
mod refresh;
mod token;
mod users;

use std::sync::Arc;

use quick_cache::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use self::{
    claims::Rules,
    fetch::Issuer,
    keys::Key,
    refresh::{Keys, Refresher},
    token::{Token, Unfit},
    users::Users,
};
use super::{Identity, OidcConfig, Refused};
use crate::{lifecycle::Lifecycle, store::Store, time::Timestamp};

/// Pairs of tokens kept in memory that were found good.
const CACHED: usize = 10_000;

/// Verifies pairs of tokens with the keys of one issuer.
#[derive(Debug)]
pub(super) struct Oidc {
    /// Who has ever come.
    pub(super) users: Users,
    rules: Rules,
    keys: Keys,
    good: Cache<[u8; 32], Arc<Good>>,
}

/// A pair that was found good, for as long as the issuer has the keys.
#[derive(Debug)]
struct Good {
    identity: Identity,
    keys: [Arc<Key>; 2],
}

impl Oidc {
    /// Refuses settings that are not safe, then begins to fetch the issuer's keys. That it is away is no reason not to
    /// start: it may be back before anybody calls.
    pub(super) fn new(
        config: &OidcConfig,
        store: Store,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<Self> {
        let rules = Rules::new(config)?;
        let issuer = Arc::new(Issuer::new(&rules.issuer, &config.oidc_algorithms)?);
        let (keys, refresher) = Refresher::new();
        let fetch = move |before| {
            let issuer = issuer.clone();
            async move { issuer.fetch(before).await }
        };
        lifecycle.spawn("oidc keys", refresher.run(fetch, lifecycle.shutdown()));
        Ok(Self { users: Users::new(store), rules, keys, good: Cache::new(CACHED) })
    }

    /// Returns whose tokens these are. Whatever is wrong with them, the caller is told the same.
    pub(super) async fn verify(
        &self,
        access: &SecretString,
        id: Option<&SecretString>,
        now: Timestamp,
    ) -> Result<Identity, Refused> {
        let (access, id) = (access.expose_secret(), id.ok_or(Refused::Unauthenticated)?);
        let id = id.expose_secret();
        let pair = digest(access, id);
        if let Some(good) = self.good.get(&pair) {
            if good.keys.iter().all(|key| self.keys.hold(key)) {
                return Ok(good.identity.clone());
            }
            self.good.remove(&pair);
        }
        match self.check(access, id, now).await {
            Ok(good) => {
                let identity = good.identity.clone();
                self.good.insert(pair, Arc::new(good));
                Ok(identity)
            }
            Err(Unfit::Token(reason)) => {
                tracing::debug!(reason, "tokens refused");
                Err(Refused::Unauthenticated)
            }
            Err(Unfit::Subject) => {
                // Signed by the issuer, so it is the set-up that is wrong and somebody is to know.
                tracing::warn!("the `sub` of a token cannot be a user's id here");
                Err(Refused::Unauthenticated)
            }
            Err(Unfit::NoKeys) => Err(Refused::Unavailable),
        }
    }

    async fn check(&self, access: &str, id: &str, now: Timestamp) -> Result<Good, Unfit> {
        let (access, id) = (Token::parse(access)?, Token::parse(id)?);
        self.rules.heads(&access, &id)?;
        let access_key = self.key(&access).await?;
        let id_key = self.key(&id).await?;
        let access_claims = self.rules.access(&access, &access_key, now)?;
        let id_claims = self.rules.id(&id, &id_key, now)?;
        let identity = self.rules.pair(&access, &access_claims, &id, &id_claims)?;
        Ok(Good { identity, keys: [access_key, id_key] })
    }

    async fn key(&self, token: &Token<'_>) -> Result<Arc<Key>, Unfit> {
        let key = self.keys.find(&token.kid, token.algorithm).await.ok_or(Unfit::NoKeys)?;
        key.ok_or(Unfit::Token("there is no such key"))
    }
}

/// Tokens have no line breaks, so no two pairs are the same text.
fn digest(access: &str, id: &str) -> [u8; 32] {
    Sha256::new().chain_update(access).chain_update("\n").chain_update(id).finalize().into()
}
