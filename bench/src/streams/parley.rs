//! Parley, as it is used: users with tokens, limits, a project they are members of.

use anyhow::Context;
use serde_json::{Value, json};

use super::target::{Door, Http, Target};
use crate::{
    server::Server,
    users::{self, OWNER, STREAMS_A_USER, token, user},
};

/// Starts a server with a project for this many streams.
pub(super) fn start(streams: usize) -> anyhow::Result<Target> {
    let users = streams.div_ceil(STREAMS_A_USER);
    let server = Server::start_with(|command, folder| {
        let file = folder.join("users.json");
        users::write(&file, users)?;
        command.env("AUTH_USERS_FILE", file);
        // Nobody joins or leaves meanwhile.
        command.env("PRESENCE_GRACE", "1h");
        Ok(())
    })?;
    let address = server.ingress.parse()?;
    let headers =
        format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", token(OWNER));
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
        door: Door::at(address, GREETING, move |number| request(&project, &user(number % users))),
        rehearsals: users,
        publish: Box::new(move |text| {
            owner.call("POST", &path, &json!({ "text": text }).to_string()).map(drop)
        }),
    })
}

/// What has arrived once a stream is open.
pub(crate) const GREETING: &str = "\"hello\"";

/// Returns the request that opens a user's stream of a project.
pub(crate) fn request(project: &str, user: &str) -> String {
    let token = token(user);
    format!(
        "GET /sse/stream?project_id={project} HTTP/1.1\r\nhost: localhost\r\n\
         accept: text/event-stream\r\nauthorization: Bearer {token}\r\n\r\n"
    )
}
