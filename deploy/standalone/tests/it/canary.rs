//! The tokens of all tests are easily told from anything else, and have to be nowhere but with who shows them: every test
//! ends with a look at all that its process has written.

use std::{fs, path::Path};

use memchr::memmem;

/// What tests show to be somebody, or to be refused, and never say otherwise.
const TOKENS: [&str; 6] =
    ["dev-ada", "dev-grace", "dev-admin", "dev-nobody", "dev-of-the-", "sixteen-characters"];
/// Where a test itself has written tokens.
const USERS: &str = "users.json";

/// Looks at the log, the database and its journal, uploads and artifacts.
#[track_caller]
pub(crate) fn is_nowhere(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            is_nowhere(&path);
        } else if entry.file_name() != USERS {
            // One that is gone by now has nothing to tell.
            let bytes = fs::read(&path).unwrap_or_default();
            for token in TOKENS {
                let found = memmem::find(&bytes, token.as_bytes());
                let around = found.map(|at| {
                    let around = at.saturating_sub(80)..(at + 40).min(bytes.len());
                    String::from_utf8_lossy(&bytes[around]).into_owned()
                });
                assert_eq!(around, None, "a token is in {}", path.display());
            }
        }
    }
}

#[test]
#[should_panic(expected = "a token is in")]
fn a_token_would_be_found() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("deeper")).expect("it is ours");
    fs::write(dir.path().join("deeper/log"), "GET /sse/stream?bearer_token=dev-ada 200")
        .expect("so");
    is_nowhere(dir.path());
}
