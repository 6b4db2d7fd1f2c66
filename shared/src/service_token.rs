//! How the services know each other: every gRPC call is signed for a minute with a key that both have.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use hmac::{Hmac, KeyInit, Mac};
use rand::{RngExt as _, distr::SampleString as _};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::time::Timestamp;

/// The shortest key in characters.
const MIN_KEY_CHARS: usize = 32;
/// How long a signature is good for.
const VALID: Duration = Duration::from_secs(50);
/// How far the clocks of two machines may be apart.
const LEEWAY: Duration = Duration::from_secs(10);
/// The form of what is signed; part of it, so that a later form is never mistaken for this one.
const VERSION: &str = "v1";
const NONCE_BYTES: usize = 16;
const MAC_BYTES: usize = 32;

/// The keys of calls between the services.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct ServiceTokenConfig {
    /// Key that calls between ingress and proc are signed with, the same in both; 32 characters or more. Services that run apart need it.
    #[arg(long, env = "SERVICE_TOKEN", hide_env_values = true)]
    pub service_token: Option<SecretString>,
    /// A key that calls may also be signed with, while `SERVICE_TOKEN` is being replaced.
    #[arg(long, env = "SERVICE_TOKEN_PREVIOUS", hide_env_values = true)]
    pub service_token_previous: Option<SecretString>,
}

/// One of the two services.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Service {
    Ingress,
    Proc,
}

impl Service {
    /// Returns the service's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Proc => "proc",
        }
    }

    /// Returns the service that calls this one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Ingress => Self::Proc,
            Self::Proc => Self::Ingress,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The keys that ingress and proc share; a clone is the same keys.
#[derive(Clone, Debug)]
pub struct ServiceToken {
    /// The first one signs, every one is good to check.
    keys: Arc<[SecretString]>,
}

impl ServiceToken {
    /// Takes the configured keys, `None` if there are none.
    pub fn configured(config: &ServiceTokenConfig) -> anyhow::Result<Option<Self>> {
        // Not clap's to check: its message would show the key.
        let named = [
            ("SERVICE_TOKEN", &config.service_token),
            ("SERVICE_TOKEN_PREVIOUS", &config.service_token_previous),
        ];
        for (name, key) in named {
            let chars = key.as_ref().map(|key| key.expose_secret().chars().count());
            ensure!(
                chars.is_none_or(|chars| chars >= MIN_KEY_CHARS),
                "{name} needs at least {MIN_KEY_CHARS} characters; `openssl rand -hex 32` makes a good one"
            );
        }
        let ServiceTokenConfig { service_token, service_token_previous } = config.clone();
        ensure!(
            service_token.is_some() || service_token_previous.is_none(),
            "SERVICE_TOKEN_PREVIOUS is only for checking; set SERVICE_TOKEN too"
        );
        let keys = service_token.into_iter().chain(service_token_previous);
        Ok(Some(keys.collect::<Arc<[_]>>())
            .filter(|keys| !keys.is_empty())
            .map(|keys| Self { keys }))
    }

    /// Takes the configured keys, for services that run apart.
    pub fn required(config: &ServiceTokenConfig) -> anyhow::Result<Self> {
        let configured = Self::configured(config)?;
        configured.context("set SERVICE_TOKEN, the same for ingress and proc: they know each other by it; `openssl rand -hex 32` makes a good one")
    }

    /// Makes a key for services that live in one process.
    #[must_use]
    pub fn random() -> Self {
        let key = rand::distr::Alphanumeric.sample_string(&mut rand::rng(), 43);
        Self { keys: [key.into()].into() }
    }

    /// Signs a call of `path` by one service to the other, `<version>.<from>.<at>.<nonce>.<signature>`.
    #[must_use]
    pub fn sign(&self, from: Service, path: &str, at: Timestamp) -> String {
        let nonce: [u8; NONCE_BYTES] = rand::rng().random();
        let (at, nonce) = (at.as_ms(), hex(&nonce));
        let signature = self
            .keys
            .first()
            .map(|key| hex(&signature(key, from, path, at, &nonce).finalize().into_bytes()));
        format!("{VERSION}.{from}.{at}.{nonce}.{}", signature.unwrap_or_default())
    }

    /// Says whether the other service signed this call of `path` for `audience`, not long ago.
    #[must_use]
    pub fn check(&self, token: &str, audience: Service, path: &str, now: Timestamp) -> bool {
        let parts: Vec<&str> = token.split('.').collect();
        let [VERSION, issuer, at, nonce, given] = parts[..] else { return false };
        let from = audience.other();
        let (Ok(at), Some(given)) = (at.parse::<i64>(), unhex(given)) else { return false };
        let signed_at = Timestamp::from_ms(at);
        let fits = issuer == from.name() && nonce.len() == 2 * NONCE_BYTES;
        let in_time = now <= signed_at.after(VALID + LEEWAY) && now.after(LEEWAY) >= signed_at;
        // Compared in constant time, and with every key, so that an answer's time tells nothing of them.
        let signed = self.keys.iter().fold(false, |signed, key| {
            signed | signature(key, from, path, at, nonce).verify_slice(&given).is_ok()
        });
        fits & in_time & signed
    }
}

/// Covers every part with its length before it, so that no two calls give the same bytes.
fn signature(key: &SecretString, from: Service, path: &str, at: i64, nonce: &str) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).expect("a key");
    for part in [VERSION, from.name(), from.other().name(), path, &at.to_string(), nonce] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; MAC_BYTES]> {
    let mut bytes = [0; MAC_BYTES];
    if text.len() != 2 * MAC_BYTES || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
