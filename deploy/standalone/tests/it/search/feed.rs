//! How the index is kept up: with imports, through restarts and kills, and when there is nothing to go on from.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use super::{figure, finds, has_documents, search};
use crate::{
    archive::{Real, import, upload},
    job::{run, submit, until_state},
    project::Project,
    relay::{Relay, Wire},
    support::{Parley, eventually, text},
};

async fn again(parley: &Parley, project: &Project, flags: &[&str]) -> (Parley, Project) {
    let parley = Parley::start_in(&parley.dir, flags).await;
    let project = Project { client: parley.as_user("ada"), id: project.id.clone() };
    (parley, project)
}

fn index_of(parley: &Parley) -> PathBuf {
    parley.dir.path().join("search/index")
}

#[tokio::test]
async fn an_import_is_found_and_a_restart_reads_nothing_again() {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    import(&project, Real::read().bytes).await;
    has_documents(&parley, 4_106).await;
    let before = search(&project, "spindown time hdparm").await;
    assert!(text(&before[0]["text"]).contains("sudo hdparm -S 12"), "{before:?}");

    for kill in [false, true] {
        if kill {
            parley.kill().await;
        } else {
            assert!(parley.terminate().await.success());
        }
        let (restarted, project) = again(&parley, &project, &[]).await;
        parley = restarted;
        has_documents(&parley, 4_106).await;
        assert_eq!(figure(&parley, "indexed_total").await, 0);
        // Further down are messages that fit equally badly.
        let texts = |hits: &[Value]| crate::support::column(&json!(hits[..5]), "text");
        assert_eq!(texts(&search(&project, "spindown time hdparm").await), texts(&before));
    }
}

#[tokio::test]
async fn a_kill_in_the_middle_of_an_import_leaves_nothing_out_and_nothing_twice() {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let real = Real::read().repeated(3);
    let data = json!({"upload_id": upload(&project.client, real.bytes.clone()).await});
    let id = text(&submit(&project, "chat.import", data).await.is(202)["id"]);
    let begun = async || figure(&parley, "documents").await > 0;
    eventually("some of it is in the index", begun).await;
    parley.kill().await;
    let (parley, project) = again(&parley, &project, &[]).await;
    until_state(&project.client, &id, "succeeded").await;
    has_documents(&parley, 3 * 4_106).await;
    let found = search(&project, "\"sudo hdparm -S 12 /dev/hda\"").await;
    assert_eq!(found.len(), 3, "once in each of the copies: {found:?}");
}

#[tokio::test]
async fn what_cannot_be_gone_on_with_is_built_anew() {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for number in 0..20 {
        project.send(&format!("walnut {number}")).await;
    }
    let gone = project.send("walnut gone").await;
    project.delete(&format!("/messages/{}", text(&gone["id"]))).await.is(200);
    has_documents(&parley, 20).await;

    // A file is damaged, one is lost, all are lost, and the log is shorter than what is missing.
    let damage: [fn(PathBuf); 4] = [
        |folder| {
            let store = fs::read_dir(folder).unwrap().flatten().map(|file| file.path());
            let mut store = store.filter(|path| path.extension().is_some_and(|end| end == "idx"));
            let path = store.next().expect("a segment");
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::write(path, bytes).unwrap();
        },
        |folder| fs::write(folder.join("meta.json"), "{").unwrap(),
        |folder| fs::remove_dir_all(folder).unwrap(),
        |folder| fs::remove_dir_all(folder.parent().unwrap()).unwrap(),
    ];
    for (turn, damage) in damage.into_iter().enumerate() {
        assert!(parley.terminate().await.success());
        damage(index_of(&parley));
        let (restarted, project) = again(&parley, &project, &["--journal-max-entries", "3"]).await;
        parley = restarted;
        has_documents(&parley, 20).await;
        let found = search(&project, "\"walnut 7\"").await;
        assert_eq!(found.len(), 1, "turn {turn}: {found:?}");
    }
}

#[tokio::test]
async fn a_project_that_is_deleted_leaves_the_index() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let (project, other) = (ada.project().await, ada.project().await);
    project.send("walnut").await;
    other.send("walnut too").await;
    has_documents(&parley, 2).await;
    project.delete("").await.is(204);
    has_documents(&parley, 1).await;
    finds(&other, "walnut", &["walnut too"]).await;
}

#[tokio::test]
async fn an_index_has_one_owner() {
    let parley = Parley::start().await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let folder = parley.dir.path().join("search");
    let said =
        Parley::refusal(&dir, &["--proc-search-dir", folder.to_str().expect("a name")]).await;
    assert!(
        said.contains("is in use by another proc: give each its own PROC_SEARCH_DIR"),
        "{said}"
    );
    let project = parley.as_user("ada").project().await;
    project.send("walnut").await;
    finds(&project, "walnut", &["walnut"]).await;
}

#[tokio::test]
async fn a_build_is_the_same_as_the_log() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    import(&project, Real::read().bytes).await;
    has_documents(&parley, 4_106).await;
    let queries = ["firefox", "mount a partition", "nvidia drivers", "\"apt-get install\""];
    let mut before = Vec::new();
    for query in queries {
        before.push(crate::support::column(&json!(search(&project, query).await), "id"));
    }
    let job = run(&project, "search.reindex", json!({})).await;
    assert_eq!(job["result"]["messages"], 4_106, "{job}");
    has_documents(&parley, 4_106).await;
    for (query, before) in queries.into_iter().zip(before) {
        let mut after = crate::support::column(&json!(search(&project, query).await), "id");
        let (mut before, best) = (before.clone(), before.first().cloned());
        assert_eq!(after.first(), best.as_ref(), "{query}");
        // Equal scores have no order.
        after.truncate(5);
        before.retain(|id| after.contains(id));
        assert_eq!(before.len(), after.len(), "{query}");
    }
}

#[tokio::test]
async fn an_index_of_an_earlier_version_answers_until_it_is_built_anew() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let id = crate::fixture::restore_sqlite(&dir);
    let relay = Relay::start().await;
    // The index is read anew through the relay; what was found is read beside it.
    relay.set(Wire::Cut);
    let flags = ["--ingress-grpc-url", &relay.url, "--journal-max-age", "36500d"];
    let parley = Parley::start_in(&dir, &flags).await;
    relay.leads_to(&parley.internal("ingress"));
    let old = dir.path().join("search/index-old");
    assert!(old.exists(), "the index of before is kept");
    let project = Project { client: parley.as_user("ada"), id };
    let texts = |hits: &[Value]| crate::support::column(&json!(hits), "text");
    assert_eq!(
        texts(&search(&project, "fixture hello").await)[0],
        "hello, fixture",
        "the old index answers"
    );
    assert!(search(&project, "hello from:ada").await.is_empty(), "it knows no authors");
    relay.set(Wire::Whole);
    let is_built = async || !old.exists();
    eventually("the index of before is gone", is_built).await;
    assert_eq!(
        texts(&search(&project, "hello from:ada").await),
        ["hello, fixture"],
        "the new index answers"
    );
}
