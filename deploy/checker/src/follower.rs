//! A stream's client, which comes back with the last id whenever its connection ends or says nothing for too long.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use eventsource_stream::{Event, EventStream, Eventsource};
use futures_util::{Stream as Bytes, StreamExt};
use rand::RngExt as _;
use reqwest::{Method, Response};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    history::{Begin, Seen, Stream},
    roster::User,
    sender,
    world::{LONGEST_WAIT, World, wait},
};

/// How long the head of an answer may take.
pub(crate) const OPENING: Duration = Duration::from_secs(6);
/// How long a stream may say nothing if it does not say how long.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);
/// How often who may not read asks again.
const KNOCK: Duration = Duration::from_secs(1);

/// A stream to be followed.
pub(crate) struct Follower {
    world: Arc<World>,
    /// The client's name of it, the same at every connection.
    name: String,
    last_id: String,
    retry: Duration,
    /// The highest number of the log so far.
    pub(crate) reached: Arc<AtomicI64>,
    stream: Stream,
}

/// What comes after a connection.
enum Next {
    /// It ended; the client may come back.
    Back,
    /// It is told that it may not, or not any more.
    Knock,
}

#[derive(Deserialize)]
struct Data {
    r#type: String,
    cursor: Option<String>,
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    id: Uuid,
    project_id: Uuid,
    text: String,
}

#[derive(Deserialize)]
struct Reset {
    cursor: String,
}

#[derive(Deserialize)]
struct Bye {
    reconnect: bool,
    retry_after_ms: u64,
}

/// Standing of a stream's user in the project.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Member,
    /// A member whom the scenario removes.
    Leaver,
    Stranger,
}

impl Follower {
    pub(crate) fn new(
        world: &Arc<World>,
        number: usize,
        project: usize,
        user: User,
        standing: Standing,
    ) -> Self {
        let is_member = standing != Standing::Stranger;
        let is_leaver = standing == Standing::Leaver;
        Self {
            world: world.clone(),
            name: format!("checker-{number}"),
            last_id: String::new(),
            retry: LONGEST_WAIT,
            reached: Arc::new(AtomicI64::new(-1)),
            stream: Stream { project, user: user.0, is_member, is_leaver, ..Stream::default() },
        }
    }

    /// Follows until `over` and returns what was seen.
    pub(crate) async fn run(mut self, over: CancellationToken) -> Stream {
        while let Some(next) = over.run_until_cancelled(self.connection()).await {
            let most = self.retry.min(LONGEST_WAIT);
            let pause = match next {
                Next::Back => most.mul_f64(rand::rng().random_range(0.3..1.0)),
                Next::Knock => KNOCK,
            };
            if over.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
        }
        self.stream
    }

    async fn connection(&mut self) -> Next {
        let project = &self.world.projects[self.stream.project];
        let path = format!("/sse/stream?project_id={project}&stream_id={}", self.name);
        let mut request = self.world.request(User(self.stream.user), Method::GET, &path);
        if !self.last_id.is_empty() {
            request = request.header("last-event-id", &self.last_id);
        }
        let Ok(Ok(response)) = timeout(OPENING, request.send()).await else { return Next::Back };
        match response.status().as_u16() {
            200 => {
                self.stream.opened += 1;
                let open = Open::new(&self.world);
                let next = self.read(response).await;
                drop(open);
                next
            }
            401 | 403 | 404 => {
                self.stream.refused += 1;
                Next::Knock
            }
            _ => {
                self.retry = wait(&response).unwrap_or(LONGEST_WAIT);
                Next::Back
            }
        }
    }

    async fn read(&mut self, response: Response) -> Next {
        let silence = response.headers().get("x-silence-threshold");
        let silence = silence.and_then(|value| value.to_str().ok()?.parse().ok());
        let silence = silence.map_or(SILENCE, Duration::from_secs);
        let mut events = events(response);
        let mut next = Next::Back;
        while let Ok(Some(Ok(event))) = timeout(silence, events.next()).await {
            if let Some(retry) = event.retry {
                self.retry = retry;
            }
            match event.event.as_str() {
                "message" => self.event(&event),
                "reset" => self.reset(&event),
                "bye" => {
                    if let Ok(bye) = serde_json::from_str::<Bye>(&event.data) {
                        self.retry = Duration::from_millis(bye.retry_after_ms);
                        if !bye.reconnect {
                            self.stream.refused += 1;
                            next = Next::Knock;
                        }
                    }
                }
                _ => {}
            }
            // Only now: what is not noted is to come again. The id of a `bye` is none to come back with.
            if !event.id.is_empty() && event.event != "bye" {
                self.last_id = event.id;
            }
        }
        next
    }

    fn reset(&mut self, event: &Event) {
        self.stream.resets += 1;
        let data = serde_json::from_str::<Reset>(&event.data);
        if let Ok(Reset { cursor }) = data {
            let after = seq(&cursor);
            self.stream.reset = Some(Begin { at: self.world.now(), after });
            // Numbers may be used again.
            self.reached.store(after, Ordering::Relaxed);
        }
    }

    fn event(&mut self, event: &Event) {
        let at = self.world.now();
        let Ok(data) = serde_json::from_str::<Data>(&event.data) else { return };
        let seq = seq(&event.id);
        if data.r#type == "hello" && self.stream.begins.is_none() {
            let after = data.cursor.as_deref().map_or(seq, self::seq);
            self.stream.begins = Some(Begin { at, after });
        }
        if let Some(Message { id: message, project_id, text }) = data.message
            && data.r#type == "message.created"
        {
            // A message of another project is none that was sent here.
            let ours = self.world.projects[self.stream.project] == project_id.to_string();
            let send = sender::number(&text).filter(|_| ours);
            self.stream.seen.push(Seen { at, seq, message, send });
        }
        self.reached.fetch_max(seq, Ordering::Relaxed);
    }
}

/// Reads the number out of a cursor of one log. Clients must not; who checks the log's order has to.
pub(crate) fn seq(cursor: &str) -> i64 {
    let seq = cursor.split('.').nth(3).and_then(|seq| i64::from_str_radix(seq, 36).ok());
    seq.unwrap_or(-1)
}

pub(crate) type Events =
    EventStream<Pin<Box<dyn Bytes<Item = reqwest::Result<bytes::Bytes>> + Send>>>;

pub(crate) fn events(response: Response) -> Events {
    let bytes: Pin<Box<dyn Bytes<Item = _> + Send>> = Box::pin(response.bytes_stream());
    bytes.eventsource()
}

/// Counts a connection while it is there.
struct Open(Arc<World>);

impl Open {
    fn new(world: &Arc<World>) -> Self {
        world.open_streams.fetch_add(1, Ordering::Relaxed);
        Self(world.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_its_number() {
        assert_eq!(seq("v1.1pbqsso.9zgye0fr.j.t5h1em"), 19);
        assert_eq!(seq("v1.1pbqsso.9zgye0fr.1a.t5h1em"), 46);
        assert_eq!(seq(""), -1);
    }
}
