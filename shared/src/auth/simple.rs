//! Users with one static token each, from a file or built in for a first look.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, ensure};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{ids::UserId, time::Timestamp};

/// What a user may do besides their memberships.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// May see everybody's jobs and the server's insides.
    pub admin: bool,
}

impl Roles {
    /// The names of all roles.
    pub const NAMES: &[&str] = &["admin"];

    /// Returns the roles' names.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        if self.admin { vec!["admin"] } else { vec![] }
    }

    /// Returns the roles of these names.
    pub(super) fn of(names: &[String]) -> Self {
        Self { admin: names.iter().any(|name| name == "admin") }
    }
}

/// A user of the directory.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) user: UserId,
    pub(super) name: String,
    pub(super) roles: Roles,
    pub(super) expires_at: Option<Timestamp>,
}

/// All users, found by the digest of their token: a look-up tells nothing of a token by its time.
#[derive(Debug)]
pub(super) struct Directory(HashMap<[u8; 32], Known>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileUser {
    user: UserId,
    name: Option<String>,
    token: SecretString,
    #[serde(default)]
    roles: Vec<Role>,
    expires_at: Option<Timestamp>,
}

#[derive(Copy, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Admin,
}

impl Directory {
    pub(super) fn demo() -> Self {
        let user = |id: &str, name: &str, admin| {
            let user = id.parse().expect("a demo user's id is valid");
            (
                digest(&format!("dev-{id}").into()),
                Known { user, name: name.into(), roles: Roles { admin }, expires_at: None },
            )
        };
        Self(HashMap::from([
            user("ada", "Ada", false),
            user("grace", "Grace", false),
            user("admin", "Admin", true),
        ]))
    }

    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        let users: Vec<FileUser> = serde_json::from_slice(&text).map_err(|error| {
            anyhow::anyhow!("{}: line {}: not a list of users", file.display(), error.line())
        })?;
        ensure!(!users.is_empty(), "{} names no user", file.display());
        let mut directory = HashMap::new();
        for FileUser { user, name, token, roles, expires_at } in users {
            ensure!(
                token.expose_secret().len() >= 16,
                "the token of {user} is shorter than 16 characters"
            );
            let roles = Roles { admin: roles.contains(&Role::Admin) };
            let name = name.unwrap_or_else(|| user.to_string());
            let known = Known { user: user.clone(), name, roles, expires_at };
            let before = directory.insert(digest(&token), known);
            ensure!(before.is_none(), "the token of {user} is another user's too");
        }
        Ok(Self(directory))
    }

    pub(super) fn find(&self, token: &SecretString) -> Option<&Known> {
        self.0.get(&digest(token))
    }

    pub(super) fn name(&self, user: &UserId) -> Option<String> {
        self.0.values().find(|known| known.user == *user).map(|known| known.name.clone())
    }
}

fn digest(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}
