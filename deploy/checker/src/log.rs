//! Reads a project's log by the long poll, which is another way to it than a stream.

use anyhow::{Context, ensure};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    follower::seq,
    history::{Entry, Log, Removal},
    roster::{OWNER, User},
    sender,
    world::World,
};

#[derive(Deserialize)]
struct Page {
    events: Vec<Value>,
    cursor: String,
    reset: Option<String>,
}

async fn page(world: &World, project: usize, after: Option<&str>) -> anyhow::Result<Page> {
    let path = world.path(project, "/events");
    let request = world.request(OWNER, Method::GET, &path);
    let request =
        request.query(&after.map(|after| ("after", after)).into_iter().collect::<Vec<_>>());
    Ok(serde_json::from_value(world.must(request).await?)?)
}

/// Returns the cursor of the log's end.
pub(crate) async fn end(world: &World, project: usize) -> anyhow::Result<String> {
    Ok(page(world, project, None).await?.cursor)
}

/// Reads what is in the log after the cursor.
pub(crate) async fn read(world: &World, project: usize, after: &str) -> anyhow::Result<Log> {
    let mut log = Log::default();
    let mut cursor = after.to_owned();
    loop {
        let page = page(world, project, Some(&cursor)).await?;
        ensure!(page.reset.is_none(), "the log of project {project} cannot be read again");
        if page.events.is_empty() {
            return Ok(log);
        }
        let (first, last) = (seq(&cursor) + 1, seq(&page.cursor));
        let count = i64::try_from(page.events.len())?;
        log.holes += usize::try_from(last - first + 1 - count).unwrap_or_default();
        for (seq, event) in (first..).zip(&page.events) {
            note(&mut log, seq, event).with_context(|| format!("an event is odd: {event}"))?;
        }
        cursor = page.cursor;
    }
}

fn note(log: &mut Log, seq: i64, event: &Value) -> Option<()> {
    match event["type"].as_str()? {
        "message.created" => {
            let message = &event["message"];
            let send = sender::number(message["text"].as_str()?);
            log.entries.push(Entry { seq, message: message["id"].as_str()?.parse().ok()?, send });
        }
        "member.removed" => {
            let User(user) = User::named(event["member"]["user"].as_str()?)?;
            log.removals.push(Removal { seq, user });
        }
        _ => {}
    }
    Some(())
}
