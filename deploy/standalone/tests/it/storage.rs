//! Limit of the bytes that a user stores: uploads, artifacts and exports together, also when several come at once.

use std::time::Duration;

use reqwest::Body;
use serde_json::json;

use crate::{
    archive::{import, pack},
    job::run,
    raw::Raw,
    support::{Answer, Client, Parley, column, eventually, text},
};

const UPLOADS: &str = "/api/integrations/uploads";

async fn upload(client: &Client, bytes: usize) -> Answer {
    Answer::to(client.request("POST", UPLOADS).body(vec![b'x'; bytes])).await
}

/// Uploads bytes whose number is not said in advance.
async fn stream(client: &Client, bytes: usize) -> Answer {
    let parts = (0..bytes / 1_000).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1_000]));
    let body = Body::wrap_stream(futures_util::stream::iter(parts));
    Answer::to(client.request("POST", UPLOADS).body(body)).await
}

#[tokio::test]
async fn what_a_user_stores_has_a_limit_and_says_so() {
    let parley = Parley::start_with(&["--storage-per-user", "100000"]).await;
    let (ada, grace) = (parley.as_user("ada"), parley.as_user("grace"));
    upload(&ada, 60_000).await.is(201);
    let refused = upload(&ada, 40_001).await.refused(413, "quota_exceeded");
    assert_eq!(
        (&refused["quota"], &refused["max"], &refused["used"]),
        (&json!("storage"), &json!(100_000), &json!(60_000))
    );
    // A body that does not say its length is stopped on the way.
    let refused = stream(&ada, 41_000).await.refused(413, "quota_exceeded");
    assert_eq!(refused["used"], 60_000);
    upload(&ada, 40_000).await.is(201);
    upload(&ada, 1).await.refused(413, "quota_exceeded");
    upload(&grace, 100_000).await.is(201);

    // An export is stored too.
    let project = ada.project().await;
    project.send("something to export").await;
    let failed = run(&project, "chat.export", json!({})).await;
    assert_eq!(
        (&failed["state"], &failed["error"]["code"]),
        (&json!("failed"), &json!("quota_exceeded"))
    );
    let stored = std::fs::read_dir(parley.dir.path().join("blobs/uploads")).expect("a folder");
    assert_eq!(stored.count(), 3, "a refused upload leaves no file");
}

#[tokio::test]
async fn uploads_that_come_at_once_share_the_limit_exactly() {
    let parley = Parley::start_with(&["--storage-per-user", "100000"]).await;
    let ada = parley.as_user("ada");
    let uploads = (0..8).map(|_| upload(&ada, 30_000));
    let answers = futures_util::future::join_all(uploads).await;
    let taken = answers.iter().filter(|answer| answer.status == 201).count();
    assert!((1..=3).contains(&taken), "{taken} of 30,000 bytes each were taken");
    // Uploads that were refused only because others were under way are accepted now.
    for _ in taken..3 {
        upload(&ada, 30_000).await.is(201);
    }
    let refused = upload(&ada, 10_001).await.refused(413, "quota_exceeded");
    assert_eq!(refused["used"], 90_000);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.refused(413, "quota_exceeded");
    }
}

#[tokio::test]
async fn projects_of_a_user_and_channels_of_a_project_have_a_limit() {
    let flags = ["--projects-per-user", "3", "--channels-per-project", "2"];
    let parley = Parley::start_with(&flags).await;
    let ada = parley.as_user("ada");
    let mut projects = Vec::new();
    for _ in 0..3 {
        projects.push(ada.project().await);
    }
    let one_more = json!({"name": "one more"});
    ada.call("POST", "/api/chat/projects", &one_more).await.refused(409, "conflict");
    // Being a member costs nothing, and a project that is gone makes room.
    let graces = parley.as_user("grace").project().await;
    graces.with("ada", "member").await;
    projects.pop().expect("three").delete("").await.is(204);
    ada.call("POST", "/api/chat/projects", &one_more).await.is(201);

    let project = &projects[0];
    project.call("POST", "/channels", &json!({"name": "second"})).await.is(201);
    project.call("POST", "/channels", &json!({"name": "third"})).await.refused(409, "conflict");
    let users = json!([{"id": "U1", "name": "ada"}]).to_string();
    let channels = json!([{"id": "C1", "name": "second"}, {"id": "C2", "name": "third"}]);
    let archive = pack(&[("users.json", users), ("channels.json", channels.to_string())]);
    assert_eq!(import(project, archive).await["state"], "succeeded");
    let names = project.get("/channels").await.is(200);
    assert_eq!(column(&names["channels"], "name"), ["general", "second"]);
}

#[tokio::test]
async fn files_of_exports_are_gone_when_they_are_old_and_their_room_is_free() {
    let flags = ["--export-max-age", "1s", "--storage-per-user", "off"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let job = run(&project, "chat.export", json!({})).await;
    let (id, url) = (text(&job["id"]), text(&job["result"]["artifact"]["url"]));
    let is_gone = async || {
        project.client.request("GET", &url).send().await.expect("an answer").status() == 404
    };
    eventually("an old export is not served", is_gone).await;
    let path = parley.dir.path().join("blobs/artifacts").join(id);
    let is_swept = async || {
        let files = std::fs::read_dir(&path).into_iter().flatten().flatten();
        !files.flat_map(|fence| std::fs::read_dir(fence.path())).flatten().any(|file| file.is_ok())
    };
    eventually("an old export is deleted", is_swept).await;
}

#[tokio::test]
async fn an_upload_may_take_long_and_not_stall() {
    let parley = Parley::start_with(&["--body-timeout", "1s"]).await;
    let head = |length: usize| {
        format!(
            "POST {UPLOADS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n"
        )
    };
    let mut slow = Raw::sending(&parley.proc, head(8)).await;
    let mut stalled = Raw::sending(&parley.proc, head(8) + "x").await;
    // Longer in all than a gap may be.
    let mut drip = tokio::time::interval(Duration::from_millis(250));
    for _ in 0..8 {
        drip.tick().await;
        slow.send("x").await;
    }
    let answer = slow.rest().await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let answer = stalled.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"error\":\"timeout\""), "{answer}");
}

#[tokio::test]
async fn an_upload_that_was_cut_by_a_kill_leaves_no_file_for_ever() {
    let mut parley = Parley::start().await;
    let head = format!(
        "POST {UPLOADS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer dev-ada\r\ncontent-length: 100000000\r\n\r\n"
    );
    let mut client = Raw::sending(&parley.proc, head).await;
    client.send(vec![b'x'; 12_000_000]).await;
    let folder = parley.dir.path().join("blobs/uploads");
    let files = || -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    eventually("a part is on the disk", async || {
        files().iter().any(|file| file.metadata().is_ok_and(|file| file.len() > 0))
    })
    .await;
    parley.kill().await;
    let [left] = &files()[..] else { panic!("one file: {:?}", files()) };
    let mut parley = Parley::start_in(&parley.dir, &[]).await;
    upload(&parley.as_user("ada"), 10).await.is(201);
    assert!(left.exists(), "a young file may be of an upload that is on its way");
    parley.kill().await;
    let eight_days_ago = std::time::SystemTime::now() - Duration::from_hours(192);
    let file = std::fs::File::options().append(true).open(left).expect("it is ours");
    file.set_modified(eight_days_ago).expect("it is ours");
    let _parley = Parley::start_in(&parley.dir, &[]).await;
    eventually("the old file is deleted", async || !left.exists()).await;
    assert_eq!(files().len(), 1, "the whole upload stays");
}

#[tokio::test]
async fn an_upload_in_a_wrapping_is_refused() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let send = async |name: &'static str, value: &str| {
        let request = ada.request("POST", UPLOADS).header(name, value).body("x");
        Answer::to(request).await
    };
    for (name, value) in [
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "Multipart/Mixed; boundary=x"),
        ("content-encoding", "gzip"),
    ] {
        let refused = send(name, value).await.refused(415, "unsupported_media_type");
        assert!(text(&refused["message"]).starts_with("send the file"), "{refused}");
    }
    for (name, value) in [("content-type", "application/zip"), ("content-encoding", "identity")] {
        send(name, value).await.is(201);
    }
}
