//! How long entries can be replayed.
//!
//! A topic's row says when its oldest entry was appended that may be deleted, so that a run reads the topics that are due and
//! no other. Retention alone writes that time. An append changes it in two cases, in the statement that counts the head on:
//! when the topic kept one entry alone, and when its head reaches the number at which retention wanted to look.

use std::time::{Duration, Instant};

use super::Topic;
use crate::{
    store::{Error, Reader, Store, Tx, Value},
    time::Timestamp,
};

/// How long entries are kept.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct RetentionConfig {
    /// How long an event can be replayed.
    #[arg(long, env = "JOURNAL_MAX_AGE", default_value = "7d", value_parser = crate::config::duration)]
    pub journal_max_age: Duration,
    /// How many events of one project, or of one user's jobs, can be replayed.
    #[arg(long, env = "JOURNAL_MAX_ENTRIES", default_value_t = 100_000)]
    pub journal_max_entries: i64,
}

/// Topics that one transaction trims at most.
const MAX_TOPICS: usize = 200;
/// Rows of entries that one transaction deletes at most.
const MAX_ROWS: usize = 2_000;
/// Topics that one transaction compares with a lower limit.
const TOPICS_PAGE: i64 = 1_000;
/// Longest time of a run; the next run goes on.
const MAX_RUN: Duration = Duration::from_secs(45);
/// A topic is trimmed when it is over a limit by this part of it, and then down to the limit: an active topic is not due in
/// each run.
const HYSTERESIS: u32 = 32;
/// Time for which commands to a replica are kept; the replica reads them within seconds.
const COMMANDS_MAX_AGE: Duration = Duration::from_mins(10);

/// Work of a run.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Topics that were due.
    pub topics: usize,
    /// Rows of entries that were deleted. Of entries that were appended together the last one keeps the others.
    pub rows: usize,
}

/// A topic that is due, as it was read.
struct Due {
    topic: Topic,
    epoch: i64,
    floor: i64,
    head: i64,
}

/// Changes to a topic that was due.
struct Trim {
    due: Due,
    /// Entries below are deleted.
    floor: i64,
    look_at: i64,
    /// When the oldest entry was appended that is kept, unless that is the newest.
    oldest_at: Option<i64>,
}

/// Deletes entries past their age or count. The newest entry of each topic stays, so that cursors can be proved.
pub async fn trim(
    store: &Store,
    config: &RetentionConfig,
    now: Timestamp,
) -> Result<Trimmed, Error> {
    let until = Instant::now() + MAX_RUN;
    let mut trimmed = Trimmed::default();
    if !heed_tighter_limit(store, config.journal_max_entries, until).await? {
        return Ok(trimmed);
    }
    while Instant::now() < until {
        let config = config.clone();
        let trims = store.read(move |reader| plan(reader, &config, now)).await?;
        if trims.is_empty() {
            break;
        }
        trimmed.topics += trims.len();
        trimmed.rows += store.write(move |tx| apply(tx, &trims)).await?;
    }
    Ok(trimmed)
}

/// Marks the topics that a lower limit of entries makes due, a page at a time, if the limit is another one than in the last
/// run. Returns whether that is done.
async fn heed_tighter_limit(store: &Store, most: i64, until: Instant) -> Result<bool, Error> {
    let find = "SELECT state FROM sweeps WHERE name = 'journal_max_entries'";
    let before = store.read(|reader| reader.find(find, &[], |row| row.parse::<i64>(0))).await?;
    if before == Some(most) {
        return Ok(true);
    }
    let mut after = before.filter(|before| most < *before).map(|_| String::new());
    while let Some(from) = after {
        let mark = move |tx: &mut Tx<'_>| {
            let sql = "SELECT MAX(p.name) FROM (SELECT name FROM topics WHERE name > $1 ORDER BY name LIMIT $2) p";
            let params = [(&from).into(), TOPICS_PAGE.into()];
            let Some(to) = tx.find(sql, &params, |row| row.get::<Option<String>>(0))?.flatten()
            else {
                return Ok::<_, Error>(None);
            };
            let sql = "UPDATE topics SET oldest_at = 0 WHERE name > $1 AND name <= $2 AND head - floor >= $3";
            tx.execute(sql, &[(&from).into(), (&to).into(), most.into()])?;
            Ok(Some(to))
        };
        after = store.write(mark).await?;
        if Instant::now() >= until {
            return Ok(false);
        }
    }
    let remember = move |tx: &mut Tx<'_>| {
        let sql = "INSERT INTO sweeps (name, until, state) VALUES ('journal_max_entries', 0, $1) \
                   ON CONFLICT (name) DO UPDATE SET state = excluded.state";
        tx.execute(sql, &[(&most.to_string()).into()])
    };
    store.write(remember).await?;
    Ok(true)
}

/// Query for the topics that are due: those with an entry from before `$1`, at most `$2`.
pub(super) const DUE: &str =
    "SELECT name, epoch, floor, head FROM topics WHERE oldest_at < $1 ORDER BY oldest_at LIMIT $2";

/// Reads what is due, as far as one transaction may go.
fn plan(reader: &Reader<'_>, config: &RetentionConfig, now: Timestamp) -> Result<Vec<Trim>, Error> {
    // Topics at 0 are due whatever the age.
    let before = now.before(with_slack(config.journal_max_age)).as_ms().max(1);
    let limit = i64::try_from(MAX_TOPICS).unwrap_or(i64::MAX);
    let due = reader.query(DUE, &[before.into(), limit.into()], |row| {
        Ok(Due {
            topic: Topic(row.get::<String>(0)?.into()),
            epoch: row.get(1)?,
            floor: row.get(2)?,
            head: row.get(3)?,
        })
    })?;
    let mut budget = MAX_ROWS;
    let mut trims = Vec::with_capacity(due.len());
    for due in due {
        let (trim, rows) = plan_topic(reader, due, config, now, budget)?;
        trims.push(trim);
        budget -= rows.min(budget);
        if budget == 0 {
            break;
        }
    }
    // In the order in which all transactions lock topics.
    trims.sort_unstable_by(|one, other| one.due.topic.cmp(&other.due.topic));
    Ok(trims)
}

/// Returns the age at which an entry makes its topic due.
fn with_slack(age: Duration) -> Duration {
    age + age / HYSTERESIS
}

/// Finds where a topic is to begin; returns how many rows are below, at most `budget`.
fn plan_topic(
    reader: &Reader<'_>,
    due: Due,
    config: &RetentionConfig,
    now: Timestamp,
    budget: usize,
) -> Result<(Trim, usize), Error> {
    if due.topic.answer_id().is_some() {
        // Answers are deleted whole, at an age of their own; a part of one cannot be read.
        let floor = due.floor;
        return Ok((Trim { due, floor, look_at: i64::MAX, oldest_at: None }, 0));
    }
    let age = config.journal_max_age;
    let own_age = if due.topic.is_replica() { age.min(COMMANDS_MAX_AGE) } else { age };
    let oldest = now.before(own_age);
    let most = config.journal_max_entries.max(1);
    let least = (due.head - most + 1).max(1);
    let slack = most / i64::from(HYSTERESIS);
    let mut trim = Trim { floor: due.floor, look_at: 0, oldest_at: None, due };
    let goes =
        |(seq, at): &(i64, Timestamp)| (*at < oldest || *seq < least) && *seq < trim.due.head;
    // The first row alone tells of most topics that nothing is to be deleted.
    let rows = |from: i64, limit: usize| {
        let sql =
            "SELECT seq, at FROM entries WHERE topic = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let params = [trim.due.topic.as_str().into(), from.into(), limit.into()];
        reader.query(sql, &params, |row| Ok((row.get::<i64>(0)?, row.get::<Timestamp>(1)?)))
    };
    let mut page = rows(0, 1)?;
    if page.first().is_some_and(goes) {
        page = rows(0, budget + 1)?;
    }
    let gone = page.iter().take(budget).take_while(|row| goes(row)).count();
    let last_gone = page[..gone].last().map_or(0, |(seq, _)| *seq);
    let kept = page.get(gone).copied();
    let is_more = kept.as_ref().is_some_and(goes);
    trim.floor = trim.floor.max(last_gone + 1);
    if !is_more {
        trim.floor = trim.floor.max(least);
    }
    trim.floor = trim.floor.min(trim.due.head.max(1));
    trim.look_at = trim.floor.saturating_add(most).saturating_add(slack);
    trim.oldest_at = match kept {
        _ if is_more => Some(0),
        // A topic with an age of its own is due when others with entries as much older are.
        Some((seq, at)) if seq < trim.due.head => {
            Some(at.before(with_slack(age).saturating_sub(with_slack(own_age))).as_ms().max(1))
        }
        _ => None,
    };
    Ok((trim, gone))
}

/// Deletes entries, then changes the topics' rows, which locks these for as short as can be.
fn apply(tx: &mut Tx<'_>, trims: &[Trim]) -> Result<usize, Error> {
    let mut deleted = 0;
    for Trim { due, floor, .. } in trims.iter().filter(|trim| trim.floor > trim.due.floor) {
        // A topic that was made anew since it was read is another one.
        let sql = "DELETE FROM entries WHERE topic = $1 AND seq < $2 \
                   AND EXISTS (SELECT 1 FROM topics WHERE name = $1 AND epoch = $3)";
        let params = [due.topic.as_str().into(), (*floor).into(), due.epoch.into()];
        deleted += tx.execute(sql, &params)?;
    }
    if deleted > 0 {
        tx.erases();
    }
    for Trim { due, floor, look_at, oldest_at } in trims {
        // An append since the topic was read may have made it due.
        let sql = "UPDATE topics SET floor = CASE WHEN floor < $2 THEN $2 ELSE floor END, look_at = $3, \
                   oldest_at = CASE WHEN head >= $3 OR (CAST($4 AS BIGINT) IS NULL AND head > $5) THEN 0 ELSE CAST($4 AS BIGINT) END \
                   WHERE name = $1 AND epoch = $6";
        let params: [Value<'_>; 6] = [
            due.topic.as_str().into(),
            (*floor).into(),
            (*look_at).into(),
            (*oldest_at).into(),
            due.head.into(),
            due.epoch.into(),
        ];
        tx.execute(sql, &params)?;
    }
    Ok(deleted)
}
