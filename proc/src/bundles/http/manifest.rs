//! What an admin says of a bundle behind a URL.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ingress::Role,
    outgoing::{Address, NoSecret, Secret},
};

/// Operations that a bundle may have.
const MAX_OPERATIONS: usize = 64;
const MAX_TIMEOUT_SECONDS: u64 = 24 * 60 * 60;
const MAX_CONCURRENCY: u32 = 1_000;

/// What a bundle is, and where.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BundleRegistration)]
pub(super) struct Registration {
    /// `https://…`, called for every operation.
    #[schema(value_type = String)]
    pub(super) url: Address,
    /// `whsec_` and 24 to 64 random bytes in base64, never shown again. A bundle that is replaced without one keeps its own.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    pub(super) secret: Option<GivenSecret>,
    pub(super) version: String,
    pub(super) description: String,
    /// At most 64.
    pub(super) operations: Vec<OperationManifest>,
}

/// One operation of a bundle behind a URL.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationManifest {
    pub(super) name: Name,
    pub(super) description: String,
    /// The role in the project that a caller needs.
    pub(super) role: Role,
    /// Seconds that the bundle may take for an attempt, at most a day. Waits for the bundle do not count.
    #[schema(minimum = 1, maximum = 86400)]
    pub(super) timeout_seconds: u64,
    /// Jobs of the operation that run at once, accepted ones included: at most 1,000, which is the default.
    #[schema(minimum = 1, maximum = 1000)]
    #[serde(default)]
    pub(super) concurrency: Option<u32>,
    /// JSON Schema of `data`.
    pub(super) input: Value,
}

/// What is kept of a registration besides where it is and the secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) version: String,
    pub(super) description: String,
    pub(super) operations: Vec<OperationManifest>,
}

impl Manifest {
    /// Returns the field that cannot be taken, and why, if there is one.
    pub(super) fn refusal(&self) -> Option<(String, &'static str)> {
        let texts = [("version", &self.version, 64), ("description", &self.description, 1_000)];
        let mut texts = texts.into_iter();
        if let Some((field, ..)) = texts.find(|(_, text, max)| !is_text(text, *max)) {
            return Some((field.into(), "it is empty or too long"));
        }
        if !(1..=MAX_OPERATIONS).contains(&self.operations.len()) {
            return Some(("operations".into(), "a bundle has 1 to 64 operations"));
        }
        self.operations.iter().enumerate().find_map(|(number, operation)| {
            let named = |field: &str| format!("operations[{number}].{field}");
            let earlier = &self.operations[..number];
            if earlier.iter().any(|other| other.name == operation.name) {
                Some((named("name"), "another operation has this name"))
            } else if !is_text(&operation.description, 1_000) {
                Some((named("description"), "it is empty or too long"))
            } else if !(1..=MAX_TIMEOUT_SECONDS).contains(&operation.timeout_seconds) {
                Some((named("timeout_seconds"), "it is 1 to 86400"))
            } else if operation
                .concurrency
                .is_some_and(|most| !(1..=MAX_CONCURRENCY).contains(&most))
            {
                Some((named("concurrency"), "it is 1 to 1000"))
            } else {
                None
            }
        })
    }
}

fn is_text(text: &str, max_chars: usize) -> bool {
    (1..=max_chars).contains(&text.chars().count()) && !text.contains('\0')
}

impl OperationManifest {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Returns how many of its jobs run at once.
    pub(super) fn at_once(&self) -> u32 {
        self.concurrency.unwrap_or(MAX_CONCURRENCY)
    }
}

/// A name of a bundle or an operation.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(try_from = "String")]
#[schema(value_type = String)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let also = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        if begins && text.len() <= 64 && text.bytes().all(also) {
            Ok(Self(text))
        } else {
            Err("a name has 1 to 64 of a-z 0-9 _ - and begins with a letter")
        }
    }
}

/// A secret in a body.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct GivenSecret(pub(super) Secret);

impl TryFrom<String> for GivenSecret {
    type Error = NoSecret;

    fn try_from(text: String) -> Result<Self, NoSecret> {
        text.parse().map(Self)
    }
}
