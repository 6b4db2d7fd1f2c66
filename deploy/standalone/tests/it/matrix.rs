//! Who may do what: every route there is, asked by everybody, and with ids of a project that is not theirs.

use std::{collections::BTreeSet, sync::Arc};

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::{
    bundle::LOOPBACK,
    project::Project,
    support::{Answer, Client, Parley, text},
    webhook,
};

/// Who asks, in the order of the columns. The last is the owner again, who names things of another project in theirs.
const CALLERS: [&str; 7] = ["", "stranger", "viewer", "member", "owner", "admin", "owner"];
/// The column with another project's ids.
const FOREIGN: usize = 6;
/// Where a route has no other id than the project's, or none at all.
const NONE: u16 = 0;

/// Method, path, body; then the status for nobody, a stranger, a viewer, a member, an owner, an admin who is no member, and
/// an owner who names another project's message, channel, member or job.
type Row = (&'static str, &'static str, &'static str, [u16; 7]);

const P: &str = "/api/chat/projects";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("GET",    "/api/auth/me", "",                                            [401, 200, 200, 200, 200, 200, NONE]),
    ("GET",    "/api/auth/sessions", "",                                      [401, 200, 200, 200, 200, 200, NONE]),
    ("DELETE", "/api/auth/sessions", "",                                      [401, 204, 204, 204, 204, 204, NONE]),
    ("DELETE", "/api/auth/sessions/{session}", "",                            [401, 404, 404, 404, 404, 404, NONE]),
    ("GET",    "P", "",                                                       [401, 200, 200, 200, 200, 200, NONE]),
    ("POST",   "P", r#"{"name": "x"}"#,                                       [401, 201, 201, 201, 201, 201, NONE]),
    ("GET",    "P/{project}", "",                                             [401, 404, 200, 200, 200, 404, NONE]),
    ("PATCH",  "P/{project}", r#"{"name": "x"}"#,                             [401, 404, 403, 403, 200, 404, NONE]),
    ("DELETE", "P/{project}", "",                                             [401, 404, 403, 403, 204, 404, NONE]),
    ("GET",    "P/{project}/channels", "",                                    [401, 404, 200, 200, 200, 404, NONE]),
    ("POST",   "P/{project}/channels", r#"{"name": "new"}"#,                  [401, 404, 403, 201, 201, 404, NONE]),
    ("GET",    "P/{project}/channels/{channel}", "",                          [401, 404, 200, 200, 200, 404, 404]),
    ("PATCH",  "P/{project}/channels/{channel}", r#"{"topic": "x"}"#,         [401, 404, 403, 200, 200, 404, 404]),
    ("GET",    "P/{project}/events", "",                                      [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "P/{project}/members", "",                                     [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "P/{project}/members/{user}", "",                              [401, 404, 200, 200, 200, 404, 404]),
    ("PUT",    "P/{project}/members/{user}", r#"{"role": "member"}"#,         [401, 404, 403, 403, 200, 404, 200]),
    ("DELETE", "P/{project}/members/{user}", "",                              [401, 404, 403, 403, 204, 404, 404]),
    ("GET",    "P/{project}/messages", "",                                    [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "P/{project}/messages?channel={channel}", "",                  [401, 404, 200, 200, 200, 404, 200]),
    ("GET",    "P/{project}/messages?before={id}", "",                        [401, 404, 200, 200, 200, 404, 404]),
    ("GET",    "P/{project}/messages?after={id}", "",                         [401, 404, 200, 200, 200, 404, 404]),
    ("POST",   "P/{project}/messages", r#"{"text": "x"}"#,                    [401, 404, 403, 201, 201, 404, NONE]),
    ("POST",   "P/{project}/messages", r#"{"text": "x", "channel": "{channel}"}"#, [401, 404, 403, 201, 201, 404, 422]),
    ("POST",   "P/{project}/messages", r#"{"text": "x", "reply_to": "{id}"}"#, [401, 404, 403, 201, 201, 404, 422]),
    ("GET",    "P/{project}/messages/{id}", "",                               [401, 404, 200, 200, 200, 404, 404]),
    // The message is the owner's.
    ("PATCH",  "P/{project}/messages/{id}", r#"{"text": "y"}"#,               [401, 404, 403, 403, 200, 404, 404]),
    ("DELETE", "P/{project}/messages/{id}", "",                               [401, 404, 403, 403, 200, 404, 404]),
    ("PUT",    "P/{project}/messages/{id}/reactions/{emoji}", "",             [401, 404, 403, 200, 200, 404, 404]),
    ("DELETE", "P/{project}/messages/{id}/reactions/{emoji}", "",             [401, 404, 403, 200, 200, 404, 404]),
    ("GET",    "P/{project}/presence", "",                                    [401, 404, 200, 200, 200, 404, NONE]),
    ("PUT",    "P/{project}/presence", r#"{"state": "away"}"#,                [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "P/{project}/read", "",                                        [401, 404, 200, 200, 200, 404, NONE]),
    ("PUT",    "P/{project}/read", r#"{"channel": "general", "message_id": "{id}"}"#, [401, 404, 200, 200, 200, 404, 422]),
    ("GET",    "P/{project}/search?q=x", "",                                  [401, 404, 200, 200, 200, 404, NONE]),
    ("POST",   "P/{project}/typing", r#"{"channel": "general"}"#,             [401, 404, 403, 204, 204, 404, NONE]),
    ("POST",   "P/{project}/typing", r#"{"channel": "{channel}"}"#,           [401, 404, 403, 204, 204, 404, 422]),

    ("GET",    "/stream/search?query=x&project_id={project}", "",             [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "/sse/search?query=x&projectId={project}", "",                 [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "/api/chat/answers/{stream_id}", "",                           [401, 404, 404, 404, 404, 404, NONE]),
    ("POST",   "/api/chat/answers/{stream_id}/cancel", "",                    [401, 404, 404, 404, 404, 404, NONE]),

    ("POST",   "/sse/ticket", "{}",                                           [401, 200, 200, 200, 200, 200, NONE]),
    ("POST",   "/sse/ticket", r#"{"project_id": "{project}"}"#,               [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "/sse/stream?project_id={project}", "",                        [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "/sse/stream?projectId={project}&include=jobs", "",            [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "/api/persistent-chat/stream?project_id={project}", "",        [401, 404, 200, 200, 200, 404, NONE]),
    ("GET",    "/api/jobs/stream", "",                                        [401, 200, 200, 200, 200, 200, NONE]),
    ("GET",    "/api/jobs/stream?scope=all", "",                              [401, 403, 403, 403, 403, 200, NONE]),
    ("GET",    "/sse/jobs?scope=all", "",                                     [401, 403, 403, 403, 403, 200, NONE]),
    ("POST",   "/sse/streams/{stream_id}/channels", r#"{"add": []}"#,         [401, 404, 404, 404, 404, 404, NONE]),
    ("GET",    "/api/jobs/stream/stats", "",                                  [401, 403, 403, 403, 403, 200, NONE]),
    ("GET",    "/api/debug/sse-connections/{user}/{project}", "",             [401, 403, 403, 403, 403, 200, NONE]),
    ("DELETE", "/api/debug/sse-connections/{connection_id}", "",              [401, 403, 403, 403, 403, 404, NONE]),

    ("GET",    "/api/integrations/bundles", "",                               [401, 200, 200, 200, 200, 200, NONE]),
    ("GET",    "/api/integrations/bundles/{bundle}", "",                      [401, 200, 200, 200, 200, 200, NONE]),
    ("POST",   "/api/integrations/bundles/{bundle}/operations/{operation}",
               r#"{"project_id": "{project}", "data": {"to": 1}}"#,           [401, 404, 202, 202, 202, 404, NONE]),
    ("POST",   "/api/integrations/bundles/{bundle}/operations/{operation}/batch",
               r#"{"project_id": "{project}", "data": [{"to": 1}]}"#,         [401, 404, 202, 202, 202, 404, NONE]),
    ("GET",    "/api/integrations/admin/bundles", "",                         [401, 403, 403, 403, 403, 200, NONE]),
    ("GET",    "/api/integrations/admin/bundles/{bundle}", "",                [401, 403, 403, 403, 403, 404, NONE]),
    ("PUT",    "/api/integrations/admin/bundles/{bundle}", "{}",              [401, 403, 403, 403, 403, 422, NONE]),
    ("DELETE", "/api/integrations/admin/bundles/{bundle}", "",                [401, 403, 403, 403, 403, 404, NONE]),
    ("GET",    "/api/integrations/admin/queue", "",                           [401, 403, 403, 403, 403, 200, NONE]),
    ("GET",    "/api/integrations/admin/workers", "",                         [401, 403, 403, 403, 403, 200, NONE]),
    ("GET",    "/api/integrations/admin/parked", "",                          [401, 403, 403, 403, 403, 200, NONE]),
    ("POST",   "/api/integrations/admin/parked/retry", "{}",                  [401, 403, 403, 403, 403, 200, NONE]),
    // Bundles have no token; what they send is signed.
    ("POST",   "/api/integrations/callbacks/{job}", "{}",                     [401, 401, 401, 401, 401, 401, 401]),
    // Like all of a project, not for an admin who is no member. The job that delivers again is the caller's.
    ("GET",    "/api/integrations/webhooks?project_id={project}", "",         [401, 404, 403, 403, 200, 404, NONE]),
    ("POST",   "/api/integrations/webhooks",
               r#"{"project_id": "{project}", "url": "http://127.0.0.1:9/", "events": ["*"]}"#, [401, 404, 403, 403, 201, 404, NONE]),
    ("GET",    "/api/integrations/webhooks/{webhook}", "",                    [401, 404, 403, 403, 200, 404, 404]),
    ("PATCH",  "/api/integrations/webhooks/{webhook}", r#"{"active": false}"#, [401, 404, 403, 403, 200, 404, 404]),
    ("DELETE", "/api/integrations/webhooks/{webhook}", "",                    [401, 404, 403, 403, 204, 404, 404]),
    ("POST",   "/api/integrations/webhooks/{webhook}/rotate", "",             [401, 404, 403, 403, 200, 404, 404]),
    ("GET",    "/api/integrations/webhooks/{webhook}/deliveries", "",         [401, 404, 403, 403, 200, 404, 404]),
    ("POST",   "/api/integrations/webhooks/{webhook}/deliveries/{seq}/redeliver", "", [401, 404, 403, 403, 404, 404, 404]),
    ("POST",   "/api/integrations/webhooks/{webhook}/deliveries/{seq}/skip", "", [401, 404, 403, 403, 404, 404, 404]),
    ("POST",   "/api/integrations/webhooks/{webhook}/replay", r#"{"from": "2020-01-01T00:00:00Z"}"#,
                                                                              [401, 404, 403, 403, 422, 404, 404]),
    ("POST",   "/api/integrations/uploads", "bytes",                         [401, 201, 201, 201, 201, 201, NONE]),
    ("GET",    "/api/integrations/jobs", "",                                  [401, 200, 200, 200, 200, 200, NONE]),
    ("GET",    "/api/integrations/jobs?project_id={project}", "",             [401, 200, 200, 200, 200, 200, NONE]),
    // The job is the owner's; that of the other project is another's.
    ("GET",    "/api/integrations/jobs/{job}", "",                            [401, 404, 404, 404, 200, 200, 404]),
    ("GET",    "/api/integrations/jobs/{job}/logs", "",                       [401, 404, 404, 404, 200, 404, 404]),
    ("GET",    "/api/integrations/jobs/{job}/artifacts/{name}", "",           [401, 404, 404, 404, 404, 404, 404]),
    ("POST",   "/api/integrations/jobs/{job}/cancel", "",                     [401, 404, 404, 404, 200, 200, 404]),
    ("GET",    "/api/integrations/schedules?project_id={project}", "",        [401, 404, 200, 200, 200, 200, NONE]),
    ("POST",   "/api/integrations/schedules",
               r#"{"project_id": "{project}", "bundle": "demo", "operation": "count", "data": {"to": 1}, "cron": "0 0 1 1 *"}"#,
                                                                              [401, 404, 201, 201, 201, 404, NONE]),
    // The schedule is the owner's too; admins may do no more than stop and delete it.
    ("GET",    "/api/integrations/schedules/{schedule}", "",                  [401, 404, 404, 404, 200, 200, 404]),
    ("PATCH",  "/api/integrations/schedules/{schedule}", r#"{"missed": "once"}"#, [401, 404, 404, 404, 200, 403, 404]),
    ("PATCH",  "/api/integrations/schedules/{schedule}", r#"{"active": false}"#, [401, 404, 404, 404, 200, 200, 404]),
    ("DELETE", "/api/integrations/schedules/{schedule}", "",                  [401, 404, 404, 404, 204, 204, 404]),
    ("POST",   "/api/integrations/jobs/{job}/retry", "",                      [401, 404, 404, 404, 409, 409, 404]),
];

/// Other names of documented routes, which the documents leave out.
const ALIASES: [&str; 3] = ["/api/persistent-chat/stream", "/sse/jobs", "/sse/search"];

/// A project and one of everything in it, made for one request.
struct Place {
    project: String,
    message: String,
    channel: &'static str,
    member: &'static str,
    job: String,
    webhook: String,
    schedule: String,
}

impl Place {
    async fn make(owner: &Client, channel: &'static str, member: &'static str) -> Self {
        let project = owner.project().await;
        project.with(member, "viewer").await;
        project.call("POST", "/channels", &json!({"name": channel})).await.is(201);
        let message = text(&project.send("said").await["id"]);
        // It does not end by itself while it is asked about.
        let count = json!({"project_id": project.id, "data": {"to": 300, "delay_ms": 1000}});
        let path = "/api/integrations/bundles/demo/operations/count";
        let job = text(&owner.call("POST", path, &count).await.is(202)["id"]);
        let webhook = webhook::subscribe(&project, "http://127.0.0.1:9/", &["*"]).await.is(201);
        let webhook = text(&webhook["id"]);
        let schedule = json!({"project_id": project.id, "bundle": "demo", "operation": "count", "data": {"to": 1},
            "cron": "0 0 1 1 *"});
        let schedule = owner.call("POST", "/api/integrations/schedules", &schedule).await.is(201);
        let schedule = text(&schedule["id"]);
        Self { project: project.id, message, channel, member, job, webhook, schedule }
    }

    /// Gives a template the ids of this place, or of `other` where they are not the project's own.
    fn fill(&self, template: &str, other: &Self) -> String {
        let filled = template.strip_prefix('P').map(|rest| format!("{P}{rest}"));
        let mut filled = filled.unwrap_or_else(|| template.to_owned());
        for (name, value) in [
            ("project", self.project.as_str()),
            ("id", &other.message),
            ("channel", other.channel),
            ("user", other.member),
            ("job", &other.job),
            ("webhook", &other.webhook),
            ("seq", "1"),
            ("schedule", &other.schedule),
            ("connection_id", &other.message),
            ("stream_id", "tab"),
            ("session", "none"),
            ("emoji", "x"),
            ("bundle", "demo"),
            ("operation", "count"),
            ("name", "export.ndjson"),
        ] {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        filled
    }
}

/// Starts a server whose users are known by what they are in the project.
async fn start() -> Parley {
    let dir = Arc::new(tempfile::tempdir().expect("a folder for data"));
    let user = |name: &str| json!({"user": name, "token": format!("dev-of-the-{name}")});
    let names = ["stranger", "viewer", "member", "owner", "guest", "visitor", "other", "removed"];
    let mut users: Vec<Value> = names.map(user).into();
    let mut admin = user("admin");
    admin["roles"] = json!(["admin"]);
    users.push(admin);
    let file = dir.path().join("users.json");
    std::fs::write(&file, json!(users).to_string()).expect("a file of users");
    let file = file.to_str().expect("its name is text");
    let flags =
        ["--auth-users-file", file, "--sse-max-conn-per-ip", "1000", "--proc-workers", "200"];
    Parley::start_in(&dir, &[&flags[..], &LOOPBACK].concat()).await
}

fn caller(parley: &Parley, name: &str) -> Client {
    if name.is_empty() { parley.client() } else { parley.as_user(&format!("of-the-{name}")) }
}

async fn status(client: &Client, method: &str, path: &str, body: &str) -> u16 {
    let mut request = client.request(method, path);
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json").body(body.to_owned());
    }
    // Streams have no end, so the answer is not read to its.
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn everybody_may_do_what_they_may_and_nothing_else() {
    let parley = start().await;
    let owner = caller(&parley, "owner");
    let elsewhere = Place::make(&caller(&parley, "other"), "elsewhere", "visitor").await;
    let mut wrong = Vec::new();
    for (method, path, body, expected) in ROWS {
        for (column, name) in CALLERS.into_iter().enumerate() {
            if expected[column] == NONE {
                continue;
            }
            let place = Place::make(&owner, "general-2", "guest").await;
            let project = Project { client: owner.clone(), id: place.project.clone() };
            project.with("viewer", "viewer").await;
            project.with("member", "member").await;
            let ids = if column == FOREIGN { &elsewhere } else { &place };
            let (path, body) = (place.fill(path, ids), place.fill(body, ids));
            let client = caller(&parley, name);
            let methods = if *method == "GET" { &["HEAD", "GET"][..] } else { &[*method][..] };
            for method in methods {
                let status = status(&client, method, &path, &body).await;
                if status != expected[column] {
                    wrong.push(format!(
                        "{method} {path} {body} by column {column} `{name}`: {status}, not {}",
                        expected[column]
                    ));
                }
            }
            // The owner may have left, or the project may be gone.
            let cancel = format!("/api/integrations/jobs/{}/cancel", place.job);
            caller(&parley, "admin").call("POST", &cancel, &Value::Null).await.is(200);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_owner_who_was_removed_may_do_what_a_stranger_may() {
    const STRANGER: usize = 1;
    let parley = start().await;
    let (owner, gone) = (caller(&parley, "owner"), caller(&parley, "removed"));
    let mut wrong = Vec::new();
    for (method, path, body, expected) in ROWS {
        // All that there is was made by who is removed now.
        let place = Place::make(&gone, "general-2", "guest").await;
        let project = Project { client: gone.clone(), id: place.project.clone() };
        let owners = project.with("owner", "owner").await;
        let owners = Project { client: owner.clone(), ..owners };
        owners.delete("/members/removed").await.is(204);
        let (path, body) = (place.fill(path, &place), place.fill(body, &place));
        let methods = if *method == "GET" { &["HEAD", "GET"][..] } else { &[*method][..] };
        for method in methods {
            let status = status(&gone, method, &path, &body).await;
            if status != expected[STRANGER] {
                wrong.push(format!("{method} {path} {body}: {status}, not {}", expected[STRANGER]));
            }
        }
        let cancel = format!("/api/integrations/jobs/{}/cancel", place.job);
        let admin = caller(&parley, "admin");
        admin.call("POST", &cancel, &Value::Null).await.is(200);
    }
    let jobs = gone.get("/api/integrations/jobs").await.is(200);
    let left = jobs["jobs"].as_array().expect("a list").len();
    assert_eq!(left, 0, "jobs of projects that were left are listed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_route_is_in_the_matrix() {
    let parley = Parley::start().await;
    let mut routed = BTreeSet::new();
    for base in [&parley.ingress, &parley.proc] {
        let document = Answer::to(reqwest::Client::new().get(format!("{base}/openapi.json"))).await;
        for (path, methods) in document.is(200)["paths"].as_object().expect("paths") {
            let methods = methods.as_object().expect("methods").keys();
            routed.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
    }
    let rows = ROWS.iter().map(|(method, path, ..)| {
        let path = path.split('?').next().unwrap_or_default();
        let path =
            path.replace("jobs/{job}", "jobs/{id}").replace("webhooks/{webhook}", "webhooks/{id}");
        (method, path.strip_prefix('P').map(|rest| format!("{P}{rest}")).unwrap_or(path))
    });
    let rows = rows.filter(|(_, path)| !ALIASES.contains(&path.as_str()));
    let rows: BTreeSet<String> = rows.map(|(method, path)| format!("{method} {path}")).collect();
    let missing: Vec<_> = routed.difference(&rows).collect();
    assert!(missing.is_empty(), "these want a row in ROWS of {}: {missing:?}", file!());
    let gone: Vec<_> = rows.difference(&routed).collect();
    assert!(gone.is_empty(), "these rows are of no route: {gone:?}");
}
