//! Bad input to every route there is: refused in the one shape, and nothing is written.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    project::Project,
    support::{Answer, Client, PATIENCE, Parley, text},
    webhook::subscribe,
};

/// A route as a service's own document describes it.
struct Route {
    method: String,
    path: String,
    /// The fields of its JSON body, `None` if it takes none.
    fields: Option<Vec<String>>,
}

/// Reads the routes of both services.
async fn routes(parley: &Parley) -> Vec<Route> {
    let mut routes = Vec::new();
    for base in [&parley.ingress, &parley.proc] {
        let document = Answer::to(reqwest::Client::new().get(format!("{base}/openapi.json"))).await;
        let document = document.is(200);
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                let name = schema["$ref"].as_str().and_then(|path| path.split('/').next_back());
                let fields = name.map(|name| {
                    let fields = document["components"]["schemas"][name]["properties"].as_object();
                    fields.expect("fields").keys().cloned().collect()
                });
                routes.push(Route { method: method.to_uppercase(), path: path.clone(), fields });
            }
        }
    }
    assert!(routes.len() > 35, "both documents list their routes");
    routes
}

impl Route {
    /// Returns the path with sensible values, but `project` for the project and `id` for other ids.
    fn at(&self, project: &str, id: &str) -> String {
        let mut path = self.path.clone();
        for (name, value) in [
            ("project", project),
            ("id", id),
            ("channel", "general"),
            ("user", "ada"),
            ("emoji", "x"),
            ("job", id),
            ("schedule", id),
            ("bundle", "demo"),
            ("operation", "count"),
            ("name", "export.ndjson"),
            ("stream_id", "tab"),
            ("session", "tab"),
            ("connection_id", id),
            ("seq", "1"),
        ] {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains('{'), "a value for {path}");
        if self.path == "/sse/stream" { format!("{path}?project_id={project}") } else { path }
    }

    /// Returns the path whose last parameter has a NUL, if it has any.
    fn with_nul(&self, project: &str, id: &str) -> Option<String> {
        let (start, end) = (self.path.rfind('{')?, self.path.rfind('}')?);
        let path = format!("{}a%00{}", &self.path[..start], &self.path[end + 1..]);
        let route = Self { method: String::new(), path, fields: None };
        Some(route.at(project, id))
    }

    fn is_for_admins(&self) -> bool {
        self.path.starts_with("/api/debug") || self.path.contains("/admin/")
    }

    fn has(&self, parameter: &str) -> bool {
        self.path.contains(&format!("{{{parameter}}}"))
    }
}

/// Bodies that are wrong for every route, with what each is answered.
fn bodies(fields: &[String]) -> Vec<(&'static str, u16, Vec<u8>)> {
    let all = |value: &str| {
        let fields = fields.iter().map(|field| format!("{}:{value}", json!(field)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into_bytes()
    };
    let first = json!(fields[0]);
    vec![
        ("empty", 400, Vec::new()),
        ("blank", 400, b" \r\n".to_vec()),
        ("array", 400, b"[]".to_vec()),
        ("array of fields", 400, br#"["general","general",null,null,null]"#.to_vec()),
        ("string", 400, br#""text""#.to_vec()),
        ("null", 400, b"null".to_vec()),
        ("two values", 400, b"{}{}".to_vec()),
        ("wrong types", 422, all("[[7]]")),
        ("unknown field", 422, br#"{"no_such_field":1}"#.to_vec()),
        ("unknown field with a NUL", 422, br#"{"\u0000":1}"#.to_vec()),
        ("NUL", 422, all(r#""a\u0000b""#)),
        ("lone high surrogate", 422, all(r#""\ud800""#)),
        ("lone low surrogate", 422, all(r#""\udc00x""#)),
        ("surrogates in disorder", 422, all(r#""\udc00\ud800""#)),
        ("given twice", 422, format!("{{{first}:null,{first}:null}}").into_bytes()),
        ("70 KiB", 413, all(&json!("x".repeat(70 << 10)).to_string())),
        ("70 KiB of nothing", 413, vec![b' '; 70 << 10]),
        ("truncated", 400, format!(r#"{{{first}:"x"#).into_bytes()),
        ("truncated escape", 400, format!(r#"{{{first}:"\ud8"#).into_bytes()),
        (
            "deep",
            400,
            format!("{{{first}:{}{}}}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes(),
        ),
        ("deep objects", 400, r#"{"a":"#.repeat(10_000).into_bytes()),
        ("huge number", 422, all("1e999999")),
        ("invalid UTF-8", 400, [&b"{\"\xff\":\""[..], b"\xc3\x28\"}"].concat()),
        (
            "invalid UTF-8 in a text",
            0,
            [format!("{{{first}:\"").as_bytes(), b"\xed\xa0\x80\"}"].concat(),
        ),
    ]
}

/// Holds a refusal to the contract; 0 as a status is any that blames the client.
#[track_caller]
fn refused(answer: &Answer, expected: u16, what: &str) {
    assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
    assert!(expected == 0 || answer.status == expected, "{what}, not {expected}: {answer:?}");
    answer.is_well_formed_refusal();
    if answer.status == 422 {
        assert_eq!(answer.body["error"], "invalid_field", "{what}");
        assert!(answer.body["field"].is_string(), "{what}: {answer:?}");
    }
}

/// Everything that a test could have changed by mistake.
async fn state(project: &Project) -> Vec<Value> {
    let mut state = vec![json!(project.cursor().await)];
    for path in ["", "/members", "/channels", "/messages", "/read"] {
        state.push(project.get(path).await.is(200));
    }
    for path in ["/api/chat/projects", "/api/integrations/jobs"] {
        state.push(project.client.get(path).await.is(200));
    }
    state
}

#[tokio::test]
async fn every_route_refuses_who_is_not_let_in() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let before = state(&project).await;
    let stranger = parley.as_user("grace");
    let id = uuid::Uuid::now_v7().to_string();
    for route in routes(&parley).await {
        let path = route.at(&project.id, &id);
        let what = format!("{} {path}", route.method);
        let ask = async |client: &Client, path: &str| {
            let request = client.request(&route.method, path);
            // A body that would be fine for some route keeps the refusal from being about the body.
            Answer::to(request.json(&json!({"project_id": project.id, "data": {"to": 1}}))).await
        };
        for client in [parley.client(), parley.as_user("nobody")] {
            let answer = ask(&client, &path).await;
            assert_eq!(answer.status, 401, "{what}");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
            if route.method != "HEAD" {
                answer.refused(401, "unauthenticated");
            }
        }
        if route.method == "HEAD" {
            continue;
        }
        let of_project = route.has("project") || route.path == "/sse/stream";
        if route.is_for_admins() {
            ask(&stranger, &path).await.refused(403, "forbidden");
        } else if of_project && route.fields.is_none() {
            ask(&stranger, &path).await.refused(404, "not_found");
        } else if of_project {
            refused(&ask(&stranger, &path).await, 0, &what);
        }
        let admin = parley.as_user("admin");
        let insider = if route.is_for_admins() { &admin } else { &project.client };
        if let Some(path) = route.with_nul(&project.id, &id) {
            let is_first = !of_project && path.matches(&id).count() == 0;
            refused(&ask(insider, &path).await, if is_first { 400 } else { 0 }, &what);
        }
        for junk in ["junk", "%00", "%ff", "1;drop", &"9".repeat(300), "..%2f.."] {
            if of_project {
                refused(&ask(insider, &route.at(junk, &id)).await, 400, &what);
            }
            if route.has("id") {
                refused(&ask(insider, &route.at(&project.id, junk)).await, 400, &what);
            }
        }
    }
    assert_eq!(state(&project).await, before);
}

#[tokio::test]
async fn every_route_with_a_body_refuses_a_bad_one() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let message = project.send("kept").await;
    let before = state(&project).await;
    let id = message["id"].as_str().unwrap();
    // Nothing happens that it would want.
    let webhook = subscribe(&project, "https://8.8.8.8/", &["project.updated"]).await;
    let webhook = text(&webhook.is(201)["id"]);
    let schedule = json!({"project_id": project.id, "bundle": "demo", "operation": "count", "data": {"to": 1},
        "cron": "0 0 1 1 *"});
    let schedule = project.client.call("POST", "/api/integrations/schedules", &schedule).await;
    let schedule = text(&schedule.is(201)["id"]);
    let (admin, mut with_body) = (parley.as_user("admin"), 0);
    for route in routes(&parley).await {
        let Some(fields) = &route.fields else { continue };
        with_body += 1;
        let id = if route.path.contains("/webhooks/{id}") { &webhook } else { id };
        let id = if route.has("schedule") { &schedule } else { id };
        let path = route.at(&project.id, id);
        for (name, status, body) in bodies(fields) {
            let what = format!("{} {path}: {name}", route.method);
            let client = if route.is_for_admins() { &admin } else { &project.client };
            let request = || client.request(&route.method, &path).body(body.clone());
            let json = request().header("content-type", "application/json; charset=utf-8");
            refused(&Answer::to(json).await, status, &what);
            for other in [
                None,
                Some("text/plain"),
                Some("application/jsonx"),
                Some("application/x-www-form-urlencoded"),
            ] {
                let request = match other {
                    Some(other) => request().header("content-type", other),
                    None => request(),
                };
                refused(&Answer::to(request).await, 415, &what);
            }
        }
    }
    assert!(with_body >= 10, "the documents list the bodies");
    assert_eq!(state(&project).await, before);
}

#[tokio::test]
async fn odd_queries_are_no_ones_error_but_the_clients() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let id = uuid::Uuid::now_v7().to_string();
    let long = format!("limit={}", "9".repeat(60_000));
    for route in routes(&parley).await.iter().filter(|route| route.method == "GET") {
        for query in ["limit=%ff", "limit=%00", "limit=1&limit=2", "%", "&&=&", &long] {
            let path = route.at(&project.id, &id);
            let mark = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{mark}{query}");
            let response = project.client.request("GET", &path).send().await.unwrap();
            let status = response.status().as_u16();
            assert!(status < 500, "{status} {path:.200}");
        }
    }
    // Beyond what HTTP servers read, the answer is the protocol's own.
    for base in [&parley.ingress, &parley.proc] {
        let mut socket = TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "GET /api/auth/me?x={} HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "y".repeat(300 << 10)
        );
        // It may hang up before it has read all of it.
        let _ = socket.write_all(head.as_bytes()).await;
        let mut status = [0; 12];
        timeout(PATIENCE, socket.read_exact(&mut status)).await.unwrap().unwrap();
        assert_eq!(&status, b"HTTP/1.1 431");
    }
}
