//! Numbers of every kind, into operations and out of them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    bundle::{ADMIN, LOOPBACK, Rogue, Says, lines, manifest, register},
    job::{JOBS, follow, run, submit, submit_with},
    project::Project,
    support::{Answer, PATIENCE, Parley, text},
};

/// Calls an operation with a body as it is written here.
async fn submit_text(project: &Project, operation: &str, data: &str) -> Answer {
    let (bundle, operation) = operation.split_once('.').expect("bundle.operation");
    let path = format!("/api/integrations/bundles/{bundle}/operations/{operation}");
    let request = project.client.request("POST", &path).header("prefer", "wait=25");
    let body = format!("{{\"project_id\": \"{}\", \"data\": {data}}}", project.id);
    Answer::to(request.header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn whole_numbers_are_integers_to_the_schema_and_to_the_operation() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    for to in ["2.0", "2E0", "20e-1", "2"] {
        let job = submit_text(&project, "demo.count", &format!("{{\"to\": {to}}}")).await.is(200);
        assert_eq!(job["state"], "succeeded", "{to}: {job}");
        assert_eq!(job["result"], json!({"counted": 2}), "{to}: {job}");
    }
    for to in ["-0", "-0.0", "0.0"] {
        let job = submit_text(&project, "demo.count", &format!("{{\"to\": {to}}}")).await.is(200);
        assert_eq!(job["result"], json!({"counted": 0}), "{to}: {job}");
    }
    // The rules that no schema can say hold for them too.
    let long = submit_text(&project, "demo.count", "{\"to\": 10000.0, \"delay_ms\": 1000.0}").await;
    assert_eq!(long.refused(422, "invalid_field")["field"], "data.delay_ms");
    let half = submit_text(&project, "demo.count", "{\"to\": 1.5}").await;
    assert_eq!(half.refused(422, "invalid_field")["field"], "data.to");

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let body = json!({"project_id": project.id, "bundle": "demo", "operation": "count", "data": {"to": 1.0},
        "cron": format!("{} * * * * *", (now.as_secs() + 3) % 60)});
    let (mut stream, _) = follow(&project.client).await;
    project.client.call("POST", "/api/integrations/schedules", &body).await.is(201);
    let ended = stream.until("job.succeeded").await.data["job"].take();
    assert_eq!(ended["result"], json!({"counted": 1}), "{ended}");
}

#[tokio::test]
async fn an_input_with_a_number_beyond_64_bits_is_refused_with_its_field() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let mut rogue = Rogue::start(|_| Says::Ends(lines("{\"result\":1}\n"))).await;
    register(&parley.as_user("admin"), "rogue", &rogue.url, &manifest(&["work"], 20)).await.is(201);
    for (data, field) in [
        ("{\"id\": 12345678901234567890123}", "data.id"),
        ("{\"ids\": [1, {\"id\": -9223372036854775809}]}", "data.ids.1.id"),
        ("{\"id\": 1e400}", "data.id"),
    ] {
        let refused = submit_text(&project, "rogue.work", data).await;
        assert_eq!(refused.refused(422, "invalid_field")["field"], field, "{data}");
        let body = format!(
            "{{\"project_id\": \"{}\", \"bundle\": \"rogue\", \"operation\": \"work\", \"cron\": \"@daily\", \"data\": {data}}}",
            project.id
        );
        let request = project.client.request("POST", "/api/integrations/schedules");
        let request = request.header("content-type", "application/json").body(body);
        assert_eq!(Answer::to(request).await.refused(422, "invalid_field")["field"], field);
        let path = "/api/integrations/bundles/rogue/operations/work/batch";
        let body = format!("{{\"project_id\": \"{}\", \"data\": [{{}}, {data}]}}", project.id);
        let request = project.client.request("POST", path);
        let request = request.header("content-type", "application/json").body(body);
        let refused = Answer::to(request).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], field.replacen("data", "data.1", 1));
    }
    let exact = "{\"a\": 18446744073709551615, \"b\": -9223372036854775808}";
    submit_text(&project, "rogue.work", exact).await.is(200);
    let call = rogue.called().await;
    assert!(call.text.contains("18446744073709551615"), "{}", call.text);
    assert!(call.text.contains("-9223372036854775808"), "{}", call.text);
}

#[tokio::test]
async fn a_result_keeps_every_digit_in_storage_rest_and_streams() {
    const RESULT: &str = "{\"big\":12345678901234567890123,\"e\":1E0,\"minus\":-0,\"exact\":0.10000000000000000000001}";
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let rogue = Rogue::start(|_| {
        Says::Ends(lines(&format!(
            "{{\"progress\":{{\"done\":1E0,\"total\":2.0}}}}\n{{\"result\":{RESULT}}}\n"
        )))
    })
    .await;
    register(&parley.as_user("admin"), "rogue", &rogue.url, &manifest(&["work"], 20)).await.is(201);
    let stream = project.client.request("GET", "/api/jobs/stream").send();
    let mut stream = stream.await.expect("an answer");
    let job = run(&project, "rogue.work", json!({})).await;
    assert_eq!((&job["progress"]["done"], &job["progress"]["total"]), (&json!(1), &json!(2)));
    let mut told = String::new();
    while !told.contains("job.succeeded") || !told.ends_with("\n\n") {
        let part = timeout(PATIENCE, stream.chunk()).await.expect("it goes on");
        let part = part.expect("bytes").expect("it does not end");
        told += std::str::from_utf8(&part).expect("a text");
    }
    assert!(told.contains(RESULT), "{told}");
    for path in [format!("{JOBS}/{}", text(&job["id"])), JOBS.to_owned()] {
        let shown = project.client.request("GET", &path).send().await.expect("an answer");
        let shown = shown.text().await.expect("a text");
        assert!(shown.contains(RESULT), "{path}: {shown}");
    }
}

#[tokio::test]
async fn a_result_that_other_readers_cannot_read_is_no_answer() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let project = parley.as_user("ada").project().await;
    let rogue =
        Rogue::start(|_| Says::Ends(lines("{\"log\":\"x\"}\n{\"result\":[1e400]}\n"))).await;
    register(&parley.as_user("admin"), "rogue", &rogue.url, &manifest(&["work"], 20)).await.is(201);
    let job = run(&project, "rogue.work", json!({})).await;
    assert_eq!((&job["error"]["code"], &job["attempt"]), (&json!("invalid_answer"), &json!(1)));
    assert!(text(&job["error"]["message"]).contains('2'), "the line is not named: {job}");
}

#[tokio::test]
async fn the_same_key_and_body_is_the_first_job_whatever_became_of_the_operation() {
    let parley = Parley::start_with(&LOOPBACK).await;
    let (project, admin) = (parley.as_user("ada").project().await, parley.as_user("admin"));
    let rogue = Rogue::start(|_| Says::Ends(lines("{\"result\":1}\n"))).await;
    let mut strict = manifest(&["work"], 20);
    register(&admin, "rogue", &rogue.url, &strict).await.is(201);
    let head = [("idempotency-key", "once"), ("prefer", "wait=25")];
    let again = async |data: Value| submit_with(&project, "rogue.work", data, &head).await;
    let first = again(json!({"to": 3})).await.is(200);
    let path = "/api/integrations/bundles/rogue/operations/work/batch";
    let batch = async |to: i64| {
        let body = json!({"project_id": project.id, "data": [{"to": to}, {"to": 5}]});
        let request = project.client.request("POST", path).header("idempotency-key", "batch");
        Answer::to(request.json(&body)).await
    };
    let both = batch(4).await.is(202);
    strict["operations"][0]["input"]["properties"] = json!({"to": {"type": "string"}});
    register(&admin, "rogue", &rogue.url, &strict).await.is(200);
    for is_deleted in [false, true] {
        let code = if is_deleted { (404, "not_found") } else { (422, "invalid_field") };
        let same = again(json!({"to": 3})).await.is(200);
        assert_eq!(same["id"], first["id"], "deleted: {is_deleted}");
        let ids = |batch: &Value| crate::support::column(&batch["jobs"], "id");
        assert_eq!(ids(&batch(4).await.is(202)), ids(&both), "deleted: {is_deleted}");
        again(json!({"to": 4})).await.refused(code.0, code.1);
        batch(5).await.refused(code.0, code.1);
        submit(&project, "rogue.work", json!({"to": 3})).await.refused(code.0, code.1);
        // A stranger sees nothing of the key of another user.
        let stranger = Project { client: parley.as_user("grace"), id: project.id.clone() };
        submit_with(&stranger, "rogue.work", json!({"to": 3}), &head)
            .await
            .refused(404, "not_found");
        if !is_deleted {
            admin.delete(&format!("{ADMIN}/rogue")).await.is(204);
        }
    }
}
