//! Users with one static token each, from a file or built in for a first look.

use std::{collections::HashMap, fs, path::Path};

use anyhow::{Context, ensure};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Identity, Roles};
use crate::{ids::UserId, names::without_invisible, time::Timestamp};

/// All users, found by the digest of their token: a look-up tells nothing of a token by its time.
#[derive(Debug)]
pub(super) struct Directory(HashMap<[u8; 32], Identity>);

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

/// A user who is there without a file, on loopback alone; the token is in the README.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DemoUser {
    /// Their id.
    pub user: &'static str,
    /// The name to show.
    pub name: &'static str,
    /// What they sign in with.
    pub token: &'static str,
}

pub(super) const DEMO: &[DemoUser] = &[
    DemoUser { user: "ada", name: "Ada", token: "dev-ada" },
    DemoUser { user: "grace", name: "Grace", token: "dev-grace" },
    DemoUser { user: "admin", name: "Admin", token: "dev-admin" },
];

impl Directory {
    pub(super) fn demo() -> Self {
        let known = |demo: &DemoUser| {
            let id: UserId = demo.user.parse().expect("a demo user's id is valid");
            let roles = Roles { admin: demo.user == "admin" };
            let identity = Identity { id, name: demo.name.into(), roles, expires_at: None };
            (digest(&demo.token.into()), identity)
        };
        Self(DEMO.iter().map(known).collect())
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
            ensure!(
                !user.is_reserved(),
                "{user} cannot be a user's id: its prefix is kept for imported, derived and deleted users"
            );
            let name = name.map(|name| without_invisible(&name).trim().to_owned());
            let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| user.to_string());
            let known = Identity { id: user.clone(), name, roles, expires_at };
            let before = directory.insert(digest(&token), known);
            ensure!(before.is_none(), "the token of {user} is another user's too");
        }
        Ok(Self(directory))
    }

    pub(super) fn find(&self, token: &SecretString) -> Option<&Identity> {
        self.0.get(&digest(token))
    }

    pub(super) fn name(&self, user: &UserId) -> Option<String> {
        self.0.values().find(|known| known.id == *user).map(|known| known.name.clone())
    }
}

fn digest(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}
