//! The users of a server under measurement: their names, their tokens, and the file that it reads them from.

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::{Value, json};

/// Who makes the projects.
pub(crate) const OWNER: &str = "owner";
/// Streams of one user: fewer than may be open, since the place of one that has just closed may not be free yet.
pub(crate) const STREAMS_A_USER: usize = 4;

/// Returns the name of a user.
pub(crate) fn user(number: usize) -> String {
    format!("user-{number}")
}

/// Returns a user's token.
pub(crate) fn token(user: &str) -> String {
    format!("token-of-the-bench-{user}")
}

/// Writes the file of so many users and the owner.
pub(crate) fn write(file: &Path, users: usize) -> anyhow::Result<()> {
    let ids = (0..users).map(user).chain([OWNER.to_owned()]);
    let users: Vec<Value> =
        ids.map(|id| json!({"user": id, "name": id, "token": token(&id)})).collect();
    fs::write(file, serde_json::to_vec(&users)?).context("failed to write the users")
}
