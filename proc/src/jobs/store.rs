//! Jobs in the database: every change is one transaction with the entry that tells of it, and holds its owner's log.

pub(super) mod claims;
pub(super) mod overview;
mod rows;
pub(super) mod submissions;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    sync::Arc,
};

use self::rows::{COLUMNS, read};
pub(crate) use self::submissions::{Idempotency, submit};
use super::{
    Error,
    machine::{self, Claim, Command, Event, Job, State},
};
use serde::Serialize;
use serde_json::json;
use shared::{
    ids::{JobId, ProjectId, TraceId, UserId},
    journal::Topic,
    sabotage::Sabotage,
    store::{self, Reader, Tx, Value},
    time::Timestamp,
};

/// A job that was given up: it failed in its last attempt, took more workers with it than `MAX_CRASHES`, or waited for
/// `MAX_SNOOZE`. Spelled as in the index.
const PARKED: &str = "j.state = 'failed' AND (j.attempt >= j.max_attempts OR j.crashes > 3 OR j.snoozed_ms >= 86400000)";

/// Jobs that have not ended: those who wait and those who run have an index each.
const UNFINISHED: &str = "(SELECT * FROM jobs WHERE state IN ('queued', 'interrupted') \
    UNION ALL SELECT * FROM jobs WHERE state = 'running')";

/// Which jobs a list holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) owner: Option<UserId>,
    pub(crate) project_id: Option<ProjectId>,
    pub(crate) state: Option<State>,
    pub(crate) bundle: Option<String>,
    pub(crate) operation: Option<String>,
    /// The code of the error that they failed with.
    pub(crate) code: Option<String>,
    pub(crate) unfinished: bool,
    /// Only jobs that were given up.
    pub(crate) parked: bool,
    /// Only jobs older than this one.
    pub(crate) before: Option<JobId>,
}

/// What became of a command.
pub(crate) type Outcome = Result<Arc<Job>, Error>;

/// Puts a job through the machine and writes what came of it, with the entry that tells of it.
pub(crate) fn apply(tx: &mut Tx<'_>, id: JobId, command: Command) -> Result<Job, Error> {
    let applied = apply_all(tx, vec![(id, command)])?.pop().unwrap_or(Err(Error::NotFound));
    applied.map(Arc::unwrap_or_clone)
}

/// Like [`apply`] for several jobs of an owner at once; what is refused of one changes nothing for the others.
pub(crate) fn apply_all(
    tx: &mut Tx<'_>,
    commands: Vec<(JobId, Command)>,
) -> Result<Vec<Outcome>, store::Error> {
    let ids: Vec<JobId> = commands.iter().map(|(id, _)| *id).collect();
    let jobs = rows::find_all(tx, &ids)?;
    apply_to(tx, jobs.into_iter().map(|(id, job)| (id, job.into())).collect(), commands)
}

/// Like [`apply_all`] for jobs that were read in this transaction.
fn apply_to(
    tx: &mut Tx<'_>,
    mut jobs: HashMap<JobId, Arc<Job>>,
    commands: Vec<(JobId, Command)>,
) -> Result<Vec<Outcome>, store::Error> {
    let (now, mut told) = (tx.now(), Vec::new());
    let mut outcomes = Vec::new();
    let mut changed = HashSet::new();
    for (id, command) in commands {
        let outcome = match jobs.get(&id) {
            None => Err(Error::NotFound),
            Some(job) => {
                let before = sabotaged(tx, Job::clone(job), &command);
                // Few jobs wait for a bundle; the others need no copy.
                let untold = before.is_untold().then(|| before.clone());
                let outcome = machine::transition(before, sabotaged_snooze(tx, command), now);
                outcome.map(|(job, event)| (untold, job, event)).map_err(Error::from)
            }
        };
        outcomes.push(outcome.map(|(untold, job, event)| {
            let start = untold.filter(|before| machine::tells_start(before, &job, event));
            told.extend(start.map(|before| Told::new(&before, Event::Started, now)));
            let job = Arc::new(job);
            jobs.insert(id, job.clone());
            changed.insert(id);
            told.extend(event.map(|event| Told::new(&job, event, now)));
            job
        }));
    }
    jobs.retain(|id, _| changed.contains(id));
    rows::save(tx, jobs.values().map(|job| &**job))?;
    for job in jobs.values().filter(|job| job.share.is_some() && job.state != State::Running) {
        claims::give_back(tx, job.id)?;
    }
    tell(tx, told)?;
    Ok(outcomes)
}

/// How a job ended that only its worker can have changed since it was read.
#[derive(Clone, Debug)]
pub(crate) struct End {
    job: Arc<Job>,
    /// Told first where the job's claim was not.
    start: Option<Told>,
    told: Option<Told>,
}

impl End {
    /// Puts the job through the machine, as it will be if it is still the worker's.
    pub(crate) fn new(
        job: &Job,
        command: Command,
        now: Timestamp,
    ) -> Result<Self, machine::Refused> {
        let before = job;
        let (job, event) = machine::transition(before.clone(), command, now)?;
        let start = machine::tells_start(before, &job, event)
            .then(|| Told::new(before, Event::Started, now));
        let told = event.map(|event| Told::new(&job, event, now));
        Ok(Self { job: job.into(), start, told })
    }
}

/// Writes ends of an owner's jobs; those are refused that are no longer their worker's.
pub(crate) fn end_all(tx: &mut Tx<'_>, ends: &[&End]) -> Result<Vec<Outcome>, store::Error> {
    let kept = rows::save_left(tx, ends.iter().map(|end| &*end.job))?;
    let is_kept = |end: &End| kept.contains(&end.job.id.0);
    for end in ends.iter().filter(|end| end.job.share.is_some() && is_kept(end)) {
        claims::give_back(tx, end.job.id)?;
    }
    let told = ends.iter().filter(|end| is_kept(end));
    let told = told.flat_map(|end| end.start.iter().chain(&end.told).cloned());
    tell(tx, told.collect())?;
    let outcome = |end: &&End| {
        let kept = is_kept(end).then(|| end.job.clone());
        kept.ok_or(Error::Refused(machine::Refused::Stale))
    };
    Ok(ends.iter().map(outcome).collect())
}

/// Leaves the job as it is, unless the deliberate bug is that every worker is believed.
fn sabotaged(tx: &Tx<'_>, job: Job, command: &Command) -> Job {
    match command.claim() {
        Some(Claim { worker, fence }) if tx.sabotage == Some(Sabotage::NoFence) => {
            Job { state: State::Running, worker, fence, ..job }
        }
        _ => job,
    }
}

/// Leaves the command as it is, unless the deliberate bug is about snoozes.
fn sabotaged_snooze(tx: &Tx<'_>, command: Command) -> Command {
    match (tx.sabotage, command) {
        (Some(Sabotage::SnoozeCounts), Command::Snooze { claim, wait, reason: Some(error) }) => {
            Command::Fail { claim, error, backoff: wait }
        }
        (Some(Sabotage::CallEarly), Command::Snooze { claim, wait, reason }) => {
            Command::Snooze { claim, wait: wait / 4, reason }
        }
        (_, command) => command,
    }
}

/// Refuses a worker that has lost its job.
pub(crate) fn check(reader: &Reader<'_>, id: JobId, claim: Claim) -> Result<(), Error> {
    let sql =
        "SELECT 1 FROM jobs WHERE id = $1 AND state = 'running' AND fence = $2 AND worker = $3";
    let held = reader.find(
        sql,
        &[id.into(), claim.fence.into(), claim.worker.map_or(Value::Null, Value::Uuid)],
        |_| Ok(()),
    )?;
    held.ok_or(Error::Refused(machine::Refused::Stale))
}

/// Refuses a worker that may not write the job's log: one that has lost the job, unless to a cancel.
pub(crate) fn check_log(reader: &Reader<'_>, id: JobId, claim: Claim) -> Result<(), Error> {
    let sql = "SELECT 1 FROM jobs WHERE id = $1 AND ((state = 'running' AND fence = $2 AND worker = $3) \
               OR (state = 'cancelled' AND fence = $2 + 1))";
    let params = [id.into(), claim.fence.into(), claim.worker.map_or(Value::Null, Value::Uuid)];
    let held = reader.find(sql, &params, |_| Ok(()))?;
    held.ok_or(Error::Refused(machine::Refused::Stale))
}

/// Returns the job.
pub(crate) fn find(reader: &Reader<'_>, id: JobId) -> Result<Job, Error> {
    let sql = format!("SELECT {COLUMNS} FROM jobs j WHERE j.id = $1");
    reader.find(&sql, &[id.into()], read)?.ok_or(Error::NotFound)
}

/// Returns an owner's jobs that have not ended and whose idempotency key begins in this way.
pub(crate) fn unfinished(
    reader: &Reader<'_>,
    owner: &UserId,
    keys: &str,
) -> Result<Vec<JobId>, store::Error> {
    let sql = format!(
        "SELECT j.id FROM {UNFINISHED} j WHERE j.owner = $1 AND substr(j.idempotency, 1, length($2)) = $2"
    );
    reader.query(&sql, &[owner.into(), keys.into()], |row| row.get(0))
}

/// Returns at most `limit` jobs, newest first.
pub(crate) fn list(
    reader: &Reader<'_>,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Job>, store::Error> {
    // A row's error begins with its code.
    let code = filter.code.as_ref().map(|code| format!("{{\"code\":{},", json!(code)));
    let (sql, params) = listing(filter, code.as_ref(), limit);
    reader.query(&sql, &params, read)
}

/// Returns the statement of a list, and its parameters.
pub(super) fn listing<'a>(
    filter: &'a Filter,
    code: Option<&'a String>,
    limit: i64,
) -> (String, Vec<Value<'a>>) {
    // Those who have not ended are to be found among themselves: by a mere `id` a database would go through all that their
    // owner ever had, newest first, rather than sort these few.
    let (jobs, id) =
        if filter.unfinished { (UNFINISHED, "COALESCE(j.id, j.id)") } else { ("jobs", "j.id") };
    let mut sql = format!("SELECT {COLUMNS} FROM {jobs} j WHERE 1 = 1");
    let mut params: Vec<Value<'_>> = Vec::new();
    let wanted = [
        ("j.owner =", filter.owner.as_ref().map(Into::into)),
        ("j.project_id =", filter.project_id.map(Into::into)),
        ("j.state =", filter.state.map(|state| state.as_str().into())),
        ("j.bundle =", filter.bundle.as_ref().map(Into::into)),
        ("j.operation =", filter.operation.as_ref().map(Into::into)),
    ];
    for (condition, value) in wanted {
        if let Some(value) = value {
            params.push(value);
            // Writing to a string cannot fail.
            let _ = write!(sql, " AND {condition} ${}", params.len());
        }
    }
    if let Some(before) = filter.before {
        params.push(before.into());
        let _ = write!(sql, " AND {id} < ${}", params.len());
    }
    if let Some(code) = code {
        params.push(code.into());
        let number = params.len();
        let _ = write!(sql, " AND substr(j.error, 1, length(${number})) = ${number}");
    }
    if filter.parked {
        let _ = write!(sql, " AND {PARKED}");
    }
    params.push(limit.into());
    let _ = write!(sql, " ORDER BY {id} DESC LIMIT ${}", params.len());
    (sql, params)
}

/// An event that is to be told.
#[derive(Clone, Debug)]
struct Told {
    owner: UserId,
    kind: &'static str,
    data: Arc<str>,
}

impl Told {
    fn new(job: &Job, event: Event, at: Timestamp) -> Self {
        let line = Line {
            kind: event.as_str(),
            project_id: job.project_id,
            at,
            actor: &job.owner,
            trace_id: &job.trace_id,
            job,
        };
        // The map has text keys alone, so it can be written.
        let data = serde_json::to_string(&line).unwrap_or_default().into();
        Self { owner: job.owner.clone(), kind: event.as_str(), data }
    }
}

/// Appends events to the logs of their owners and to everybody's.
fn tell(tx: &mut Tx<'_>, told: Vec<Told>) -> Result<(), store::Error> {
    for of_owner in told.chunk_by(|one, other| one.owner == other.owner) {
        let entries: Vec<_> = of_owner.iter().map(|told| (told.kind, &*told.data)).collect();
        tx.append_all(&Topic::user(&of_owner[0].owner), &entries)?;
    }
    for Told { kind, data, .. } in told {
        tx.append_last(&Topic::jobs(), kind, data);
    }
    Ok(())
}

/// An event as streams have it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    project_id: ProjectId,
    at: Timestamp,
    actor: &'a UserId,
    trace_id: &'a TraceId,
    job: &'a Job,
}
