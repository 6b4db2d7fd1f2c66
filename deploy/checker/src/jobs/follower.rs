//! An owner's client, which follows their jobs and comes back with the last id whenever its stream ends.

use std::sync::Arc;

use eventsource_stream::Event;
use futures_util::StreamExt;
use rand::RngExt as _;
use reqwest::Response;
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Seen,
    judge::{Owned, Told},
};
use crate::{
    follower::{self, OPENING, SILENCE, events, seq},
    world::LONGEST_WAIT,
};

#[derive(Deserialize)]
struct Data {
    r#type: String,
    cursor: Option<String>,
    job: Option<Job>,
}

#[derive(Deserialize)]
struct Job {
    id: Uuid,
}

/// Follows an owner's jobs until `over`.
pub(super) async fn follow(
    url: String,
    number: usize,
    owner: &'static str,
    seen: Arc<Seen>,
    over: CancellationToken,
) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap_or_default();
    let mut last_id = String::new();
    let following = async {
        loop {
            let mut request = http.get(format!("{url}/api/jobs/stream"));
            request = request.bearer_auth(format!("dev-{owner}"));
            if !last_id.is_empty() {
                request = request.header("last-event-id", &last_id);
            }
            if let Ok(Ok(response)) = timeout(OPENING, request.send()).await
                && response.status().is_success()
            {
                read(response, &mut last_id, &seen, number).await;
            }
            let pause: f64 = rand::rng().random_range(0.1..1.0);
            sleep(LONGEST_WAIT.mul_f64(pause)).await;
        }
    };
    over.run_until_cancelled(following).await;
}

async fn read(response: Response, last_id: &mut String, seen: &Seen, number: usize) {
    let note = |event: &Event| seen.with(|history| note(&mut history.owners[number], event));
    seen.with(|history| history.owners[number].opened += 1);
    let mut events = events(response);
    while let Ok(Some(Ok(event))) = timeout(SILENCE, events.next()).await {
        note(&event);
        // Only now: what is not noted is to come again. The id of a `bye` is none to come back with.
        if !event.id.is_empty() && event.event != "bye" {
            *last_id = event.id;
        }
    }
}

fn note(owned: &mut Owned, event: &Event) {
    owned.resets += usize::from(event.event == "reset");
    let Ok(data) = serde_json::from_str::<Data>(&event.data) else { return };
    let seq = seq(&event.id);
    if data.r#type == "hello" {
        let begins = data.cursor.as_deref().map_or(seq, follower::seq);
        owned.begins = owned.begins.or(Some(begins));
    }
    if let Some(Job { id: job }) = data.job {
        owned.told.push(Told { seq, job, kind: data.r#type });
    }
}
