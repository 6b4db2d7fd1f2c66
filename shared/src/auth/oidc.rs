//! OpenID Connect: an access token that says what its bearer may do, and an ID token that says who that is. With a setting,
//! the ID token alone.

mod claims;
mod console;
mod fetch;
mod keys;
mod refresh;
mod rules;
mod token;
mod users;

use std::sync::Arc;

use quick_cache::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

pub use self::console::ConsoleSignIn;
use self::{
    claims::Claims,
    fetch::Issuer,
    keys::Key,
    refresh::{Keys, Refresher},
    rules::Rules,
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
    /// The sign-in of the console.
    pub(super) console: ConsoleSignIn,
    rules: Rules,
    keys: Keys,
    good: Cache<[u8; 32], Arc<Good>>,
}

/// A pair that was found good, for as long as the issuer has the keys.
#[derive(Debug)]
struct Good {
    identity: Identity,
    keys: Vec<Arc<Key>>,
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
        let console = ConsoleSignIn::new(config, &rules.issuer)?;
        let issuer = Arc::new(Issuer::new(&rules.issuer, &config.oidc_algorithms)?);
        let (keys, refresher) = Refresher::new();
        let fetch = move |before| {
            let issuer = issuer.clone();
            async move { issuer.fetch(before).await }
        };
        lifecycle.spawn("oidc keys", refresher.run(fetch, lifecycle.shutdown()));
        Ok(Self { users: Users::new(store), console, rules, keys, good: Cache::new(CACHED) })
    }

    /// Returns whose tokens these are. Whatever is wrong with them, the caller is told the same.
    pub(super) async fn verify(
        &self,
        access: &SecretString,
        id: Option<&SecretString>,
        now: Timestamp,
    ) -> Result<Identity, Refused> {
        let first = access.expose_secret();
        let second = if self.rules.take_id_token_alone() {
            None
        } else {
            Some(id.ok_or(Refused::Unauthenticated)?.expose_secret())
        };
        let shown = digest(first, second.unwrap_or_default());
        if let Some(good) = self.good.get(&shown) {
            if good.keys.iter().all(|key| self.keys.hold(key)) {
                return Ok(good.identity.clone());
            }
            self.good.remove(&shown);
        }
        let checked = match second {
            Some(id) => self.check_pair(first, id, now).await,
            None => self.check_alone(first, now).await,
        };
        match checked {
            Ok(good) => {
                let identity = good.identity.clone();
                self.good.insert(shown, Arc::new(good));
                Ok(identity)
            }
            Err(Unfit::Token(reason)) => {
                tracing::debug!(reason, "tokens refused");
                Err(Refused::Unauthenticated)
            }
            Err(Unfit::Signature) => {
                tracing::debug!("tokens refused: a signature is wrong");
                Err(Refused::Unauthenticated)
            }
            Err(Unfit::UserClaim) => {
                // The issuer signed the token, so a setting is wrong and an operator has to know.
                tracing::warn!(
                    "tokens refused: the claim of OIDC_USER_CLAIM is missing, or no text of 1 to 255 characters"
                );
                Err(Refused::Unauthenticated)
            }
            Err(Unfit::NoSuchKey) => {
                tracing::debug!("tokens refused: there is no such key");
                Err(Refused::UnknownKey)
            }
            Err(Unfit::NoKeys) => Err(Refused::Unavailable),
        }
    }

    async fn check_pair(&self, access: &str, id: &str, now: Timestamp) -> Result<Good, Unfit> {
        let (access, id) = (Token::parse(access)?, Token::parse(id)?);
        self.rules.access_head(&access)?;
        self.rules.id_head(&id)?;
        let check = |key: &Key| self.rules.access(&access, key, now);
        let (access_key, access_claims) = self.verified(&access, check).await?;
        let check = |key: &Key| self.rules.id(&id, key, now);
        let (id_key, id_claims) = self.verified(&id, check).await?;
        let identity = self.rules.pair(&access, &access_claims, &id, &id_claims)?;
        Ok(Good { identity, keys: vec![access_key, id_key] })
    }

    async fn check_alone(&self, id: &str, now: Timestamp) -> Result<Good, Unfit> {
        let id = Token::parse(id)?;
        self.rules.id_head(&id)?;
        let (key, claims) = self.verified(&id, |key| self.rules.id(&id, key, now)).await?;
        Ok(Good { identity: self.rules.alone(&claims)?, keys: vec![key] })
    }

    /// Checks a token with the key that it names. A token that names none is checked with each of the few keys for its
    /// algorithm.
    async fn verified(
        &self,
        token: &Token<'_>,
        check: impl Fn(&Key) -> Result<Claims, Unfit>,
    ) -> Result<(Arc<Key>, Claims), Unfit> {
        if let Some(kid) = &token.kid {
            let key = self.keys.find(kid, token.algorithm).await.ok_or(Unfit::NoKeys)?;
            let key = key.ok_or(Unfit::NoSuchKey)?;
            let claims = check(&key)?;
            return Ok((key, claims));
        }
        let mut is_refreshed = false;
        loop {
            let current = self.keys.current().ok_or(Unfit::NoKeys)?;
            for key in current.fitting(token.algorithm) {
                match check(&key) {
                    Err(Unfit::Signature) => {}
                    checked => return checked.map(|claims| (key, claims)),
                }
            }
            if is_refreshed {
                return Err(Unfit::NoSuchKey);
            }
            // The issuer may have a new key.
            self.keys.refresh().await;
            is_refreshed = true;
        }
    }
}

/// Tokens have no line breaks, so no two pairs are the same text.
fn digest(access: &str, id: &str) -> [u8; 32] {
    Sha256::new().chain_update(access).chain_update("\n").chain_update(id).finalize().into()
}

fn require(is_so: bool, otherwise: &'static str) -> Result<(), Unfit> {
    if is_so { Ok(()) } else { Err(Unfit::Token(otherwise)) }
}
