//! Signatures as Standard Webhooks has them, of what we send to a bundle and of what it sends back.

use std::{fmt, str::FromStr, time::Duration};

use axum::extract::FromRequestParts;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, request::Parts};
use secrecy::{ExposeSecret, SecretBox, zeroize::Zeroizing};
use sha2::Sha256;
use shared::time::Timestamp;

use crate::error::ApiError;

pub(crate) const ID: &str = "webhook-id";
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
pub(crate) const SIGNATURE: &str = "webhook-signature";

const PREFIX: &str = "whsec_";
const VERSION: &str = "v1,";
/// The longest id of a message.
const MAX_ID_BYTES: usize = 128;
/// How far a message's time may be from ours.
const TOLERANCE: Duration = Duration::from_mins(5);

/// What a bundle and Parley both know: `whsec_` and 24 to 64 bytes in base64.
pub(crate) struct Secret(SecretBox<Vec<u8>>);

/// Why a text is no secret. It never shows the text.
#[derive(Debug, thiserror::Error)]
#[error("a secret is `whsec_` and 24 to 64 random bytes in base64")]
pub(crate) struct NoSecret;

impl FromStr for Secret {
    type Err = NoSecret;

    fn from_str(text: &str) -> Result<Self, NoSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(NoSecret)?;
        let key = BASE64_STANDARD.decode(encoded).map_err(|_| NoSecret)?;
        if (24..=64).contains(&key.len()) { Ok(Self(Box::new(key).into())) } else { Err(NoSecret) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Makes a new secret.
    pub(crate) fn random() -> Self {
        Self(Box::new(rand::random::<[u8; 32]>().to_vec()).into())
    }

    /// Returns the secret as text, for the store alone.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(self.0.expose_secret())))
    }

    /// Returns the signature of a message.
    pub(crate) fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let mac = self.mac(id, seconds(at), body).finalize().into_bytes();
        format!("{VERSION}{}", BASE64_STANDARD.encode(mac))
    }

    /// Returns the id of a message that is signed with this secret.
    pub(crate) fn check(&self, head: &SignedHead, body: &[u8]) -> Option<String> {
        let SignedHead { id, at, signatures } = head;
        let is_ours = |one: &Vec<u8>| self.mac(id, *at, body).verify_slice(one).is_ok();
        signatures.iter().any(is_ours).then(|| id.clone())
    }

    fn mac(&self, id: &str, at: i64, body: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("a key");
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(body);
        mac
    }
}

/// Head of a signed message that was made not long ago; whether the signature is right is not known yet.
#[derive(Clone, Debug)]
pub(crate) struct SignedHead {
    id: String,
    /// Seconds since the epoch.
    at: i64,
    /// More than one while a secret is being replaced.
    signatures: Vec<Vec<u8>>,
}

impl SignedHead {
    /// Reads the head, `None` if a part is missing, cannot be right, or is too old or too new.
    pub(crate) fn read(head: &HeaderMap, now: Timestamp) -> Option<Self> {
        let value = |name: &str| head.get(name).and_then(|value| value.to_str().ok());
        let id = value(ID).filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()))?;
        let at: i64 = value(TIMESTAMP)?.parse().ok()?;
        let signed_at = Timestamp::from_ms(at.checked_mul(1000)?);
        if now > signed_at.after(TOLERANCE) || signed_at > now.after(TOLERANCE) {
            return None;
        }
        let given = value(SIGNATURE)?.split(' ').filter_map(|one| one.strip_prefix(VERSION));
        let signatures: Vec<_> = given.filter_map(|one| BASE64_STANDARD.decode(one).ok()).collect();
        (!signatures.is_empty()).then(|| Self { id: id.to_owned(), at, signatures })
    }
}

/// Refuses by the head alone, before a byte of the body is read.
impl<S: Send + Sync> FromRequestParts<S> for SignedHead {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::read(&parts.headers, Timestamp::now()).ok_or(ApiError::Unauthenticated)
    }
}

/// Returns a time as the header has it.
pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.as_ms().div_euclid(1000)
}

#[cfg(test)]
mod tests;
