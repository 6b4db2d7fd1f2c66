//! Rights are looked up when something acts or is shown, not only when it was made: jobs of those who lost a role, what jobs have
//! made, and what an admin sees who is no member.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    bundle::{LOOPBACK, Rogue, Says, lines, manifest, register, status},
    job::{JOBS, follow, run, submit, submit_with, until_state},
    sse::{Event, Sse},
    support::{Answer, Client, Parley, column, eventually, text},
};

const HIDDEN: &str = "only members of the project see this";

/// Registers a bundle whose operation `act` needs this role.
async fn with_bundle(parley: &Parley, rogue: &Rogue, role: &str) {
    let mut manifest = manifest(&["act"], 60);
    manifest["operations"][0]["role"] = json!(role);
    register(&parley.as_user("admin"), "ext", &rogue.url, &manifest).await.is(201);
}

async fn retry(client: &Client, id: &str) -> Answer {
    client.call("POST", &format!("{JOBS}/{id}/retry"), &json!({})).await
}

#[tokio::test]
async fn a_job_is_started_over_only_while_its_owner_has_the_role() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let mut rogue = Rogue::start(|_| {
        Says::Ends(lines("{\"error\":{\"code\":\"no\",\"message\":\"secret reason\"}}\n"))
    })
    .await;
    with_bundle(&parley, &rogue, "owner").await;
    let project = parley.as_user("ada").project().await;
    let graces = project.with("grace", "owner").await;
    let id = text(&submit(&graces, "ext.act", json!({})).await.is(202)["id"]);
    until_state(&graces.client, &id, "failed").await;
    rogue.called().await;
    let admin = parley.as_user("admin");

    project.with("grace", "viewer").await;
    submit(&graces, "ext.act", json!({})).await.refused(403, "forbidden");
    retry(&graces.client, &id).await.refused(403, "forbidden");
    retry(&admin, &id).await.refused(403, "forbidden");
    project.delete("/members/grace").await.is(204);
    retry(&graces.client, &id).await.refused(404, "not_found");
    retry(&admin, &id).await.refused(409, "conflict");
    assert!(!rogue.is_called_within(Duration::from_millis(1)).await, "it ran without the right");

    project.with("grace", "owner").await;
    retry(&graces.client, &id).await.is(202);
    rogue.called().await;
    until_state(&graces.client, &id, "failed").await;
}

#[tokio::test]
async fn an_automatic_attempt_is_not_made_for_who_was_removed_or_demoted() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let mut rogue = Rogue::start(|_| {
        Says::Ends(lines(
            "{\"error\":{\"code\":\"later\",\"message\":\"no\",\"retryable\":true}}\n",
        ))
    })
    .await;
    with_bundle(&parley, &rogue, "member").await;
    let (project, admin) = (parley.as_user("ada").project().await, parley.as_user("admin"));
    let graces = project.with("grace", "member").await;
    for (code, role) in [("forbidden", Some("viewer")), ("not_found", None)] {
        project.with("grace", "member").await;
        let id = text(&submit(&graces, "ext.act", json!({})).await.is(202)["id"]);
        rogue.called().await;
        match role {
            Some(role) => drop(project.with("grace", role).await),
            None => drop(project.delete("/members/grace").await.is(204)),
        }
        let failed = until_state(&admin, &id, "failed").await;
        assert_eq!(failed["error"]["code"], code, "{failed}");
        assert_eq!(failed["error"]["retryable"], false, "{failed}");
        assert!(!rogue.is_called_within(Duration::from_millis(1)).await, "{code}: it was called");
        let retried = admin.call("POST", "/api/integrations/admin/parked/retry", &json!({})).await;
        assert_eq!(retried.is(200)["retried"], 0);
    }
}

#[tokio::test]
async fn parked_jobs_of_who_was_removed_stay_parked() {
    let parley =
        Parley::start_with(&[&LOOPBACK[..], &["--proc-retry-spread", "1s"]].concat()).await;
    let (project, admin) = (parley.as_user("ada").project().await, parley.as_user("admin"));
    let rogue = Rogue::start(|_| Says::Ends(status("500 Internal Server Error", ""))).await;
    register(&admin, "ext", &rogue.url, &manifest(&["act"], 5)).await.is(201);
    let graces = project.with("grace", "member").await;
    let id = text(&submit(&graces, "ext.act", json!({})).await.is(202)["id"]);
    until_state(&graces.client, &id, "failed").await;
    project.delete("/members/grace").await.is(204);
    let retried = admin.call("POST", "/api/integrations/admin/parked/retry", &json!({})).await;
    let retried = retried.is(200);
    assert_eq!((&retried["retried"], &retried["refused"]), (&json!(0), &json!(1)));
    let parked = admin.get("/api/integrations/admin/parked").await.is(200);
    assert_eq!(column(&parked["jobs"], "id"), [id]);
}

#[tokio::test]
async fn what_a_job_made_goes_with_the_membership_and_the_files_with_the_project() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    project.send("confidential").await;
    let graces = project.with("grace", "viewer").await;
    let job = run(&graces, "chat.export", json!({})).await;
    let (id, url) = (text(&job["id"]), text(&job["result"]["artifact"]["url"]));
    let paths = [format!("{JOBS}/{id}"), format!("{JOBS}/{id}/logs"), url.clone()];
    let status = async |client: &Client, path: &str| {
        client.request("GET", path).send().await.expect("an answer").status().as_u16()
    };
    for path in &paths {
        assert_eq!(status(&graces.client, path).await, 200, "{path}");
    }
    project.delete("/members/grace").await.is(204);
    for path in &paths {
        graces.client.get(path).await.refused(404, "not_found");
    }
    for list in [JOBS.to_owned(), format!("{JOBS}?project_id={}", project.id)] {
        assert_eq!(graces.client.get(&list).await.is(200)["jobs"], json!([]));
    }
    graces
        .client
        .call("POST", &format!("{JOBS}/{id}/cancel"), &json!({}))
        .await
        .refused(404, "not_found");

    let admin = parley.as_user("admin");
    let seen = admin.get(&paths[0]).await.is(200);
    assert_eq!((&seen["state"], &seen["result"]), (&json!("succeeded"), &Value::Null));
    for path in &paths[1..] {
        admin.get(path).await.refused(404, "not_found");
    }
    // As a member again she has what was hers.
    project.with("grace", "viewer").await;
    assert_eq!(status(&graces.client, &url).await, 200);
    let stored = parley.dir.path().join("blobs/artifacts").join(&id);
    assert!(stored.exists());
    project.delete("").await.is(204);
    graces.client.get(&url).await.refused(404, "not_found");
    let is_gone = async || {
        std::fs::read_dir(&stored).map_or(true, |files| {
            files.flatten().all(|fence| {
                std::fs::read_dir(fence.path()).map_or(true, |mut files| files.next().is_none())
            })
        })
    };
    eventually("the artifact goes with its project", is_gone).await;
}

#[tokio::test]
async fn an_admin_who_is_no_member_sees_that_a_job_exists_and_nothing_of_its_content() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let rogue = Rogue::start(|body| {
        let progress = "{\"progress\":{\"done\":1,\"total\":2,\"unit\":\"secrets\",\"message\":\"a secret message\"}}\n";
        match body["input"]["how"].as_str() {
            Some("succeeds") => Says::Ends(lines(&format!("{progress}{{\"result\":{{\"its\":\"secret\"}}}}\n"))),
            Some("waits") => Says::Hangs(lines(progress)),
            _ => Says::Ends(lines("{\"error\":{\"code\":\"no\",\"message\":\"a secret reason\"}}\n")),
        }
    })
    .await;
    with_bundle(&parley, &rogue, "viewer").await;
    let (project, admin) = (parley.as_user("ada").project().await, parley.as_user("admin"));
    let done = run(&project, "ext.act", json!({"how": "succeeds"})).await;
    assert_eq!(done["result"]["its"], "secret");
    let failed = run(&project, "ext.act", json!({"how": "fails"})).await;
    assert_eq!(failed["error"]["message"], "a secret reason");
    let runs = text(&submit(&project, "ext.act", json!({"how": "waits"})).await.is(202)["id"]);
    let says = async || {
        let job = project.client.get(&format!("{JOBS}/{runs}")).await.is(200);
        job["progress"]["message"] == "a secret message"
    };
    eventually("progress", says).await;
    let schedule = json!({"project_id": project.id, "bundle": "ext", "operation": "act",
        "data": {"how": "a secret plan"}, "cron": "0 0 1 1 *"});
    let schedule =
        project.client.call("POST", "/api/integrations/schedules", &schedule).await.is(201);

    let failed_id = text(&failed["id"]);
    for path in [
        JOBS.to_owned(),
        format!("{JOBS}/{runs}"),
        format!("{JOBS}/{failed_id}"),
        format!("{JOBS}?state=running"),
        "/api/integrations/admin/workers".into(),
        "/api/integrations/admin/parked".into(),
        "/api/integrations/admin/queue".into(),
        format!("/api/integrations/schedules?project_id={}", project.id),
        format!("/api/integrations/schedules/{}", text(&schedule["id"])),
    ] {
        let seen = admin.get(&path).await.is(200).to_string();
        assert!(!seen.contains("secret"), "{path}: {seen}");
    }
    let seen = admin.get(&format!("{JOBS}/{failed_id}")).await.is(200);
    assert_eq!((&seen["state"], &seen["operation"]), (&json!("failed"), &json!("act")));
    assert_eq!((&seen["error"]["code"], &seen["error"]["message"]), (&json!("no"), &json!(HIDDEN)));
    let cancelled = admin.call("POST", &format!("{JOBS}/{runs}/cancel"), &json!({})).await.is(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert!(!cancelled.to_string().contains("secret"), "{cancelled}");
    // A member who is an admin sees what members see.
    project.with("admin", "viewer").await;
    let seen = admin.get(&format!("{JOBS}/{failed_id}")).await.is(200);
    assert_eq!(seen["error"]["message"], "a secret reason");
}

#[tokio::test]
async fn who_is_removed_while_waiting_for_a_job_does_not_get_its_result() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let graces = project.with("grace", "viewer").await;
    let data = json!({"to": 25, "delay_ms": 100});
    let prefer = [("prefer", "wait=20")];
    let waiting = submit_with(&graces, "demo.count", data, &prefer);
    let removing = async {
        let started = async || {
            let jobs = parley.as_user("admin").get(&format!("{JOBS}?state=running")).await.is(200);
            !jobs["jobs"].as_array().expect("a list").is_empty()
        };
        eventually("it runs", started).await;
        project.delete("/members/grace").await.is(204);
    };
    let (waited, ()) = tokio::join!(waiting, removing);
    waited.refused(404, "not_found");
}

#[tokio::test]
async fn two_long_jobs_of_one_owner_leave_a_worker_to_others() {
    let parley = Parley::start().await;
    let strangers = parley.as_user("grace").project().await;
    for _ in 0..2 {
        let data = json!({"to": 300, "delay_ms": 1000});
        let id = text(&submit(&strangers, "demo.count", data).await.is(202)["id"]);
        until_state(&strangers.client, &id, "running").await;
    }
    let third = submit(&strangers, "demo.count", json!({"to": 1})).await.is(202);
    assert_eq!(third["state"], "queued", "every place that one owner may have is taken");
    let project = parley.as_user("ada").project().await;
    let exported = run(&project, "chat.export", json!({})).await;
    assert_eq!(exported["state"], "succeeded");
    let long = json!({"to": 301, "delay_ms": 1000});
    let refused = submit(&project, "demo.count", long).await.refused(422, "invalid_field");
    assert_eq!(refused["field"], "data.delay_ms");
}

#[tokio::test]
async fn without_the_bundle_for_demonstrations_nobody_counts() {
    let parley = Parley::start_with(&["--proc-demo-bundle", "false"]).await;
    let project = parley.as_user("ada").project().await;
    submit(&project, "demo.count", json!({"to": 1})).await.refused(404, "not_found");
    let bundles = project.client.get("/api/integrations/bundles").await.is(200);
    assert_eq!(column(&bundles["bundles"], "name"), ["chat", "search"]);
}

/// Reads events of jobs until one of this kind.
async fn told_until(stream: &mut Sse, kind: &str) -> Event {
    loop {
        let event = stream.entry().await;
        assert!(!event.data.to_string().contains("secret"), "{event:?}");
        if event.kind() == kind {
            return event;
        }
    }
}

#[tokio::test]
async fn streams_tell_no_admin_the_content_of_jobs_in_projects_of_others() {
    let flags =
        [&LOOPBACK[..], &["--sse-max-conn-per-ip", "64", "--sse-max-conn-per-session", "64"]];
    let parley = Parley::start_with(&flags.concat()).await;
    let rogue = Rogue::start(|body| {
        let progress =
            "{\"progress\":{\"done\":1,\"unit\":\"secrets\",\"message\":\"a secret\"}}\n";
        match body["input"]["how"].as_str() {
            Some("waits") => Says::Hangs(lines(progress)),
            _ => Says::Ends(lines(&format!("{progress}{{\"result\":{{\"its\":\"secret\"}}}}\n"))),
        }
    })
    .await;
    with_bundle(&parley, &rogue, "viewer").await;
    let (project, admin) = (parley.as_user("ada").project().await, parley.as_user("admin"));
    let waits = text(&submit(&project, "ext.act", json!({"how": "waits"})).await.is(202)["id"]);
    let says = async || {
        let job = project.client.get(&format!("{JOBS}/{waits}")).await.is(200);
        job["progress"]["message"] == "a secret"
    };
    eventually("progress", says).await;
    let mut stream = admin.open("/api/jobs/stream?scope=all").await;
    stream.expect("hello").await;
    let snapshot = stream.expect("job.snapshot").await;
    assert_eq!(column(&snapshot["jobs"], "id"), [waits.as_str()]);
    assert!(!snapshot.to_string().contains("secret"), "{snapshot}");
    let done = run(&project, "ext.act", json!({"how": "succeeds"})).await;
    let told = told_until(&mut stream, "job.succeeded").await;
    assert_eq!((&told.data["job"]["id"], &told.data["job"]["result"]), (&done["id"], &Value::Null));

    // What is read up is told as little.
    let mut again =
        admin.open(&format!("/api/jobs/stream?scope=all&last_event_id={}", told.id)).await;
    again.expect("hello").await;
    let cancel = format!("{JOBS}/{waits}/cancel");
    project.client.call("POST", &cancel, &json!({})).await.is(200);
    for stream in [&mut stream, &mut again] {
        told_until(stream, "job.cancelled").await;
    }
    // An admin who is a member sees what members see.
    project.with("admin", "viewer").await;
    let mut member = admin.open("/api/jobs/stream?scope=all").await;
    member.expect("hello").await;
    member.expect("job.snapshot").await;
    run(&project, "ext.act", json!({"how": "succeeds"})).await;
    let told = member.until("job.succeeded").await;
    assert_eq!(told.data["job"]["result"]["its"], "secret");
}

#[tokio::test]
async fn streams_tell_who_was_removed_nothing_more_of_their_jobs_there() {
    let parley =
        Parley::start_with(&["--sse-max-conn-per-ip", "64", "--sse-max-conn-per-session", "64"])
            .await;
    let project = parley.as_user("ada").project().await;
    let graces = project.with("grace", "viewer").await;
    let elsewhere = graces.client.project().await;
    let (mut stream, _) = follow(&graces.client).await;
    let (mut beside, hello) = elsewhere.stream("&include=jobs").await;
    beside.expect("job.snapshot").await;
    let before = text(&hello["cursor"]);
    let seen = run(&graces, "demo.count", json!({"to": 3})).await;
    assert_eq!(stream.until("job.succeeded").await.data["job"]["id"], seen["id"]);
    let runs = submit(&graces, "demo.count", json!({"to": 300, "delay_ms": 1000})).await.is(202);
    let runs = text(&runs["id"]);
    until_state(&graces.client, &runs, "running").await;
    for stream in [&mut stream, &mut beside] {
        while stream.until("job.started").await.data["job"]["id"] != runs.as_str() {}
    }

    project.delete("/members/grace").await.is(204);
    let cancel = format!("{JOBS}/{runs}/cancel");
    parley.as_user("admin").call("POST", &cancel, &json!({})).await.is(200);
    let next = run(&elsewhere, "demo.count", json!({"to": 1})).await;
    for stream in [&mut stream, &mut beside] {
        loop {
            let event = stream.entry().await;
            // Progress may have been on its way at the removal.
            let is_old = event.data["job"]["id"] == runs.as_str() && event.kind() == "job.progress";
            assert!(is_old || event.data["job"]["id"] == next["id"], "{event:?}");
            if event.kind() == "job.succeeded" {
                break;
            }
        }
    }
    // What is read up holds nothing of the project either, and neither does a new stream.
    let (mut again, _) = elsewhere.stream(&format!("&include=jobs&last_event_id={before}")).await;
    for kind in ["job.queued", "job.started", "job.succeeded"] {
        let event = again.until(kind).await;
        assert_eq!(event.data["job"]["id"], next["id"], "{event:?}");
    }
    let (mut again, unfinished) = follow(&graces.client).await;
    assert_eq!(unfinished, json!([]));
    // As a member again she is told of what happens from then on, on every open stream.
    project.with("grace", "viewer").await;
    let back = run(&graces, "demo.count", json!({"to": 1})).await;
    for stream in [&mut stream, &mut again] {
        assert_eq!(stream.until("job.succeeded").await.data["job"]["id"], back["id"]);
    }
}
