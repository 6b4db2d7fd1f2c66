//! Clients that send: each message has a number, and is sent again with the same key until it is answered.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    history::{Answer, Send, Try},
    world::{Outcome, World},
};

/// How long an unanswered send is tried after the end.
const LAST_TRIES: Duration = Duration::from_secs(30);
const TEXT: &str = "number ";

/// All sends so far; a number is a place in it.
pub(crate) type Sends = Mutex<Vec<Send>>;

/// Returns which send a text is of.
pub(crate) fn number(text: &str) -> Option<usize> {
    text.strip_prefix(TEXT)?.split(' ').next()?.parse().ok()
}

/// Sends every `interval` until `over`.
pub(crate) async fn send(
    world: Arc<World>,
    sends: Arc<Sends>,
    members: usize,
    interval: Duration,
    mut chance: StdRng,
    over: CancellationToken,
) {
    let first = Instant::now() + interval.mul_f64(chance.random_range(0.0..1.0));
    let mut ticks = interval_at(first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let projects = world.projects.len() - 1;
    while over.run_until_cancelled(ticks.tick()).await.is_some() {
        let project = chance.random_range(0..projects);
        let member = chance.random_range(0..members);
        one(&world, &sends, project, member, &over).await;
    }
}

async fn one(
    world: &World,
    sends: &Sends,
    project: usize,
    member: usize,
    over: &CancellationToken,
) {
    let lock = || sends.lock().unwrap_or_else(PoisonError::into_inner);
    let number = {
        let mut sends = lock();
        sends.push(Send { project, began: world.now(), answer: None, slowest: Try::default() });
        sends.len() - 1
    };
    let (path, user) = (world.path(project, "/messages"), world.roster.member(project, member));
    let text =
        format!("{TEXT}{number} is about as long as what people say to each other in a chat");
    let body = json!({"text": text, "client_message_id": format!("checker-{number}")});
    let mut last_try = None;
    while last_try.is_none_or(|last: Instant| Instant::now() < last) {
        if over.is_cancelled() && last_try.is_none() {
            last_try = Some(Instant::now() + LAST_TRIES);
        }
        let request = world.request(user, Method::POST, &path).json(&body);
        let began = world.now();
        let outcome = world.once(&format!("send {number}"), request).await;
        let this = Try { began, ended: world.now() };
        {
            let slowest = &mut lock()[number].slowest;
            *slowest = if this.took() > slowest.took() { this } else { *slowest };
        }
        match outcome {
            Outcome::Done(answer) => {
                if let Some(message) = id(&answer) {
                    lock()[number].answer = Some(Answer { at: world.now(), message });
                    world.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            Outcome::Again(wait) => sleep(wait).await,
            Outcome::Wrong => return,
        }
    }
}

fn id(message: &Value) -> Option<uuid::Uuid> {
    message["id"].as_str()?.parse().ok()
}
