//! Pairs of tokens that are good until something about them is changed.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::issuer::{AUDIENCE, CLIENT, Issuer, Signer};
use crate::support::Client;

/// One token before it is signed.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) signer: Signer,
    pub(crate) head: Value,
    pub(crate) claims: Value,
}

impl Draft {
    pub(crate) fn new(signer: &Signer, claims: Value) -> Self {
        let head = json!({"alg": signer.algorithm(), "typ": "JWT", "kid": signer.kid});
        Self { signer: signer.clone(), head, claims }
    }

    pub(crate) fn sign(&self) -> String {
        self.signer.token(&self.head.to_string(), &self.claims.to_string())
    }
}

/// What a caller shows.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) access: Draft,
    pub(crate) id: Draft,
}

/// Something about a pair that is otherwise.
pub(crate) type Change = fn(&mut Pair);

/// Returns the seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch").as_secs()
}

impl Pair {
    /// Returns what the issuer gives a user for an hour.
    pub(crate) fn new(issuer: &Issuer, signer: &Signer, user: &str) -> Self {
        let (issued, over) = (now(), now() + 3600);
        let access = json!({
            "iss": issuer.url, "sub": user, "aud": AUDIENCE, "iat": issued, "exp": over,
        });
        let id = json!({
            "iss": issuer.url, "sub": user, "aud": CLIENT, "iat": issued, "exp": over,
            "name": format!("{user}'s name"),
        });
        Self { access: Draft::new(signer, access), id: Draft::new(signer, id) }
    }

    pub(crate) fn sign(&self) -> [String; 2] {
        [self.access.sign(), self.id.sign()]
    }

    /// Begins a request with both tokens.
    pub(crate) fn request(&self, client: &Client, method: &str, path: &str) -> RequestBuilder {
        let [access, id] = self.sign();
        client.request(method, path).bearer_auth(access).header("x-id-token", id)
    }
}
