//! What is asked, and what becomes of it: limits hold and a name is used once, over all replicas.

use std::time::Duration;

use shared::{
    answers::{ASKED, Asked},
    ids::AnswerId,
    journal::Topic,
    store::{Error, Reader, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use super::store::find;

/// The time over which questions are counted.
const MINUTE: Duration = Duration::from_mins(1);

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Question {
    pub(crate) asked: Asked,
    pub(crate) text: String,
    pub(crate) max_tokens: u32,
    /// In thousandths.
    pub(crate) temperature: u32,
}

/// Limits of a user, over all replicas.
#[derive(Copy, Clone, Debug)]
pub(super) struct Limits {
    /// Answers that are being written.
    pub(super) at_once: u32,
    /// Questions in any minute.
    pub(super) a_minute: u32,
}

/// What comes of asking.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It may be asked, and nothing was done.
    Allowed,
    /// It is being written.
    Started(AnswerId),
    /// The same was asked before.
    Known(AnswerId),
    /// The name was used for another question.
    OtherQuestion,
    /// As many as may are being written for this user.
    TooMany { running: u32, limit: u32 },
    /// The user has asked too often.
    TooOften { retry_after: Duration },
}

/// Says what would come of asking: [`Outcome::Allowed`] if nothing is against it.
pub(super) fn verdict(
    reader: &Reader<'_>,
    question: &Question,
    limits: Limits,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let owner = Value::from(&question.asked.owner);
    if let Some(known) = find(reader, &question.asked.owner, &question.asked.stream_id)? {
        let same = known.question.text == question.text
            && known.question.asked.project_id == question.asked.project_id;
        return Ok(if same { Outcome::Known(known.id) } else { Outcome::OtherQuestion });
    }
    let sql = "SELECT COUNT(*) FROM answers WHERE owner = $1 AND ended_at IS NULL";
    let running: i64 = reader.find(sql, &[owner], |row| row.get(0))?.unwrap_or(0);
    let running = u32::try_from(running).unwrap_or(u32::MAX);
    if running >= limits.at_once {
        return Ok(Outcome::TooMany { running, limit: limits.at_once });
    }
    let sql = "SELECT started_at FROM answers WHERE owner = $1 AND started_at > $2 \
               ORDER BY started_at DESC LIMIT $3";
    let params = [owner, now.before(MINUTE).into(), i64::from(limits.a_minute).into()];
    let recent = reader.query(sql, &params, |row| row.get::<Timestamp>(0))?;
    if recent.len() >= limits.a_minute as usize {
        let frees = recent.last().map_or(now, |first| first.after(MINUTE));
        return Ok(Outcome::TooOften { retry_after: frees.since(now) });
    }
    Ok(Outcome::Allowed)
}

/// Begins an answer, unless something is against it.
pub(super) fn start(
    tx: &mut Tx<'_>,
    question: &Question,
    (id, writer): (AnswerId, Uuid),
    limits: Limits,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let asked = &question.asked;
    // Whoever asks for this owner waits here, so that limits hold and a name is used once.
    tx.ensure(&Topic::user(&asked.owner))?;
    match verdict(tx, question, limits, now)? {
        Outcome::Allowed => {}
        refused => return Ok(refused),
    }
    tx.execute(
        "INSERT INTO answers (id, owner, stream_id, project_id, question, max_tokens, temperature, max_ms, trace_id, started_at, writer, writers) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1)",
        &[
            id.into(),
            (&asked.owner).into(),
            (&asked.stream_id).into(),
            asked.project_id.into(),
            (&question.text).into(),
            i64::from(question.max_tokens).into(),
            i64::from(question.temperature).into(),
            i64::from(asked.max_ms).into(),
            asked.trace_id.as_str().into(),
            now.into(),
            Value::Uuid(writer),
        ],
    )?;
    let data = serde_json::to_string(asked).map_err(|_| Error::Gone)?;
    tx.append(&Topic::answer(id), ASKED, &data)?;
    Ok(Outcome::Started(id))
}
