//! A data folder of an earlier version, opened by this one.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Parley, text};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
/// Longer than any fixture will be old.
const NEVER: &str = "36500d";

/// Settings with which nothing of a fixture is too old.
pub(crate) const KEEP_ALL: [&str; 10] = [
    "--journal-max-age",
    NEVER,
    "--proc-job-max-age",
    NEVER,
    "--proc-upload-max-age",
    NEVER,
    "--answer-max-age",
    NEVER,
    "--proc-http-bundles-loopback",
    "true",
];

/// Returns the path of a file of the fixtures.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(FIXTURES).join(name)
}

#[tokio::test]
async fn a_data_folder_of_version_0_1_0_opens_with_everything_in_it() {
    let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
    restore_sqlite(&dir);
    let mut parley = Parley::start_in(&dir, &KEEP_ALL).await;
    run("check.py", &["0.1.0", "sqlite", &parley.ingress, &parley.proc]);
    // The migrations ran once; a second start finds the same.
    assert!(parley.terminate().await.success(), "the upgraded process stops well");
    run("find_secrets.py", &["0.1.0", "sqlite", path(dir.path())]);
    let parley = Parley::start_in(&dir, &KEEP_ALL).await;
    run("check.py", &["0.1.0", "sqlite", &parley.ingress, &parley.proc]);
}

/// Unpacks the data folder of version 0.1.0. Returns the id of the project that has messages.
pub(crate) fn restore_sqlite(dir: &TempDir) -> String {
    run("restore.py", &["0.1.0", "sqlite", path(dir.path())]);
    let contents = std::fs::read(Path::new(FIXTURES).join("0.1.0/sqlite.json"));
    let contents: Value = serde_json::from_slice(&contents.expect("a description")).expect("JSON");
    text(&contents["project"])
}

fn path(path: &Path) -> &str {
    path.to_str().expect("its name is text")
}

/// Runs a program of the fixtures, which fails with what it prints.
fn run(program: &str, arguments: &[&str]) {
    let program = Path::new(FIXTURES).join(program);
    let output = Command::new("python3").arg(&program).args(arguments).output();
    let output = output.expect("python3 is installed");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(output.status.success(), "{}: {printed}", program.display());
}
