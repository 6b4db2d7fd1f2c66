//! Signatures of gRPC calls between the services, made with a key that both have.
//!
//! A signature is good for one call: it covers the method, the body, the replica that is called, the time and a nonce.
//! The replica remembers the nonce for as long as the signature would be good, so that a call which was recorded on the
//! network can neither be repeated nor changed. Clocks of the machines may be a minute apart.

use std::{
    collections::HashSet,
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use hmac::{Hmac, KeyInit, Mac};
use rand::{RngExt as _, distr::SampleString as _};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use crate::time::Timestamp;

/// The shortest key in characters.
const MIN_KEY_CHARS: usize = 32;
/// How far the time of a signature may be from the time here, either way.
const LEEWAY: Duration = Duration::from_mins(1);
/// Shortest time for which a nonce is remembered: a signature that is a minute ahead is good for two.
const NONCE_AGE: Duration = Duration::from_mins(2);
/// The form of what is signed; part of it, so that a later form is never mistaken for this one.
const VERSION: &str = "v2";
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

    /// Signs a call by one service to a replica of the other,
    /// `<version>.<from>.<at>.<nonce>.<digest of the body>.<signature>`.
    #[must_use]
    pub fn sign(&self, from: Service, call: Call<'_>, body: &[u8], at: Timestamp) -> String {
        let nonce: [u8; NONCE_BYTES] = rand::rng().random();
        let (at, nonce, digest) = (at.as_ms(), hex(&nonce), hex(&digest(body)));
        let signed = Signed { from, call, at, nonce: &nonce, digest: &digest };
        let signature =
            self.keys.first().map(|key| hex(&signed.signature(key).finalize().into_bytes()));
        format!("{VERSION}.{from}.{at}.{nonce}.{digest}.{}", signature.unwrap_or_default())
    }

    /// Returns what the other service has signed for `audience`, not long ago; `None` if it has not signed this call.
    #[must_use]
    pub fn check(
        &self,
        token: &str,
        audience: Service,
        call: Call<'_>,
        now: Timestamp,
    ) -> Option<Checked> {
        let parts: Vec<&str> = token.split('.').collect();
        let [VERSION, issuer, at, nonce, digest, given] = parts[..] else { return None };
        let from = audience.other();
        let (at, given) = (at.parse::<i64>().ok()?, unhex(given)?);
        let (body, signed_at) = (unhex(digest)?, Timestamp::from_ms(at));
        let fits = issuer == from.name() && nonce.len() == 2 * NONCE_BYTES;
        let in_time = now <= signed_at.after(LEEWAY) && now.after(LEEWAY) >= signed_at;
        let signed = Signed { from, call, at, nonce, digest };
        // Compared in constant time, and with every key, so that an answer's time tells nothing of them.
        let is_signed = self.keys.iter().fold(false, |is_signed, key| {
            is_signed | signed.signature(key).verify_slice(&given).is_ok()
        });
        (fits & in_time & is_signed).then(|| Checked { nonce: nonce.into(), body })
    }
}

/// The call that a signature is for.
#[derive(Copy, Clone, Debug)]
pub struct Call<'a> {
    /// Id of the replica that is called, new with each start of it.
    pub replica: &'a str,
    /// Path of the method.
    pub path: &'a str,
}

/// A signature that is good, if its nonce is new and its body is the one that comes.
#[derive(Clone, Debug)]
pub struct Checked {
    nonce: Box<str>,
    body: [u8; MAC_BYTES],
}

impl Checked {
    /// Returns whether this is the body that was signed.
    #[must_use]
    pub fn covers(&self, body: &[u8]) -> bool {
        digest(body) == self.body
    }
}

/// Nonces of the signatures that this replica has taken, each for `NONCE_AGE` at least and twice as long at most.
#[derive(Debug)]
pub struct Nonces {
    generations: Mutex<Generations>,
}

#[derive(Debug)]
struct Generations {
    since: Instant,
    new: HashSet<Box<str>>,
    old: HashSet<Box<str>>,
}

impl Default for Nonces {
    fn default() -> Self {
        let (new, old) = Default::default();
        Self { generations: Mutex::new(Generations { since: Instant::now(), new, old }) }
    }
}

impl Nonces {
    /// Remembers the nonce of a signature; returns whether it is its first use.
    pub fn is_new(&self, signature: &Checked) -> bool {
        self.is_new_at(&signature.nonce, Instant::now())
    }

    fn is_new_at(&self, nonce: &str, now: Instant) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(generations.since);
        if age >= NONCE_AGE {
            let new = mem::take(&mut generations.new);
            generations.old = if age < 2 * NONCE_AGE { new } else { HashSet::new() };
            generations.since = now;
        }
        !generations.old.contains(nonce) && generations.new.insert(nonce.into())
    }
}

/// Everything that a signature covers.
struct Signed<'a> {
    from: Service,
    call: Call<'a>,
    at: i64,
    nonce: &'a str,
    digest: &'a str,
}

impl Signed<'_> {
    /// Covers every part with its length before it, so that no two calls give the same bytes.
    fn signature(&self, key: &SecretString) -> Hmac<Sha256> {
        let Self { from, call: Call { replica, path }, at, nonce, digest } = *self;
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).expect("a key");
        let at = at.to_string();
        let to = from.other().name();
        for part in [VERSION, from.name(), to, replica, path, &at, nonce, digest] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}

fn digest(body: &[u8]) -> [u8; MAC_BYTES] {
    Sha256::digest(body).into()
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
