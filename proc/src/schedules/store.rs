//! Schedules in the database. Whatever changes one holds the log of who made it, so it does not fire meanwhile.

use shared::{
    ids::{JobId, ProjectId, ScheduleId, UserId},
    journal::Topic,
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};

use super::{MAX_PER_PROJECT, Overlap, Schedule, Status, firing::Fire};
use crate::jobs::{
    self, Idempotency, QueueLimit,
    machine::{Command, Job},
};

const COLUMNS: &str = "id, project_id, owner, bundle, operation, data, cron, time_zone, missed, state, reason, next_fire_at, \
    last_fire_at, last_job_id, created_at, updated_at, overlap, last_skipped_at";

/// Writes a new schedule, and says whether its project had room for it.
pub(super) fn insert(tx: &mut Tx<'_>, schedule: &Schedule) -> Result<bool, Error> {
    // It may be the first of its owner's, and whatever becomes of it holds their log.
    let log = Topic::user(&schedule.owner);
    if tx.head(&log)?.is_none() {
        tx.ensure(&log)?;
    }
    let sql = "SELECT n FROM schedules WHERE project_id = $1";
    let taken: Vec<i64> = tx.query(sql, &[schedule.project_id.into()], |row| row.get(0))?;
    for n in (0..MAX_PER_PROJECT).filter(|n| !taken.contains(n)) {
        let inserted = tx.execute(
            "INSERT INTO schedules (id, project_id, n, owner, bundle, operation, data, cron, time_zone, missed, state, \
             next_fire_at, created_at, updated_at, overlap) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
             ON CONFLICT (project_id, n) DO NOTHING",
            &[
                schedule.id.into(),
                schedule.project_id.into(),
                n.into(),
                (&schedule.owner).into(),
                (&schedule.bundle).into(),
                (&schedule.operation).into(),
                (&schedule.data.to_string()).into(),
                (&schedule.cron).into(),
                (&schedule.time_zone).into(),
                schedule.missed.as_str().into(),
                schedule.state.as_str().into(),
                schedule.next_fire_at.into(),
                schedule.created_at.into(),
                schedule.updated_at.into(),
                schedule.overlap.as_str().into(),
            ],
        )?;
        // Else another has taken this place just now.
        if inserted == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes what can change of a schedule.
pub(super) fn save(tx: &mut Tx<'_>, schedule: &Schedule) -> Result<(), Error> {
    tx.execute(
        "UPDATE schedules SET data = $2, cron = $3, time_zone = $4, missed = $5, state = $6, reason = $7, next_fire_at = $8, \
         updated_at = $9, overlap = $10 WHERE id = $1",
        &[
            schedule.id.into(),
            (&schedule.data.to_string()).into(),
            (&schedule.cron).into(),
            (&schedule.time_zone).into(),
            schedule.missed.as_str().into(),
            schedule.state.as_str().into(),
            schedule.reason.as_ref().into(),
            schedule.next_fire_at.into(),
            schedule.updated_at.into(),
            schedule.overlap.as_str().into(),
        ],
    )?;
    Ok(())
}

pub(super) fn delete(tx: &mut Tx<'_>, id: ScheduleId) -> Result<(), Error> {
    tx.execute("DELETE FROM schedules WHERE id = $1", &[id.into()]).map(drop)
}

/// Returns the schedule, if there is one.
pub(crate) fn find(reader: &Reader<'_>, id: ScheduleId) -> Result<Option<Schedule>, Error> {
    reader.find(&format!("SELECT {COLUMNS} FROM schedules WHERE id = $1"), &[id.into()], read)
}

/// Returns a project's schedules, or those of one user, the newest first.
pub(super) fn list(
    reader: &Reader<'_>,
    project: ProjectId,
    owner: Option<&UserId>,
) -> Result<Vec<Schedule>, Error> {
    let of_owner = if owner.is_some() { "AND owner = $2" } else { "" };
    let sql = format!(
        "SELECT {COLUMNS} FROM schedules WHERE project_id = $1 {of_owner} ORDER BY id DESC"
    );
    let params: Vec<Value<'_>> =
        std::iter::once(project.into()).chain(owner.map(Into::into)).collect();
    reader.query(&sql, &params, read)
}

/// Returns schedules whose time has come, the longest overdue first.
pub(super) fn due(reader: &Reader<'_>, now: Timestamp, limit: i64) -> Result<Vec<Schedule>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM schedules WHERE state = 'active' AND next_fire_at <= $1 ORDER BY next_fire_at LIMIT $2"
    );
    reader.query(&sql, &[now.into(), limit.into()], read)
}

/// Returns active schedules behind one, by id.
pub(super) fn active(
    reader: &Reader<'_>,
    after: Option<ScheduleId>,
    limit: i64,
) -> Result<Vec<Schedule>, Error> {
    let behind = if after.is_some() { "AND id > $2" } else { "" };
    let sql = format!(
        "SELECT {COLUMNS} FROM schedules WHERE state = 'active' {behind} ORDER BY id LIMIT $1"
    );
    let params: Vec<Value<'_>> =
        std::iter::once(limit.into()).chain(after.map(Into::into)).collect();
    reader.query(&sql, &params, read)
}

/// Sets the next time of an active schedule, if it is still `before`.
pub(super) fn set_next(
    tx: &mut Tx<'_>,
    id: ScheduleId,
    before: Timestamp,
    next: Timestamp,
) -> Result<bool, Error> {
    let sql = "UPDATE schedules SET next_fire_at = $3 WHERE id = $1 AND state = 'active' AND next_fire_at = $2";
    Ok(tx.execute(sql, &[id.into(), before.into(), next.into()])? > 0)
}

/// Jobs that a schedule made and that have not ended, as far as its rule is about them.
struct Overlapping {
    rule: Overlap,
    unfinished: Vec<JobId>,
}

impl Overlapping {
    fn find(reader: &Reader<'_>, schedule: ScheduleId) -> Result<Self, Error> {
        let sql = "SELECT owner, overlap FROM schedules WHERE id = $1";
        let found = reader.find(sql, &[schedule.into()], |row| {
            Ok((row.get::<UserId>(0)?, row.parse::<Overlap>(1)?))
        })?;
        let (rule, unfinished) = match found {
            None | Some((_, Overlap::Queue)) => (Overlap::Queue, Vec::new()),
            Some((owner, rule)) => (rule, jobs::unfinished(reader, &owner, &keys(schedule))?),
        };
        Ok(Self { rule, unfinished })
    }

    fn is_skipped(&self) -> bool {
        self.rule == Overlap::Skip && !self.unfinished.is_empty()
    }
}

/// Returns the beginning of the idempotency keys of a schedule's jobs.
fn keys(schedule: ScheduleId) -> String {
    format!("schedule:{schedule}:")
}

/// Moves a schedule on, with the job of its time if there is to be one; says whether it was still at that time, which it is
/// for one replica alone.
pub(super) fn fire(
    tx: &mut Tx<'_>,
    fire: &Fire,
    job: Option<(&Job, &QueueLimit)>,
) -> Result<bool, jobs::Error> {
    let (state, reason) = match fire.next {
        Ok(_) => (Status::Active, None),
        Err(ref reason) => (Status::Disabled, Some(reason)),
    };
    let overlapping = match job {
        Some(_) => Some(Overlapping::find(tx, fire.schedule)?),
        None => None,
    };
    let skipped = overlapping.as_ref().filter(|overlapping| overlapping.is_skipped());
    let skipped = skipped.map(|_| fire.time);
    let job = job.filter(|_| skipped.is_none());
    let moved = tx.execute(
        "UPDATE schedules SET next_fire_at = $3, state = $4, reason = $5, last_fire_at = COALESCE($6, last_fire_at), \
         last_job_id = COALESCE($7, last_job_id), last_skipped_at = COALESCE($8, last_skipped_at) WHERE id = $1 AND state = 'active' AND next_fire_at = $2",
        &[
            fire.schedule.into(),
            fire.time.into(),
            fire.next.as_ref().ok().copied().into(),
            state.as_str().into(),
            reason.into(),
            job.map(|_| fire.time).into(),
            job.map(|(job, _)| job.id).into(),
            skipped.into(),
        ],
    )?;
    if moved == 0 {
        return Ok(false);
    }
    if let Some((job, limit)) = job {
        let overlapping = overlapping.filter(|all| all.rule == Overlap::CancelRunning);
        for id in overlapping.into_iter().flat_map(|all| all.unfinished) {
            jobs::apply(tx, id, Command::Cancel)?;
        }
        // A time of a schedule is one submission, whoever makes it.
        let key = format!("{}{}", keys(fire.schedule), fire.time.as_ms());
        let key = key.parse().map_err(|_| Error::Column { column: 0 })?;
        let made = jobs::submit(tx, job, Some(&Idempotency { key, request: [0; 32] }), limit)?;
        let line = format!("made by schedule {} for {}", fire.schedule, fire.time);
        jobs::log(tx, made.id, "info", &line)?;
    }
    Ok(true)
}

fn read(row: &Row<'_>) -> Result<Schedule, Error> {
    Ok(Schedule {
        id: row.get(0)?,
        project_id: row.get(1)?,
        owner: row.get(2)?,
        bundle: row.get(3)?,
        operation: row.get(4)?,
        data: row.json(5)?,
        cron: row.get(6)?,
        time_zone: row.get(7)?,
        missed: row.parse(8)?,
        state: row.parse(9)?,
        reason: row.get(10)?,
        next_fire_at: row.get(11)?,
        last_fire_at: row.get(12)?,
        last_job_id: row.get(13)?,
        created_at: row.get(14)?,
        updated_at: row.get(15)?,
        overlap: row.parse(16)?,
        last_skipped_at: row.get(17)?,
    })
}
