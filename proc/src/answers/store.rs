//! Answers in the database. What begins one holds its owner's log; what adds to it or ends it holds its own.

use shared::{
    answers::{Asked, COMPLETE, Totals, is_end},
    ids::{AnswerId, ProjectId, UserId},
    journal::{Entry, Topic},
    sabotage::Sabotage,
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    asking::Question,
    events::{Complete, Reason},
};
use crate::search::Hit;

/// Answers taken over in one go.
const SOME: i64 = 100;
/// Answers deleted in one transaction, each with as many entries as it has chunks.
const DELETED: i64 = 20;
/// Entries read at once.
const PAGE: i64 = 1000;

/// An answer, without its text.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) id: AnswerId,
    pub(super) question: Question,
    pub(super) started_at: Timestamp,
    /// The messages it rests on, once it has begun.
    pub(super) passages: Option<Vec<Hit>>,
    pub(super) ended_at: Option<Timestamp>,
}

/// The right to write an answer, which another process may take.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Pen {
    pub(super) id: AnswerId,
    pub(super) writer: Uuid,
    /// How many have had it, this one included.
    pub(super) writers: i64,
}

const COLUMNS: &str = "id, owner, stream_id, project_id, question, max_tokens, temperature, max_ms, trace_id, started_at, ended_at, passages";

fn read(row: &Row<'_>) -> Result<Answer, Error> {
    let small = |column| -> Result<u32, Error> {
        row.get::<i64>(column)?.try_into().map_err(|_| Error::Column { column })
    };
    let asked = Asked {
        owner: row.parse(1)?,
        stream_id: row.get(2)?,
        project_id: row.get(3)?,
        max_ms: small(7)?,
        trace_id: row.parse(8)?,
    };
    let question =
        Question { asked, text: row.get(4)?, max_tokens: small(5)?, temperature: small(6)? };
    let passages = row.get::<Option<String>>(11)?;
    let passages = passages.and_then(|passages| serde_json::from_str(&passages).ok());
    Ok(Answer {
        id: row.get(0)?,
        question,
        started_at: row.get(9)?,
        passages,
        ended_at: row.get(10)?,
    })
}

/// Returns the owner's answer of this name.
pub(super) fn find(
    reader: &Reader<'_>,
    owner: &UserId,
    stream_id: &str,
) -> Result<Option<Answer>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM answers WHERE owner = $1 AND stream_id = $2");
    reader.find(&sql, &[owner.into(), stream_id.into()], read)
}

/// Returns the answer, if there is one.
pub(super) fn get(reader: &Reader<'_>, id: AnswerId) -> Result<Option<Answer>, Error> {
    reader.find(&format!("SELECT {COLUMNS} FROM answers WHERE id = $1"), &[id.into()], read)
}

/// Returns the entries of an answer that clients see.
pub(super) fn entries(
    reader: &Reader<'_>,
    id: AnswerId,
) -> Result<Vec<std::sync::Arc<Entry>>, Error> {
    let topic = Topic::answer(id);
    let mut entries = Vec::new();
    // The first one says who asked.
    let mut after = 1;
    loop {
        let page = reader.entries(&topic, after, PAGE)?;
        let Some(last) = page.last() else { return Ok(entries) };
        after = last.position.seq;
        entries.extend(page);
    }
}

/// Says whether the answer is still to be written, by the holder of this pen.
pub(super) fn may_write(tx: &Tx<'_>, pen: Pen) -> Result<bool, Error> {
    if tx.sabotage == Some(Sabotage::NoFence) {
        return Ok(true);
    }
    let sql =
        "SELECT 1 FROM answers WHERE id = $1 AND writer = $2 AND writers = $3 AND ended_at IS NULL";
    let params = [pen.id.into(), Value::Uuid(pen.writer), pen.writers.into()];
    Ok(tx.find(sql, &params, |_| Ok(()))?.is_some())
}

/// Adds entries to an answer, and with the first ones what it rests on; says whether the pen was still good.
pub(super) fn append(
    tx: &mut Tx<'_>,
    pen: Pen,
    entries: &[(&str, String)],
    passages: Option<&str>,
) -> Result<bool, Error> {
    if !may_write(tx, pen)? {
        return Ok(false);
    }
    let entries: Vec<_> = entries.iter().map(|(kind, data)| (*kind, &**data)).collect();
    tx.append_all(&Topic::answer(pen.id), &entries)?;
    if let Some(passages) = passages {
        let sql = "UPDATE answers SET passages = $2 WHERE id = $1";
        tx.execute(sql, &[pen.id.into(), passages.into()])?;
    }
    Ok(true)
}

/// Returns how much of the answer is written.
pub(super) fn written(reader: &Reader<'_>, id: AnswerId) -> Result<Totals, Error> {
    let topic = Topic::answer(id);
    let head = reader.head(&topic)?.map_or(0, |head| head.seq);
    let last = reader.entries(&topic, head - 1, 1)?;
    Ok(last.first().and_then(|entry| Totals::up_to(entry)).unwrap_or_default())
}

/// Ends the answer with an entry of this type, whoever writes it.
pub(super) fn end(
    tx: &mut Tx<'_>,
    id: AnswerId,
    kind: &str,
    data: &str,
    now: Timestamp,
) -> Result<(), Error> {
    debug_assert!(is_end(kind));
    tx.append(&Topic::answer(id), kind, data)?;
    tx.execute("UPDATE answers SET ended_at = $2 WHERE id = $1", &[id.into(), now.into()])?;
    Ok(())
}

/// Ends an answer at its owner's wish and returns how much there is, `None` if it had ended.
pub(super) fn cancel(
    tx: &mut Tx<'_>,
    answer: &Answer,
    now: Timestamp,
) -> Result<Option<Totals>, Error> {
    let sql = "SELECT 1 FROM answers WHERE id = $1 AND ended_at IS NULL";
    if tx.find(sql, &[answer.id.into()], |_| Ok(()))?.is_none() {
        return Ok(None);
    }
    let totals = written(tx, answer.id)?;
    let complete = Complete::new(answer, Reason::Cancelled, totals, &[], now);
    let data = serde_json::to_string(&complete).map_err(|_| Error::Gone)?;
    end(tx, answer.id, COMPLETE, &data, now)?;
    Ok(Some(totals))
}

/// Renews the lease of `writer` and returns the answers that are its to write; `None` is the deliberate bug that it does
/// not look.
pub(super) fn renew(
    tx: &mut Tx<'_>,
    writer: Uuid,
    until: Timestamp,
) -> Result<Option<Vec<Pen>>, Error> {
    let sql = "INSERT INTO answer_writers (id, lease_until) VALUES ($1, $2) \
               ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until";
    tx.execute(sql, &[Value::Uuid(writer), until.into()])?;
    let pens = held(tx, writer)?;
    Ok((tx.sabotage != Some(Sabotage::NoFence)).then_some(pens))
}

/// Returns the unfinished answers that are `writer`'s to write.
pub(super) fn held(reader: &Reader<'_>, writer: Uuid) -> Result<Vec<Pen>, Error> {
    let sql = "SELECT id, writers FROM answers WHERE writer = $1 AND ended_at IS NULL";
    let pen = |row: &Row<'_>| Ok(Pen { id: row.get(0)?, writer, writers: row.get(1)? });
    reader.query(sql, &[Value::Uuid(writer)], pen)
}

/// Ends the lease of `writer`, so that the next who looks takes what it has not finished.
pub(super) fn release(tx: &mut Tx<'_>, writer: Uuid) -> Result<(), Error> {
    tx.execute("DELETE FROM answer_writers WHERE id = $1", &[Value::Uuid(writer)]).map(drop)
}

/// The writer of an answer has no lease that lasts until `$1`.
const ABANDONED: &str = "ended_at IS NULL AND NOT EXISTS \
    (SELECT 1 FROM answer_writers w WHERE w.id = answers.writer AND w.lease_until >= $1)";

/// Returns answers whose writer's lease has run out before `now`.
pub(super) fn abandoned(reader: &Reader<'_>, now: Timestamp) -> Result<Vec<AnswerId>, Error> {
    let sql = format!("SELECT id FROM answers WHERE {ABANDONED} ORDER BY id LIMIT $2");
    reader.query(&sql, &[now.into(), SOME.into()], |row| row.get(0))
}

/// Takes the pen from a writer whose lease has run out before `now`, `None` if another one was first.
pub(super) fn take_over(
    tx: &mut Tx<'_>,
    id: AnswerId,
    writer: Uuid,
    now: Timestamp,
) -> Result<Option<(Answer, Pen)>, Error> {
    let sql = format!(
        "UPDATE answers SET writer = $2, writers = writers + 1 WHERE id = $3 AND {ABANDONED}"
    );
    let taken = tx.execute(&sql, &[now.into(), Value::Uuid(writer), id.into()])?;
    if taken == 0 { Ok(None) } else { taken_over(tx, id, writer) }
}

/// Takes a new pen in place of `pen`, with which nobody writes; `None` if the answer has ended or is another writer's.
pub(super) fn take_again(tx: &mut Tx<'_>, pen: Pen) -> Result<Option<(Answer, Pen)>, Error> {
    let sql = "UPDATE answers SET writers = writers + 1 \
               WHERE id = $1 AND writer = $2 AND writers = $3 AND ended_at IS NULL";
    let params = [pen.id.into(), Value::Uuid(pen.writer), pen.writers.into()];
    if tx.execute(sql, &params)? == 0 { Ok(None) } else { taken_over(tx, pen.id, pen.writer) }
}

fn taken_over(
    reader: &Reader<'_>,
    id: AnswerId,
    writer: Uuid,
) -> Result<Option<(Answer, Pen)>, Error> {
    let sql = format!("SELECT {COLUMNS}, writers FROM answers WHERE id = $1");
    reader
        .find(&sql, &[id.into()], |row| Ok((read(row)?, Pen { id, writer, writers: row.get(12)? })))
}

/// Deletes some answers that ended before `oldest`, with their topics; returns how many.
pub(super) fn forget(tx: &mut Tx<'_>, oldest: Timestamp) -> Result<usize, Error> {
    delete_some(tx, "ended_at < $1", oldest.into())
}

/// Deletes writers whose lease ran out before `oldest` and that have left nothing unfinished.
pub(super) fn forget_writers(tx: &mut Tx<'_>, oldest: Timestamp) -> Result<(), Error> {
    let sql = "DELETE FROM answer_writers WHERE lease_until < $1 AND NOT EXISTS \
               (SELECT 1 FROM answers a WHERE a.writer = answer_writers.id AND a.ended_at IS NULL)";
    tx.execute(sql, &[oldest.into()]).map(drop)
}

/// Deletes some answers about a project, with their topics; returns how many. Whoever writes one notices that it is gone.
pub(super) fn forget_project(tx: &mut Tx<'_>, project: ProjectId) -> Result<usize, Error> {
    delete_some(tx, "project_id = $1", project.into())
}

fn delete_some(tx: &mut Tx<'_>, condition: &str, param: Value<'_>) -> Result<usize, Error> {
    let sql = format!("SELECT id FROM answers WHERE {condition} ORDER BY id LIMIT $2");
    let ids: Vec<AnswerId> = tx.query(&sql, &[param, DELETED.into()], |row| row.get(0))?;
    for id in &ids {
        tx.forget(&Topic::answer(*id))?;
        tx.execute("DELETE FROM answers WHERE id = $1", &[(*id).into()])?;
    }
    Ok(ids.len())
}
