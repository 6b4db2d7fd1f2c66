//! Bundles behind a URL: registered, called, listened to, cancelled, and lost.

mod callbacks;
mod hostile;
mod logs;
mod numbers;
mod settings;
mod waiting;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    bundle::{ADMIN, LOOPBACK, SECRET, Sample, manifest, register},
    job::{JOBS, follow, run, submit, until_end, until_state},
    sse::Event,
    support::{Parley, column, eventually, text},
};

#[tokio::test]
async fn admins_register_bundles_that_everybody_sees_and_whose_secret_nobody_does() {
    let parley = Parley::start_with(&[&LOOPBACK[..], &["--log", "trace"]].concat()).await;
    let (admin, ada) = (parley.as_user("admin"), parley.as_user("ada"));
    let mut sample = Sample::start().await;
    let manifest = Sample::manifest().await;
    let made = register(&admin, "python", &sample.url, &manifest).await.is(201);
    assert_eq!((&made["name"], &made["url"]), (&json!("python"), &json!(sample.url)));
    assert_eq!(made["operations"], manifest["operations"]);
    assert_eq!(admin.get(&format!("{ADMIN}/python")).await.is(200), made);
    assert_eq!(column(&admin.get(ADMIN).await.is(200)["bundles"], "name"), ["python"]);

    let shown = ada.get("/api/integrations/bundles/python").await.is(200);
    assert_eq!((&shown["version"], &shown["url"]), (&json!("1.0.0"), &Value::Null));
    assert_eq!(column(&shown["operations"], "name"), ["count", "later"]);
    let all = ada.get("/api/integrations/bundles").await.is(200);
    assert_eq!(column(&all["bundles"], "name"), ["chat", "demo", "search", "python"]);
    let project = ada.project().await;
    let refused = submit(&project, "python.count", json!({"to": "3"})).await;
    assert_eq!(refused.refused(422, "invalid_field")["field"], "data.to");
    let ended = run(&project, "python.count", json!({"to": 2})).await;
    assert_eq!(ended["result"], json!({"counted": 2}), "{ended}");
    assert!(sample.says().await.starts_with("called"));

    // Another version in its place keeps the secret, and is what is called from then on.
    let mut next = manifest.clone();
    (next["version"], next["url"]) = (json!("2"), json!(sample.url));
    next["operations"].as_array_mut().unwrap().truncate(1);
    let path = format!("{ADMIN}/python");
    assert_eq!(admin.call("PUT", &path, &next).await.is(200)["version"], "2");
    assert_eq!(run(&project, "python.count", json!({"to": 1})).await["state"], "succeeded");
    submit(&project, "python.later", json!({"to": 1})).await.refused(404, "not_found");

    admin.delete(&path).await.is(204);
    admin.delete(&path).await.refused(404, "not_found");
    submit(&project, "python.count", json!({"to": 1})).await.refused(404, "not_found");
    ada.get("/api/integrations/bundles/python").await.refused(404, "not_found");
    for user in ["ada", "grace"] {
        let client = parley.as_user(user);
        client.get(ADMIN).await.refused(403, "forbidden");
        register(&client, "python", &sample.url, &manifest).await.refused(403, "forbidden");
        client.delete(&path).await.refused(403, "forbidden");
    }
    // Not in the log of everything, nor a part of it, nor in any answer.
    let said = parley.log() + &[made, shown, all, ended].map(|body| body.to_string()).concat();
    assert!(said.contains("TRACE") && !said.contains(&SECRET[6..20]), "the secret is told");
}

#[tokio::test]
async fn what_cannot_be_called_or_understood_is_not_registered() {
    let parley = Parley::start().await;
    let admin = parley.as_user("admin");
    let good = manifest(&["work"], 60);
    for url in [
        "http://example.org/",
        "https://127.0.0.1/",
        "https://[::ffff:169.254.169.254]/",
        "https://2130706433/",
        "https://localhost/",
        "https://example.org:22/",
        "https://user@example.org/",
        "nonsense",
        "",
    ] {
        let refused = register(&admin, "bad", url, &good).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], "url", "{url}");
    }
    let url = "https://bundle.example.org/";
    for (pointer, value, field) in [
        ("/version", json!(""), "version"),
        ("/description", json!("x".repeat(1_001)), "description"),
        ("/operations", json!([]), "operations"),
        ("/operations/0/name", json!("Big"), "operations[0].name"),
        ("/operations/0/role", json!("admin"), "operations[0].role"),
        ("/operations/0/timeout_seconds", json!(0), "operations[0].timeout_seconds"),
        ("/operations/0/timeout_seconds", json!(86_401), "operations[0].timeout_seconds"),
        ("/operations/0/description", json!("\0"), "operations[0].description"),
        (
            "/operations/0/input",
            json!({"type": "object", "$ref": "http://127.0.0.1/"}),
            "operations[0].input",
        ),
        ("/operations/0/input", json!("x"), "operations[0].input"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        let refused = register(&admin, "bad", url, &bad).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], field);
    }
    let twice = manifest(&["work", "work"], 60);
    let refused = register(&admin, "bad", url, &twice).await.refused(422, "invalid_field");
    assert_eq!(refused["field"], "operations[1].name");
    let mut without = good.clone();
    without["url"] = json!(url);
    let path = format!("{ADMIN}/bad");
    let refused = admin.call("PUT", &path, &without).await.refused(422, "invalid_field");
    assert_eq!(refused["field"], "secret");
    for secret in ["", "whsec_", "whsec_c2hvcnQ=", &"x".repeat(60)] {
        without["secret"] = json!(secret);
        let refused = admin.call("PUT", &path, &without).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], "secret");
    }
    register(&admin, "demo", url, &good).await.refused(409, "conflict");
    register(&admin, "Demo", url, &good).await.refused(400, "invalid_request");
    assert_eq!(admin.get(ADMIN).await.is(200)["bundles"], json!([]));
    register(&admin, "good", url, &good).await.is(201);
}

#[tokio::test]
async fn bundles_on_the_same_machine_are_for_development_on_it() {
    let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
    let file = dir.path().join("users.json");
    std::fs::write(&file, r#"[{"user": "ada", "token": "dev-of-the-sixteen-characters"}]"#)
        .unwrap();
    let open = ["--auth-users-file", file.to_str().unwrap(), "--proc-listen", "0.0.0.0:0"];
    let message = Parley::refusal(&dir, &[&open[..], &LOOPBACK].concat()).await;
    assert!(message.contains("PROC_HTTP_BUNDLES_LOOPBACK is for development"), "{message}");
    Parley::start_in(&dir, &open).await;
}

#[tokio::test]
async fn a_bundle_in_python_is_followed_from_its_call_to_its_result() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let sample = Sample::start().await;
    register(&parley.as_user("admin"), "python", &sample.url, &Sample::manifest().await)
        .await
        .is(201);
    let (mut stream, _) = follow(&project.client).await;
    for operation in ["python.count", "python.later"] {
        let data = json!({"to": 20, "delay": 0.1});
        let id = text(&submit(&project, operation, data).await.is(202)["id"]);
        let events = until_end(&mut stream, &id).await;
        let kinds: Vec<&str> = events.iter().map(Event::kind).collect();
        assert_eq!((kinds[0], kinds[1]), ("job.queued", "job.started"));
        let told: Vec<_> = events.iter().filter(|event| event.kind() == "job.progress").collect();
        assert!(told.len() >= 2, "{kinds:?}");
        let done = told.iter().map(|event| event.data["job"]["progress"]["done"].as_u64().unwrap());
        assert!(done.is_sorted());
        let progress = &told.last().unwrap().data["job"]["progress"];
        assert_eq!((&progress["total"], &progress["unit"]), (&json!(20), &json!("numbers")));
        let last = &events.last().unwrap().data["job"];
        assert_eq!(
            (&last["state"], &last["result"]),
            (&json!("succeeded"), &json!({"counted": 20}))
        );
        assert_eq!((&last["progress"]["done"], &last["attempt"]), (&json!(20), &json!(1)));
        let logs = project.client.get(&format!("{JOBS}/{id}/logs")).await.is(200);
        assert_eq!(column(&logs["logs"], "message"), ["counting to 20"]);
    }
}

#[tokio::test]
async fn a_cancelled_bundle_is_hung_up_on_or_told() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut sample = Sample::start().await;
    register(&parley.as_user("admin"), "python", &sample.url, &Sample::manifest().await)
        .await
        .is(201);
    for (operation, expected) in
        [("python.count", &["hung-up"][..]), ("python.later", &["cancelled", "given-up"][..])]
    {
        let data = json!({"to": 10_000, "delay": 0.05});
        let id = text(&submit(&project, operation, data).await.is(202)["id"]);
        assert!(sample.says().await.starts_with(&format!("called {id}")));
        let path = format!("{JOBS}/{id}");
        let counted =
            async || project.client.get(&path).await.is(200)["progress"]["done"].as_u64() > Some(0);
        eventually("progress", counted).await;
        let cancelled = project.client.call("POST", &format!("{path}/cancel"), &json!({})).await;
        assert_eq!(cancelled.is(200)["state"], "cancelled");
        let mut said = Vec::new();
        for _ in expected {
            said.push(sample.says().await);
        }
        // That nobody waits is told in an answer to a callback too.
        said.sort();
        assert!(
            said.iter().eq(&expected.iter().map(|word| format!("{word} {id}")).collect::<Vec<_>>())
        );
        assert_eq!(project.client.get(&path).await.is(200)["state"], "cancelled");
    }
}

#[tokio::test]
async fn a_bundle_that_is_killed_costs_its_job_one_attempt_and_is_then_waited_for() {
    let parley =
        Parley::start_with(&[&LOOPBACK[..], &["--proc-retry-spread", "1s"]].concat()).await;
    let project = parley.as_user("ada").project().await;
    let mut sample = Sample::start().await;
    register(&parley.as_user("admin"), "python", &sample.url, &Sample::manifest().await)
        .await
        .is(201);
    let (mut stream, _) = follow(&project.client).await;
    let data = json!({"to": 10_000, "delay": 0.05});
    let id = text(&submit(&project, "python.count", data).await.is(202)["id"]);
    stream.until("job.progress").await;
    sample.kill().await;
    for code in ["connection_lost", "bundle_unreachable"] {
        let job = stream.until("job.retrying").await.data["job"].take();
        assert_eq!((&job["id"], &job["error"]["code"]), (&json!(id), &json!(code)));
        assert_eq!((&job["state"], &job["attempt"]), (&json!("queued"), &json!(1)), "{job}");
    }
}

#[tokio::test]
async fn no_more_of_an_operation_run_at_once_than_it_says() {
    let parley = Parley::start_with(&[&LOOPBACK[..], &["--proc-workers", "8"]].concat()).await;
    let project = parley.as_user("ada").project().await;
    let mut sample = Sample::start().await;
    let mut manifest = Sample::manifest().await;
    manifest["operations"][0]["concurrency"] = json!(1);
    register(&parley.as_user("admin"), "python", &sample.url, &manifest).await.is(201);
    let mut jobs = Vec::new();
    for _ in 0..4 {
        let data = json!({"to": 5, "delay": 0.05});
        jobs.push(text(&submit(&project, "python.count", data).await.is(202)["id"]));
    }
    for _ in &jobs {
        let (called, finished) = (sample.says().await, sample.says().await);
        let (_, called) = called.split_once("called ").unwrap();
        assert_eq!(finished, format!("finished {}", &called[..36]));
    }
    for id in jobs {
        until_state(&project.client, &id, "succeeded").await;
    }
}
