//! Secrets of webhooks and bundles in the files of the database, and who may read those files.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use memchr::memmem;
use serde_json::json;

use crate::{
    bundle::{ADMIN, LOOPBACK, SECRET, manifest, register},
    project::Project,
    support::{Parley, text},
    webhook::{Subscription, receiver, subscribe},
};

/// Returns all files and folders of a process.
fn all(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let with_inner = |path: PathBuf| {
        let inner = if path.is_dir() { all(&path) } else { vec![] };
        inner.into_iter().chain([path])
    };
    entries.flat_map(with_inner).collect()
}

/// Returns the files that have a secret, of which every eight bytes after the prefix are looked for.
fn found(folder: &Path, secrets: &[&str]) -> Vec<PathBuf> {
    let files = all(folder).into_iter().filter(|path| path.is_file());
    let has = |path: &PathBuf| {
        let bytes = fs::read(path).expect("a file");
        let part = |secret: &&str| memmem::find(&bytes, &secret.as_bytes()["whsec_".len()..][..24]);
        secrets.iter().any(|secret| part(secret).is_some())
    };
    files.filter(has).collect()
}

/// Runs statements on the database of a process that has ended.
pub(crate) fn sql(folder: &Path, script: &str) -> String {
    let python = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\ndb.execute('PRAGMA journal_mode=WAL')\ndb.execute('PRAGMA secure_delete=OFF')\n\
                  for line in sys.argv[2].split(';'):\n    print(*[row[0] for row in db.execute(line)], sep='\\n')\ndb.close()";
    let mut command = Command::new("python3");
    command.args(["-c", python]).arg(folder.join("parley.db")).arg(script);
    let output = command.output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn no_file_has_a_secret_and_nobody_else_may_read_any() {
    let mut parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let receiver = receiver().await;
    let made = subscribe(&project, &receiver.url, &["*"]).await.is(201);
    let first = text(&made["secret"]);
    let rotate = format!("/api/integrations/webhooks/{}/rotate", text(&made["id"]));
    let second = text(&project.client.call("POST", &rotate, &json!({})).await.is(200)["secret"]);
    register(&parley.as_user("admin"), "ext", &receiver.url, &manifest(&["x"], 5)).await.is(201);
    project.client.call("POST", "/api/integrations/uploads", &json!({})).await.is(201);
    let secrets = [&*first, &second, SECRET];
    let dir = parley.dir.clone();
    assert_eq!(found(dir.path(), &secrets), [] as [PathBuf; 0], "while it runs");
    for path in all(dir.path()).iter().filter(|path| !path.ends_with("stderr.log")) {
        let mode = fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
    }
    parley.terminate().await;
    assert_eq!(found(dir.path(), &secrets), [] as [PathBuf; 0], "after its end");
}

#[tokio::test]
async fn secrets_in_the_clear_are_sealed_at_the_start_and_no_page_keeps_them() {
    let mut parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut receiver = receiver().await;
    let hook = Subscription::make(&project, &receiver.url, &["message.created"]).await;
    register(&parley.as_user("admin"), "ext", &receiver.url, &manifest(&["x"], 5)).await.is(201);
    let dir = parley.dir.clone();
    parley.terminate().await;
    // As the version before has left it, with a deleted row in a free page.
    let clear = "whsec_c2VjcmV0LW9mLXRoZS12ZXJzaW9uLWJlZm9yZQ==";
    let gone = "whsec_Z29uZS1idXQtbm90LWZyb20tdGhlLWZpbGUtYXQtYWxs";
    sql(
        dir.path(),
        &format!(
            "UPDATE webhooks SET secret = '{clear}', old_secret = '{clear}', old_until = 0, \
            old_secret_2 = '{clear}', old_until_2 = 0, old_secret_3 = '{clear}', old_until_3 = 0; \
        UPDATE http_bundles SET secret = '{SECRET}'; DELETE FROM secret_rewrites; \
        CREATE TABLE gone (secret TEXT); INSERT INTO gone VALUES ('{gone}'); DROP TABLE gone"
        ),
    );
    assert!(!found(dir.path(), &[clear]).is_empty() && !found(dir.path(), &[gone]).is_empty());
    let mut parley = Parley::start_in(&dir, &LOOPBACK).await;
    assert_eq!(found(dir.path(), &[clear, gone, SECRET]), [] as [PathBuf; 0]);
    // The webhook signs with the same secret as before.
    let project = Project { client: parley.as_user("ada"), id: hook.project.id };
    project.send("hello").await;
    let call = receiver.called().await;
    let verifier = standardwebhooks::Webhook::new(clear).expect("a secret");
    let mut head = reqwest::header::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        head.insert(name, call.header(name).parse().expect("a value"));
    }
    verifier.verify(call.text.as_bytes(), &head).expect("it is signed");
    parley.as_user("admin").get(&format!("{ADMIN}/ext")).await.is(200);
    parley.terminate().await;
}

#[tokio::test]
async fn without_its_key_the_database_is_not_opened_and_a_new_key_is_not_made() {
    let mut parley = Parley::start_with(&LOOPBACK).await;
    let receiver = receiver().await;
    register(&parley.as_user("admin"), "ext", &receiver.url, &manifest(&["x"], 5)).await.is(201);
    let dir = parley.dir.clone();
    parley.terminate().await;
    let key = dir.path().join("secrets.key");
    let kept = fs::read_to_string(&key).expect("a key");
    fs::remove_file(&key).expect("it was there");
    let other = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    let before = sql(dir.path(), "SELECT secret FROM http_bundles");
    for flags in [&[][..], &["--secrets-key", other]] {
        let said = Parley::refusal(&dir, flags).await;
        assert!(said.contains("SECRETS_KEY") && said.contains("secrets.key"), "{said}");
        assert!(!key.exists(), "a key was made");
    }
    assert_eq!(sql(dir.path(), "SELECT secret FROM http_bundles"), before);
    // A new key is put first and seals; afterwards the old one is not needed.
    let both = format!("{other},{}", kept.trim());
    Parley::start_in(&dir, &["--secrets-key", &both]).await.terminate().await;
    assert_ne!(sql(dir.path(), "SELECT secret FROM http_bundles"), before);
    let mut parley = Parley::start_in(&dir, &["--secrets-key", other]).await;
    parley.as_user("admin").get(&format!("{ADMIN}/ext")).await.is(200);
    parley.terminate().await;
}
