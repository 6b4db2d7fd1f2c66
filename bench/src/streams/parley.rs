//! Parley, as it is used: users with tokens, limits, a project they are members of.

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::{Value, json};

use super::target::{Http, Target};
use crate::server::Server;

/// Streams of one user: fewer than may be open, since the place of one that has just closed may not be free yet.
const STREAMS_A_USER: usize = 4;

/// Starts a server with a project for this many streams.
pub(super) fn start(streams: usize) -> anyhow::Result<Target> {
    let users = streams.div_ceil(STREAMS_A_USER);
    let server = Server::start_with(|command, folder| {
        let file = folder.join("users.json");
        write_users(&file, users)?;
        command.env("AUTH_USERS_FILE", file);
        // One client sends for everybody; nobody joins or leaves meanwhile. What the server does not know it ignores.
        command.env("RATE_LIMIT_SENDS", "off").env("RATE_LIMIT_READS", "off");
        command.env("PRESENCE_GRACE", "1h");
        Ok(())
    })?;
    let address = server.ingress.parse()?;
    let headers =
        format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", token("owner"));
    let mut owner = Http::connect(address, &headers)?;
    let project = owner.call("POST", "/api/chat/projects", r#"{"name":"streams"}"#)?;
    let project: Value = serde_json::from_str(&project)?;
    let project = project["id"].as_str().context("a project has no id")?.to_owned();
    for number in 0..users {
        let path = format!("/api/chat/projects/{project}/members/{}", user(number));
        owner.call("PUT", &path, r#"{"role":"viewer"}"#)?;
    }
    let path = format!("/api/chat/projects/{project}/messages");
    Ok(Target {
        process: server.process,
        address,
        request: Box::new(move |number| {
            let token = token(&user(number % users));
            format!(
                "GET /sse/stream?project_id={project} HTTP/1.1\r\nhost: {address}\r\n\
                 accept: text/event-stream\r\nauthorization: Bearer {token}\r\n\r\n"
            )
        }),
        greeting: "\"hello\"",
        rehearsals: users,
        publish: Box::new(move |text| {
            owner.call("POST", &path, &json!({ "text": text }).to_string()).map(drop)
        }),
    })
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

fn token(user: &str) -> String {
    format!("token-of-the-bench-{user}")
}

fn write_users(file: &Path, users: usize) -> anyhow::Result<()> {
    let ids = (0..users).map(user).chain(["owner".to_owned()]);
    let users: Vec<Value> =
        ids.map(|id| json!({"user": id, "name": id, "token": token(&id)})).collect();
    fs::write(file, serde_json::to_vec(&users)?).context("failed to write the users")
}
