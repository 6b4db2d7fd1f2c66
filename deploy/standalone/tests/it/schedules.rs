//! Schedules: operations that are called at their times, while their owner may call them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    job::{JOBS, follow, submit, until_end, until_state},
    project::Project,
    support::{Answer, Client, Parley, column, eventually, text},
};

const SCHEDULES: &str = "/api/integrations/schedules";

/// Returns the line that fires so many seconds from now, and then a day later.
fn line_in(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let time = (now + Duration::from_secs(seconds)).as_secs();
    format!("{} {} {} * * *", time % 60, time / 60 % 60, time / 3600 % 24)
}

/// Asks for a schedule of `demo.count`, with more fields.
async fn make(project: &Project, cron: &str, more: Value) -> Answer {
    let mut body = json!({"project_id": project.id, "bundle": "demo", "operation": "count", "data": {"to": 3},
        "cron": cron});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    project.client.call("POST", SCHEDULES, &body).await
}

async fn show(client: &Client, id: &str) -> Value {
    client.get(&format!("{SCHEDULES}/{id}")).await.is(200)
}

async fn change(client: &Client, id: &str, change: Value) -> Answer {
    client.call("PATCH", &format!("{SCHEDULES}/{id}"), &change).await
}

#[tokio::test]
async fn an_operation_is_called_at_its_time_in_the_name_of_who_asked() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let (mut stream, _) = follow(&project.client).await;
    let made = make(&project, &line_in(2), json!({})).await;
    let location = made.header("location").to_owned();
    let made = made.is(201);
    let (id, time) = (text(&made["id"]), text(&made["next_fire_at"]));
    assert_eq!(location, format!("{SCHEDULES}/{id}"));
    assert_eq!(
        (&made["state"], &made["time_zone"], &made["missed"]),
        (&json!("active"), &json!("UTC"), &json!("skip"))
    );
    assert_eq!(show(&project.client, &id).await, made);

    let job = text(&stream.expect("job.queued").await["job"]["id"]);
    let events = until_end(&mut stream, &job).await;
    let ended = &events.last().expect("an end").data["job"];
    assert_eq!((&ended["result"], &ended["owner"]), (&json!({"counted": 3}), &json!("ada")));
    assert!(text(&ended["created_at"]) >= time, "not before its time");
    let after = show(&project.client, &id).await;
    assert_eq!((&after["last_fire_at"], &after["last_job_id"]), (&json!(time), &json!(job)));
    // The same time tomorrow.
    assert!(text(&after["next_fire_at"])[..10] > time[..10]);
    assert_eq!(text(&after["next_fire_at"])[10..], time[10..]);
    let logs = project.client.get(&format!("{JOBS}/{job}/logs")).await.is(200);
    assert!(text(&logs["logs"][0]["message"]).contains(&id), "{logs}");
    assert_eq!(project.client.get(JOBS).await.is(200)["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_schedule_outlives_the_process() {
    let mut parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let made = make(&project, &line_in(2), json!({"missed": "once"})).await.is(201);
    parley.kill().await;
    let parley = Parley::start_in(&parley.dir, &[]).await;
    let ada = parley.as_user("ada");
    let id = text(&made["id"]);
    eventually("it fires", async || show(&ada, &id).await["last_job_id"].is_string()).await;
    let job = text(&show(&ada, &id).await["last_job_id"]);
    until_state(&ada, &job, "succeeded").await;
    assert_eq!(column(&ada.get(JOBS).await.is(200)["jobs"], "id"), [job]);
}

#[tokio::test]
async fn who_may_no_longer_call_the_operation_has_a_disabled_schedule() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "viewer").await;
    let id = text(&make(&grace, &line_in(4), json!({})).await.is(201)["id"]);
    project.delete("/members/grace").await.is(204);
    grace.client.get(&format!("{SCHEDULES}/{id}")).await.refused(404, "not_found");
    let ada = &project.client;
    eventually("it is disabled", async || show(ada, &id).await["state"] == "disabled").await;
    let disabled = show(ada, &id).await;
    assert_eq!(disabled["reason"], "its owner is no longer in the project");
    assert_eq!((&disabled["next_fire_at"], &disabled["last_job_id"]), (&Value::Null, &Value::Null));
    assert_eq!(parley.as_user("admin").get(JOBS).await.is(200)["jobs"], json!([]));

    project.with("grace", "viewer").await;
    let active = change(&grace.client, &id, json!({"active": true})).await.is(200);
    assert_eq!((&active["state"], &active["reason"]), (&json!("active"), &Value::Null));
    assert!(active["next_fire_at"].is_string());
}

#[tokio::test]
async fn a_schedule_that_could_not_work_is_refused() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let id = text(&make(&project, "0 0 1 1 *", json!({})).await.is(201)["id"]);
    for (field, more) in [
        ("cron", json!({"cron": "0 0 30 2 *"})),
        ("cron", json!({"cron": "61 * * * *"})),
        ("cron", json!({"cron": "* * * * * *"})),
        ("cron", json!({"cron": "every day"})),
        ("cron", json!({"cron": ""})),
        ("cron", json!({"cron": "* * * * \0"})),
        ("cron", json!({"cron": "0,".repeat(5_000)})),
        ("time_zone", json!({"time_zone": "Europe/Atlantis"})),
        ("time_zone", json!({"time_zone": ""})),
        ("missed", json!({"missed": "twice"})),
        ("data.to", json!({"data": {"to": "3"}})),
        ("data.to", json!({"data": {}})),
    ] {
        let refused = make(&project, "0 0 1 1 *", more.clone()).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], field, "{more}: {refused}");
        let refused =
            change(&project.client, &id, more.clone()).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], field, "{more}: {refused}");
    }
    for (field, more) in [
        ("bundle", json!({"bundle": "\0"})),
        ("operation", json!({"operation": "Count"})),
        ("project_id", json!({"project_id": 1})),
    ] {
        let refused = make(&project, "0 0 1 1 *", more).await.refused(422, "invalid_field");
        assert_eq!(refused["field"], field, "{refused}");
    }
    let never = make(&project, "0 0 30 2 *", json!({})).await;
    assert!(text(&never.body["message"]).contains("never fires"), "{never:?}");
    let ours = json!({"bundle": "webhook", "operation": "deliver"});
    for gone in [json!({"bundle": "none"}), json!({"operation": "none"}), ours] {
        make(&project, "0 0 1 1 *", gone).await.refused(404, "not_found");
    }
    make(&project.of("grace"), "0 0 1 1 *", json!({})).await.refused(404, "not_found");
    let viewer = project.with("grace", "viewer").await;
    let export = json!({"bundle": "chat", "operation": "import", "data": {"upload_id": uuid::Uuid::now_v7()}});
    make(&viewer, "0 0 1 1 *", export).await.refused(403, "forbidden");

    for _ in 1..20 {
        make(&project, "@daily", json!({})).await.is(201);
    }
    make(&project, "@daily", json!({})).await.refused(409, "conflict");
    project.client.delete(&format!("{SCHEDULES}/{id}")).await.is(204);
    project.client.get(&format!("{SCHEDULES}/{id}")).await.refused(404, "not_found");
    make(&project, "@daily", json!({})).await.is(201);
}

#[tokio::test]
async fn owners_of_a_project_see_and_stop_what_others_have_scheduled_in_it() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let grace = project.with("grace", "member").await;
    let own = text(&make(&project, "0 9 * * MON-FRI", json!({})).await.is(201)["id"]);
    let zone = json!({"time_zone": "europe/berlin"});
    let graces = make(&grace, "30 8 * * *", zone).await.is(201);
    assert_eq!(graces["time_zone"], "Europe/Berlin");
    let id = text(&graces["id"]);
    let list = async |client: &Client| {
        let path = format!("{SCHEDULES}?project_id={}", project.id);
        column(&client.get(&path).await.is(200)["schedules"], "id")
    };
    assert_eq!(list(&project.client).await, [id.as_str(), &own]);
    assert_eq!(list(&parley.as_user("admin")).await, [id.as_str(), &own]);
    assert_eq!(list(&grace.client).await, [id.as_str()]);
    grace.client.get(SCHEDULES).await.refused(400, "invalid_request");

    // What runs in grace's name is hers to say.
    for client in [project.client.clone(), parley.as_user("admin")] {
        for more in [
            json!({"data": {"to": 9}}),
            json!({"active": true}),
            json!({"active": false, "cron": "* * * * *"}),
        ] {
            change(&client, &id, more).await.refused(403, "forbidden");
        }
        let stopped = change(&client, &id, json!({"active": false})).await.is(200);
        assert_eq!((&stopped["state"], &stopped["next_fire_at"]), (&json!("paused"), &Value::Null));
    }
    let moved = json!({"active": true, "cron": "0 12 * * *", "missed": "once", "data": {"to": 4}});
    let moved = change(&grace.client, &id, moved).await.is(200);
    assert_eq!(
        (&moved["state"], &moved["missed"], &moved["data"]),
        (&json!("active"), &json!("once"), &json!({"to": 4}))
    );
    assert_ne!(moved["next_fire_at"], graces["next_fire_at"]);
    project.client.delete(&format!("{SCHEDULES}/{id}")).await.is(204);
    assert_eq!(list(&grace.client).await, [""; 0]);
}

#[tokio::test]
async fn a_time_at_which_the_last_job_runs_makes_none_unless_the_schedule_says_so() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let made = make(&project, "0 0 1 1 *", json!({})).await.is(201);
    assert_eq!((&made["overlap"], &made["last_skipped_at"]), (&json!("skip"), &Value::Null));
    let path = format!("{SCHEDULES}/{}", text(&made["id"]));
    for overlap in ["queue", "cancel_running", "skip"] {
        let changed = project.client.call("PATCH", &path, &json!({"overlap": overlap})).await;
        assert_eq!(changed.is(200)["overlap"], overlap);
    }
    for refused in [json!("never"), json!(1), json!(true)] {
        let body = json!({"overlap": refused});
        project.client.call("PATCH", &path, &body).await.refused(422, "invalid_field");
        make(&project, "0 0 1 1 *", body).await.refused(422, "invalid_field");
    }
    // The job runs for a minute and a half, longer than the interval of the schedule.
    let every = json!({"data": {"to": 900, "delay_ms": 100}, "overlap": "cancel_running"});
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let cron = format!("{} * * * * *", (now + 2) % 60);
    let made = make(&project, &cron, every).await.is(201);
    let id = text(&made["id"]);
    let fired = async || show(&project.client, &id).await["last_job_id"].is_string();
    eventually("it fires", fired).await;
    let first = text(&show(&project.client, &id).await["last_job_id"]);
    until_state(&project.client, &first, "running").await;
    let path = format!("{SCHEDULES}/{id}");
    let mut last = first;
    for (overlap, state) in [("skip", "running"), ("cancel_running", "cancelled")] {
        // Its next time is two seconds from now.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        let cron = format!("{} * * * * *", (now.as_secs() + 2) % 60);
        let change = json!({"overlap": overlap, "cron": cron});
        let before = project.client.call("PATCH", &path, &change).await.is(200);
        let moved = async || {
            let seen = show(&project.client, &id).await;
            seen["next_fire_at"] != before["next_fire_at"]
        };
        eventually("its time comes", moved).await;
        let seen = show(&project.client, &id).await;
        let job = until_state(&project.client, &last, state).await;
        if overlap == "skip" {
            assert_eq!(seen["last_skipped_at"], before["next_fire_at"], "{seen}");
            assert_eq!(seen["last_job_id"], job["id"], "{seen}");
        } else {
            assert_eq!(seen["last_fire_at"], before["next_fire_at"], "{seen}");
            last = text(&seen["last_job_id"]);
            until_state(&project.client, &last, "running").await;
        }
    }
}

#[tokio::test]
async fn schedules_leave_half_of_the_queue_to_users() {
    let parley = Parley::start_with(&["--proc-queue-limit", "8", "--proc-workers", "1"]).await;
    let (ada, grace) =
        (parley.as_user("ada").project().await, parley.as_user("grace").project().await);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let cron = format!("{} * * * * *", (now + 4) % 60);
    let slow = json!({"data": {"to": 300, "delay_ms": 1_000}, "overlap": "queue"});
    for _ in 0..10 {
        make(&ada, &cron, slow.clone()).await.is(201);
    }
    let queue = async || parley.as_user("admin").get("/api/integrations/admin/queue").await.is(200);
    eventually("a half that is full", async || queue().await["queued"] == 4).await;
    // Four places are for who asks, whatever is still to fire.
    for number in 0..4 {
        let made = submit(&grace, "demo.count", json!({"to": 300, "delay_ms": 1_000})).await;
        assert_eq!(made.status, 202, "job {number} of a user was refused");
    }
}
