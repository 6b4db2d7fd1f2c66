//! Tests firing over a real store: once, by one replica, for each time.

use std::{sync::Arc, time::Duration};

use clap::Parser;
use cluster::{on_both_stores, scratch::Home};
use serde_json::json;
use shared::{
    bus::Bus, grpc::Peer, service_token::Service, service_token::ServiceToken, store::Store,
    time::Timestamp,
};
use tempfile::TempDir;

use super::{
    firing::{Fire, Scheduler},
    *,
};
use crate::{
    JobsConfig,
    access::ProjectRoles,
    blobs::Blobs,
    jobs::{self, Engine, Filter, Tools, machine::Job},
    storage::{Quota, StorageLimit},
};

on_both_stores!(
    a_time_is_one_job_however_many_replicas_there_are,
    what_was_missed_is_skipped_or_made_up_for_by_one_job,
    a_time_before_the_last_job_has_ended_goes_by_the_rule,
    a_schedule_waits_for_room_in_the_queue,
    a_time_is_one_submission_even_if_it_comes_again,
    a_project_has_no_more_schedules_than_it_may_have,
    what_may_not_be_called_any_more_is_disabled,
);

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    jobs: JobsConfig,
}

/// One replica that fires schedules.
struct Replica {
    store: Store,
    registry: Arc<Registry>,
    scheduler: Scheduler,
    _folder: TempDir,
}

impl Replica {
    fn open(url: Option<&str>, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bus = Bus::default();
        let store = match url {
            None => Store::open(folder.path(), &bus).unwrap(),
            Some(url) => Store::connect(url, &bus, None).unwrap(),
        };
        Self::of(store, bus, folder, settings)
    }

    fn of(store: Store, bus: Bus, folder: TempDir, settings: &[&str]) -> Self {
        let nowhere = vec!["http://127.0.0.1:1".parse().unwrap()];
        let ingress = Ingress::new(&Peer::new(Service::Proc, nowhere, ServiceToken::random()));
        let registry = Arc::new(Registry::built_in(true).unwrap());
        let tools = Tools {
            store: store.clone(),
            bus,
            blobs: Blobs::open(folder.path()).unwrap(),
            roles: ProjectRoles::of_everybody(ingress.clone()),
            ingress: ingress.clone(),
            registry: registry.clone(),
            quota: Quota::new(StorageLimit::Off),
        };
        let jobs = Settings::parse_from([&["test"], settings].concat()).jobs;
        let engine = Engine::new(tools, &jobs);
        let scheduler =
            Scheduler::new(store.clone(), registry.clone(), ProjectRoles::new(ingress), engine);
        Self { store, registry, scheduler, _folder: folder }
    }

    /// Returns a first replica and another one on the same database.
    fn two(home: Home) -> (Self, Self) {
        let url = home.url();
        let one = Self::open(url.as_deref(), &[]);
        let two = match &url {
            Some(url) => Self::open(Some(url), &[]),
            // A file has one process, where both share the writer.
            None => Self::of(one.store.clone(), Bus::default(), tempfile::tempdir().unwrap(), &[]),
        };
        (one, two)
    }

    async fn insert(&self, schedule: &Schedule) -> bool {
        let schedule = schedule.clone();
        let inserted = self.store.write(move |tx| store::insert(tx, &schedule)).await;
        inserted.map_err(|error: shared::store::Error| error).unwrap()
    }

    async fn find(&self, id: ScheduleId) -> Schedule {
        let found = self.store.read(move |reader| find(reader, id)).await;
        found.map_err(|error: shared::store::Error| error).unwrap().expect("it is there")
    }

    /// Fires what this replica believes to be due, as if its owner might.
    async fn fire(&self, schedule: &Schedule, now: Timestamp) -> Result<bool, jobs::Error> {
        let Some(fire) = Fire::plan(schedule, now) else { return Ok(false) };
        let declared = self.registry.find(&schedule.bundle, &schedule.operation).await?.unwrap();
        self.scheduler.submit(schedule, &declared, fire).await
    }

    async fn jobs(&self) -> Vec<Job> {
        let all = self.store.read(|reader| jobs::list(reader, &Filter::default(), 1000)).await;
        all.map_err(|error: shared::store::Error| error).unwrap()
    }
}

const MINUTE: Duration = Duration::from_mins(1);

fn noon() -> Timestamp {
    Timestamp::from_ms(1_795_262_400_000)
}

fn schedule(cron: &str, missed: Missed) -> Schedule {
    Schedule {
        id: ScheduleId::mint(),
        project_id: ProjectId::mint(),
        owner: "ada".parse().unwrap(),
        bundle: "demo".into(),
        operation: "count".into(),
        data: json!({"to": 1}),
        cron: cron.into(),
        time_zone: "UTC".into(),
        missed,
        overlap: Overlap::Queue,
        state: Status::Active,
        reason: None,
        next_fire_at: Some(noon()),
        last_fire_at: None,
        last_job_id: None,
        last_skipped_at: None,
        created_at: noon().before(MINUTE),
        updated_at: noon().before(MINUTE),
    }
}

async fn a_time_is_one_job_however_many_replicas_there_are(home: Home) {
    let (one, two) = Replica::two(home);
    let first = schedule("* * * * *", Missed::Skip);
    assert!(one.insert(&first).await);
    let before = noon().before(Duration::from_millis(1));
    assert!(!one.fire(&first, before).await.unwrap());
    for minute in 0..20 {
        let now = noon().after(MINUTE * minute);
        // Both have seen it due before either has fired it.
        let seen = one.find(first.id).await;
        assert_eq!(seen.next_fire_at, Some(now));
        let (a, b, c) =
            tokio::join!(one.fire(&seen, now), two.fire(&seen, now), two.fire(&seen, now));
        assert_eq!([a, b, c].map(Result::unwrap).into_iter().filter(|fired| *fired).count(), 1);
        let after = one.find(first.id).await;
        assert_eq!(after.last_fire_at, Some(now));
        let jobs = one.jobs().await;
        assert_eq!(jobs.len(), usize::try_from(minute).unwrap() + 1);
        assert_eq!(after.last_job_id, Some(jobs[0].id));
        assert_eq!((&jobs[0].owner, jobs[0].project_id), (&first.owner, first.project_id));
        assert_eq!(*jobs[0].input, first.data);
    }
}

async fn what_was_missed_is_skipped_or_made_up_for_by_one_job(home: Home) {
    let replica = Replica::open(home.url().as_deref(), &[]);
    // Nobody was there for three hours and a half.
    let now = noon().after(MINUTE * 210);
    let next = Some(noon().after(MINUTE * 240));
    for (missed, jobs) in [(Missed::Skip, 0), (Missed::Once, 1)] {
        let hourly = schedule("0 * * * *", missed);
        assert!(replica.insert(&hourly).await);
        let due = replica.store.read(move |reader| store::due(reader, now, 10)).await;
        let due: Vec<Schedule> = due.map_err(|error: shared::store::Error| error).unwrap();
        assert_eq!(due.len(), 1);
        assert!(replica.fire(&due[0], now).await.unwrap());
        let after = replica.find(hourly.id).await;
        assert_eq!((after.next_fire_at, after.state), (next, Status::Active));
        assert_eq!(after.last_fire_at, (jobs == 1).then(noon));
        assert_eq!(replica.jobs().await.len(), jobs);
    }
    // A time that is not long ago was not missed, whatever came before it.
    let now = noon().after(MINUTE * 60 + Duration::from_secs(20));
    let hourly = schedule("0 * * * *", Missed::Skip);
    assert!(replica.insert(&hourly).await);
    assert!(replica.fire(&hourly, now).await.unwrap());
    let seen = replica.find(hourly.id).await;
    assert_eq!((seen.next_fire_at, seen.last_fire_at), (Some(noon().after(MINUTE * 60)), None));
    assert!(replica.fire(&seen, now).await.unwrap());
    assert_eq!(replica.find(hourly.id).await.last_fire_at, seen.next_fire_at);
    assert_eq!(replica.jobs().await.len(), 2);
}

async fn a_time_before_the_last_job_has_ended_goes_by_the_rule(home: Home) {
    let replica = Replica::open(home.url().as_deref(), &[]);
    let expected = [
        (Overlap::Skip, vec!["queued"], Some(noon().after(MINUTE))),
        (Overlap::Queue, vec!["queued", "queued"], None),
        (Overlap::CancelRunning, vec!["queued", "cancelled"], None),
    ];
    for (overlap, states, skipped_at) in expected {
        let schedule = Schedule { overlap, ..schedule("* * * * *", Missed::Skip) };
        // Another's job of the same owner is none of its business.
        let other = Schedule { overlap, ..self::schedule("* * * * *", Missed::Skip) };
        let before = replica.jobs().await.len();
        for schedule in [&schedule, &other] {
            assert!(replica.insert(schedule).await);
        }
        assert!(replica.fire(&schedule, noon()).await.unwrap());
        let seen = replica.find(schedule.id).await;
        let first = seen.last_job_id;
        assert!(replica.fire(&seen, noon().after(MINUTE)).await.unwrap());
        assert!(!replica.fire(&seen, noon().after(MINUTE)).await.unwrap(), "its time is gone");
        let seen = replica.find(schedule.id).await;
        assert_eq!((seen.last_skipped_at, seen.overlap), (skipped_at, overlap));
        assert_eq!(seen.next_fire_at, Some(noon().after(MINUTE * 2)));
        assert_eq!(seen.last_job_id == first, skipped_at.is_some(), "{overlap:?}");
        // The newest first.
        let jobs = replica.jobs().await;
        let made = jobs[..jobs.len() - before].iter();
        let made: Vec<_> = made.map(|job| job.state.as_str()).collect();
        assert_eq!(made, states, "{overlap:?}");
        assert!(replica.fire(&other, noon()).await.unwrap());
        assert_eq!(replica.find(other.id).await.last_fire_at, Some(noon()), "{overlap:?}");
    }
}

async fn a_schedule_waits_for_room_in_the_queue(home: Home) {
    let replica = Replica::open(home.url().as_deref(), &["--proc-queue-limit=1"]);
    let (first, second) =
        (schedule("* * * * *", Missed::Skip), schedule("* * * * *", Missed::Skip));
    for schedule in [&first, &second] {
        assert!(replica.insert(schedule).await);
    }
    assert!(replica.fire(&first, noon()).await.unwrap());
    let full = replica.fire(&second, noon()).await;
    assert!(matches!(full, Err(jobs::Error::QueueFull { .. })));
    // Nothing of it is there, so the time is still to come.
    assert_eq!(replica.find(second.id).await, second);
    assert_eq!(replica.jobs().await.len(), 1);
}

async fn a_time_is_one_submission_even_if_it_comes_again(home: Home) {
    let replica = Replica::open(home.url().as_deref(), &[]);
    let mut schedule = schedule("* * * * *", Missed::Skip);
    assert!(replica.insert(&schedule).await);
    assert!(replica.fire(&schedule, noon()).await.unwrap());
    // As a database does that was restored to before it fired, but for its jobs.
    schedule.updated_at = noon();
    let before = schedule.clone();
    let saved = replica.store.write(move |tx| store::save(tx, &before)).await;
    saved.map_err(|error: shared::store::Error| error).unwrap();
    assert!(replica.fire(&schedule, noon()).await.unwrap());
    assert_eq!(replica.jobs().await.len(), 1);
}

async fn a_project_has_no_more_schedules_than_it_may_have(home: Home) {
    let (one, two) = Replica::two(home);
    let project = ProjectId::mint();
    let new = || Schedule { project_id: project, ..schedule("0 0 1 1 *", Missed::Skip) };
    let mut room = 0;
    for _ in 0..MAX_PER_PROJECT {
        let (a, b) = (new(), new());
        let (a, b) = tokio::join!(one.insert(&a), two.insert(&b));
        room += usize::from(a) + usize::from(b);
    }
    assert_eq!(i64::try_from(room).unwrap(), MAX_PER_PROJECT);
    let list = one.store.read(move |reader| store::list(reader, project, None)).await;
    let list = list.map_err(|error: shared::store::Error| error).unwrap();
    assert_eq!(i64::try_from(list.len()).unwrap(), MAX_PER_PROJECT);
    let id = list[0].id;
    let deleted = one.store.write(move |tx| store::delete(tx, id)).await;
    deleted.map_err(|error: shared::store::Error| error).unwrap();
    assert!(two.insert(&new()).await);
    assert!(!two.insert(&new()).await);
    assert!(two.insert(&schedule("0 0 1 1 *", Missed::Skip)).await);
}

async fn what_may_not_be_called_any_more_is_disabled(home: Home) {
    let replica = Replica::open(home.url().as_deref(), &[]);
    let gone = Schedule { operation: "gone".into(), ..schedule("* * * * *", Missed::Once) };
    let unfit = Schedule { data: json!({"to": "1"}), ..schedule("* * * * *", Missed::Once) };
    let fit = schedule("* * * * *", Missed::Once);
    for schedule in [&gone, &unfit, &fit] {
        assert!(replica.insert(schedule).await);
    }
    // Nobody can be asked what a user may do, so nothing else happens.
    let round = replica.scheduler.round(noon()).await;
    assert!(matches!(round, Err(ApiError::Unavailable)));
    assert_eq!(replica.find(fit.id).await, fit);
    assert_eq!(replica.find(unfit.id).await, unfit);
    assert!(replica.jobs().await.is_empty());
    // There is nothing to ask about what is gone. It may have been behind those that had to wait, and the round may have ended
    // while its change was still being written: then it is written by the time that this is.
    replica.scheduler.fire(&gone, noon()).await.unwrap();
    let disabled = replica.find(gone.id).await;
    assert_eq!((disabled.state, disabled.next_fire_at), (Status::Disabled, None));
    assert_eq!(disabled.reason.as_deref(), Some("the operation does not exist"));
}

#[test]
fn a_change_moves_the_next_time_only_if_it_is_about_it() {
    let now = noon().after(MINUTE);
    let active = schedule("0 * * * *", Missed::Skip);
    let change = |schedule: &Schedule, change: Change| schedule.clone().changed(change, now);
    // It is due, and stays so while its data changes.
    let data = Some(json!({"to": 2}));
    let given = data.clone().map(Into::into);
    let changed = change(&active, Change { data: given, ..Change::default() }).unwrap();
    assert_eq!((changed.next_fire_at, Some(changed.data)), (Some(noon()), data));
    let cron = Some("30 * * * *".to_owned());
    let changed = change(&active, Change { cron, ..Change::default() }).unwrap();
    assert_eq!(changed.next_fire_at, Some(noon().after(MINUTE * 30)));
    let time_zone = Some("asia/kathmandu".to_owned());
    let changed = change(&active, Change { time_zone, ..Change::default() }).unwrap();
    // It is a quarter to six there.
    assert_eq!(changed.next_fire_at, Some(noon().after(MINUTE * 15)));
    assert_eq!(changed.time_zone, "Asia/Kathmandu");

    let stop = Change { active: Some(false), ..Change::default() };
    let paused = change(&active, stop).unwrap();
    assert_eq!((paused.state, paused.next_fire_at), (Status::Paused, None));
    let cron = Some("15 * * * *".to_owned());
    let still = change(&paused, Change { cron, ..Change::default() }).unwrap();
    assert_eq!((still.state, still.next_fire_at), (Status::Paused, None));
    let go_on = Change { active: Some(true), ..Change::default() };
    let again = change(&still, go_on.clone()).unwrap();
    assert_eq!(again.next_fire_at, Some(noon().after(MINUTE * 15)));
    // What is active already keeps the time that has come.
    assert_eq!(change(&active, go_on.clone()).unwrap().next_fire_at, Some(noon()));
    let reason = Some("the operation does not exist".to_owned());
    let disabled = Schedule { state: Status::Disabled, reason, next_fire_at: None, ..active };
    let again = change(&disabled, go_on).unwrap();
    assert_eq!((again.state, again.reason), (Status::Active, None));
    for line in ["0 0 30 2 *", "x"] {
        let cron = Some(line.to_owned());
        assert!(change(&paused, Change { cron, ..Change::default() }).is_err());
    }
}
