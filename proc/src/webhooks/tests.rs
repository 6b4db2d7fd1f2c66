//! Webhooks over both databases: which are due, what a late job can still change, and what is kept of deliveries.

use std::time::Duration;

use cluster::{on_both_stores, scratch::Home};
use serde_json::value::to_raw_value;
use shared::{
    bus::Bus,
    journal::{Cursor, Position},
    store::{Error, Store, Tx, Value},
};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    attempt::{Attempt, Failure, Message},
    deliveries,
    dispatch::{Ahead, ahead},
    store::{Revision, Stored},
    *,
};
use crate::outgoing::Sealed;

on_both_stores!(
    it_is_due_when_there_is_more_it_is_time_and_nobody_delivers,
    what_nobody_wants_is_skipped_and_a_log_that_was_replaced_is_not,
    a_late_job_changes_nothing_of_a_webhook_that_was_changed,
    attempts_are_counted_for_each_message_and_old_ones_go,
    one_that_is_left_behind_goes_after_a_while_and_no_other,
);

const DAY: Duration = Duration::from_hours(24);

struct Scratch {
    store: Store,
    project: ProjectId,
    _folder: TempDir,
}

impl Scratch {
    async fn new(home: Home) -> Self {
        let (folder, bus) = (tempfile::tempdir().unwrap(), Bus::default());
        let store = match home.url() {
            Some(url) => Store::connect(&url, &bus, None).unwrap(),
            None => Store::open(folder.path(), &bus).unwrap(),
        };
        let scratch = Self { store, project: ProjectId::mint(), _folder: folder };
        scratch.happens("project.updated", 1).await;
        scratch
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> T {
        self.store.write(work).await.unwrap()
    }

    async fn happens(&self, kind: &'static str, times: usize) {
        let log = Topic::project(self.project);
        self.write(move |tx| tx.append_all(&log, &vec![(kind, "{}"); times]).map(drop)).await;
    }

    async fn subscribe(&self, events: &[&str]) -> WebhookId {
        let events: Vec<String> = events.iter().map(|&kind| kind.to_owned()).collect();
        let new = New {
            id: WebhookId::mint(),
            project_id: self.project,
            owner: "ada".parse().unwrap(),
            url: "https://example.org/".parse().unwrap(),
            secret: Sealed::new(WEBHOOK, "", "sealed".into()),
            events: events.try_into().unwrap(),
        };
        let id = new.id;
        self.write(move |tx| {
            let head = tx.head(&Topic::project(new.project_id))?.unwrap();
            store::insert(tx, &new, head)
        })
        .await;
        id
    }

    async fn find(&self, id: WebhookId) -> Stored {
        let found = self.store.read(move |reader| store::find(reader, id)).await;
        found.map_err(|error: Error| error).unwrap().unwrap()
    }

    async fn is_due(&self, id: WebhookId) -> bool {
        let now = Timestamp::now().after(Duration::from_secs(1));
        let due = self.store.read(move |reader| store::due(reader, now, None, 100)).await;
        due.map_err(|error: Error| error).unwrap().iter().any(|webhook| webhook.id == id)
    }

    async fn change(&self, id: WebhookId, active: bool, by: &str) -> Stored {
        let by = by.parse().unwrap();
        let change = Change { url: None, events: None, active: Some(active), by };
        self.write(move |tx| store::change(tx, id, &change)).await.unwrap()
    }

    /// Moves a webhook to the end of its log.
    async fn advance(&self, id: WebhookId, from: String) -> Option<Uuid> {
        let log = Topic::project(self.project);
        self.write(move |tx| {
            let head = tx.head(&log)?.unwrap();
            store::advance(tx, id, &from, (&Cursor::at(&log, head).to_string(), head))
        })
        .await
    }

    async fn disable(&self, revision: Revision, reason: &'static str) -> bool {
        self.write(move |tx| store::disable(tx, revision, reason)).await
    }

    async fn ahead(&self, id: WebhookId) -> Ahead {
        let webhook = self.find(id).await;
        self.store.read(move |reader| ahead(reader, &webhook)).await.map_err(|e: Error| e).unwrap()
    }
}

async fn it_is_due_when_there_is_more_it_is_time_and_nobody_delivers(home: Home) {
    let scratch = Scratch::new(home).await;
    let id = scratch.subscribe(&["*"]).await;
    assert!(!scratch.is_due(id).await);
    scratch.happens("message.created", 3).await;
    assert!(scratch.is_due(id).await);
    // A job of another webhook, or one that has ended, delivers nothing of this one.
    let job = |owner: &'static str, key: String, state: &'static str| {
        scratch.write(move |tx| {
            let sql = "INSERT INTO jobs (id, owner, project_id, bundle, operation, input, state, attempt, max_attempts, \
                       crashes, fence, run_after, progress, trace_id, created_at, unique_key) \
                       VALUES ($1, $2, $1, 'webhook', 'deliver', '{}', $3, 1, 3, 0, 7, 0, '{}', 't', 0, $4)";
            let params = [Value::Uuid(Uuid::now_v7()), owner.into(), state.into(), (&key).into()];
            tx.execute(sql, &params).map(drop)
        })
    };
    job("ada", WebhookId::mint().to_string(), "queued").await;
    job("ada", id.to_string(), "succeeded").await;
    assert!(scratch.is_due(id).await);
    job("ada", id.to_string(), "interrupted").await;
    assert!(!scratch.is_due(id).await);
    scratch.write(|tx| tx.execute("UPDATE jobs SET state = 'failed'", &[]).map(drop)).await;
    assert!(scratch.is_due(id).await);
    // A delivery that its owner before began goes on.
    job("grace", id.to_string(), "running").await;
    assert!(!scratch.is_due(id).await);
    scratch.write(|tx| tx.execute("UPDATE jobs SET state = 'failed'", &[]).map(drop)).await;
    assert!(scratch.is_due(id).await);
    // Later, when it is time; at once, when somebody says so; not while it is paused.
    let revision = scratch.find(id).await.revision();
    let (since, at) = (Timestamp::now(), Timestamp::now().after(DAY));
    assert!(scratch.write(move |tx| store::wait(tx, revision, 4, since, at)).await);
    assert!(!scratch.is_due(id).await);
    assert_eq!(scratch.find(id).await.failures, 4);
    scratch.change(id, true, "ada").await;
    assert!(scratch.is_due(id).await);
    scratch.change(id, false, "ada").await;
    assert!(!scratch.is_due(id).await);
    scratch.change(id, true, "ada").await;
    let from = scratch.find(id).await.cursor;
    assert!(scratch.advance(id, from).await.is_some());
    assert!(!scratch.is_due(id).await);
}

async fn what_nobody_wants_is_skipped_and_a_log_that_was_replaced_is_not(home: Home) {
    let scratch = Scratch::new(home).await;
    let id = scratch.subscribe(&["channel.created"]).await;
    scratch.happens("message.created", 350).await;
    for left in [150, 0] {
        let Ahead::Skip(to) = scratch.ahead(id).await else { panic!("nothing of it is wanted") };
        let position = to.position(&Topic::project(scratch.project)).unwrap();
        assert_eq!(position.seq, 351 - left);
        let (from, to) = (scratch.find(id).await.cursor, to.to_string());
        let moved = scratch.write(move |tx| store::advance(tx, id, &from, (&to, position))).await;
        assert!(moved.is_some());
        assert_eq!(scratch.is_due(id).await, left > 0);
    }
    scratch.happens("message.created", 1).await;
    scratch.happens("channel.created", 1).await;
    assert!(matches!(scratch.ahead(id).await, Ahead::Deliver));
    let log = Topic::project(scratch.project);
    scratch.write(move |tx| tx.forget(&log)).await;
    assert!(!scratch.is_due(id).await);
    scratch.happens("message.created", 1).await;
    // Another log under this name: its receiver has to be told.
    assert!(scratch.is_due(id).await);
    assert!(matches!(scratch.ahead(id).await, Ahead::Deliver));
}

async fn a_late_job_changes_nothing_of_a_webhook_that_was_changed(home: Home) {
    let scratch = Scratch::new(home).await;
    let id = scratch.subscribe(&["*"]).await;
    let old = scratch.find(id).await;
    let changed = scratch.change(id, true, "grace").await;
    // It was active: it stays whose it was.
    assert_eq!(changed.owner.as_str(), "ada");
    let (revision, at) = (old.revision(), Timestamp::now());
    assert!(!scratch.disable(revision, "gone").await);
    assert!(!scratch.write(move |tx| store::wait(tx, revision, 9, at, at.after(DAY))).await);
    let same = scratch.find(id).await;
    assert_eq!(
        (same.state, same.failures, same.next_at),
        (WebhookState::Active, 0, changed.next_at)
    );
    // What it has delivered stands, once; the answer tells that something is new.
    scratch.happens("message.created", 1).await;
    let moved = scratch.advance(id, old.cursor.clone()).await;
    assert!(moved.is_some() && moved != Some(old.revision));
    assert_eq!(scratch.advance(id, old.cursor).await, None);
    assert!(scratch.disable(same.revision(), "gone").await);
    let disabled = scratch.find(id).await;
    assert_eq!(
        (disabled.state, disabled.reason.as_deref()),
        (WebhookState::Disabled, Some("gone"))
    );
    let active = scratch.change(id, true, "grace").await;
    assert_eq!(
        (active.state, active.reason, active.owner.as_str()),
        (WebhookState::Active, None, "grace")
    );
    scratch.write(move |tx| store::delete(tx, id)).await;
    assert_eq!(scratch.advance(id, active.cursor).await, None);
}

async fn attempts_are_counted_for_each_message_and_old_ones_go(home: Home) {
    let scratch = Scratch::new(home).await;
    let (id, other) = (scratch.subscribe(&["*"]).await, scratch.subscribe(&["*"]).await);
    let event = to_raw_value("x").unwrap();
    let message = move |webhook, seq, tag| {
        let position = Position { epoch: 1, seq, tag };
        Message::new(webhook, "message.created".into(), position, Timestamp::now(), &event).unwrap()
    };
    let attempt = |failure| Attempt { http_status: Some(500), duration: DAY, failure };
    let failed = attempt(Some(Failure { code: "not_accepted", asked: None }));
    let record = async |message: Message, attempt, is_last| {
        scratch
            .write(move |tx| deliveries::record(tx, id, &message, "v1.before", attempt, is_last))
            .await;
    };
    let rows = async || {
        let sql = "SELECT seq, status, attempts FROM webhook_deliveries WHERE webhook_id = $1 ORDER BY seq";
        let rows = scratch.store.read(move |reader| {
            reader.query(sql, &[id.into()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        });
        let rows: Result<Vec<(i64, String, i64)>, Error> = rows.await;
        rows.unwrap()
    };
    record(message(id, 7, 1), failed, false).await;
    record(message(id, 7, 1), failed, false).await;
    assert_eq!(rows().await, [(7, "pending".into(), 2)]);
    record(message(id, 7, 1), failed, true).await;
    assert_eq!(rows().await, [(7, "failed".into(), 3)]);
    record(message(id, 7, 1), attempt(None), false).await;
    assert_eq!(rows().await, [(7, "delivered".into(), 4)]);
    // The same number of a log that had lost its end is another message.
    record(message(id, 7, 2), failed, false).await;
    assert_eq!(rows().await, [(7, "pending".into(), 1)]);
    scratch
        .write(move |tx| {
            for seq in 8..=1_010 {
                deliveries::record(tx, id, &message(id, seq, 1), "", attempt(None), false)?;
            }
            // The first one was passed, the other one waits.
            deliveries::record(tx, other, &message(other, 1, 1), "", failed, false)?;
            deliveries::record(tx, other, &message(other, 2, 1), "", failed, false)
        })
        .await;
    let prune = async |oldest| deliveries::prune(&scratch.store, oldest).await.unwrap();
    assert_eq!(prune(Timestamp::now().before(DAY)).await, 4);
    let kept = rows().await;
    assert_eq!((kept.len(), kept[0].0, kept[999].0), (1_000, 11, 1_010));
    assert_eq!(prune(Timestamp::now().after(DAY)).await, 1_001);
    assert!(rows().await.is_empty());
    // One that waits to be tried again is kept as long as its webhook.
    scratch.write(move |tx| store::delete(tx, other)).await;
    assert_eq!(prune(Timestamp::now().before(DAY)).await, 1);
}

async fn one_that_is_left_behind_goes_after_a_while_and_no_other(home: Home) {
    let scratch = Scratch::new(home).await;
    let mut ids = Vec::new();
    for reason in ["not_owner", "gone"] {
        let id = scratch.subscribe(&["*"]).await;
        assert!(scratch.disable(scratch.find(id).await.revision(), reason).await);
        ids.push(id);
    }
    ids.push(scratch.subscribe(&["*"]).await);
    let project = scratch.project;
    let left = async |oldest| {
        store::forget(&scratch.store, oldest).await.unwrap();
        let left = scratch.store.read(move |reader| store::list(reader, project)).await;
        let left: Vec<Stored> = left.map_err(|error: Error| error).unwrap();
        left.into_iter().map(|webhook| webhook.id).collect::<Vec<_>>()
    };
    assert_eq!(left(Timestamp::now().before(DAY)).await, ids);
    assert_eq!(left(Timestamp::now().after(DAY)).await, ids[1..]);
}
