//! Streams over bad lines: cut at any byte, and still every message comes once and in order.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use eventsource_stream::Eventsource;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    fault_proxy::{Cut, FaultProxy, Faults},
    project::Project,
    support::{PATIENCE, Parley},
};

/// How often each follower's line is cut.
const CUTS: usize = 10;
/// How many followers suffer each kind of cut.
const FOLLOWERS: usize = 3;
/// Cuts are within so many bytes: in the head, in the greeting, in any event, in any character.
const SPAN: usize = 6_000;
/// After how long without a byte a client takes its line for dead: five heartbeats.
const SILENCE: Duration = Duration::from_millis(500);
const LAST: &str = "last";

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    /// Takes the seed that `FAULTS_SEED` is at build time, else another one each time.
    fn new() -> Self {
        let given = option_env!("FAULTS_SEED").map(|seed| seed.parse().expect("a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
        println!("FAULTS_SEED={seed}");
        Self(seed)
    }

    /// Returns a number from 1 to `most`.
    fn roll(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        1 + usize::try_from(mixed >> 33).expect("a small number") % most
    }
}

/// A client that comes back for as long as it takes.
struct Follower {
    /// As it is seen over the line.
    project: Project,
    line: FaultProxy,
    /// Names its stream, so that what is left of a lost line is replaced.
    name: String,
    cursor: String,
    seen: Vec<Value>,
}

impl Follower {
    /// Follows over a line that is cut time and again, and then to the end. Lets go of `cutting` after the last cut.
    async fn follow(mut self, cuts: Vec<Faults>, cutting: watch::Receiver<()>) -> Vec<Value> {
        for (number, faults) in (0..).zip(cuts) {
            let is_silent = matches!(faults.cut, Some((_, Cut::Silent)));
            self.line.set(faults);
            // A line may be given up before its time: a busy machine is silent too.
            while self.line.cuts() == number {
                self.read_on(if is_silent { SILENCE } else { PATIENCE }).await;
            }
        }
        drop(cutting);
        self.line.set(Faults::default());
        while !self.has_last() {
            self.read_on(PATIENCE).await;
        }
        self.seen
    }

    fn has_last(&self) -> bool {
        self.seen.last().is_some_and(|event| event["message"]["text"] == LAST)
    }

    /// Reads until the line breaks, is silent for too long, or has brought the last message.
    async fn read_on(&mut self, silence: Duration) {
        let path = format!("/sse/stream?project_id={}&stream_id={}", self.project.id, self.name);
        let request = self.project.client.request("GET", &path);
        let opening = request.header("last-event-id", &self.cursor).send();
        let Ok(Ok(answer)) = timeout(silence, opening).await else { return };
        assert_eq!(answer.status(), 200);
        let mut events = answer.bytes_stream().eventsource();
        while let Ok(Some(Ok(event))) = timeout(silence, events.next()).await {
            let data: Value = serde_json::from_str(&event.data).expect("an event is whole");
            if data["type"] == "hello" {
                let (resumed, cursor) = (&data["resumed"], &data["cursor"]);
                assert_eq!((resumed, cursor), (&json!(true), &json!(self.cursor)));
            }
            assert_ne!(event.event, "reset", "{data}");
            self.cursor = event.id;
            if data["type"] == "message.created" {
                self.seen.push(data);
            }
            if self.has_last() {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_at_any_byte_is_resumed_without_loss_or_repetition() {
    let flags = ["--keepalive-interval", "100ms", "--max-connections-per-user", "100"];
    let parley = Parley::start_with(&flags).await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let mut dice = Dice::new();
    let (sending, cutting) = watch::channel(());
    let mut followers = JoinSet::new();
    for (number, how) in
        [Cut::Reset, Cut::Closed, Cut::Silent].repeat(FOLLOWERS).into_iter().enumerate()
    {
        let line = FaultProxy::before(&parley.ingress).await;
        let client = project.client.through(&line.url);
        let follower = Follower {
            project: Project { client, id: project.id.clone() },
            line,
            name: format!("tab-{number}"),
            cursor: cursor.clone(),
            seen: Vec::new(),
        };
        let mut faults = || {
            let piece = if matches!(how, Cut::Closed) { dice.roll(7) } else { 0 };
            Faults { piece, cut: Some((dice.roll(SPAN), how)), ..Faults::default() }
        };
        let cuts = (0..CUTS).map(|_| faults()).collect();
        followers.spawn(follower.follow(cuts, cutting.clone()));
    }
    drop(cutting);
    while !sending.is_closed() {
        project.send(&"é→😀".repeat(dice.roll(100))).await;
    }
    project.send(LAST).await;
    let log = project.log(&cursor).await;
    for seen in followers.join_all().await {
        let differs = seen.iter().zip(&log).position(|(seen, logged)| seen != logged);
        assert_eq!((seen.len(), differs), (log.len(), None));
    }
}

#[tokio::test]
async fn a_slow_and_narrow_line_carries_the_same_stream() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let cursor = project.cursor().await;
    let line = FaultProxy::before(&parley.ingress).await;
    let delay = Duration::from_millis(1);
    line.set(Faults { delay, piece: 61, per_second: 30_000, cut: None });
    let narrow = Project { client: project.client.through(&line.url), id: project.id.clone() };
    let (mut stream, _) = narrow.stream(&format!("&since={cursor}")).await;
    for number in 0..20 {
        project.send(&format!("{number} é→😀")).await;
    }
    for event in project.log(&cursor).await {
        assert_eq!(stream.entry().await.data, event);
    }
}
