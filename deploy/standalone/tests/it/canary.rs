//! The tokens of all tests are easily told from anything else, and have to be nowhere but with who shows them: every test
//! ends with a look at all that its process has written.

use std::{fs, path::Path};

use memchr::memmem;
use serde_json::json;

use crate::support::{Answer, Parley};

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

#[tokio::test]
async fn nor_when_everything_is_logged() {
    // Every line and span that there is, those of libraries too.
    let parley = Parley::start_with(&["--log", "trace"]).await;
    let project = parley.as_user("ada").project().await;
    let stream = format!("/sse/stream?project_id={}", project.id);
    let nobody = parley.client();
    for token in ["dev-ada", "dev-nobody"] {
        for path in ["/api/auth/me", "/nothing", &stream, "/api/integrations/jobs", "/%ff"] {
            let query = if path.contains('?') { '&' } else { '?' };
            for request in [
                nobody.request("GET", path).bearer_auth(token),
                nobody.request("GET", path).header("authorization", format!("Basic {token}")),
                nobody.request("GET", path).header("x-id-token", token),
                nobody.request("GET", path).header("cookie", format!("__Secure-LATC={token}")),
                nobody
                    .request("GET", &format!("{path}{query}bearer_token={token}&id_token={token}")),
                nobody.request("GET", &format!("{path}{query}ticket={token}")),
                nobody.request("POST", path).bearer_auth(token).body("{"),
            ] {
                // Streams have no end.
                let _ = request.send().await.expect("an answer");
            }
        }
    }
    let count = json!({"project_id": project.id, "data": {"to": 1}});
    let path = "/api/integrations/bundles/demo/operations/count";
    Answer::to(project.client.request("POST", path).header("prefer", "wait=9").json(&count)).await;
    for service in ["ingress", "proc"] {
        let url = format!("{}/metrics", parley.internal(service));
        let shown = reqwest::get(url).await.expect("an answer").text().await.expect("text");
        assert!(!TOKENS.iter().any(|token| shown.contains(token)), "{shown}");
    }
    assert!(parley.log().contains("TRACE"));
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
