//! Jobs: calling operations, following what becomes of them, and changing one's mind.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    job::{JOBS, follow, run, submit, submit_with, until_end},
    project::Project,
    sse::{Event, Sse},
    support::{Answer, Parley, column, text},
};

#[tokio::test]
async fn bundles_say_what_can_be_called() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let bundles = ada.get("/api/integrations/bundles").await.is(200);
    assert_eq!(column(&bundles["bundles"], "name"), ["chat", "demo", "search"]);
    let chat = ada.get("/api/integrations/bundles/chat").await.is(200);
    assert_eq!(chat, bundles["bundles"][0]);
    assert_eq!(column(&chat["operations"], "name"), ["import", "export"]);
    assert_eq!(column(&chat["operations"], "role"), ["owner", "viewer"]);
    for operation in chat["operations"].as_array().unwrap() {
        assert!(operation["timeout_seconds"].as_u64().unwrap() > 0);
        assert_eq!(operation["input"]["type"], "object");
    }
    ada.get("/api/integrations/bundles/none").await.refused(404, "not_found");
}

#[tokio::test]
async fn only_declared_operations_are_called_and_only_as_declared() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for operation in ["demo.none", "none.count", "demo.", "chat.count", "demo.Count"] {
        submit(&project, operation, json!({"to": 1})).await.refused(404, "not_found");
    }
    for (operation, data, field) in [
        ("demo.count", json!({}), "data.to"),
        ("demo.count", json!({"to": "3"}), "data.to"),
        ("demo.count", json!({"to": -1}), "data.to"),
        ("demo.count", json!({"to": 1.5}), "data.to"),
        ("demo.count", json!({"to": 10_001}), "data.to"),
        ("demo.count", json!({"to": 1, "delay_ms": -1}), "data.delay_ms"),
        ("demo.count", json!({"to": 1, "more": 1}), "data.more"),
        ("demo.count", json!([1]), "data"),
        ("demo.count", json!(null), "data"),
        ("chat.import", json!({}), "data.upload_id"),
        ("chat.import", json!({"upload_id": "junk"}), "data.upload_id"),
        ("chat.import", json!({"upload_id": uuid::Uuid::now_v7(), "format": "x"}), "data.format"),
        ("chat.export", json!({"x": 1}), "data.x"),
        ("chat.export", json!({"format": "x"}), "data.format"),
    ] {
        let refused = submit(&project, operation, data.clone()).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], field, "{operation} {data}");
    }
    // The role is the declared one, and a stranger's project does not exist.
    let viewer = project.with("grace", "viewer").await;
    let upload = json!({"upload_id": uuid::Uuid::now_v7()});
    submit(&viewer, "chat.import", upload.clone()).await.refused(403, "forbidden");
    submit(&project.of("admin"), "demo.count", json!({"to": 1})).await.refused(404, "not_found");
    let nowhere = Project { id: uuid::Uuid::now_v7().to_string(), ..project.clone() };
    submit(&nowhere, "demo.count", json!({"to": 1})).await.refused(404, "not_found");
    for user in ["ada", "grace", "admin"] {
        assert_eq!(parley.as_user(user).get(JOBS).await.is(200)["jobs"], json!([]));
    }
    assert_eq!(run(&viewer, "demo.count", json!({"to": 1})).await["state"], "succeeded");
}

#[tokio::test]
async fn a_job_is_told_from_the_queue_to_its_end() {
    let parley = Parley::start_with(&["--sse-max-conn-per-ip", "64"]).await;
    let project = parley.as_user("ada").project().await;
    let (mut stream, unfinished) = follow(&project.client).await;
    assert_eq!(unfinished, json!([]));
    let head = Answer::to(project.client.request("HEAD", "/sse/jobs")).await;
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, "text/event-stream; charset=utf-8")
    );
    let (mut others, _) = follow(&parley.as_user("grace")).await;
    let mut all = parley.as_user("admin").open("/sse/jobs?scope=all").await;
    let refused = parley.as_user("grace").get("/api/jobs/stream?scope=all").await;
    refused.refused(403, "forbidden");

    let answer = submit(&project, "demo.count", json!({"to": 5, "delay_ms": 300})).await;
    let location = answer.header("location").to_owned();
    let job = answer.is(202);
    let id = text(&job["id"]);
    assert_eq!(location, format!("{JOBS}/{id}"));
    assert_eq!((&job["owner"], &job["project_id"]), (&json!("ada"), &json!(project.id)));
    assert_eq!((&job["bundle"], &job["operation"]), (&json!("demo"), &json!("count")));

    let events = until_end(&mut stream, &id).await;
    let kinds: Vec<&str> = events.iter().map(Event::kind).collect();
    assert_eq!(kinds[..3], ["job.queued", "job.started", "job.progress"]);
    assert_eq!(kinds.last(), Some(&"job.succeeded"));
    let states: Vec<String> =
        events.iter().map(|event| text(&event.data["job"]["state"])).collect();
    assert_eq!((&*states[0], &*states[1], &*states[2]), ("queued", "running", "running"));
    let progress = &events[2].data["job"]["progress"];
    assert_eq!((&progress["total"], &progress["unit"]), (&json!(5), &json!("numbers")));
    let (done, fraction) =
        (progress["done"].as_f64().unwrap(), progress["fraction"].as_f64().unwrap());
    assert!(done >= 1.0 && (fraction - done / 5.0).abs() < 1e-9, "{progress}");
    let last = &events.last().unwrap().data["job"];
    assert_eq!((&last["result"], &last["attempt"]), (&json!({"counted": 5}), &json!(1)));
    assert_eq!(project.client.get(&location).await.is(200), *last);

    // Whoever missed a part comes back and has it, without a snapshot of what is past.
    for (seen, event) in events.iter().enumerate() {
        let request = project.client.request("GET", "/api/jobs/stream");
        let mut again = Sse::open(request.header("last-event-id", &event.id)).await;
        assert_eq!(again.expect("hello").await["resumed"], true);
        for missed in &events[seen + 1..] {
            assert_eq!(again.entry().await.data, missed.data);
        }
    }
    // An admin hears of everybody's; who has no job hears of none.
    let (told, last) = (all.until("job.succeeded").await.data, &events.last().unwrap().data);
    for field in ["id", "owner", "operation", "state", "started_at", "finished_at"] {
        assert_eq!(told["job"][field], last["job"][field], "{field}");
    }
    assert_eq!(told["job"]["result"], json!(null), "an admin who is no member sees no result");
    run(&parley.as_user("grace").project().await, "demo.count", json!({"to": 1})).await;
    assert_eq!(others.entry().await.data["job"]["owner"], "grace");
}

#[tokio::test]
async fn a_new_stream_begins_with_what_is_not_finished() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    run(&project, "demo.count", json!({"to": 1})).await;
    let long = json!({"to": 100, "delay_ms": 1000});
    let id = text(&submit(&project, "demo.count", long).await.is(202)["id"]);
    let (mut stream, unfinished) = follow(&project.client).await;
    assert_eq!(column(&unfinished, "id"), [id.as_str()]);
    project.client.call("POST", &format!("{JOBS}/{id}/cancel"), &json!({})).await.is(200);
    assert_eq!(until_end(&mut stream, &id).await.last().unwrap().kind(), "job.cancelled");
    // A reset is a new beginning too.
    let mut reset = project.client.open("/api/jobs/stream?last_event_id=junk").await;
    reset.expect("hello").await;
    assert_eq!(reset.expect("reset").await["reason"], "malformed");
    assert_eq!(reset.expect("job.snapshot").await["jobs"], json!([]));
}

#[tokio::test]
async fn an_idle_jobs_stream_ends() {
    let parley = Parley::start_with(&["--sse-idle-timeout", "500"]).await;
    let (mut stream, _) = follow(&parley.as_user("ada")).await;
    let rest = stream.rest().await;
    let [bye] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!((bye.name.as_str(), &bye.data["reason"]), ("bye", &json!("idle_timeout")));
    assert_eq!(bye.data["reconnect"], true);
}

#[tokio::test]
async fn a_caller_may_wait_for_the_end() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let wait = |seconds| [("prefer", seconds)];
    let ended =
        submit_with(&project, "demo.count", json!({"to": 3}), &wait("respond-async, wait=20"))
            .await;
    assert_eq!(ended.header("preference-applied"), "wait=20");
    assert_eq!(ended.is(200)["result"], json!({"counted": 3}));
    let begun = Instant::now();
    let slow = json!({"to": 20, "delay_ms": 1000});
    let pending = submit_with(&project, "demo.count", slow, &wait("wait=1")).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(begun.elapsed() < Duration::from_secs(15));
    let pending = pending.is(202);
    assert_eq!(pending["state"], "running");
    let path = format!("{JOBS}/{}/cancel", text(&pending["id"]));
    project.client.call("POST", &path, &json!({})).await.is(200);
}

#[tokio::test]
async fn the_same_key_and_input_is_the_same_job() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let key = [("idempotency-key", "k"), ("prefer", "wait=20")];
    let ask = async |project: &Project, to| {
        submit_with(project, "demo.count", json!({"to": to}), &key).await
    };
    let first = ask(&project, 1).await.is(200);
    assert_eq!(ask(&project, 1).await.is(200), first);
    ask(&project, 2).await.refused(409, "idempotency_conflict");
    let other = parley.as_user("ada").project().await;
    ask(&other, 1).await.refused(409, "idempotency_conflict");
    let grace = project.with("grace", "viewer").await;
    assert_ne!(ask(&grace, 1).await.is(200)["id"], first["id"]);
    let bad = [("idempotency-key", "a b")];
    let refused = submit_with(&project, "demo.count", json!({"to": 1}), &bad).await;
    refused.refused(400, "invalid_request");
    assert_eq!(project.client.get(JOBS).await.is(200)["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn jobs_page_newest_first_and_are_only_ones_own() {
    let parley = Parley::start().await;
    let (one, two) = (parley.as_user("ada").project().await, parley.as_user("ada").project().await);
    let mut made = Vec::new();
    for number in 0..5 {
        let project = if number == 2 { &two } else { &one };
        made.insert(0, text(&run(project, "demo.count", json!({"to": 1})).await["id"]));
    }
    let failed = run(&one, "chat.import", json!({"upload_id": uuid::Uuid::now_v7()})).await;
    assert_eq!(failed["error"]["code"], "upload_not_found");
    made.insert(0, text(&failed["id"]));
    let list = async |query: &str| {
        column(&one.client.get(&format!("{JOBS}?{query}")).await.is(200)["jobs"], "id")
    };
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = one.client.get(&format!("{JOBS}?limit=2{cursor}")).await.is(200);
        seen.extend(column(&page["jobs"], "id"));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    assert_eq!(list(&format!("project_id={}", two.id)).await, made[3..4]);
    assert_eq!(list("state=failed").await, made[..1]);
    assert_eq!(list("bundle=demo&state=succeeded").await, made[1..]);
    for junk in ["cursor=junk", "state=none", "limit=0", "limit=201", "project_id=x"] {
        one.client.get(&format!("{JOBS}?{junk}")).await.refused(400, "invalid_request");
    }

    // Another's job does not exist; an admin's list has everybody's.
    let own = format!("{JOBS}/{}", made[0]);
    for user in ["grace", "admin"] {
        let client = parley.as_user(user);
        let jobs = client.get(JOBS).await.is(200)["jobs"].as_array().unwrap().len();
        if user == "admin" {
            assert_eq!(jobs, 6);
            client.get(&own).await.is(200);
            continue;
        }
        assert_eq!(jobs, 0);
        for path in [own.clone(), format!("{own}/logs"), format!("{own}/artifacts/export.ndjson")] {
            client.get(&path).await.refused(404, "not_found");
        }
        for action in ["cancel", "retry"] {
            let path = format!("{own}/{action}");
            client.call("POST", &path, &json!({})).await.refused(404, "not_found");
        }
    }
}
