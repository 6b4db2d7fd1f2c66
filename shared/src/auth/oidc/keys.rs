//! The issuer's keys, as its JWKS lists them.

use std::sync::Arc;

use anyhow::{Context, ensure};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// More than any issuer has.
const MAX_KEYS: usize = 20;
/// Keys that are tried for a token which names none.
const MAX_TRIED: usize = 4;

/// A public key and what it may verify.
#[derive(Debug)]
pub(super) struct Key {
    /// The key's name; `None` for a key that verifies only tokens which name none.
    kid: Option<String>,
    jwk: Jwk,
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// The keys of one moment. A key that stays is the same `Arc` in the next set.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Arc<Key>>);

#[derive(Deserialize)]
struct Listed {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWKS. Keys that cannot verify a token by an allowed algorithm are left out; if all are, it is an error.
    pub(super) fn parse(
        text: &[u8],
        allowed: &[Algorithm],
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let Listed { keys } = serde_json::from_slice(text).context("it is no JWKS")?;
        ensure!(keys.len() <= MAX_KEYS, "it lists {} keys, more than {MAX_KEYS}", keys.len());
        let read = |value| {
            let key = Key::new(serde_json::from_value(value).ok()?, allowed)?;
            let mut same = before.iter().flat_map(|set| &set.0).filter(|old| old.jwk == key.jwk);
            Some(same.next().cloned().unwrap_or_else(|| Arc::new(key)))
        };
        let keys: Vec<_> = keys.into_iter().filter_map(read).collect();
        ensure!(!keys.is_empty(), "none of its keys can verify a token");
        Ok(Self(keys))
    }

    pub(super) fn find(&self, kid: &str, algorithm: Algorithm) -> Option<Arc<Key>> {
        let fits = |key: &&Arc<Key>| {
            key.kid.as_deref() == Some(kid) && key.algorithms.contains(&algorithm)
        };
        self.0.iter().find(fits).cloned()
    }

    /// Returns the first keys for the algorithm, for a token that names none.
    pub(super) fn fitting(&self, algorithm: Algorithm) -> Vec<Arc<Key>> {
        let fits = |key: &&Arc<Key>| key.algorithms.contains(&algorithm);
        self.0.iter().filter(fits).take(MAX_TRIED).cloned().collect()
    }

    pub(super) fn hold(&self, key: &Arc<Key>) -> bool {
        self.0.iter().any(|held| Arc::ptr_eq(held, key))
    }
}

impl Key {
    fn new(jwk: Jwk, allowed: &[Algorithm]) -> Option<Self> {
        let common = &jwk.common;
        let is_to_sign =
            common.public_key_use.as_ref().is_none_or(|r#use| *r#use == PublicKeyUse::Signature);
        let operations = common.key_operations.as_ref();
        let verifies = operations.is_none_or(|list| list.contains(&KeyOperations::Verify));
        if !is_to_sign || !verifies {
            return None;
        }
        let by_kind: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            // A shared secret is not for a public list.
            _ => return None,
        };
        let fits = |algorithm: &Algorithm| {
            let said = common.key_algorithm;
            allowed.contains(algorithm) && said.is_none_or(|said| said == (*algorithm).into())
        };
        let algorithms: Vec<_> = by_kind.iter().copied().filter(fits).collect();
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let kid = common.key_id.clone();
        (!algorithms.is_empty()).then_some(Self { kid, jwk, algorithms, decoding })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(keys: &Value, before: Option<&KeySet>) -> anyhow::Result<KeySet> {
        let allowed = [Algorithm::RS256, Algorithm::ES256];
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), &allowed, before)
    }

    fn rsa(kid: &str, n: &str) -> Value {
        json!({"kty": "RSA", "use": "sig", "kid": kid, "n": n, "e": "AQAB"})
    }

    #[test]
    fn only_keys_that_verify_tokens_are_kept() {
        let good = rsa("good", "AQAB");
        let with = |field: &str, value: Value| {
            let mut key = rsa("other", "AQAB");
            key[field] = value;
            key
        };
        let ec =
            |crv: &str| json!({"kty": "EC", "kid": "other", "crv": crv, "x": "AQAB", "y": "AQAB"});
        for other in [
            json!({"kty": "oct", "kid": "other", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "oct", "kid": "other", "k": "c2VjcmV0", "alg": "RS256"}),
            with("use", "enc".into()),
            with("key_ops", json!(["encrypt"])),
            with("alg", "RSA-OAEP".into()),
            with("alg", "RS512".into()),
            with("alg", "ES256".into()),
            with("alg", "HS256".into()),
            with("alg", "none".into()),
            with("n", "!".into()),
            with("kid", 7.into()),
            ec("P-384"),
            ec("P-521"),
            ec("secp256k1"),
            json!({"kty": "OKP", "kid": "other", "crv": "Ed25519", "x": "AQAB"}),
            json!("junk"),
            json!({}),
        ] {
            let keys = parse(&json!([other, good]), None).unwrap();
            assert_eq!(keys.0.len(), 1, "{other}");
            assert!(parse(&json!([other]), None).is_err(), "{other}");
            assert!(keys.find("other", Algorithm::RS256).is_none());
            assert!(keys.find("good", Algorithm::RS256).is_some());
            assert!(keys.find("good", Algorithm::ES256).is_none());
        }
        assert!(
            parse(&json!([ec("P-256")]), None).unwrap().find("other", Algorithm::ES256).is_some()
        );
    }

    #[test]
    fn keys_without_a_name_are_for_tokens_that_name_none() {
        let mut nameless = rsa("other", "AQAB");
        nameless["kid"] = Value::Null;
        let keys = parse(&json!([nameless, rsa("", "AQAC"), rsa("named", "AQAD")]), None).unwrap();
        assert!(keys.find("other", Algorithm::RS256).is_none());
        assert_eq!(keys.fitting(Algorithm::RS256).len(), 3);
        assert!(keys.fitting(Algorithm::ES256).is_empty());
        let many: Vec<_> = (0..20).map(|n| rsa(&n.to_string(), "AQAB")).collect();
        let keys = parse(&json!(many), None).unwrap();
        assert_eq!(keys.fitting(Algorithm::RS256).len(), MAX_TRIED);
    }

    #[test]
    fn a_list_that_is_no_list_of_keys_is_refused() {
        let many: Vec<_> = (0..21).map(|n| rsa(&n.to_string(), "AQAB")).collect();
        assert!(parse(&json!(many[..20]), None).is_ok());
        for keys in [json!(many), json!([]), json!({}), json!("x"), Value::Null] {
            assert!(parse(&keys, None).is_err(), "{keys}");
        }
        for text in ["", "[]", "{}", "<html>", "{\"keys\": [], \"keys\": []}"] {
            assert!(KeySet::parse(text.as_bytes(), &[Algorithm::RS256], None).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_that_stays_is_the_same_and_one_that_changed_is_not() {
        let first = parse(&json!([rsa("a", "AQAB"), rsa("b", "AQAB")]), None).unwrap();
        let second = parse(&json!([rsa("b", "AQAC"), rsa("a", "AQAB")]), Some(&first)).unwrap();
        let held = |kid| second.hold(&first.find(kid, Algorithm::RS256).unwrap());
        assert!(held("a"));
        assert!(!held("b"));
    }
}
